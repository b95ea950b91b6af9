/**
 * Writes expressions: what is in scope, and for each dtype, lane count and level something made of it. A level says among
 * whom a value is the same, so that branches around barriers can be as uniform as they must. Every index is brought into
 * range, and no value is NaN, infinite or a subnormal f32 (rules.ts).
 */
import { type DTypeName, dtypes } from "../../dsl/index.ts";
import type { Choices } from "./choices.ts";
import type { Data } from "./program.ts";
import { constants, rules } from "./rules.ts";

/** The same 0: in a block; 1: in a warp; 2: nowhere but in the lane. */
export type Level = 0 | 1 | 2;

export interface Variable {
  readonly name: string;
  readonly kind: "value" | "register" | "array";
  readonly dtype: DTypeName;
  readonly lanes: number;
  readonly level: Level;
  /** Whether its value at the end is stored. */
  readonly seen: boolean;
}

/** Of shape [rows, N], outputs of [N] or [N, rows], counters of [4]. `value`: what a launch gets, of a size and a turn. */
export interface Parameter {
  readonly name: string;
  readonly role: "frozen" | "input" | "inout" | "output" | "scalar" | "counters";
  readonly dtype: DTypeName;
  readonly rows: number;
  readonly value: (N: number, turn: number) => Data | number;
}

export const arrayLength = 4;

export class Expressions {
  protected readonly c: Choices;
  protected readonly parameters: Parameter[] = [];
  protected readonly lines: string[] = [];
  /** N is a multiple of it. */
  protected readonly multiple: number;
  protected scope: readonly Variable[] = [];
  #names = 0;

  constructor(c: Choices) {
    this.c = c;
    this.multiple = c.pick([1, 4, 8, 2, 16]);
  }

  /** A name that nothing has yet. */
  protected name(prefix: string): string {
    return `${prefix}${this.#names++}`;
  }

  /** A variable from here on. */
  protected declare(prefix: string, variable: Omit<Variable, "name" | "seen">): string {
    const name = this.name(prefix);
    this.scope = [...this.scope, { ...variable, name, seen: this.c.below(4) > 0 }];
    return name;
  }

  /** Declares a register that holds a value; returns its name. */
  protected keep(dtype: DTypeName, value: string, lanes = 1): string {
    const name = this.declare("r", { kind: "register", dtype, lanes, level: 2 });
    this.lines.push(`const ${name} = t.reg(${dtype}, ${value});`);
    return name;
  }

  /** How many lanes of a dtype are moved at once. */
  protected lanesOf(dtype: DTypeName): number {
    return Math.min(this.c.pick([1, 1, 1, 4, 2, 8, 16]), 16 / dtypes[dtype].bytes);
  }

  /** A place below `count`, which is a number or TypeScript for a Size. */
  protected index(count: number | string, level: Level = 2, depth = 1): string {
    const any = this.expression("i32", 1, level, depth);
    const isPower = typeof count === "number" && Number.isInteger(Math.log2(count));
    return isPower ? `${any}.and(${count - 1})` : `${any}.and(0x7fffffff).rem(${count})`;
  }

  protected expression(dtype: DTypeName, lanes = 1, level: Level = 2, depth = 2): string {
    const { c } = this;
    return c.span(`${dtype}x${lanes}`, () => {
      const way = c.below(8);
      if (way < 2 || depth <= 0) return this.#leaf(dtype, lanes, level, depth);
      const inner = (type: DTypeName, width = lanes): string => this.expression(type, width, level, depth - 1);
      // A scalar operand spreads over the lanes of a vector.
      const operand = (type: DTypeName, i: number): string => inner(type, i > 0 && c.once(4) ? 1 : lanes);
      if (way === 7 && lanes === 1) {
        const width = c.pick([2, 4, 8]);
        return `${inner(dtype, width)}.lane(${c.below(width)})`;
      }
      if (way === 7 && lanes <= 4) return pack(lanes, () => inner(dtype, 1));
      if (way === 6) {
        const condition = inner("bool", c.pick([lanes, 1]));
        return `${condition}.select(${inner(dtype)}, ${operand(dtype, 1)})`;
      }
      const { code, operands } = c.pick(rules[dtype]) ?? { code: "", operands: [] };
      return operands.reduce((text, type, i) => text.replace("#", () => operand(type, i)), code);
    });
  }

