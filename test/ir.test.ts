/** The IR: how it prints, what the verifier refuses, what every traced kernel's IR has in common. */
import { describe, expect, test } from "vitest";
import { llGemmDotBf16, rmsNorm } from "../kernels/index.ts";
import {
  bf16,
  bool,
  type DType,
  DTypeError,
  f32,
  frozen,
  i32,
  input,
  kernel,
  type KernelIR,
  output,
  printKernel,
  scalar,
  size,
  u32,
  VerifyError,
} from "../dsl/index.ts";
import { type Op, operands, type Register, type Stmt, stmtOperands, type Value, walk } from "../dsl/ir.ts";
import type { Location } from "../dsl/source.ts";
import { verify } from "../dsl/verify/verify.ts";
import { caught } from "./mistake.ts";

const M = size("M", { max: 16 });

/** Some of everything that can be recorded. */
const sample = kernel(
  {
    name: "sample",
    grid: M,
    block: 64,
    params: {
      w: frozen(bf16, [8, 512], { alignBytes: 16 }),
      alpha: scalar(f32),
      x: input(bf16, [M, 512], { alignBytes: 16 }),
      y: output(f32, [M, 8]),
    },
  },
  (t, { w, alpha }) => {
    const k = t.thread.mul(8);
    t.pdl.launchDependents();
    const { x, y } = t.pdl.wait();
    const rX = x.loadVec([t.block.x, k], 8, { cache: "stream" });
    const sums = t.shared(f32, [2, 8]);
    for (const n of t.range(8)) {
      const sum = t.reg(f32, 0);
      sum.addDot(w.loadVec([n, k], 8), rX);
      const total = t.warpSum(sum);
      t.when(t.lane.eq(0), () => sums.store([t.warp, n], total));
    }
    t.barrier();
    const n = t.thread;
    t.when(n.lt(8), () => {
      const total = sums.load([0, n]).add(sums.load([1, n]));
      y.store([t.block.x, n], total.mul(alpha));
    });
  },
);

