/**
 * Programs over lanes: arithmetic on all dtypes, vectors, registers and arrays, loops and branches, each thread with elements
 * of its own. What threads do together comes on top (exchanges.ts).
 */
import type { DTypeName } from "../../dsl/index.ts";
import type { Choices } from "./choices.ts";
import { arrayLength, Expressions, type Level, type Parameter } from "./expressions.ts";
import {
  type Case,
  casesOf,
  type Data,
  kernelSource,
  type Program,
  randomData,
  type Tolerance,
  uses,
} from "./program.ts";
import { approximations, coarse, constants, dtypeNames, numeric, small, words } from "./rules.ts";

export function lanesProgram(c: Choices): Program {
  return new Lanes(c, 1).program();
}

export class Lanes extends Expressions {
  protected readonly block: number;
  protected readonly cluster: number;
  readonly #tolerances: Record<string, Tolerance> = {};

  constructor(c: Choices, cluster: number) {
    super(c);
    this.cluster = cluster;
    this.block = c.pick([32, 64, 96, 128]);
  }

  program(): Program {
    const { c, parameters } = this;
    const tensor = (name: string, role: Parameter["role"], dtype: DTypeName, rows: number): void => {
      // Sums in f32 counters stay exact.
      const data = randomData(c, dtype, role === "counters" ? 100 : Infinity);
      const value = (N: number, turn: number) => data(role === "counters" ? [4] : [rows, N], turn);
      parameters.push({ name, role, dtype, rows, value });
    };
    c.repeat("parameter", 3, 12, (i) => {
      tensor(`x${i}`, c.pick(["input", "frozen"] as const), c.pick(dtypeNames), 1 + c.below(3));
    });
    c.repeat("parameter", 2, 2, (i) => {
      const dtype = c.pick(numeric);
      const [list, first] = [constants[dtype], c.below(constants[dtype].length)];
      const value = (_: number, turn: number) => list[(first + turn) % list.length] ?? 0;
      parameters.push({ name: `k${i}`, role: "scalar", dtype, rows: 1, value });
    });
    c.repeat("parameter", 1, 2, () => tensor("own", "inout", c.pick(numeric), 1));
    c.repeat("parameter", 1, 2, () => {
      const name = `total${c.pick(["Max", "Add", "Min", "And", "Or", "Xor"])}`;
      tensor(name, "counters", c.pick(name === "totalAdd" ? numeric : (["i32", "u32"] as const)) ?? "i32", 1);
    });
    c.repeat("statement", 7, 8, () => this.#statement(0, 0));
    this.#outputOfVariables();
    c.repeat("output", 2, 3, (i) => this.#output(`y${i}`));
    if (!parameters.some(({ role }) => role === "output")) this.#store("i32", 1, "y", "id");
    const cases = casesOf(c, (turn) => this.#case(turn));
    return { source: this.#source(), cases, tolerances: this.#tolerances, expected: undefined };
  }

  #source(): string {
    const { block, cluster, multiple, lines } = this;
    const declared = this.parameters.map(({ name, role, dtype, rows }) => {
      if (role === "scalar") return [name, `scalar(${dtype})`];
      const shape = role === "counters" ? "4" : role === "output" ? `N${rows > 1 ? `, ${rows}` : ""}` : `${rows}, N`;
      return [name, `${role === "counters" ? "inout" : role}(${dtype}, [${shape}], { alignBytes: 16 })`];
    });
    const blocks = cluster > 1 ? `dims.mul(ceilDiv(N, ${block * cluster}), ${cluster})` : `ceilDiv(N, ${block})`;
    const usual = [`const id = t.block.x.mul(${block}).add(t.thread);`, `const inside = id.lt(N);`];
    if (lines.some((line) => uses(line, "at"))) usual.push(`const at = id.min(dims.sub(N, 1));`);
    return kernelSource(
      [`const N = size("N", { min: ${multiple}, max: 1024, multipleOf: ${multiple} });`],
      `grid: ${blocks}, cluster: ${cluster}, block: ${block}`,
      Object.fromEntries(declared),
      [...usual, ...lines],
    );
  }

  #case(turn: number): Case {
    const { c, block, multiple } = this;
    const size = c.pick([1, block, block - 1, block + 1, 2 * block, 3 * block - 1, 1 + c.below(3 * block)]);
    const N = Math.ceil(size / multiple) * multiple;
    return Object.fromEntries(this.parameters.map(({ name, value }) => [name, value(N, turn)]));
  }

  /** Stores a value that everything before may have gone into. */
  #output(name: string): void {
    const { c } = this;
    const approximation = c.once(6) ? c.pick(approximations) : undefined;
    if (approximation) {
      this.#tolerances[name] = approximation.tolerance;
      const operand = this.keep("f32", this.expression("f32", 1, 2, 3));
      return this.#store("f32", 1, name, approximation.code.replaceAll("#", `${operand}.get()`));
    }
    const dtype = c.pick(dtypeNames);
    const lanes = this.lanesOf(dtype);
    this.#store(dtype, lanes, name, this.expression(dtype, lanes, 2, 3));
  }

  /** Stores what variables hold at the end, so that little of what was computed goes unseen. */
  #outputOfVariables(): void {
    const { c } = this;
    const variables = this.scope.filter(({ seen }) => seen).slice(0, 8);
    for (const [i, { name, kind, dtype, lanes }] of variables.entries()) {
      const value = { value: name, register: `${name}.get()`, array: `${name}.get(${c.below(arrayLength)})` }[kind];
      const lane = lanes > 1 ? `${value}.lane(${c.below(lanes)})` : value;
      this.lines.push(
        `t.when(inside, () => z.store([id${variables.length > 1 ? `, ${i}` : ""}], ${lane}${words[dtype]}));`,
      );
    }
    if (variables.length > 0) this.#declareOutput("z", "u32", variables.length);
  }

