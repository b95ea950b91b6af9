/**
 * The prelude of a generated WGSL module: bindings and the functions that its kernel uses.
 *
 * Tensors are arrays of 32-bit words; narrow elements are decoded and encoded by integer code, because WGSL leaves the
 * rounding of its own conversions open.
 */
import type { DType } from "../../dsl/dtype.ts";
import { type AtomicFn, formatType, type Memory, type ReduceFn, type Type } from "../../dsl/ir.ts";
import { scalarType } from "./operations.ts";
import { Vectors } from "./vectors.ts";

/** How a memory is declared. */
export interface Binding {
  readonly memory: Memory;
  readonly name: string;
  /** Whether its words are atomic: it has atomics, or stores of less than a word. */
  readonly isAtomic: boolean;
  /** Shared memory in scratch: its first word among those of a block. */
  readonly offset?: number;
}

export class Prelude extends Vectors {
  /** A zero that no compiler sees through: a grid has fewer than 2^31 blocks along x. */
  noBits(): string {
    return `${this.part("no_bits", () => "fn no_bits() -> u32 { return launch.grid_x >> 31u; }")}()`;
  }

  f32FromBits(): string {
    const zero = this.noBits();
    return this.part(
      "f32_from_bits",
      () => `fn f32_from_bits(bits: u32) -> f32 { return bitcast<f32>(bits | ${zero}); }`,
    );
  }

  /** Functions that WGSL leaves open where a kernel may well arrive: at zero, infinities and NaN. */
  math(fn: "exp" | "log" | "tanh"): string {
    const name = `${fn}_f32`;
    const fromBits = this.f32FromBits();
    return this.part(name, () => {
      const head = [
        `fn ${name}(x: f32) -> f32 {`,
        "  let magnitude = bitcast<u32>(x) & 0x7fffffffu;",
        "  if (magnitude > 0x7f800000u) { return x; }",
      ];
      switch (fn) {
        case "exp":
          return [...head, "  return exp(x);", "}"].join("\n");
        case "log":
          return [
            ...head,
            `  if (magnitude < 0x00800000u) { return ${fromBits}(0xff800000u); }`,
            `  if (x < 0.0) { return ${fromBits}(0x7fc00000u); }`,
            "  return select(log(x), x, magnitude == 0x7f800000u);",
            "}",
          ].join("\n");
        case "tanh":
          // Beyond 9.1 tanh is 1 in f32; devices that compute it from exp overflow there.
          return [...head, "  return tanh(clamp(x, -9.1, 9.1));", "}"].join("\n");
      }
    });
  }

  /** Exact, as numerics.ts decodes. */
  toF32(dtype: DType): string {
    const name = `${dtype.name}_to_f32`;
    return this.part(name, () => {
      const head = `fn ${name}(x: u32) -> f32 {`;
      if (dtype.name === "bf16") return `${head} return bitcast<f32>(x << 16u); }`;
      if (dtype.name === "u32") {
        return [
          head,
          "  // SwiftShader rounds its f32(u32) twice. Half of x, its last bit kept for the rounding, is an i32.",
          "  let half = f32(i32((x >> 1u) | (x & 1u)));",
          "  return select(f32(i32(x)), 2.0 * half, x > 0x7fffffffu);",
          "}",
        ].join("\n");
      }
      const { fractionBits: fraction, exponentBits } = dtype;
      const bias = 2 ** (exponentBits - 1) - 1;
      const sign = exponentBits + fraction;
      const top = (1 << exponentBits) - 1;
      const special =
        dtype.name === "e4m3"
          ? "  if ((x & 0x7fu) == 0x7fu) { return bitcast<f32>(sign | 0x7fc00000u); }"
          : `  if (exponent == ${top}u) { return bitcast<f32>(sign | 0x7f800000u | (fraction << ${23 - fraction}u)); }`;
      return [
        head,
        `  let sign = (x >> ${sign}u) << 31u;`,
        `  let exponent = (x >> ${fraction}u) & ${top}u;`,
        `  let fraction = x & ${(1 << fraction) - 1}u;`,
        special,
        `  let subnormal = bitcast<u32>(f32(fraction) * ${2 ** (1 - bias - fraction)});`,
        `  let normal = ((exponent + ${127 - bias}u) << 23u) | (fraction << ${23 - fraction}u);`,
        "  return bitcast<f32>(sign | select(normal, subnormal, exponent == 0u));",
        "}",
      ].join("\n");
    });
  }

