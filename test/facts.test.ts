/**
 * What the analysis of facts claims, against what values turn out to be in every thread of random kernels: ranges,
 * divisors, ends that occur, absence of wrapping, decided conditions. And the facts of sizes, against their values.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  bool,
  ceilDiv,
  type Dim,
  dims,
  type Expr,
  f32,
  floorDiv,
  i32,
  input,
  kernel,
  type KernelIR,
  OutOfBoundsError,
  ShapeError,
  size,
} from "../dsl/index.ts";
import type { Block, Memory, Stmt, Value } from "../dsl/ir.ts";
import { evaluate, maxOf, minOf, multipleOf, namedSizes } from "../dsl/size.ts";
import { FactsAnalysis, type SizeValues } from "../dsl/verify/facts.ts";
import { verify } from "../dsl/verify/verify.ts";
import { caught } from "./mistake.ts";
import {
  build,
  M,
  N,
  launches,
  type Observe,
  type Recipe,
  recipe,
  rows,
  run,
  threadsOf,
  traceBody,
} from "./threads.ts";

describe("facts", () => {
  const bounds = fc.record({
    from: fc.integer({ min: -3, max: 8 }),
    turns: fc.nat(3),
    step: fc.integer({ min: 1, max: 8 }),
    open: fc.boolean(),
  });

  const some = fc.array(recipe, { minLength: 1, maxLength: 4 });
  const leaf = (pick: number): Recipe => ({ kind: "leaf", pick });
  const number = (value: number): Recipe => ({ kind: "const", value });
  const on = (a: Recipe, fn: "mul" | "div" | "rem" | "and" | "or" | "sub" | "shl" | "shr", b: Recipe): Recipe => ({
    kind: "binary",
    fn,
    unsigned: false,
    a,
    b,
  });
  /** What random choice finds too seldom. */
  const rare: readonly Recipe[] = [
    // A divisor of more than 53 bits, and then a product that wraps.
    on(on(on(leaf(0), "and", number(7)), "mul", number(134217729)), "mul", number(134217731)),
    // -2^31 / -1, where the warp is 1.
    on(on(leaf(1), "mul", number(-(2 ** 31))), "div", number(-1)),
    // A shift by 31, after which nothing is a multiple of 3.
    on(on(leaf(0), "mul", number(3)), "shl", number(63)),
    on(leaf(0), "sub", leaf(0)),
    // What still divides after wrapping, and with signs and counts that leave no range.
    on(on(leaf(7), "mul", number(12)), "rem", number(64)),
    on(on(on(leaf(0), "sub", number(9)), "mul", number(24)), "rem", number(-36)),
    on(on(leaf(0), "mul", number(12)), "shl", leaf(2)),
    on(on(leaf(0), "mul", number(24)), "shr", number(34)),
    on(on(leaf(7), "mul", number(-8)), "or", on(leaf(0), "mul", number(4))),
    on(leaf(3), "mul", on(leaf(5), "sub", number(1))),
  ];

  test("hold for every value of every thread", () => {
    fc.assert(
      fc.property(some, bounds, (recipes, { from, turns, step, open }) => {
        const ir = traceBody((t) => {
          const end = from + turns * step - (step >> 1);
          for (const i of t.range(from, open ? t.dim(M).min(end) : end, { step })) {
            const leaves = [t.lane, t.warp, t.thread, t.block.x, t.block.y, i, t.dim(M), t.dim(N), t.lane.mul(8)];
            for (const recipe of recipes) leaves.push(build(t, leaves, recipe));
          }
        });
        checkFacts(ir);
      }),
      { numRuns: 300, examples: [[[...rare], { from: 0, turns: 2, step: 1, open: false }]] },
    );
  });

  function checkFacts(ir: KernelIR): void {
    checkFactsOf(ir, new FactsAnalysis(ir), launches);
    for (const sizes of launches) checkFactsOf(ir, new FactsAnalysis(ir, sizes), [sizes]);
  }

  function checkFactsOf(ir: KernelIR, facts: FactsAnalysis, launches: readonly SizeValues[]): void {
    const wrong: unknown[] = [];
    const claim = (holds: boolean, what: string, value: Value, result: number): void => {
      if (!holds) wrong.push({ what, result, facts: facts.of(value), op: value.op });
    };
    for (const sizes of launches) {
      const seen = new Map<Value, { min: number; max: number }>();
      const observe: Observe = (value, result, _turn, exact) => {
        if (value.type.dtype === bool) {
          const decided = facts.decides(value);
          return claim(decided === undefined || Number(decided) === result, "decided", value, result);
        }
        const { min, max, multipleOf } = facts.of(value);
        claim(result >= min && result <= max, "range", value, result);
        claim(multipleOf === 0 ? result === 0 : result % multipleOf === 0, "multiple", value, result);
        claim(exact === undefined || exact === result || facts.mayWrap(value), "wraps", value, result);
        const range = seen.get(value);
        if (!range) seen.set(value, { min: result, max: result });
        else if (result < range.min) range.min = result;
        else if (result > range.max) range.max = result;
      };
      for (const thread of threadsOf(sizes)) run(ir, thread, observe);
      for (const [value, { min, max }] of seen) {
        const { attainedBy, ...claimed } = facts.of(value);
        if (attainedBy) claim(min === claimed.min && max === claimed.max, `attained, not ${max}`, value, min);
      }
    }
    expect(wrong.slice(0, 3)).toEqual([]);
  }

  test("prove what kernels rely on", () => {
    const proved: Record<string, unknown> = {};
    const ir = traceBody((t) => {
      const note = (name: string, value: Expr<"i32">): void => void (proved[name] = value.value);
      note("vector index", t.block.x.mul(64).add(t.thread).mul(8));
      note("rounded down", t.thread.and(-8));
      note("turns", t.dim(ceilDiv(N, 256)));
      note("a multiple of 8", t.dim(N).add(t.lane.shl(3)));
      const n = t.shuffle(t.lane, 0);
      note("remainder", n.mul(12).rem(64));
      note("wide shift", t.lane.mul(6).shl(33));
      note("any shift", n.mul(8).shl(n));
      note("joined", n.mul(16).or(t.lane.mul(-8)));
    });
    const facts = new FactsAnalysis(ir);
    const of = (name: string) => facts.of(proved[name] as Value);
    expect(of("vector index")).toMatchObject({ min: 0, max: 127 * 8, multipleOf: 8 });
    expect(of("vector index").attainedBy).toEqual(new Set(["block.x", "warp", "lane"]));
    expect(of("rounded down")).toMatchObject({ min: 0, max: 56, multipleOf: 8 });
    expect(of("turns")).toMatchObject({ min: 1, max: 2 ** 23 });
    // N + 8 * lane may wrap; powers of two still divide it.
    expect(of("a multiple of 8").multipleOf).toBe(8);
    expect(of("remainder").multipleOf).toBe(4);
    expect(of("wide shift")).toMatchObject({ min: 0, max: 31 * 12, multipleOf: 12 });
    expect(of("any shift").multipleOf).toBe(8);
    expect(of("joined").multipleOf).toBe(8);
    // At one launch, sizes are numbers and grids have ends.
    const at = new FactsAnalysis(ir, new Map(Object.entries({ M: 3, N: 520, rows: 2 })));
    expect(at.of(proved["turns"] as Value)).toMatchObject({ min: 3, max: 3 });
    expect(at.of(proved["a multiple of 8"] as Value)).toMatchObject({ min: 520, max: 520 + 31 * 8, multipleOf: 8 });
  });
});