  #declareOutput(name: string, dtype: DTypeName, rows: number): void {
    const value = (N: number): Data => ({ dtype, shape: rows > 1 ? [N, rows] : [N], values: undefined });
    this.parameters.push({ name, role: "output", dtype, rows, value });
  }

  #store(dtype: DTypeName, lanes: number, name: string, value: string): void {
    this.#declareOutput(name, dtype, lanes);
    const cache = this.c.once(6) ? `, { cache: "stream" }` : "";
    const store = lanes > 1 ? `storeVec([id, 0], ${value}${cache})` : `store([id], ${value}${cache})`;
    this.lines.push(`t.when(inside, () => ${name}.${store});`);
  }

  /** Statements of a block. `level`: of the branches around it; `depth`: how many there are. */
  #block(level: Level, depth: number): void {
    const outer = this.scope;
    this.c.repeat("statement", 3, 8, () => this.#statement(level, depth));
    this.scope = outer;
  }

  #statement(level: Level, depth: number): void {
    this.c.pick(this.ways(level, depth))?.();
  }

  /** What may stand here, the simplest first. */
  protected ways(level: Level, depth: number): readonly (() => void)[] {
    const simple = [this.#value, this.#register, this.#set, this.#set, this.#dot, this.#own, this.#count, this.#hint];
    const nested = depth < 2 ? [this.#branch, this.#loop] : [];
    return [...simple, ...nested].map((way) => () => way.call(this, level, depth));
  }

  #value(): void {
    const { c } = this;
    // A condition that nobody uses is refused.
    const dtype = c.pick(dtypeNames.filter((name) => name !== "bool")) ?? "i32";
    const [lanes, level] = [this.lanesOf(dtype), c.pick([2, 1, 0] as const)];
    const value = this.expression(dtype, lanes, level, 3);
    this.lines.push(`const ${this.declare("v", { kind: "value", dtype, lanes, level })} = ${value};`);
  }

  #register(): void {
    const { c } = this;
    const dtype = c.pick(dtypeNames);
    const lanes = this.lanesOf(dtype);
    const init = this.expression(dtype, lanes);
    if (!c.once(3)) return void this.keep(dtype, init, lanes);
    const name = this.declare("q", { kind: "array", dtype, lanes, level: 2 });
    this.lines.push(`const ${name} = t.array(${dtype}, ${arrayLength}, { lanes: ${lanes}, init: ${init} });`);
  }

  #set(): void {
    const chosen = this.c.pick(this.scope.filter(({ kind }) => kind !== "value"));
    if (!chosen) return;
    const { name, kind, dtype, lanes } = chosen;
    const value = this.expression(dtype, lanes, 2, 3);
    this.lines.push(`${name}.set(${kind === "array" ? `${this.index(arrayLength)}, ` : ""}${value});`);
  }

  /** Products of two narrow floats are exact in f32: it is the same whether fma rounds once or twice. */
  #dot(): void {
    const { c } = this;
    const sums = this.scope.filter(({ kind, dtype, lanes }) => kind === "register" && dtype === "f32" && lanes === 1);
    const sum = c.pick(sums)?.name;
    if (sum === undefined) return;
    const lanes = c.pick([2, 4, 8]);
    const operand = () => this.expression(c.pick(["bf16", "f16", "e4m3", "e5m2"] as const), lanes, 2, 1);
    this.lines.push(`${sum}.addDot(${operand()}, ${operand()});`, `${sum}.set(${sum}.get()${coarse});`);
  }

  /** The thread's own element of an inout tensor. */
  #own(): void {
    const { c } = this;
    const dtype = this.parameters.find(({ name }) => name === "own")?.dtype;
    if (!dtype) return;
    const way = c.below(dtype === "f32" ? 3 : 4);
    if (way === 0) return void this.keep(dtype, "own.load([0, id], { guard: inside })");
    const value = this.expression(dtype);
    if (way === 1) return void this.lines.push(`t.when(inside, () => own.store([0, id], ${value}));`);
    const kept = this.keep(dtype, value);
    const atomic = way === 2 ? "Exchange([0, id]" : `CompareExchange([0, id], ${this.expression(dtype)}`;
    this.lines.push(`t.when(inside, () => ${kept}.set(own.atomic${atomic}, ${kept})));`);
  }

  #count(): void {
    const counters = this.parameters.find(({ role }) => role === "counters");
    if (counters) this.lines.push(`${this.atomic(counters.name, counters.dtype)};`);
  }

  /** All atomics on one memory do the same, so that their order doesn't matter; the old values are not looked at. */
  protected atomic(name: string, dtype: DTypeName): string {
    const fn = /[A-Z][a-z]+/.exec(name)?.[0] ?? "Add";
    return `${name}.atomic${fn}([${this.index(4)}], ${this.expression(dtype)}${dtype === "f32" ? small : ""})`;
  }

  /** What changes no value. */
  #hint(): void {
    const tensor = this.parameters.find(({ role }) => role === "input" || role === "frozen");
    const prefetch = tensor ? [`t.prefetch(${tensor.name}, [0, at]);`] : [];
    this.lines.push(this.c.pick(["t.pdl.launchDependents();", "t.sleep(100);", ...prefetch] as const) ?? "");
  }

  #branch(level: Level, depth: number): void {
    const inner = Math.max(level, this.c.pick([2, 1, 0])) as Level;
    this.lines.push(`t.when(${this.expression("bool", 1, inner)}, () => {`);
    this.#block(inner, depth + 1);
    if (this.c.once(2)) {
      this.lines.push(`}, () => {`);
      this.#block(inner, depth + 1);
    }
    this.lines.push(`});`);
  }

  #loop(level: Level, depth: number): void {
    const { c } = this;
    const way = c.below(4);
    const inner = way < 2 ? level : (Math.max(level, c.pick([2, 1, 0])) as Level);
    const bound = (most: number): string => `${this.expression("i32", 1, inner, 1)}.and(${most})`;
    const range = [
      () => `${1 + c.below(3)}`,
      () => `${1 + c.below(3)}, { unroll: true }`,
      () => bound(3),
      () => `${bound(1)}, ${bound(7)}, { step: ${1 + c.below(3)} }`,
    ][way]?.();
    const outer = this.scope;
    const name = this.declare("j", { kind: "value", dtype: "i32", lanes: 1, level: way < 2 ? 0 : inner });
    this.lines.push(`for (const ${name} of t.range(${range})) {`);
    this.#block(inner, depth + 1);
    this.scope = outer;
    this.lines.push(`}`);
  }
}
