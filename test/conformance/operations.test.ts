/** Every operation of the IR on boundary values: scalars, vectors of every width, constants on either side. */
import { expect } from "vitest";
import {
  type DTypeName,
  dtypes,
  Expr,
  HostTensor,
  input,
  kernel,
  type LaneCount,
  output,
  type Thread,
  u32,
} from "../../dsl/index.ts";
import type { BinaryFn, UnaryFn } from "../../dsl/ir.ts";
import { conformance, type Target } from "./backends.ts";
import { allowed, binary, fma, fromBits, type Numeric, same, toBits, ulp, unary } from "./reference.ts";

const comparisons = ["eq", "ne", "lt", "le", "gt", "ge"] as const;
const arithmetic = ["add", "sub", "mul", "div", "min", "max"] as const;
const bitwise = ["and", "or", "xor"] as const;
const functions: {
  readonly [D in Numeric]: { readonly unary: readonly UnaryFn[]; readonly binary: readonly BinaryFn[] };
} = {
  f32: {
    unary: ["neg", "abs", "floor", "ceil", "round", "exp", "log", "sqrt", "rsqrt", "tanh"],
    binary: [...arithmetic, ...comparisons],
  },
  i32: {
    unary: ["neg", "abs", "not", "popcount", "clz"],
    binary: [...arithmetic, ...comparisons, ...bitwise, "rem", "shl", "shr"],
  },
  u32: {
    unary: ["not", "popcount", "clz"],
    binary: [...arithmetic, ...comparisons, ...bitwise, "rem", "shl", "shr"],
  },
  bool: { unary: ["not"], binary: [...bitwise, "eq", "ne"] },
};

const counts = [0, 1, 2, 5, 30, 31, 32, 33, 63];
const boundary: { readonly [D in Numeric]: readonly number[] } = {
  f32: [
    ...[
      0,
      1,
      0.5,
      1.5,
      2.5,
      3,
      7,
      1 / 3,
      0.1,
      Math.PI,
      9.5,
      88.5,
      1e-20,
      1e20,
      2 ** 23 - 0.5,
      2 ** 24,
      2 ** -126,
    ].flatMap((x) => [x, -x]),
    2 ** -149,
    -(2 ** -130),
    (2 - 2 ** -23) * 2 ** 127,
    -(2 - 2 ** -23) * 2 ** 127,
    Infinity,
    -Infinity,
    NaN,
  ].map(Math.fround),
  i32: [
    ...counts,
    -1,
    -2,
    -7,
    -31,
    -32,
    2 ** 31 - 1,
    2 ** 31 - 2,
    -(2 ** 31),
    1 - 2 ** 31,
    0x55555555,
    -0x12345679,
    46341,
  ],
  u32: [...counts, 7, 2 ** 31, 2 ** 31 - 1, 2 ** 32 - 1, 2 ** 32 - 2, 0x55555555, 0xedcba987, 65536, 65535],
  bool: [0, 1],
};

/** One row of the result: what to compute from the thread's operands, and which results are right. */
interface Row<L extends LaneCount = 1> {
  readonly label: string;
  readonly build: (
    t: Thread,
    a: Expr<DTypeName, L>,
    b: Expr<DTypeName, L>,
    c: Expr<DTypeName, L>,
  ) => Expr<DTypeName, L>;
  /** The dtype of the result. */
  readonly result: Numeric;
  readonly accepts: (actual: number, a: number, b: number, c: number) => boolean;
  readonly expected: (a: number, b: number, c: number) => number;
}

/** The methods of Expr are named as the IR's functions are. */
function apply<L extends LaneCount>(fn: string, a: Expr<DTypeName, L>, ...others: unknown[]): Expr<DTypeName, L> {
  const methods = a as unknown as { readonly [name: string]: (...others: unknown[]) => Expr<DTypeName, L> };
  return methods[fn]?.(...others) ?? a;
}

const isComparison = (fn: string): boolean => (comparisons as readonly string[]).includes(fn);

