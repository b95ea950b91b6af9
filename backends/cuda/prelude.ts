/**
 * The prelude of a generated CUDA file: only the device functions that its kernel uses. No toolkit headers, so that NVRTC
 * has nothing to parse but this.
 */
import { type DType, f32 } from "../../dsl/dtype.ts";
import { type CacheHint, formatType, type ReduceFn, type Role, type Type } from "../../dsl/ir.ts";
import { byteSize, device, isWholeWords, Vectors } from "./vectors.ts";

/** PTX cache operators of loads; PTX ISA, "ld" (level1::eviction_priority). */
const loadHints: { readonly [H in CacheHint]: string } = {
  normal: "",
  stream: ".L1::no_allocate",
  evictFirst: ".L1::evict_first",
  evictLast: ".L1::evict_last",
};

export class Prelude extends Vectors {
  /** Exact: every narrow value is an f32. */
  toF32(dtype: DType): string {
    const element = this.type({ dtype, lanes: 1 });
    const name = `${dtype.name}_to_f32`;
    return this.part(name, () => {
      const head = `${device} float ${name}(${element} x) {`;
      switch (dtype.name) {
        case "bf16":
          return `${head} return __uint_as_float((unsigned)x << 16); }`;
        case "f16":
          return `${head} float r; asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x)); return r; }`;
        case "e4m3":
        case "e5m2":
          return [
            head,
            "  unsigned h;  // two f16",
            `  asm("cvt.rn.f16x2.${dtype.name}x2 %0, %1;" : "=r"(h) : "h"((unsigned short)x));`,
            "  float r;",
            `  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"((unsigned short)h));`,
            "  return r;",
            "}",
          ].join("\n");
        default:
          return `${head} return (float)x; }`;
      }
    });
  }

  /** To nearest even; e4m3 and e5m2 saturate. PTX ISA, "cvt". */
  fromF32(dtype: DType): string {
    const element = this.type({ dtype, lanes: 1 });
    const name = `f32_to_${dtype.name}`;
    return this.part(name, () => {
      const head = `${device} ${element} ${name}(float x) {`;
      switch (dtype.name) {
        case "bf16":
        case "f16":
          return `${head} ${element} r; asm("cvt.rn.${dtype.name}.f32 %0, %1;" : "=h"(r) : "f"(x)); return r; }`;
        case "e4m3":
        case "e5m2":
          return [
            head,
            "  unsigned short r;  // the first operand becomes the upper byte",
            `  asm("cvt.rn.satfinite.${dtype.name}x2.f32 %0, %1, %2;" : "=h"(r) : "f"(0.0f), "f"(x));`,
            `  return (${element})r;`,
            "}",
          ].join("\n");
        case "i8":
        case "u8": {
          const [low, high] = dtype.name === "i8" ? [-128, 127] : [0, 255];
          return `${head} int r = __float2int_rz(x); return (${element})(r < ${low} ? ${low} : r > ${high} ? ${high} : r); }`;
        }
        default:
          return `${head} return (${element})x; }`;
      }
    });
  }

  dot(a: Type, b: Type): string {
    // Scalars of two dtypes may have one C type, so their functions can't share a name.
    const name = a.lanes === 1 ? `dot_${formatType(a)}_${formatType(b)}` : "dot";
    this.part(`dot ${formatType(a)} ${formatType(b)}`, () => {
      const decoded: string[] = [];
      const [x, y] = [a, b].map((type, i) => {
        const operand = "ab".charAt(i);
        if (isWholeWords(type)) {
          const floats = "xy".charAt(i);
          decoded.push(
            `  const ${this.vector({ dtype: f32, lanes: type.lanes })} ${floats} = ${this.unpack(type)}(${operand});`,
          );
          return `${floats}.v[i]`;
        }
        const lane = type.lanes === 1 ? operand : this.lane(type, operand, "i");
        return type.dtype.name === "f32" ? lane : `${this.toF32(type.dtype)}(${lane})`;
      });
      return [
        `${device} float ${name}(${this.type(a)} a, ${this.type(b)} b, float c) {`,
        ...decoded,
        "#pragma unroll",
        `  for (int i = 0; i < ${a.lanes}; ++i) c = fmaf(${x}, ${y}, c);`,
        "  return c;",
        "}",
      ].join("\n");
    });
    return name;
  }

