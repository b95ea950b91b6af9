/** Random integer expressions as kernels, and what each thread makes of them: for tests of the analyses. */
import fc from "fast-check";
import {
  bool,
  type Expr,
  f32,
  i32,
  inout,
  input,
  kernel,
  type KernelIR,
  type Reg,
  size,
  type Tensor,
  type Thread,
  u32,
} from "../dsl/index.ts";
import { computeInteger } from "../dsl/fold.ts";
import { type BinaryFn, type Block, type Memory, type Register, type Stmt, type Value, walk } from "../dsl/ir.ts";

// Random integer expressions.

const arithmetic = ["add", "sub", "mul", "div", "rem", "min", "max", "and", "or", "xor", "shl", "shr"] as const;
const comparisons = ["eq", "ne", "lt", "le", "gt", "ge"] as const;

export type Recipe =
  | { readonly kind: "leaf"; readonly pick: number }
  | { readonly kind: "const"; readonly value: number }
  | {
      readonly kind: "binary";
      readonly fn: (typeof arithmetic)[number];
      readonly unsigned: boolean;
      readonly a: Recipe;
      readonly b: Recipe;
    }
  | { readonly kind: "unary"; readonly fn: "neg" | "abs" | "not"; readonly a: Recipe }
  | {
      readonly kind: "select";
      readonly fn: (typeof comparisons)[number];
      readonly invert: boolean;
      readonly a: Recipe;
      readonly b: Recipe;
    };

const constant = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: -4, max: 40 }) },
  fc.constantFrom(5, 31, 32, 63, 64, 96, -32, 100, 127, 256, 4096, 2 ** 16, 2 ** 30, 2 ** 31 - 1, -(2 ** 31), -8, -256),
);

export const { recipe } = fc.letrec<{ recipe: Recipe; operand: Recipe; leaf: Recipe; constant: Recipe }>((tie) => ({
  leaf: fc.record({ kind: fc.constant("leaf" as const), pick: fc.nat(31) }),
  constant: fc.record({ kind: fc.constant("const" as const), value: constant }),
  operand: fc.oneof(tie("constant"), tie("recipe")),
  recipe: fc.oneof(
    { depthSize: "medium", maxDepth: 4, withCrossShrink: true },
    { weight: 3, arbitrary: tie("leaf") },
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant("binary" as const),
        fn: fc.constantFrom(...arithmetic),
        unsigned: fc.nat(3).map((n) => n === 0),
        a: tie("recipe"),
        b: tie("operand"),
      }),
    },
    fc.record({ kind: fc.constant("unary" as const), fn: fc.constantFrom("neg", "abs", "not"), a: tie("recipe") }),
    fc.record({
      kind: fc.constant("select" as const),
      fn: fc.constantFrom(...comparisons),
      invert: fc.boolean(),
      a: tie("recipe"),
      b: tie("operand"),
    }),
  ),
}));

export function build(t: Thread, leaves: readonly (Expr<"i32"> | Reg<"i32">)[], recipe: Recipe): Expr<"i32"> {
  const of = (inner: Recipe): Expr<"i32"> => build(t, leaves, inner);
  switch (recipe.kind) {
    case "leaf": {
      const leaf = leaves[recipe.pick % leaves.length] ?? t.lane;
      return "get" in leaf ? leaf.get() : leaf;
    }
    case "const":
      return t.const(i32, recipe.value);
    case "binary": {
      const [a, b] = [of(recipe.a), of(recipe.b)];
      return recipe.unsigned ? a.to(u32)[recipe.fn](b.to(u32)).to(i32) : a[recipe.fn](b);
    }
    case "unary":
      return of(recipe.a)[recipe.fn]();
    case "select": {
      const [a, b] = [of(recipe.a), of(recipe.b)];
      return (recipe.invert ? a[recipe.fn](b).not() : a[recipe.fn](b)).select(a, b);
    }
  }
}

// Running them.

export interface ThreadId {
  readonly block: number;
  readonly row: number;
  readonly thread: number;
  readonly sizes: ReadonlyMap<string, number>;
}

/** A value of one thread, in one turn of each loop around it. */
export type Observe = (value: Value, result: number, turn: string, exact: number | undefined) => void;