  /** As numerics.ts encodes: to nearest even; e4m3 and e5m2 saturate. Integers truncate and saturate, NaN to 0. */
  fromF32(to: DType | "i32"): string {
    const target = to === "i32" ? "i32" : to.name;
    const name = `f32_to_${target}`;
    return this.part(name, () => {
      if (target === "i32" || target === "u32") {
        const [low, high, max] =
          target === "i32" ? ["-2147483648.0", "2147483648.0", "2147483647"] : ["0.0", "4294967296.0", "4294967295u"];
        return [
          `fn ${name}(x: f32) -> ${target} {`,
          `  if ((bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u) { return ${target}(0); }`,
          `  if (x >= ${high}) { return ${max}; }`,
          `  return ${target}(max(x, ${low}));`,
          "}",
        ].join("\n");
      }
      if (to === "i32") return "";
      const head = [
        `fn ${name}(x: f32) -> u32 {`,
        "  let bits = bitcast<u32>(x);",
        "  let magnitude = bits & 0x7fffffffu;",
      ];
      const { exponentBits, fractionBits: fraction } = to;
      if (to.name === "bf16") {
        return [
          ...head,
          "  if (magnitude > 0x7f800000u) { return 0x7fffu; }",
          "  return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;",
          "}",
        ].join("\n");
      }
      const minExponent = 2 - 2 ** (exponentBits - 1);
      const [nan, overflow, largest] =
        to.name === "e4m3"
          ? ["0x7fu", "0x7eu", 0x7e]
          : to.name === "e5m2"
            ? ["0x7fu", "0x7bu", 0x7b]
            : ["0x7fffu", "0x7c00u", 0x7bff];
      return [
        ...head,
        `  if (magnitude > 0x7f800000u) { return ${nan}; }`,
        `  let sign = (bits >> 31u) << ${exponentBits + fraction}u;`,
        "  let exponent = i32(magnitude >> 23u) - 127;",
        "  let significand = (magnitude & 0x7fffffu) | 0x800000u;",
        `  let shift = ${23 - fraction}u + u32(clamp(${minExponent} - exponent, 0, 30));`,
        "  if (shift > 24u) { return sign; }",
        "  let rounded = (significand + (1u << (shift - 1u)) - 1u + ((significand >> shift) & 1u)) >> shift;",
        `  let code = rounded + (u32(max(exponent - (${minExponent}), 0)) << ${fraction}u);`,
        `  return sign | select(code, ${overflow}, code > ${largest}u);`,
        "}",
      ].join("\n");
    });
  }

  dot(a: Type, b: Type): string {
    const name = `dot_${formatType(a)}_${formatType(b)}`;
    return this.part(name, () => {
      const [x, y] = [a, b].map((type, i) => {
        const variable = "ab".charAt(i);
        const lane = type.lanes === 1 ? variable : this.lane(type, variable, "i");
        return type.dtype.name === "f32" ? lane : `${this.toF32(type.dtype)}(${lane})`;
      });
      return [
        `fn ${name}(a_in: ${this.type(a)}, b_in: ${this.type(b)}, c: f32) -> f32 {`,
        "  var a = a_in;",
        "  var b = b_in;",
        "  var sum = c;",
        `  for (var i = 0; i < ${a.lanes}; i++) { sum = fma(${x}, ${y}, sum); }`,
        "  return sum;",
        "}",
      ].join("\n");
    });
  }

  protected word({ name, isAtomic }: Binding, index: string): string {
    return isAtomic ? `atomicLoad(&${name}[${index}])` : `${name}[${index}]`;
  }

  /** Reads `type.lanes` elements from element `e` on. Shared memory holds one element per word, tensors are packed. */
  load(binding: Binding, type: Type): string {
    const { name, memory } = binding;
    const { dtype, lanes } = type;
    const function_ = `load_${name}_${formatType(type)}`;
    return this.part(function_, () => {
      const head = `fn ${function_}(e: i32) -> ${this.type(type)} {`;
      if (lanes === 1) {
        const perWord = memory.kind === "shared" ? 1 : 4 / dtype.bytes;
        const word = this.word(binding, perWord === 1 ? "e" : `e / ${perWord}`);
        const shifted = perWord === 1 ? word : `(${word} >> u32(e % ${perWord} * ${dtype.bytes * 8}))`;
        return `${head} return ${this.fromBits(dtype, shifted)}; }`;
      }
      const one: Type = { dtype, lanes: 1 };
      const bytes = dtype.bytes * lanes;
      if (memory.kind === "shared" || bytes < 4 || dtype.bytes === 4) {
        return this.fill(function_, "e: i32", type, [], `${this.load(binding, one)}(e + i)`);
      }
      const words = Array.from({ length: bytes / 4 }, (_, i) => this.word(binding, i === 0 ? "first" : `first + ${i}`));
      return [
        head,
        `  let first = e / ${4 / dtype.bytes};`,
        `  return ${this.type(type)}(${words.join(", ")});`,
        "}",
      ].join("\n");
    });
  }