/** ULPs that a function may be off. CUDA C++ Programming Guide, "Mathematical Functions"; WGSL, "Floating Point Accuracy". */
const ulps: { readonly [T in Target["name"]]: { readonly [fn: string]: (x: number) => number } } = {
  cuda: { exp: () => 2, log: () => 1, rsqrt: () => 2, tanh: () => 2 },
  // The nearest f32 or the one beside it.
  simulator: { exp: () => 1, log: () => 1, rsqrt: () => 1, tanh: () => 1 },
  wgsl: {
    div: () => 2.5,
    exp: (x) => 3 + 2 * Math.abs(x),
    log: () => 3,
    sqrt: () => 5,
    rsqrt: () => 2,
    tanh: () => 8,
  },
};
/** Absolute errors that WGSL allows besides: log near 1, tanh anywhere. */
const absolute: { readonly [fn: string]: (x: number) => number } = {
  log: (x) => (x >= 0.5 && x <= 2 ? 2 ** -21 : 0),
  tanh: () => 1e-5,
};

/** Whether `actual` is a right answer of `fn` on f32 operands. */
function acceptsFloat(target: Target["name"], fn: string, actual: number, operands: readonly number[]): boolean {
  const compute = (...xs: number[]): number => {
    const [a = NaN, b = NaN] = xs;
    return xs.length === 1 ? unary(fn as UnaryFn, "f32", a) : binary(fn as BinaryFn, "f32", a, b);
  };
  const tolerance = ulps[target][fn];
  // The smaller of -0 and 0 may be either.
  const zeros =
    (fn === "min" || fn === "max") && operands.every((x) => Math.abs(x) < (target === "wgsl" ? 2 ** -126 : 2 ** -149));
  // Whether min and max return the number or the NaN is left open.
  if ((fn === "min" || fn === "max") && operands.some(Number.isNaN)) return true;
  // WGSL promises accuracy of a quotient only for divisors from 2^-126 to 2^126.
  if (target === "wgsl" && fn === "div" && Math.abs(operands[1] ?? 0) > 2 ** 126) return true;
  return allowed(target === "wgsl", compute, operands).some((exact) => {
    if (same(Math.fround(exact), actual) || (zeros && actual === 0)) return true;
    if (!tolerance || !Number.isFinite(exact)) return false;
    const [x = 0] = operands;
    const bound = tolerance(x) * ulp(exact) + (target === "wgsl" ? (absolute[fn]?.(x) ?? 0) : 0);
    if (!Number.isFinite(actual)) return Math.abs(exact) + bound >= 2 ** 128 && Math.sign(actual) === Math.sign(exact);
    return Math.abs(actual - exact) <= bound;
  });
}

function rowsOf(target: Target["name"], dtype: Numeric): Row<LaneCount>[] {
  const rows: Row<LaneCount>[] = [];
  for (const fn of functions[dtype].unary) {
    const expected = (a: number): number => unary(fn, dtype, a);
    rows.push({
      label: fn,
      build: (_, a) => apply(fn, a),
      result: dtype,
      expected,
      accepts: (x, a) => (dtype === "f32" ? acceptsFloat(target, fn, x, [a]) : x === expected(a)),
    });
  }
  for (const fn of functions[dtype].binary) {
    const expected = (a: number, b: number): number => binary(fn, dtype, a, b);
    rows.push({
      label: fn,
      build: (_, a, b) => apply(fn, a, b),
      result: isComparison(fn) ? "bool" : dtype,
      expected,
      accepts: (x, a, b) => (dtype === "f32" ? acceptsFloat(target, fn, x, [a, b]) : x === expected(a, b)),
    });
  }
  rows.push({
    label: "select",
    build: (_, a, b, c) => apply("select", apply("eq", a, c), a, b),
    result: dtype,
    expected: (a, b, c) => (a === c ? a : b),
    accepts: (x, a, b, c) =>
      allowed(target === "wgsl", (p, _q, r) => ((p ?? 0) === r ? a : b), [a, b, c]).some((y) => same(x, y)),
  });
  if (dtype === "f32") {
    const flushed = (x: number): number => (Math.abs(x) < 2 ** -126 ? 0 : x);
    const twice = (a = 0, b = 0, c = 0): number => Math.fround(flushed(Math.fround(a * b)) + c);
    rows.push({
      label: "fma",
      build: (_, a, b, c) => apply("fma", a, b, c),
      result: "f32",
      expected: fma,
      // WGSL devices may round the product too.
      accepts: (x, a, b, c) =>
        (target === "wgsl" ? [fma, twice] : [fma]).some((compute) =>
          allowed(target === "wgsl", compute as (...xs: number[]) => number, [a, b, c]).some((y) => same(x, y)),
        ),
    });
  }
  return rows;
}