  /** Decodes a packed vector of narrow floats; overloaded. */
  unpack(type: Type): string {
    const result = this.vector({ dtype: f32, lanes: type.lanes });
    this.part(`unpack ${formatType(type)}`, () => {
      const word = this.unpackWord(type.dtype);
      return [
        `${device} ${result} unpack(${this.type(type)} a) {`,
        `  ${result} r;`,
        "#pragma unroll",
        `  for (int i = 0; i < ${byteSize(type) / 4}; ++i) ${word}(a.w[i], r.v + i * ${4 / type.dtype.bytes});`,
        "  return r;",
        "}",
      ].join("\n");
    });
    return "unpack";
  }

  /** The floats of one word of a packed vector; fp8 is decoded two at a time, as the hardware does. */
  private unpackWord(dtype: DType): string {
    return this.part(`unpack_${dtype.name}`, () => {
      const head = `${device} void unpack_${dtype.name}(unsigned w, float* x) {`;
      const halves = (word: string, at: number): string =>
        `  asm("{ .reg .f16 lo, hi; mov.b32 {lo, hi}, %2; cvt.f32.f16 %0, lo; cvt.f32.f16 %1, hi; }" : "=f"(x[${at}]), "=f"(x[${at + 1}]) : "r"(${word}));`;
      switch (dtype.name) {
        case "bf16":
          return `${head} x[0] = __uint_as_float(w << 16); x[1] = __uint_as_float(w & 0xffff0000u); }`;
        case "f16":
          return [head, halves("w", 0), "}"].join("\n");
        default: {
          const pair = (result: string, bits: string): string =>
            `  asm("cvt.rn.f16x2.${dtype.name}x2 %0, %1;" : "=r"(${result}) : "h"((unsigned short)(${bits})));`;
          return [
            head,
            "  unsigned lower, upper;  // two f16 each",
            pair("lower", "w"),
            pair("upper", "w >> 16"),
            halves("lower", 0),
            halves("upper", 2),
            "}",
          ].join("\n");
        }
      }
    });
  }

  /**
   * A load that plain C can't express. Of frozen tensors through the read-only path, volatile so that it stays where it
   * was written, before the wait; of others with a cache hint.
   */
  load(type: Type, role: Role, hint: CacheHint): string {
    const path = role === "frozen" ? "frozen" : "global";
    const name = `load_${path}_${formatType(type)}${hint === "normal" ? "" : `_${snake(hint)}`}`;
    return this.part(name, () => {
      const instruction = `ld.global${role === "frozen" ? ".nc" : ""}${loadHints[hint]}`;
      const result = this.type(type);
      const pointer = `const ${this.memoryType(type.dtype)}* p`;
      const clobber = role === "frozen" ? "" : ` : "memory"`;
      const bytes = byteSize(type);
      const head = `${device} ${result} ${name}(${pointer}) {`;
      const asm = (width: string, holes: string, outputs: string): string =>
        `  asm volatile("${instruction}.${width} ${holes}, [%${holes.split("%").length - 1}];" : ${outputs} : "l"(p)${clobber});`;
      if (bytes === 1) {
        const cast = type.dtype.name === "bool" ? "x != 0" : `(${result})x`;
        return [head, "  unsigned short x;", asm("u8", "%0", `"=h"(x)`), `  return ${cast};`, "}"].join("\n");
      }
      const inner = type.lanes === 1 ? "r" : undefined;
      const words = Math.max(1, bytes / 4);
      const constraint = bytes === 2 ? "h" : type.dtype.name === "f32" ? "f" : "r";
      const array = type.dtype.bytes === 4 ? "v" : "w";
      const outputs = Array.from({ length: words }, (_, i) => `"=${constraint}"(${inner ?? `r.${array}[${i}]`})`);
      const holes = words === 1 ? "%0" : `{${outputs.map((_, i) => `%${i}`).join(", ")}}`;
      const width = bytes === 2 ? "b16" : words === 1 ? "b32" : `v${words}.b32`;
      return [head, `  ${result} r;`, asm(width, holes, outputs.join(", ")), "  return r;", "}"].join("\n");
    });
  }

