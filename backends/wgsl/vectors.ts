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
    if (type.lanes === 1) return vector;
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
    if (type.lanes === 1) return `${vector} = ${value};`;
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
      const lanes = args.map((type, i) => this.lane(type, names[i] ?? "a", "i"));
      return this.fill(name, parameters, result, before, scalar(lanes));
    });
  }

  pack(type: Type): string {
    const name = `pack_${formatType(type)}`;
    const all = Array.from({ length: type.lanes }, (_, i) => `x${i}`);
    const parameters = all.map((x) => `${x}: ${scalarType(type.dtype)}`).join(", ");
    return this.part(name, () => this.straight(name, parameters, type, all));
  }

  splat(type: Type): string {
    const name = `splat_${formatType(type)}`;
    const all = Array.from({ length: type.lanes }, () => "x");
    return this.part(name, () => this.straight(name, `x: ${scalarType(type.dtype)}`, type, all));
  }

  /** The lanes of `count` vectors of one type, one after the other. */
  join(part: Type, count: number): string {
    const name = `join_${count}_${formatType(part)}`;
    const parts = Array.from({ length: count }, (_, i) => `x${i}`);
    const parameters = parts.map((x) => `${x}: ${this.type(part)}`).join(", ");
    const type = { dtype: part.dtype, lanes: (part.lanes * count) as Type["lanes"] };
    const lanes = parts.flatMap((x) => Array.from({ length: part.lanes }, (_, i) => this.lane(part, x, i)));
    return this.part(name, () => this.straight(name, parameters, type, lanes, wholeWords(part, parts)));
  }

  /** `result.lanes` lanes of a vector from `first` on. */
  slice(a: Type, first: number, result: Type): string {
    const name = `slice_${first}_${formatType(a)}_${formatType(result)}`;
    const lanes = Array.from({ length: result.lanes }, (_, i) => this.lane(a, "a", first + i));
    const perWord = 4 / a.dtype.bytes;
    const words =
      isPacked(a) && result.lanes % perWord === 0
        ? Array.from({ length: wordsOf(result) }, (_, i) => `a[${first / perWord + i}]`)
        : undefined;
    return this.part(name, () => this.straight(name, `a: ${this.type(a)}`, result, lanes, words));
  }

  /** Without a loop or a variable: they cost software devices seconds where a kernel has many of them. */
  private straight(name: string, parameters: string, type: Type, lanes: readonly string[], words?: readonly string[]) {
    const result = this.type(type);
    const parts = words ?? (isPacked(type) ? this.packed(type, lanes) : lanes);
    return `fn ${name}(${parameters}) -> ${result} { return ${result}(${parts.join(", ")}); }`;
  }

  private packed(type: Type, lanes: readonly string[]): readonly string[] {
    const { bytes } = type.dtype;
    return Array.from({ length: wordsOf(type) }, (_, word) =>
      lanes
        .slice((word * 4) / bytes, ((word + 1) * 4) / bytes)
        .map((lane, i) =>
          i === 0 ? this.toBits(type.dtype, lane) : `(${this.toBits(type.dtype, lane)} << ${i * bytes * 8}u)`,
        )
        .join(" | "),
    );
  }
}

/** The words of several vectors that fill theirs. */
function wholeWords(part: Type, parts: readonly string[]): readonly string[] | undefined {
  if (!isPacked(part) || (part.lanes * part.dtype.bytes) % 4 !== 0) return undefined;
  return parts.flatMap((x) => Array.from({ length: wordsOf(part) }, (_, i) => `${x}[${i}]`));
}
