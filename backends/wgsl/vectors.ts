/** Scalar and vector types in WGSL: outside memory a vector of a narrow dtype is packed words, one of a 4-byte dtype an array of it. */
import type { DType } from "../../dsl/dtype.ts";
import { formatType, type Type } from "../../dsl/ir.ts";
import { Parts } from "../lowering/parts.ts";
import { scalarType } from "./operations.ts";

const wordsOf = (type: Type): number => Math.ceil((type.dtype.bytes * type.lanes) / 4);
const isPacked = (type: Type): boolean => type.lanes > 1 && type.dtype.bytes < 4;

export class Vectors extends Parts {
  /** The WGSL name of a type outside memory. */
  type(type: Type): string {
    if (type.lanes === 1) return scalarType(type.dtype);
    const name = formatType(type);
    const element = isPacked(type) ? `u32, ${wordsOf(type)}` : `${scalarType(type.dtype)}, ${type.lanes}`;
    return this.part(name, () => `alias ${name} = array<${element}>;`);
  }

  /** One lane of a vector; `vector` is a variable where `index` is not a literal. */
  lane(type: Type, vector: string, index: string | number): string {
    if (!isPacked(type)) return `${vector}[${index}]`;
    const { bytes } = type.dtype;
    const perWord = 4 / bytes;
    const [word, shift] =
      typeof index === "number"
        ? [Math.floor(index / perWord), `${(index % perWord) * bytes * 8}u`]
        : [`${index} / ${perWord}`, `u32(${index} % ${perWord} * ${bytes * 8})`];
    return this.fromBits(type.dtype, `(${vector}[${word}] >> ${shift})`);
  }

  /** An element from a word whose low bits hold it. */
  protected fromBits(dtype: DType, word: string): string {
    if (dtype.bytes === 4) return dtype.name === "u32" ? word : `bitcast<${scalarType(dtype)}>(${word})`;
    if (dtype.name === "i8") return `((bitcast<i32>(${word}) << 24u) >> 24u)`;
    const bits = `(${word} & ${dtype.bytes === 1 ? "0xffu" : "0xffffu"})`;
    return dtype.name === "bool" ? `(${bits} != 0u)` : bits;
  }

  /** The reverse: bits above the element are zero. */
  protected toBits(dtype: DType, value: string): string {
    if (dtype.name === "bool") return `select(0u, 1u, ${value})`;
    if (dtype.name === "i8") return `(bitcast<u32>(${value}) & 0xffu)`;
    return scalarType(dtype) === "u32" ? value : `bitcast<u32>(${value})`;
  }

  protected setLane(type: Type, vector: string, index: string, value: string): string {
    if (!isPacked(type)) return `${vector}[${index}] = ${value};`;
    const { bytes } = type.dtype;
    const perWord = 4 / bytes;
    return `${vector}[${index} / ${perWord}] |= (${this.toBits(type.dtype, value)}) << u32(${index} % ${perWord} * ${bytes * 8});`;
  }

  protected fill(name: string, parameters: string, type: Type, before: readonly string[], lane: string): string {
    const result = this.type(type);
    return [
      `fn ${name}(${parameters}) -> ${result} {`,
      ...before,
      `  var r: ${result};`,
      `  for (var i = 0; i < ${type.lanes}; i++) { ${this.setLane(type, "r", "i", lane)} }`,
      "  return r;",
      "}",
    ].join("\n");
  }

  /** A function that applies `scalar` lane by lane. */
  laneByLane(label: string, result: Type, args: readonly Type[], scalar: (lanes: readonly string[]) => string): string {
    const name = `${label}_${args.map(formatType).join("_")}`;
    return this.part(name, () => {
      const names = args.map((_, i) => "abc".charAt(i));
      const parameters = args.map((type, i) => `${names[i]}_in: ${this.type(type)}`).join(", ");
      const before = names.map((arg) => `  var ${arg} = ${arg}_in;`);
      const lanes = args.map((type, i) =>
        type.lanes === 1 ? (names[i] ?? "a") : this.lane(type, names[i] ?? "a", "i"),
      );
      return this.fill(name, parameters, result, before, scalar(lanes));
    });
  }

  pack(type: Type): string {
    return this.part(`pack_${formatType(type)}`, () => {
      const element = scalarType(type.dtype);
      const all = Array.from({ length: type.lanes }, (_, i) => `x${i}`);
      const parameters = all.map((x) => `${x}: ${element}`).join(", ");
      const before = [`  var x = array<${element}, ${type.lanes}>(${all.join(", ")});`];
      return this.fill(`pack_${formatType(type)}`, parameters, type, before, "x[i]");
    });
  }

  splat(type: Type): string {
    const name = `splat_${formatType(type)}`;
    return this.part(name, () => this.fill(name, `x: ${scalarType(type.dtype)}`, type, [], "x"));
  }

  /** The lanes of `count` vectors of one type, one after the other. */
  join(part: Type, count: number): string {
    const name = `join_${count}_${formatType(part)}`;
    const parts = Array.from({ length: count }, (_, i) => `x${i}`);
    const parameters = parts.map((x) => `${x}: ${this.type(part)}`).join(", ");
    const before = [`  var x = array<${this.type(part)}, ${count}>(${parts.join(", ")});`];
    const lane = part.lanes === 1 ? "x[i]" : this.lane(part, `x[i / ${part.lanes}]`, `(i % ${part.lanes})`);
    const type = { dtype: part.dtype, lanes: (part.lanes * count) as Type["lanes"] };
    return this.part(name, () => this.fill(name, parameters, type, before, lane));
  }

  /** `f(a, first)`: `result.lanes` lanes of `a`. */
  slice(a: Type, result: Type): string {
    const name = `slice_${formatType(a)}_${formatType(result)}`;
    const parameters = `a_in: ${this.type(a)}, first: i32`;
    return this.part(name, () =>
      this.fill(name, parameters, result, ["  var a = a_in;"], this.lane(a, "a", "(first + i)")),
    );
  }
}