/** Runs one thread through registers, loops, branches, loads and integer arithmetic. */
export function run(
  ir: KernelIR,
  thread: ThreadId,
  observe: Observe,
  enter: (stmt: Stmt, turn: string, valueOf: (value: Value) => number) => void = () => {},
): void {
  const values = new Map<Value, number>();
  const registers = new Map<Register, number>();
  const written = new Set<Memory>();
  walk(ir.body, (stmt) => stmt.kind === "store" && written.add(stmt.memory));
  let seed = thread.block * 1024 + thread.thread;
  /** What no thread can foresee: content never written, or written by others in between. */
  const garbage = (): number => (seed = (Math.imul(seed, 1664525) + 1013904223) | 0) >>> 16;
  const valueOf = (value: Value): number => values.get(value) ?? compute(value).result;
  const compute = (value: Value): { result: number; exact: number | undefined } => {
    const { op, type } = value;
    const just = (result: number) => ({ result, exact: result });
    const wrap = (exact: number) => ({ result: type.dtype === u32 ? exact >>> 0 : exact | 0, exact });
    switch (op.kind) {
      case "const":
        return just(op.value);
      case "size":
        return just(thread.sizes.get(String(op.size)) ?? NaN);
      case "id":
        return just(
          {
            "block.x": thread.block,
            "block.y": thread.row,
            "block.z": 0,
            rank: 0,
            thread: thread.thread,
            warp: thread.thread >> 5,
            lane: thread.thread & 31,
          }[op.id],
        );
      case "read":
        return just(registers.get(op.register) ?? garbage());
      case "load":
        if (op.guard && !valueOf(op.guard)) return just(0);
        if (written.has(op.memory)) return just(garbage());
        return just(op.index.reduce((hash, index) => (hash * 31 + valueOf(index)) % 97, 7));
      case "convert":
        return op.to === bool ? just(Number(valueOf(op.a) !== 0)) : just(wrap(valueOf(op.a)).result);
      case "select":
        return just(valueOf(valueOf(op.condition) ? op.yes : op.no));
      case "unary": {
        const a = valueOf(op.a);
        if (op.fn === "not") return just(type.dtype === bool ? 1 - a : wrap(~a).result);
        return wrap(op.fn === "neg" ? -a : Math.abs(a));
      }
      case "binary": {
        const [a, b] = [valueOf(op.a), valueOf(op.b)];
        return { result: Number(computeInteger(op.fn, a, b, op.a.type.dtype === i32)), exact: exactly(op.fn, a, b) };
      }
      default:
        throw new Error(`${op.kind} is not for this test`);
    }
  };
  const visit = (block: Block, turn: string): void => {
    for (const stmt of block) {
      enter(stmt, turn, valueOf);
      if (stmt.kind === "let") {
        const { result, exact } = compute(stmt.value);
        values.set(stmt.value, result);
        observe(stmt.value, result, turn, exact);
      } else if (stmt.kind === "declare" || stmt.kind === "write") {
        const value = stmt.kind === "write" ? stmt.value : stmt.init;
        if (value) registers.set(stmt.register, valueOf(value));
      } else if (stmt.kind === "if") {
        visit(valueOf(stmt.condition) ? stmt.then : stmt.otherwise, turn);
      } else if (stmt.kind === "for") {
        const [from, to] = [valueOf(stmt.from), valueOf(stmt.to)];
        for (let i = from, n = 0; i < to; i += stmt.step, n++) {
          values.set(stmt.induction, i);
          observe(stmt.induction, i, `${turn}/${n}`, i);
          visit(stmt.body, `${turn}/${n}`);
        }
      }
    }
  };
  visit(ir.body, "");
}

/** The result before it wraps, for the operations that can; near enough where it is far from 32 bits. */
function exactly(fn: BinaryFn, a: number, b: number): number | undefined {
  if (fn === "add") return a + b;
  if (fn === "sub") return a - b;
  if (fn === "mul") return a * b;
  if (fn === "div" && b !== 0) return Math.trunc(a / b);
  return fn === "shl" ? a * 2 ** (b & 31) : undefined;
}

export const M = size("M", { min: 3, max: 1000 });
export const N = size("N", { min: 8, max: 2 ** 31 - 8, multipleOf: 8 });
export const rows = size("rows", { max: 3 });
export const launches: readonly ReadonlyMap<string, number>[] = [
  { M: 3, N: 8, rows: 2 },
  { M: 1000, N: 2 ** 31 - 8, rows: 3 },
  { M: 7, N: 4096, rows: 1 },
].map((sizes) => new Map(Object.entries(sizes)));

/** What a random kernel may load, `board` also what it may store to. */
export interface Tables {
  readonly table: Tensor<"i32", 1, "input">;
  readonly board: Tensor<"i32", 1, "inout">;
}

/** Two warps a block, unless told otherwise. */
export function traceBody(body: (t: Thread, tables: Tables) => void, block = 64): KernelIR {
  const params = { x: input(f32, [M, N, rows]), table: input(i32, [64]), board: inout(i32, [64]) };
  return kernel({ name: "random", grid: [2, rows], block, params }, (t) => {
    body(t, t.pdl.wait());
  }).ir;
}

/** Every thread of a launch. */
export function threadsOf(sizes: ReadonlyMap<string, number>, block = 64): readonly ThreadId[] {
  const count = 2 * block * (sizes.get("rows") ?? 1);
  return Array.from({ length: count }, (_, i) => {
    const [group, thread] = [Math.floor(i / block), i % block];
    return { block: group % 2, row: group >> 1, thread, sizes };
  });
}