function toWord(x: Expr<DTypeName>): Expr<"u32"> {
  return x.dtype.name === "bool" ? x.to(u32) : x.bitcast(u32);
}
function fromWord(x: Expr<"u32">, dtype: Numeric): Expr<DTypeName> {
  return dtype === "bool" ? x.ne(0) : x.bitcast(dtypes[dtype]);
}
const lane = (x: Expr<DTypeName, LaneCount>, i: number): Expr<DTypeName> => (x as Expr<DTypeName, 2>).lane(i);

/** Operands for every pair of boundary values, three of them, padded to whole blocks. */
function operandsOf(dtype: Numeric, perBlock: number) {
  const values = boundary[dtype];
  const pairs = values.flatMap((a, i) =>
    values.map((b, j) => [a, b, values[(i + 2 * j) % values.length] ?? 0] as const),
  );
  while (pairs.length % perBlock !== 0) pairs.push([values[0] ?? 0, values[1] ?? 0, 0]);
  const words = (k: 0 | 1 | 2): HostTensor<"u32"> =>
    HostTensor.from(
      u32,
      [pairs.length],
      pairs.map((triple) => toBits(dtype, triple[k])),
    );
  return { count: pairs.length, pairs, a: words(0), b: words(1), c: words(2) };
}

/** Runs the rows on the operands, `lanes` at a time, and lists the wrong results. */
async function failures(target: Target, dtype: Numeric, lanes: LaneCount, rows: readonly Row<LaneCount>[]) {
  const { count, pairs, a, b, c } = operandsOf(dtype, 64 * lanes);
  const device = kernel(
    {
      name: `operations_${dtype}_${lanes}`,
      grid: count / lanes / 64,
      block: 64,
      params: {
        a: input(u32, [count]),
        b: input(u32, [count]),
        c: input(u32, [count]),
        out: output(u32, [rows.length, count]),
      },
    },
    (t) => {
      const { a: gA, b: gB, c: gC, out: gOut } = t.pdl.wait();
      const first = t.block.x.mul(64).add(t.thread).mul(lanes);
      const operands = [gA, gB, gC].map((memory) => {
        const scalars = Array.from({ length: lanes }, (_, i) => fromWord(memory.load([first.add(i)]), dtype));
        return lanes === 1 ? scalars[0] : t.pack(...scalars);
      });
      const [x, y, z] = operands as unknown as [
        Expr<DTypeName, LaneCount>,
        Expr<DTypeName, LaneCount>,
        Expr<DTypeName, LaneCount>,
      ];
      for (const [r, { build }] of rows.entries()) {
        const result = build(t, x, y, z);
        for (let i = 0; i < lanes; i++) gOut.store([r, first.add(i)], toWord(lane(result, i)));
      }
    },
  );
  const poison = HostTensor.filled(u32, [rows.length, count], 0xa5);
  const { out } = await target.run(device, { a, b, c, out: poison });
  const words = out.values();
  const wrong = new Set<string>();
  for (const [r, { label, build, result, accepts, expected }] of rows.entries()) {
    for (const [i, triple] of pairs.entries()) {
      const actual = fromBits(result === "bool" ? "u32" : result, words[r * count + i] ?? 0);
      if (accepts(actual, ...triple)) continue;
      const operands = triple
        .slice(0, build.length - 1)
        .map(show)
        .join(", ");
      wrong.add(`${label}(${operands}) = ${show(actual)}, not ${show(expected(...triple))}`);
    }
  }
  return [...wrong];
}

