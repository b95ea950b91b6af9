/**
 * Random programs: expression trees and control flow over registers, memory and warp-wide operations, each run on a backend
 * and by the evaluator. TEGULA_SEED repeats a run; a failure shrinks to the smallest program that still differs.
 */
import fc from "fast-check";
import { expect } from "vitest";
import { run } from "../../backends/run.ts";
import {
  type Expr,
  f32,
  HostTensor,
  i32,
  inout,
  input,
  kernel,
  output,
  type Reg,
  type Tensor,
  type Thread,
} from "../../dsl/index.ts";
import { seededRandom } from "../../kernels/index.ts";
import { conformance } from "./backends.ts";
import { evaluate, patterns } from "./evaluate.ts";

const integerFns = ["add", "sub", "mul", "div", "rem", "min", "max", "and", "or", "xor", "shl", "shr"] as const;
const floatFns = ["add", "sub", "mul", "min", "max"] as const;
const compareFns = ["eq", "ne", "lt", "le", "gt", "ge"] as const;

type Int =
  | { readonly kind: "constant"; readonly value: number }
  | { readonly kind: "register" | "load"; readonly which: number }
  | { readonly kind: "lane" | "counter" | "own" }
  | { readonly kind: "binary"; readonly fn: (typeof integerFns)[number]; readonly a: Int; readonly b: Int }
  | { readonly kind: "neg" | "abs" | "not" | "popcount" | "clz"; readonly a: Int }
  | { readonly kind: "truncated"; readonly f: Float }
  | { readonly kind: "select"; readonly condition: Bool; readonly a: Int; readonly b: Int };
type Float =
  | { readonly kind: "constant"; readonly value: number }
  | { readonly kind: "register" | "load"; readonly which: number }
  | { readonly kind: "binary"; readonly fn: (typeof floatFns)[number]; readonly a: Float; readonly b: Float }
  | { readonly kind: "neg" | "abs" | "floor" | "ceil"; readonly a: Float }
  | { readonly kind: "converted"; readonly i: Int }
  | { readonly kind: "select"; readonly condition: Bool; readonly a: Float; readonly b: Float };
type Bool =
  | { readonly kind: "integers"; readonly fn: (typeof compareFns)[number]; readonly a: Int; readonly b: Int }
  | { readonly kind: "floats"; readonly fn: (typeof compareFns)[number]; readonly a: Float; readonly b: Float }
  | { readonly kind: "and" | "or" | "xor"; readonly a: Bool; readonly b: Bool };
type Step =
  | { readonly kind: "setInt"; readonly which: number; readonly value: Int }
  | { readonly kind: "setFloat"; readonly which: number; readonly value: Float }
  | { readonly kind: "store"; readonly value: Int }
  /** Where all lanes come together; elsewhere without the exchange. */
  | {
      readonly kind: "exchange";
      readonly how: "sum" | "max" | "xor" | "down";
      readonly which: number;
      readonly value: Int;
    }
  | { readonly kind: "keep"; readonly value: Int; readonly then: readonly Step[] }
  | {
      readonly kind: "if";
      readonly condition: Bool;
      readonly then: readonly Step[];
      readonly otherwise: readonly Step[];
    }
  | { readonly kind: "loop"; readonly trips: number | "own"; readonly step: number; readonly body: readonly Step[] };