  /** A negative `depth`: within the index of a load. */
  #leaf(dtype: DTypeName, lanes: number, level: Level, depth: number): string {
    const { c } = this;
    const constant = (): string => `t.const(${dtype}, ${c.pick(constants[dtype])})`;
    const read = (): string | undefined => {
      const fits = (v: Variable): boolean => v.dtype === dtype && v.lanes === lanes && v.level <= level;
      const chosen = c.pick(this.scope.filter(fits));
      if (chosen?.kind === "array") return `${chosen.name}.get(${depth < 0 ? 0 : this.index(arrayLength, level, -1)})`;
      return chosen?.kind === "register" ? `${chosen.name}.get()` : chosen?.name;
    };
    const load = (): string | undefined => {
      // As it is, or converted.
      const ways = this.parameters.flatMap(({ name, role, dtype: from, rows }) => {
        const isRead = (role === "input" || role === "frozen") && depth >= -1;
        if (!isRead || lanes > Math.min(this.multiple, 16 / dtypes[from].bytes)) return [];
        const converting = rules[dtype].filter(({ operands }) => operands.length === 1 && operands[0] === from);
        return (from === dtype ? [{ code: "#" }] : converting).map(({ code }) => ({ name, rows, code }));
      });
      const chosen = c.pick(ways);
      return chosen?.code.replace("#", () => this.#load(chosen.name, c.below(chosen.rows), lanes, level, depth - 1));
    };
    const way = c.below(10);
    const known = way > 0 && way < 3 && lanes === 1 ? c.pick(this.#known(dtype, level)) : undefined;
    const made = known ?? (way < 3 ? undefined : way < 6 ? (read() ?? load()) : (load() ?? read()));
    return made ?? (lanes === 1 ? constant() : pack(lanes, constant));
  }

  /** What is there without being made. */
  #known(dtype: DTypeName, level: Level): readonly string[] {
    const scalars = this.parameters.filter((p) => p.role === "scalar" && p.dtype === dtype).map(({ name }) => name);
    const ids = [["t.block.x", "t.dim(N)", "t.grid.x", "t.block.z"], ["t.warp"], ["t.lane", "t.thread", "id", "at"]];
    return dtype === "i32" ? [...scalars, ...ids.slice(0, level + 1).flat()] : scalars;
  }

  #load(name: string, row: number, lanes: number, level: Level, depth: number): string {
    const { c } = this;
    const cache = c.once(6) ? `cache: "${c.pick(["stream", "evictFirst", "evictLast"])}"` : "";
    const way = c.below(level === 2 ? 4 : 1);
    if (lanes === 1 && way > 1) return `${name}.load([${row}, at]${cache && `, { ${cache} }`})`;
    if (lanes === 1 && way === 1) return `${name}.load([${row}, id], { guard: inside })`;
    const guard = lanes > 1 && c.once(3) ? `guard: ${this.expression("bool", 1, level, depth)}` : "";
    const options = [cache, guard].filter((option) => option).join(", ");
    const place =
      lanes > 1 ? `${this.index(`floorDiv(N, ${lanes})`, level, depth)}.mul(${lanes})` : this.index("N", level, depth);
    return `${name}.load${lanes > 1 ? "Vec" : ""}([${row}, ${place}]${lanes > 1 ? `, ${lanes}` : ""}${options && `, { ${options} }`})`;
  }
}

export function pack(lanes: number, make: () => string): string {
  return `t.pack(${Array.from({ length: lanes }, make).join(", ")})`;
}
