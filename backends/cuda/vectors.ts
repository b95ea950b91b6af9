/**
 * Scalar and vector types in CUDA C. In registers a vector of a narrow dtype is packed words (`w`), one of a 4-byte dtype an
 * array (`v`); narrow floats are their bit patterns.
 */
import { type DType, u8 } from "../../dsl/dtype.ts";
import { formatType, type Type } from "../../dsl/ir.ts";
import { Parts } from "../lowering/parts.ts";

const scalarTypes: { readonly [name in DType["name"]]: string } = {
  f32: "float",
  i32: "int",
  bool: "bool",
  u32: "unsigned",
  bf16: "unsigned short",
  f16: "unsigned short",
  e4m3: "unsigned char",
  e5m2: "unsigned char",
  i8: "signed char",
  u8: "unsigned char",
};

export const device = "__device__ __forceinline__";

/** Bytes of a vector or scalar in memory. */
export const byteSize = ({ dtype, lanes }: Type): number => dtype.bytes * lanes;

/** Packed vectors of narrow floats that fill words, which `unpack` decodes a word at a time. */
export const isWholeWords = (type: Type): boolean =>
  type.dtype.kind === "float" && type.dtype.bytes < 4 && type.lanes > 1 && byteSize(type) >= 4;

const wordBytes = (type: Type): number => (byteSize(type) === 2 ? 2 : 4);

export class Vectors extends Parts {
  /** The C name of a type. Narrow floats are their bit patterns. */
  type(type: Type): string {
    const { dtype, lanes } = type;
    if (lanes > 1) return this.vector(type);
    if (dtype.name === "f32" || dtype.name === "i32" || dtype.name === "bool") return scalarTypes[dtype.name];
    return this.part(dtype.name, () => `using ${dtype.name} = ${scalarTypes[dtype.name]};`);
  }

  /** The C name of an element in memory. A byte that is neither 0 nor 1 would be no `bool`. */
  memoryType(dtype: DType): string {
    return this.type({ dtype: dtype.name === "bool" ? u8 : dtype, lanes: 1 });
  }

  protected vector(type: Type): string {
    const bytes = byteSize(type);
    return this.part(formatType(type), () => {
      const align = `__align__(${Math.min(bytes, 16)})`;
      if (type.dtype.bytes === 4) {
        return `struct ${align} ${formatType(type)} { ${this.type({ dtype: type.dtype, lanes: 1 })} v[${type.lanes}]; };`;
      }
      const word = bytes === 2 ? "unsigned short" : "unsigned";
      return `struct ${align} ${formatType(type)} { ${word} w[${Math.ceil(bytes / 4)}]; };`;
    });
  }

  /** The text of one lane of a vector. */
  lane(type: Type, vector: string, index: string | number): string {
    return type.dtype.bytes === 4 ? `${vector}.v[${index}]` : `${this.laneFunction(type)}(${vector}, ${index})`;
  }

  private laneFunction(type: Type): string {
    const { dtype } = type;
    const name = this.type(type);
    const element = this.type({ dtype, lanes: 1 });
    const perWord = wordBytes(type) / dtype.bytes;
    this.part(`lane ${name}`, () => {
      const bits = `a.w[i / ${perWord}] >> (i % ${perWord} * ${dtype.bytes * 8})`;
      const value = dtype.name === "bool" ? `((${bits}) & 0xff) != 0` : `(${element})(${bits})`;
      return `${device} ${element} get_lane(${name} a, int i) { return ${value}; }`;
    });
    return "get_lane";
  }

  /** A statement that sets one lane of a vector variable whose narrow lanes are still zero. */
  setLane(type: Type, vector: string, index: string | number, value: string): string {
    const { dtype } = type;
    if (dtype.bytes === 4) return `${vector}.v[${index}] = ${value};`;
    const name = this.type(type);
    const element = this.type({ dtype, lanes: 1 });
    const perWord = wordBytes(type) / dtype.bytes;
    const unsigned = dtype.name === "i8" ? "(unsigned)(unsigned char)x" : "(unsigned)x";
    this.part(
      `set_lane ${name}`,
      () =>
        `${device} void set_lane(${name}& a, int i, ${element} x) { a.w[i / ${perWord}] |= ${unsigned} << (i % ${perWord} * ${dtype.bytes * 8}); }`,
    );
    return `set_lane(${vector}, ${index}, ${value});`;
  }