  /** The same, or zeros where the guard is false. */
  guardedLoad(binding: Binding, type: Type): string {
    const load = this.load(binding, type);
    const result = this.type(type);
    const name = `guarded_${load}`;
    const head = `fn ${name}(guard: bool, e: i32) -> ${result} {`;
    // The first element is always there; a branch costs software devices more than a load.
    if (type.lanes === 1) {
      return this.part(name, () => `${head} return select(${result}(), ${load}(select(0, e, guard)), guard); }`);
    }
    return this.part(name, () => `${head} var r = ${result}(); if (guard) { r = ${load}(e); } return r; }`);
  }

  store(binding: Binding, type: Type): string {
    const { name, memory, isAtomic } = binding;
    const { dtype, lanes } = type;
    const function_ = `store_${name}_${formatType(type)}`;
    return this.part(function_, () => {
      const head = `fn ${function_}(e: i32, x: ${this.type(type)}) {`;
      const put = (index: string, bits: string): string =>
        isAtomic ? `atomicStore(&${name}[${index}], ${bits});` : `${name}[${index}] = ${bits};`;
      if (lanes === 1) {
        const bits = this.toBits(dtype, "x");
        if (memory.kind === "shared" || dtype.bytes === 4) return `${head} ${put("e", bits)} }`;
        const perWord = 4 / dtype.bytes;
        return [
          head,
          `  let shift = u32(e % ${perWord} * ${dtype.bytes * 8});`,
          `  atomicAnd(&${name}[e / ${perWord}], ~(${dtype.bytes === 1 ? "0xffu" : "0xffffu"} << shift));`,
          `  atomicOr(&${name}[e / ${perWord}], ${bits} << shift);`,
          "}",
        ].join("\n");
      }
      const bytes = dtype.bytes * lanes;
      if (memory.kind === "shared" || bytes < 4 || dtype.bytes === 4) {
        const one = this.store(binding, { dtype, lanes: 1 });
        const loop = `for (var i = 0; i < ${lanes}; i++) { ${one}(e + i, ${this.lane(type, "v", "i")}); }`;
        return `${head} var v = x; ${loop} }`;
      }
      const stores = Array.from(
        { length: bytes / 4 },
        (_, i) => `  ${put(i === 0 ? "first" : `first + ${i}`, `x[${i}]`)}`,
      );
      return [head, `  let first = e / ${4 / dtype.bytes};`, ...stores, "}"].join("\n");
    });
  }

  /** `combine(old, a)` is the element's new value. */
  atomic(binding: Binding, fn: AtomicFn, combine: (old: string) => string): string {
    const { name, memory } = binding;
    const { dtype } = memory;
    const t = scalarType(dtype);
    const function_ = `atomic_${fn}_${name}_${dtype.name}`;
    return this.part(function_, () => {
      const compares = fn === "compareExchange";
      const next = compares ? "a" : combine("old");
      return [
        `fn ${function_}(e: i32, ${compares ? `compare: ${t}, ` : ""}a: ${t}) -> ${t} {`,
        `  var bits = atomicLoad(&${name}[e]);`,
        "  loop {",
        `    let old = ${this.fromBits(dtype, "bits")};`,
        ...(compares ? ["    if (old != compare) { return old; }"] : []),
        `    let result = atomicCompareExchangeWeak(&${name}[e], bits, ${this.toBits(dtype, next)});`,
        "    if (result.exchanged) { return old; }",
        "    bits = result.old_value;",
        "  }",
        "}",
      ].join("\n");
    });
  }

  /** The butterfly's order of additions: lane l takes l + 16, then l + 8, ... */
  warpReduce(fn: ReduceFn, dtype: DType, combine: (a: string, b: string) => string): string {
    const t = scalarType(dtype);
    const name = `warp_${fn === "add" ? "sum" : fn}_${dtype.name}`;
    return this.part(name, () =>
      [
        `fn ${name}(x: ptr<function, array<${t}, 32>>) -> ${t} {`,
        "  for (var distance = 16; distance > 0; distance /= 2) {",
        `    for (var lane = 0; lane < distance; lane++) { (*x)[lane] = ${combine("(*x)[lane]", "(*x)[lane + distance]")}; }`,
        "  }",
        "  return (*x)[0];",
        "}",
      ].join("\n"),
    );
  }
}