  /** `st.global.cs`: written once, not read again soon. */
  storeStream(type: Type): string {
    const name = `store_stream_${formatType(type)}`;
    return this.part(name, () => {
      const value = this.type(type);
      const pointer = this.memoryType(type.dtype);
      const bytes = byteSize(type);
      const words = Math.max(1, bytes / 4);
      const array = type.dtype.bytes === 4 ? "v" : "w";
      const constraint = bytes <= 2 ? "h" : type.dtype.name === "f32" ? "f" : "r";
      const inputs = Array.from({ length: words }, (_, i) => {
        const text = type.lanes === 1 ? (bytes === 1 ? "(unsigned short)x" : "x") : `x.${array}[${i}]`;
        return `"${constraint}"(${text})`;
      });
      const holes = words === 1 ? "%1" : `{${inputs.map((_, i) => `%${i + 1}`).join(", ")}}`;
      const width = bytes < 4 ? `b${bytes * 8}` : words === 1 ? "b32" : `v${words}.b32`;
      return `${device} void ${name}(${pointer}* p, ${value} x) { asm volatile("st.global.cs.${width} [%0], ${holes};" :: "l"(p), ${inputs.join(", ")} : "memory"); }`;
    });
  }

  /** Integer operations whose plain C form would be undefined where the IR defines a result. */
  integer(fn: "add" | "sub" | "mul" | "div" | "rem" | "shl", dtype: DType): string {
    const t = this.type({ dtype, lanes: 1 });
    const name = `${fn}_${dtype.name}`;
    return this.part(name, () => {
      const head = `${device} ${t} ${name}(${t} a, ${t} b) {`;
      const symbol = { add: "+", sub: "-", mul: "*" } as const;
      const minusOne =
        dtype.name === "i32"
          ? fn === "div"
            ? " if (b == -1) return (int)(0u - (unsigned)a);"
            : " if (b == -1) return 0;"
          : "";
      switch (fn) {
        case "div":
          return `${head} if (b == 0) return a;${minusOne} return a / b; }`;
        case "rem":
          return `${head} if (b == 0) return 0;${minusOne} return a % b; }`;
        case "shl":
          return `${head} return (${t})((unsigned)a << (b & 31)); }`;
        default:
          return `${head} return (${t})((unsigned)a ${symbol[fn]} (unsigned)b); }`;
      }
    });
  }

  negate(): string {
    return this.part("neg_i32", () => `${device} int neg_i32(int a) { return (int)(0u - (unsigned)a); }`);
  }

  abs(): string {
    return this.part("abs_i32", () => `${device} int abs_i32(int a) { return a < 0 ? (int)(0u - (unsigned)a) : a; }`);
  }

  /** A butterfly over the 32 lanes of the warp. */
  warpReduce(fn: ReduceFn, dtype: DType, combine: (a: string, b: string) => string): string {
    const t = this.type({ dtype, lanes: 1 });
    const name = `warp_${fn === "add" ? "sum" : fn}_${dtype.name}`;
    return this.part(name, () => {
      if (dtype.name === "bool") {
        const vote = fn === "and" ? "__all_sync" : "__any_sync";
        return `${device} bool ${name}(bool x) { return ${vote}(0xffffffffu, x); }`;
      }
      return [
        `${device} ${t} ${name}(${t} x) {`,
        "#pragma unroll",
        "  for (int distance = 16; distance > 0; distance /= 2) {",
        `    const ${t} other = __shfl_xor_sync(0xffffffffu, x, distance);`,
        `    x = ${combine("x", "other")};`,
        "  }",
        "  return x;",
        "}",
      ].join("\n");
    });
  }

  pdlWait(): string {
    return this.part(
      "pdl_wait",
      () => `${device} void pdl_wait() { asm volatile("griddepcontrol.wait;" ::: "memory"); }`,
    );
  }

  pdlLaunchDependents(): string {
    return this.part(
      "pdl_launch_dependents",
      () =>
        `${device} void pdl_launch_dependents() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }`,
    );
  }
}

const snake = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