// Bounds.

test("what is said to be out of bounds for some sizes is so in some thread of such a launch", () => {
  const scope = fc.record({ recipe, limit: recipe, guarded: fc.boolean(), fold: fc.boolean() });
  let found = 0;
  fc.assert(
    fc.property(fc.array(scope, { minLength: 1, maxLength: 3 }), (accesses) => {
      const ir = traceBody((t) => {
        const index = t.reg(i32, 0);
        for (const i of t.range(t.dim(M).min(3))) {
          const leaves = [t.lane, t.thread, t.block.x, t.block.y, i, t.dim(M), t.dim(rows), t.dim(M).sub(1)];
          for (const { recipe, limit, guarded, fold } of accesses) {
            const at = build(t, leaves, recipe);
            const bounded = fold ? at.and(1023) : at;
            if (guarded) t.when(bounded.lt(build(t, leaves, limit)), () => index.set(bounded));
            else index.set(bounded);
          }
        }
      });
      const error = caught(() => verify(withStores(ir)));
      const sizes = error instanceof OutOfBoundsError && / for (M = .*);/.exec(error.message)?.[1];
      if (!sizes) return;
      found++;
      const values = new Map(sizes.split(", ").map((one) => [one.split(" = ")[0] ?? "", Number(one.split(" = ")[1])]));
      let outside = false;
      for (const thread of threadsOf(values)) {
        if (outside) break;
        run(
          ir,
          thread,
          () => {},
          (stmt, _turn, valueOf) => {
            if (stmt.kind !== "write") return;
            const at = valueOf(stmt.value);
            outside ||= at < 0 || at >= (values.get("M") ?? 0);
          },
        );
      }
      expect(outside).toBe(true);
    }),
    { numRuns: 500 },
  );
  expect(found).toBeGreaterThan(20);
});