const which = fc.nat(1);
const { steps } = fc.letrec<{ int: Int; float: Float; bool: Bool; step: Step; steps: readonly Step[] }>((tie) => ({
  int: fc.oneof(
    { maxDepth: 3, depthSize: "small" },
    fc.record({
      kind: fc.constant("constant" as const),
      value: fc.oneof(fc.integer({ min: -4, max: 40 }), fc.constantFrom(2 ** 31 - 1, -(2 ** 31), 65_537)),
    }),
    fc.record({ kind: fc.constantFrom("register" as const, "load" as const), which }),
    fc.record({ kind: fc.constantFrom("lane" as const, "counter" as const, "own" as const) }),
    fc.record({
      kind: fc.constant("binary" as const),
      fn: fc.constantFrom(...integerFns),
      a: tie("int"),
      b: tie("int"),
    }),
    fc.record({ kind: fc.constantFrom(...(["neg", "abs", "not", "popcount", "clz"] as const)), a: tie("int") }),
    fc.record({ kind: fc.constant("truncated" as const), f: tie("float") }),
    fc.record({ kind: fc.constant("select" as const), condition: tie("bool"), a: tie("int"), b: tie("int") }),
  ),
  float: fc.oneof(
    { maxDepth: 3, depthSize: "small" },
    fc.record({ kind: fc.constant("constant" as const), value: fc.constantFrom(0, 1, -1, 0.1, 2.5, -1000.25, 1 / 3) }),
    fc.record({ kind: fc.constantFrom("register" as const, "load" as const), which }),
    fc.record({
      kind: fc.constant("binary" as const),
      fn: fc.constantFrom(...floatFns),
      a: tie("float"),
      b: tie("float"),
    }),
    fc.record({ kind: fc.constantFrom(...(["neg", "abs", "floor", "ceil"] as const)), a: tie("float") }),
    fc.record({ kind: fc.constant("converted" as const), i: tie("int") }),
    fc.record({ kind: fc.constant("select" as const), condition: tie("bool"), a: tie("float"), b: tie("float") }),
  ),
  bool: fc.oneof(
    { maxDepth: 2, depthSize: "small" },
    fc.record({
      kind: fc.constant("integers" as const),
      fn: fc.constantFrom(...compareFns),
      a: tie("int"),
      b: tie("int"),
    }),
    fc.record({
      kind: fc.constant("floats" as const),
      fn: fc.constantFrom(...compareFns),
      a: tie("float"),
      b: tie("float"),
    }),
    fc.record({ kind: fc.constantFrom(...(["and", "or", "xor"] as const)), a: tie("bool"), b: tie("bool") }),
  ),
  step: fc.oneof(
    { maxDepth: 3, depthSize: "small" },
    fc.record({ kind: fc.constant("setInt" as const), which, value: tie("int") }),
    fc.record({ kind: fc.constant("setFloat" as const), which, value: tie("float") }),
    fc.record({ kind: fc.constant("store" as const), value: tie("int") }),
    fc.record({
      kind: fc.constant("exchange" as const),
      how: fc.constantFrom(...(["sum", "max", "xor", "down"] as const)),
      which,
      value: tie("int"),
    }),
    fc.record({ kind: fc.constant("keep" as const), value: tie("int"), then: tie("steps") }),
    fc.record({
      kind: fc.constant("if" as const),
      condition: tie("bool"),
      then: tie("steps"),
      otherwise: tie("steps"),
    }),
    fc.record({
      kind: fc.constant("loop" as const),
      trips: fc.oneof(fc.nat(4), fc.constant("own" as const)),
      step: fc.integer({ min: 1, max: 3 }),
      body: tie("steps"),
    }),
  ),
  steps: fc.array(tie("step"), { minLength: 1, maxLength: 5 }),
}));

interface Memories {
  readonly x: Tensor<"i32", 2, "input">;
  readonly f: Tensor<"f32", 2, "input">;
  readonly m: Tensor<"i32", 1, "inout">;
}

/** Writes a program in the DSL. */
class Author {
  private readonly t: Thread;
  private readonly x: Memories["x"];
  private readonly f: Memories["f"];
  private readonly m: Memories["m"];
  private readonly ints: readonly Reg<"i32">[];
  private readonly floats: readonly Reg<"f32">[];
  private counter: Expr<"i32">;

  constructor(t: Thread, { x, f, m }: Memories) {
    this.t = t;
    this.x = x;
    this.f = f;
    this.m = m;
    this.ints = [t.reg(i32, t.lane), t.reg(i32, 7)];
    this.floats = [t.reg(f32, 0.5), t.reg(f32, t.lane.to(f32))];
    this.counter = t.warp;
  }

  results(): readonly Expr<"i32">[] {
    // Which of the zeros a minimum gives is left open: adding 0 makes them one.
    return [...this.ints.map((r) => r.get()), ...this.floats.map((r) => r.get().add(0).bitcast(i32))];
  }

  /** `together`: whether the whole warp is here. */
  steps(list: readonly Step[], together: boolean): void {
    for (const step of list) this.step(step, together);
  }

  private step(step: Step, together: boolean): void {
    const { t } = this;
    switch (step.kind) {
      case "setInt":
        return this.ints[step.which]?.set(this.int(step.value));
      case "setFloat":
        return this.floats[step.which]?.set(this.float(step.value));
      case "store":
        return this.m.store([t.thread], this.int(step.value));
      case "exchange": {
        const value = this.int(step.value);
        const exchanged = {
          sum: () => t.warpSum(value),
          max: () => t.warpMax(value),
          xor: () => t.shuffleXor(value, 5),
          down: () => t.shuffleDown(value, 3),
        }[step.how];
        return this.ints[step.which]?.set(together ? exchanged() : value);
      }
      case "keep": {
        const kept = this.int(step.value);
        this.steps(step.then, together);
        return this.ints[0]?.update((now) => now.xor(kept));
      }
      case "if": {
        const condition = this.bool(step.condition);
        return t.when(
          condition,
          () => this.steps(step.then, false),
          () => this.steps(step.otherwise, false),
        );
      }
      case "loop": {
        const outer = this.counter;
        const own = step.trips === "own";
        for (const i of t.range(own ? this.int({ kind: "own" }).and(3) : step.trips, { step: step.step })) {
          this.counter = i;
          this.steps(step.body, together && !own);
        }
        this.counter = outer;
      }
    }
  }