const show = (x: number): string => (Object.is(x, -0) ? "-0" : String(x));

/** The binary rows again, with constants as the right operand, the left one, and both. */
function rowsWithConstants(target: Target["name"], dtype: "f32" | "i32" | "u32"): Row<LaneCount>[] {
  // NVIDIA's Vulkan driver (580.159) makes x * 2^-149 the constant 2^-149, whatever x is.
  const smallest = target === "wgsl" ? 2 ** -126 : 2 ** -149;
  const constants = {
    f32: [0, -0, 1, -1, 1 / 3, 2 ** 24, -1e20, (2 - 2 ** -23) * 2 ** 127, smallest, Infinity, -Infinity, NaN].map(
      Math.fround,
    ),
    i32: [0, 1, -1, 5, 32, 33, 2 ** 31 - 1, -(2 ** 31), -7],
    u32: [0, 1, 5, 31, 32, 63, 2 ** 31, 2 ** 32 - 1],
  }[dtype];
  const accepts = (fn: string, x: number, a: number, b: number): boolean =>
    dtype === "f32" ? acceptsFloat(target, fn, x, [a, b]) : x === binary(fn as BinaryFn, dtype, a, b);
  const constant = (t: Thread, k: number): Expr<DTypeName, LaneCount> => t.const(dtypes[dtype], k);
  return functions[dtype].binary.flatMap((fn) => {
    const result = isComparison(fn) ? "bool" : dtype;
    const expected = (a: number, b: number): number => binary(fn, dtype, a, b);
    return constants.flatMap((k, i): Row<LaneCount>[] => {
      const other = constants[(i * 5 + 3) % constants.length] ?? k;
      return [
        {
          label: `(x, y) => x ${fn} ${show(k)}`,
          build: (_, a) => apply(fn, a, k),
          result,
          expected: (a) => expected(a, k),
          accepts: (x, a) => accepts(fn, x, a, k),
        },
        {
          label: `(x, y) => ${show(k)} ${fn} x`,
          build: (t, a) => apply(fn, constant(t, k), a),
          result,
          expected: (a) => expected(k, a),
          accepts: (x, a) => accepts(fn, x, k, a),
        },
        {
          label: `(x, y) => ${show(k)} ${fn} ${show(other)}`,
          build: (t) => apply(fn, constant(t, k), other),
          result,
          expected: () => expected(k, other),
          accepts: (x) => accepts(fn, x, k, other),
        },
      ];
    });
  });
}

/** Unary functions of constants. */
function unaryRowsOfConstants(target: Target["name"], dtype: "f32" | "i32" | "u32"): Row<LaneCount>[] {
  return functions[dtype].unary.flatMap((fn) =>
    boundary[dtype].map((k): Row<LaneCount> => ({
      label: `() => ${fn} ${show(k)}`,
      build: (t) => apply(fn, t.const(dtypes[dtype], k)),
      result: dtype,
      expected: () => unary(fn, dtype, k),
      accepts: (x) => (dtype === "f32" ? acceptsFloat(target, fn, x, [k]) : x === unary(fn, dtype, k)),
    })),
  );
}

conformance((target, on) => {
  for (const dtype of ["f32", "i32", "u32", "bool"] as const) {
    for (const lanes of [1, 2, 4, 8, 16] as const) {
      on(`every operation on ${dtype}, ${lanes} lanes`, async () => {
        expect(await failures(target, dtype, lanes, rowsOf(target.name, dtype))).toEqual([]);
      });
    }
  }
  for (const dtype of ["f32", "i32", "u32"] as const) {
    on(`operations on ${dtype} constants`, async () => {
      expect(await failures(target, dtype, 1, rowsWithConstants(target.name, dtype))).toEqual([]);
      expect(await failures(target, dtype, 1, unaryRowsOfConstants(target.name, dtype))).toEqual([]);
    });
  }
  on(`operations on vectors of f32 and constants`, async () => {
    const rows = rowsWithConstants(target.name, "f32").filter(({ label }) => label.includes("x, y) => x"));
    expect(await failures(target, "f32", 4, rows)).toEqual([]);
  });
});