describe("printKernel", () => {
  test("prints one statement a line, by the author's names", () => {
    expect(printKernel(sample.ir)).toMatchInlineSnapshot(`
      "kernel sample, grid [M, 1, 1], block 64
        frozen w: bf16[8, 512] align 16
        input x: bf16[M, 512] align 16
        output y: f32[M, 8]
        scalar alpha: f32
        size M: 1 to 16
        shared sums: f32[2, 8]
        k: i32 = thread * 8
        pdlLaunch
        pdlWait
        rX: bf16x8 = load x[block.x, k], stream
        for n in 0..8 {
          reg sum: f32 = 0
          %14: bf16x8 = load w[n, k]
          %15: f32 = sum
          %16: f32 = dot(%14, rX, %15)
          sum = %16
          %17: f32 = sum
          total: f32 = warp.add(%17)
          %19: bool = lane == 0
          if %19 {
            store sums[warp, n] = total
          }
        }
        barrier
        %20: bool = thread < 8
        if %20 {
          %21: f32 = load sums[0, thread]
          %23: f32 = load sums[1, thread]
          total.2: f32 = %21 + %23
          %25: f32 = total.2 * alpha
          store y[block.x, thread] = %25
        }
      "
    `);
  });

  test("can name the author's lines", () => {
    const lines = printKernel(sample.ir, { lines: true }).trimEnd().split("\n");
    for (const line of lines) expect(line).toMatch(/ {2}\/\/ test\/ir\.test\.ts:\d+$|^ *}( else {)?$/);
    expect(lines.map((line) => line.replace(/ {2}\/\/.*$/, "")).join("\n")).toBe(printKernel(sample.ir).trimEnd());
  });

  test("gives each let, register and loop variable a name of its own", () => {
    for (const { ir } of kernels) {
      const text = printKernel(ir);
      const names = [...text.matchAll(/^ *(?:reg |for )?([\w.%]+)(?::| in)/gm)].map(([, name]) => name);
      expect(new Set(names).size).toBe(names.length);
      expect(text).not.toMatch(/undefined|\[object|NaN/);
    }
  });
});

const kernels = [
  sample,
  llGemmDotBf16({ M, N: 16, K: 1000, out: bf16 }),
  llGemmDotBf16({ M: 4, N: 16, K: size("K", { multipleOf: 8 }), out: f32 }),
  rmsNorm({ M, H: 1024 }),
];

describe("every traced kernel", () => {
  test.each(kernels)("$name is frozen all through", ({ ir }) => {
    const seen = new Set<unknown>();
    const check = (node: unknown, path: string): void => {
      if (typeof node !== "object" || node === null || seen.has(node)) return;
      seen.add(node);
      expect(Object.isFrozen(node), path).toBe(true);
      for (const [key, inner] of Object.entries(node)) check(inner, `${path}.${key}`);
    };
    check(ir, ir.name);
  });

  test("knows the author's line of every node", () => {
    const located = (ir: KernelIR): Location[] => {
      const all = [ir.at, ...[...ir.tensors, ...ir.scalars, ...ir.sizes, ...ir.shared].map(({ at }) => at)];
      walk(ir.body, (stmt) => all.push(stmt.at, ...stmtOperands(stmt).map(({ at }) => at)));
      return all;
    };
    for (const { file, line } of located(sample.ir)) {
      expect(file).toBe("test/ir.test.ts");
      expect(line).toBeGreaterThan(0);
    }
    const shipped = kernels.slice(1).flatMap(({ ir }) => located(ir));
    for (const { file } of shipped) expect(file).toMatch(/^(kernels\/|test\/ir\.test\.ts$)/);
  });

  test.each(kernels)("$name uses values only after their let, once defined", ({ ir }) => {
    expect(caught(() => verify(ir))).toBeUndefined();
    const lets: Value[] = [];
    walk(ir.body, (stmt) => void (stmt.kind === "let" && lets.push(stmt.value)));
    expect(new Set(lets.map(({ id }) => id)).size).toBe(lets.length);
    for (const value of lets) for (const used of operands(value.op)) expect(used.id).toBeLessThan(value.id);
  });
});

// Hand-built IR. Ids from 1000 on, far from the sample's.

const at: Location = { file: "by-hand.ts", line: 1, column: 1 };
let nextId = 1000;
const value = (dtype: DType, op: Op, lanes: 1 | 8 = 1): Value => ({
  id: nextId++,
  type: { dtype, lanes },
  op,
  at,
  name: undefined,
});
const constant = (dtype: DType, number: number): Value => value(dtype, { kind: "const", value: number });
const define = (made: Value): Stmt => ({ kind: "let", value: made, at });
const [zero, one] = [constant(i32, 0), constant(i32, 1)];
const sum = value(i32, { kind: "binary", fn: "add", a: one, b: one });
const reg: Register = { name: "r", type: { dtype: i32, lanes: 1 }, length: undefined, at };
const array: Register = { ...reg, length: 4 };
const declare = (register: Register): Stmt => ({ kind: "declare", register, init: zero, at });
const write = (register: Register, written: Value, index?: Value): Stmt => ({
  kind: "write",
  register,
  index,
  value: written,
  at,
});
const induction = value(i32, { kind: "induction" });
const loop = (body: readonly Stmt[], more: { from?: Value; step?: number; unroll?: boolean } = {}): Stmt => ({
  ...{ kind: "for", induction, from: zero, to: one, step: 1, unroll: false, at, body },
  ...more,
});
const [gW, gX] = sample.ir.tensors;
if (!gW || !gX) throw new Error("the sample has tensors");
const load = (dtype: DType, index: readonly Value[], lanes: 1 | 8 = 1): Value =>
  value(dtype, { kind: "load", memory: gW, index, lanes, guard: undefined, cache: "normal" }, lanes);

describe("the verifier", () => {
  const after = (...stmts: readonly Stmt[]): KernelIR => ({ ...sample.ir, body: [...sample.ir.body, ...stmts] });

  test("accepts what is right", () => {
    const ir = after(
      define(sum),
      declare(reg),
      write(reg, sum),
      declare(array),
      write(array, one, zero),
      loop([write(reg, induction)]),
    );
    expect(caught(() => verify(ir))).toBeUndefined();
  });

  test.each<[string, RegExp, readonly Stmt[]]>([
    ["an undefined value", /used where it is not defined/, [declare(reg), write(reg, sum)]],
    [
      "a value from inside a loop",
      /used where it is not defined/,
      [declare(reg), loop([define(sum)]), write(reg, sum)],
    ],
    ["a loop variable after its loop", /used where it is not defined/, [declare(reg), loop([]), write(reg, induction)]],
    ["a value before its let", /used where it is not defined/, [declare(reg), write(reg, sum), define(sum)]],
    ["a value with two lets", /defined twice/, [define(sum), define(sum)]],
    ["a loop variable of two loops", /defined twice/, [loop([loop([])])]],
    ["a register declared twice", /r is defined twice/, [declare(reg), declare(reg)]],
    ["an undeclared register", /register r is used where it is not declared/, [write(reg, one)]],
    ["a register out of scope", /register r is used where/, [loop([declare(reg)]), write(reg, one)]],
    ["a let of a leaf", /leaf has a let/, [define(one)]],
    ["a wrong result type", /binary has the wrong type f32/, [define({ ...sum, type: { dtype: f32, lanes: 1 } })]],
    [
      "a wrong lane count",
      /load has the wrong type bf16x8/,
      [define({ ...load(bf16, [zero, zero]), type: { dtype: bf16, lanes: 8 } })],
    ],
    ["a write of another type", /f32 stands where i32 is needed/, [declare(reg), write(reg, constant(f32, 0))]],
    ["an array without index", /register array needs an index/, [declare(array), write(array, one)]],
    ["a single register with index", /register array needs an index/, [declare(reg), write(reg, one, zero)]],
    [
      "an index of another type",
      /u32 stands where i32 is needed/,
      [declare(array), write(array, one, constant(u32, 0))],
    ],
    [
      "a condition of another type",
      /i32 stands where bool is needed/,
      [{ kind: "if", condition: one, then: [], otherwise: [], at }],
    ],
    ["a loop bound of another type", /f32 stands where i32 is needed/, [loop([], { from: constant(f32, 0) })]],
    ["a loop without step", /step must be at least 1/, [loop([], { step: 0 })]],
    ["unrolling an unknown count", /constant bounds/, [define(sum), loop([], { from: sum, unroll: true })]],
    [
      "unknown memory",
      /Unknown memory/,
      [{ kind: "store", memory: { ...gX }, index: [zero, zero], value: zero, cache: "normal", at }],
    ],
    [
      "a size of another kernel",
      /Unknown size/,
      [declare(reg), write(reg, value(i32, { kind: "size", size: size("Z") }))],
    ],
    [
      "a store of another type",
      /i32 stands where f32 is needed/,
      sample.ir.tensors.flatMap((memory): Stmt[] =>
        memory.role === "output"
          ? [{ kind: "store", memory, index: [zero, zero], value: zero, cache: "normal", at }]
          : [],
      ),
    ],
  ])("refuses %s", (_, says, stmts) => {
    const error = caught(() => verify(after(...stmts)));
    expect(error).toBeInstanceOf(VerifyError);
    expect(error instanceof VerifyError ? error.message : "").toMatch(says);
    expect(error instanceof VerifyError ? error.at : undefined).toBe(at);
  });

  test.each<[string, Value]>([
    ["operands that differ", value(i32, { kind: "binary", fn: "add", a: one, b: constant(u32, 1) })],
    ["too few indices", load(bf16, [zero])],
    ["a float index", load(bf16, [zero, constant(f32, 0)])],
    [
      "a conversion in one step that takes two",
      value(bool, { kind: "convert", a: load(bf16, [zero, zero]), to: bool }),
    ],
  ])("refuses an operation on %s", (_, broken) => {
    const defined = broken.op.kind === "convert" ? [define(broken.op.a)] : [];
    expect(() => verify(after(...defined, define(broken)))).toThrow(DTypeError);
  });
});