  private int(int: Int): Expr<"i32"> {
    const { t } = this;
    switch (int.kind) {
      case "constant":
        return t.const(i32, int.value);
      case "register":
        return this.ints[int.which]?.get() ?? t.lane;
      case "load":
        return this.x.load([int.which, t.thread.xor(9)]);
      case "lane":
        return t.lane;
      case "counter":
        return this.counter;
      case "own":
        return this.m.load([t.thread]);
      case "binary":
        return this.int(int.a)[int.fn](this.int(int.b));
      case "truncated":
        return this.float(int.f).to(i32);
      case "select":
        return this.bool(int.condition).select(this.int(int.a), this.int(int.b));
      default:
        return this.int(int.a)[int.kind]();
    }
  }

  private float(float: Float): Expr<"f32"> {
    const { t } = this;
    switch (float.kind) {
      case "constant":
        return t.const(f32, float.value);
      case "register":
        return this.floats[float.which]?.get() ?? t.const(f32, 0);
      case "load":
        return this.f.load([float.which, t.thread.xor(6)]);
      case "binary":
        return this.tamed(this.float(float.a)[float.fn](this.float(float.b)));
      case "converted":
        return this.int(float.i).to(f32);
      case "select":
        return this.bool(float.condition).select(this.float(float.a), this.float(float.b));
      default:
        return this.float(float.a)[float.kind]();
    }
  }

  /** Keeps away from infinities, and from subnormals, which devices may flush. */
  private tamed(x: Expr<"f32">): Expr<"f32"> {
    return x.abs().lt(1e-12).select(this.t.const(f32, 0), x.min(1e10).max(-1e10));
  }

  private bool(bool: Bool): Expr<"bool"> {
    switch (bool.kind) {
      case "integers":
        return this.int(bool.a)[bool.fn](this.int(bool.b));
      case "floats":
        return this.float(bool.a)[bool.fn](this.float(bool.b));
      default:
        return this.bool(bool.a)[bool.kind](this.bool(bool.b));
    }
  }
}

const threads = 64;

function build(program: readonly Step[]) {
  return kernel(
    {
      name: "random_program",
      grid: 1,
      block: threads,
      params: {
        x: input(i32, [2, threads]),
        f: input(f32, [2, threads]),
        m: inout(i32, [threads]),
        y: output(i32, [4, threads]),
      },
    },
    (t) => {
      const { x, f, m, y } = t.pdl.wait();
      const author = new Author(t as Thread, { x, f, m });
      author.steps(program, true);
      for (const [row, result] of author.results().entries()) y.store([row, t.thread], result);
    },
  );
}

const seed = Number(process.env["TEGULA_SEED"] ?? Date.now() % 2 ** 31);
const random = seededRandom(seed);
const interesting = [0, 1, -1, 31, 32, 2 ** 31 - 1, -(2 ** 31)];
const ints = Array.from(
  { length: 2 * threads },
  (_, i) => interesting[i] ?? Math.floor((random() - 0.5) * 2 ** (32 * random())),
);
const floats = Array.from({ length: 2 * threads }, () => Math.fround((random() - 0.5) * 2 ** (20 * random())));
const args = {
  x: HostTensor.from(i32, [2, threads], ints),
  f: HostTensor.from(f32, [2, threads], floats),
  m: HostTensor.from(
    i32,
    [threads],
    ints.slice(0, threads).map((value) => value % 100),
  ),
  y: HostTensor.filled(i32, [4, threads], 0x7f),
};

conformance((target, on) => {
  on(`random programs mean what the evaluator says, seed ${seed}`, async () => {
    let programs = 0;
    await fc.assert(
      fc.asyncProperty(steps, async (program) => {
        const device = build(program);
        const expected = evaluate(device, args);
        // Compiling with nvcc takes long: a few are enough to see that it can be done.
        const actual =
          ++programs <= 4 ? await target.run(device, args) : await run(await target.backend(), device, args);
        expect({ m: patterns(actual.m), y: patterns(actual.y) }).toEqual({
          m: patterns(expected.m),
          y: patterns(expected.y),
        });
      }),
      { seed, numRuns: 40, interruptAfterTimeLimit: 40_000 },
    );
  });
});