/** The same kernel with each write to a register as a store to where its value points. */
function withStores(ir: KernelIR): KernelIR {
  const at = ir.at;
  const memory: Memory = { kind: "tensor", name: "z", role: "output", dtype: i32, shape: [M], alignBytes: 4, at };
  const change = (block: Block): Block =>
    block.map((stmt): Stmt => {
      if (stmt.kind === "write") return { ...stmt, kind: "store", memory, index: [stmt.value], cache: "normal" };
      if (stmt.kind === "for") return { ...stmt, body: change(stmt.body) };
      return stmt.kind === "if" ? { ...stmt, then: change(stmt.then), otherwise: change(stmt.otherwise) } : stmt;
    });
  return { ...ir, tensors: [...ir.tensors, memory], body: change(ir.body) };
}

// Sizes.

const operators = { add: dims.add, sub: dims.sub, mul: dims.mul, min: dims.min, max: dims.max, ceilDiv, floorDiv };

interface DimCase {
  readonly dim: Dim;
  readonly values: ReadonlyMap<string, number>;
}

const promise = fc.record({
  low: fc.integer({ min: 1, max: 60 }),
  room: fc.nat(500),
  multiple: fc.constantFrom(1, 2, 3, 8, 12),
  pick: fc.nat(),
});

/** A dimension made of A and B, with values that keep what is promised about them. */
const dimCase: fc.Arbitrary<DimCase> = fc
  .tuple(
    promise,
    promise,
    fc.array(fc.tuple(fc.constantFrom(...Object.values(operators)), fc.nat(9), fc.nat(9)), { maxLength: 6 }),
  )
  .map(([a, b, operations]) => {
    const values = new Map<string, number>();
    const named = [a, b].map(({ low, room, multiple, pick }, i) => {
      const name = "AB".charAt(i);
      const [min, max] = [low, low + room + multiple];
      const first = Math.ceil(min / multiple);
      values.set(name, (first + (pick % (Math.floor(max / multiple) - first + 1))) * multiple);
      return size(name, { min, max, multipleOf: multiple });
    });
    const made: Dim[] = [...named, 1, 5, 32];
    for (const [operator, x, y] of operations) {
      const result = caught(() => made.push(operator(made[x % made.length] ?? 1, made[y % made.length] ?? 1)));
      if (result !== undefined && !(result instanceof ShapeError)) throw result;
    }
    return { dim: made.at(-1) ?? 1, values };
  });

describe("sizes", () => {
  test("lie within their facts, whatever values keep the promises", () => {
    fc.assert(
      fc.property(dimCase, ({ dim, values }) => {
        const value = evaluate(dim, values);
        expect(value).toBeGreaterThanOrEqual(minOf(dim));
        expect(value).toBeLessThanOrEqual(maxOf(dim));
        if (multipleOf(dim) !== 0) expect(Math.abs(value % multipleOf(dim))).toBe(0);
      }),
      { numRuns: 2000 },
    );
  });

  test("have the same value on the device as on the host", () => {
    const A = size("A");
    const fits = (dim: Dim): boolean =>
      Math.max(-minOf(dim), maxOf(dim)) < 2 ** 31 &&
      (typeof dim === "number" || dim.term.kind === "named" || (fits(dim.term.a) && fits(dim.term.b)));
    fc.assert(
      fc.property(dimCase, ({ dim, values }) => {
        fc.pre(fits(dim));
        const shape = [1, ...new Set(namedSizes(dim))] as const;
        const { ir } = kernel({ name: "dims", grid: 1, block: 32, params: { x: input(f32, shape) } }, (t) => {
          t.pdl.wait();
          t.reg(i32, t.dim(dim)).get();
        });
        const results: number[] = [];
        run(ir, { block: 0, row: 0, thread: 0, sizes: values }, (_, result) => void results.push(result));
        expect(results.at(-1)).toBe(evaluate(dim, values) || 0);
      }),
      { numRuns: 300, examples: [[{ dim: ceilDiv(floorDiv(A, 32), 5), values: new Map([["A", 1]]) }]] },
    );
  });
});