  /** A function that applies `scalar` lane by lane; its arguments are named a, b, c. */
  laneByLane(label: string, result: Type, args: readonly Type[], scalar: (lanes: readonly string[]) => string): string {
    const name = `${label}_${args.map(formatType).join("_")}`;
    return this.part(name, () => {
      const names = args.map((_, i) => "abc".charAt(i));
      const lanes = args.map((type, i) =>
        type.lanes === 1 ? (names[i] ?? "a") : this.lane(type, names[i] ?? "a", "i"),
      );
      const set = this.setLane(result, "r", "i", scalar(lanes));
      const parameters = args.map((type, i) => `${this.type(type)} ${names[i]}`).join(", ");
      return [
        `${device} ${this.type(result)} ${name}(${parameters}) {`,
        `  ${this.type(result)} r = {};`,
        "#pragma unroll",
        `  for (int i = 0; i < ${result.lanes}; ++i) ${set}`,
        "  return r;",
        "}",
      ].join("\n");
    });
  }

  pack(type: Type): string {
    const name = `pack_${formatType(type)}`;
    return this.part(name, () => {
      const element = this.type({ dtype: type.dtype, lanes: 1 });
      const lanes = Array.from({ length: type.lanes }, (_, i) => i);
      const parameters = lanes.map((i) => `${element} x${i}`).join(", ");
      const sets = lanes.map((i) => `  ${this.setLane(type, "r", i, `x${i}`)}`);
      return [
        `${device} ${this.type(type)} ${name}(${parameters}) {`,
        `  ${this.type(type)} r = {};`,
        ...sets,
        "  return r;",
        "}",
      ].join("\n");
    });
  }

  /** `slice_bf16x4(a, 4)`: the lanes from 4 on; words are copied whole where the piece consists of such. */
  slice(from: Type, to: Type): string {
    const name = `slice_${formatType(to)}`;
    this.part(`${name} ${formatType(from)}`, () => {
      const { bytes } = to.dtype;
      const whole = byteSize(to) % 4 === 0;
      const [array, count, first] =
        bytes === 4 ? ["v", to.lanes, "first"] : ["w", byteSize(to) / 4, `first / ${4 / bytes}`];
      const loop = whole
        ? `for (int i = 0; i < ${count}; ++i) r.${array}[i] = a.${array}[${first} + i];`
        : `for (int i = 0; i < ${to.lanes}; ++i) ${this.setLane(to, "r", "i", this.lane(from, "a", "first + i"))}`;
      return [
        `${device} ${this.type(to)} ${name}(${this.type(from)} a, int first) {`,
        `  ${this.type(to)} r${whole ? "" : " = {}"};`,
        "#pragma unroll",
        `  ${loop}`,
        "  return r;",
        "}",
      ].join("\n");
    });
    return name;
  }

  /** `join_bf16x8(a0, a1)`: one after the other. */
  join(part: Type, whole: Type): string {
    const name = `join_${formatType(whole)}`;
    this.part(`${name} ${formatType(part)}`, () => {
      const pieces = Array.from({ length: whole.lanes / part.lanes }, (_, i) => i);
      const parameters = pieces.map((i) => `${this.type(part)} a${i}`).join(", ");
      const words = byteSize(part) % 4 === 0;
      const [array, count] = part.dtype.bytes === 4 ? ["v", part.lanes] : ["w", byteSize(part) / 4];
      const copies = pieces.map((piece) => {
        const at = (step: number): string => (piece === 0 ? "i" : `${piece * step} + i`);
        const copy = words
          ? `r.${array}[${at(count)}] = a${piece}.${array}[i];`
          : this.setLane(whole, "r", at(part.lanes), this.lane(part, `a${piece}`, "i"));
        return ["#pragma unroll", `  for (int i = 0; i < ${words ? count : part.lanes}; ++i) ${copy}`];
      });
      return [
        `${device} ${this.type(whole)} ${name}(${parameters}) {`,
        `  ${this.type(whole)} r${words ? "" : " = {}"};`,
        ...copies.flat(),
        "  return r;",
        "}",
      ].join("\n");
    });
    return name;
  }

  splat(type: Type): string {
    const name = `splat_${formatType(type)}`;
    return this.part(name, () => {
      const element = this.type({ dtype: type.dtype, lanes: 1 });
      const set = this.setLane(type, "r", "i", "x");
      const loop = `for (int i = 0; i < ${type.lanes}; ++i) ${set}`;
      return [
        `${device} ${this.type(type)} ${name}(${element} x) {`,
        `  ${this.type(type)} r = {};`,
        "#pragma unroll",
        `  ${loop}`,
        "  return r;",
        "}",
      ].join("\n");
    });
  }
}
