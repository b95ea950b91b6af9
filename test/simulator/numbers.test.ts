/** The simulator's own arithmetic against exact arithmetic on whole numbers of any size. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { addProducts, addProducts8, Operand, place8 } from "../../backends/simulator/matrix.ts";
import { binaryFn, exponentTable, fma, truncatedBits } from "../../backends/simulator/numbers.ts";
import { bf16, type DType, e4m3, e5m2, encode, f16, f32, i32, u32 } from "../../dsl/index.ts";
import { computeInteger } from "../../dsl/fold.ts";
import type { BinaryFn } from "../../dsl/ir.ts";
import { decode } from "../../dsl/numerics.ts";

/** x = whole * 2^-300, for any sum or product of finite f32. */
const unit = 300;
function exactly(x: number): bigint {
  let scale = 0;
  while (!Number.isInteger(x)) {
    x *= 2;
    scale++;
  }
  return BigInt(x) << BigInt(unit - scale);
}

/** The nearest f32 to whole * 2^-600, ties to even; infinite from halfway beyond the largest on. */
function nearest(whole: bigint): number {
  const magnitude = whole < 0n ? -whole : whole;
  const shift = Math.max(magnitude.toString(2).length - 24, 2 * unit - 149);
  const [quotient, rest] = [magnitude >> BigInt(shift), magnitude & ((1n << BigInt(shift)) - 1n)];
  const half = 1n << BigInt(shift - 1);
  const rounded = quotient + (rest > half || (rest === half && (quotient & 1n) === 1n) ? 1n : 0n);
  const value = Number(rounded) * 2 ** (shift - 2 * unit);
  return (whole < 0n ? -1 : 1) * (value >= 2 ** 128 ? Infinity : value);
}

const bits = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const finite = bits.map((word) => decode(f32, word)).filter(Number.isFinite);

describe("fma", () => {
  const check = (a: number, b: number, c: number): void => {
    const exact = exactly(a) * exactly(b) + (exactly(c) << BigInt(unit));
    const expected = exact === 0n ? a * b + c : nearest(exact);
    expect(fma(a, b, c), `${a} * ${b} + ${c}`).toBe(expected);
  };

  test("rounds once: any finite operands", () => {
    fc.assert(
      fc.property(finite, finite, finite, (a, b, c) => check(a, b, c)),
      { numRuns: 3000 },
    );
  });

  test("rounds once: sums that lie at or beside the middle between two f32", () => {
    const near = fc.integer({ min: -3, max: 3 });
    const significand = fc.integer({ min: 2 ** 23, max: 2 ** 24 - 1 });
    fc.assert(
      fc.property(significand, fc.integer({ min: 20, max: 60 }), near, near, (c, low, x, y) => {
        // c + 1/2 + a little, made of a product and an addend.
        check(Math.fround(1 + x * 2 ** -23), 2 ** -1, c);
        check(Math.fround((1 + 2 ** -12) * 2 ** -low), Math.fround((1 - 2 ** -12) * 2 ** low) / 2, c + y);
        check(Math.fround(2 ** -low), Math.fround(2 ** -low), c * 2 ** -1 + 2 ** -1);
        // 1/2 - 2^-47: too little below the middle for a float64 that holds c, too.
        for (const sign of [1, -1]) check((1 + 2 ** -23) * 2 ** -low, (1 - 2 ** -23) * 2 ** (low - 1), sign * c);
      }),
    );
    check(2 ** 100, 2 ** 28 - 2 ** 4, -(2 ** -100)); // just below where it becomes infinite
    check(2 ** 100, 2 ** 28 - 2 ** 4, 2 ** -100);
    check(2 ** -100, 2 ** -50, 2 ** -149);
  });

  test("keeps infinities, NaN and the signs of zero", () => {
    expect(fma(Infinity, 0, 1)).toBeNaN();
    expect(fma(Infinity, 1, -Infinity)).toBeNaN();
    expect(fma(2, -Infinity, 1)).toBe(-Infinity);
    expect(fma(-1, 0, -0)).toBe(-0);
    expect(fma(1, 0, -0)).toBe(0);
    expect(fma(3e38, 3e38, 0)).toBe(Infinity);
  });
});

test("integer functions are those that constants are folded by", () => {
  const fns = ["add", "sub", "mul", "div", "rem", "min", "max", "and", "or", "xor", "shl", "shr"] as const;
  const all: readonly BinaryFn[] = [...fns, "eq", "ne", "lt", "le", "gt", "ge"];
  const values = fc.oneof(bits, fc.constantFrom(0, 1, 31, 32, 2 ** 31, 2 ** 31 - 1, 2 ** 32 - 1));
  const property = fc.property(fc.constantFrom(...all), fc.boolean(), values, values, (fn, signed, a, b) => {
    const stored = signed ? new Int32Array([a, b, 0]) : new Uint32Array([a, b, 0]);
    const [x = 0, y = 0] = stored;
    stored[2] = binaryFn(fn, signed ? i32 : u32)(x, y);
    expect(stored[2], `${fn}(${x}, ${y})`).toBe(Number(computeInteger(fn, x, y, signed)));
  });
  fc.assert(property, { numRuns: 3000 });
});

test("truncation goes to the f32 next to zero, or fewer bits", () => {
  const valueOf = (word: number): number => decode(f32, word >>> 0);
  fc.assert(
    fc.property(fc.double({ noNaN: true, min: -1e38, max: 1e38 }), (x) => {
      const cut = valueOf(truncatedBits(x, 23));
      expect(Math.abs(cut)).toBeLessThanOrEqual(Math.abs(x));
      const next = valueOf(truncatedBits(x, 23) + 1);
      expect(Math.abs(next)).toBeGreaterThan(Math.abs(x));
      expect(truncatedBits(x, 13)).toBe(truncatedBits(x, 23) & ~0x3ff);
    }),
  );
  expect(valueOf(truncatedBits(2 ** 128 - 2 ** 100, 23))).toBe((2 - 2 ** -23) * 2 ** 127);
  expect(valueOf(truncatedBits(-(2 ** 128), 23))).toBe(-Infinity);
  expect(truncatedBits(-0, 23)).toBe(-(2 ** 31));
});

describe("how a tensor core adds", () => {
  /** All at once, as whole numbers of the last bit that is kept. */
  function model(as: readonly number[], bs: readonly number[], c: number, dtype: DType, kept: number): number {
    const exponent = (x: number, least: number): number => {
      if (x === 0) return -126;
      let e = 0;
      for (let rest = Math.abs(x); rest >= 2; rest /= 2) e++;
      for (let rest = Math.abs(x); rest < 1; rest *= 2) e--;
      return Math.max(e, least);
    };
    const least = dtype === f32 ? -126 : 2 - 2 ** (dtype.exponentBits - 1);
    const products = as.map((a, k) => ({ exact: exactly(a) * exactly(bs[k] ?? 0), a, b: bs[k] ?? 0 }));
    const tops = products.map(({ a, b }) => (a * b === 0 ? -126 : exponent(a, least) + exponent(b, least)));
    const top = Math.max(exponent(c, -126), ...tops);
    const last = BigInt(2 * unit + top - kept);
    const cut = (exact: bigint): bigint => (exact < 0n ? -(-exact >> last) : exact >> last);
    const sum = products.reduce((total, { exact }) => total + cut(exact), cut(exactly(c) << BigInt(unit)));
    return Number(sum) * 2 ** (top - kept);
  }

  const operandOf = (dtype: DType, patterns: readonly number[]): Operand => {
    const operand = new Operand(patterns.length, dtype);
    for (const [i, word] of patterns.entries()) operand.set(i, word);
    return operand;
  };

  test.each([
    [f16, 16, 25],
    [bf16, 16, 25],
    [f32, 8, 25],
    [e4m3, 32, 13],
    [e5m2, 32, 13],
  ] as const)("%o, %i products, %i bits", (dtype, K, kept) => {
    const pattern = fc
      .integer({ min: 0, max: 2 ** (8 * dtype.bytes) - 1 })
      .map((word) => (dtype === f32 ? (word & 0xffffe000) >>> 0 : word))
      .filter((word) => Number.isFinite(decode(dtype, word)));
    const patterns = fc.array(pattern, { minLength: K, maxLength: K });
    // An addend in the products' range, and any.
    const addend = fc.oneof(finite, fc.float({ noNaN: true, noDefaultInfinity: true, min: -1024, max: 1024 }));
    const property = fc.property(patterns, patterns, addend, (a, b, c) => {
      const [as, bs] = [a, b].map((list) => list.map((word) => decode(dtype, word)));
      const sum = model(as ?? [], bs ?? [], c, dtype, kept);
      const actual = addProducts(operandOf(dtype, a), 0, operandOf(dtype, b), 0, K, encode(f32, c, "nosat") | 0, kept);
      const expected = truncatedBits(sum, kept === 13 ? 13 : 23);
      expect(decode(f32, actual >>> 0)).toBe(decode(f32, expected >>> 0));
    });
    fc.assert(property, { numRuns: 300 });
  });

  test("cuts off what is 2^-26 of the largest, each product for itself", () => {
    const ones = (count: number, word: number): Operand => operandOf(bf16, new Array<number>(count).fill(word));
    const [one, tiny] = [encode(bf16, 1), encode(bf16, 2 ** -26)];
    const c = encode(f32, 1, "nosat");
    const sum = addProducts(ones(16, tiny), 0, ones(16, one), 0, 16, c, 25);
    expect(decode(f32, sum >>> 0)).toBe(1);
    const kept = addProducts(ones(16, encode(bf16, 2 ** -25)), 0, ones(16, one), 0, 16, c, 25);
    expect(decode(f32, kept >>> 0)).toBe(1 + 2 ** -21);
  });

  test("mma.sync of fp8 adds products in two halves from nothing, and c at the end, rounded", () => {
    // Element k lies at place8(k): a half holds the first or the last two of each four.
    expect(Array.from({ length: 8 }, (_, k) => place8(k))).toEqual([0, 1, 16, 17, 2, 3, 18, 19]);
    const filled = (pairs: Readonly<Record<number, number>>): Operand => {
      const operand = new Operand(32, e5m2, f16);
      for (const [k, value] of Object.entries(pairs)) operand.set(place8(Number(k)), encode(e5m2, value));
      return operand;
    };
    const add = (b: Readonly<Record<number, number>>, c: number): number =>
      decode(f32, addProducts8(filled({ 0: 1, 1: 1, 2: 1, 3: 1 }), 0, filled(b), 0, encode(f32, c, "nosat")) >>> 0);
    const [large, small] = [2 ** 12, 2 ** -14];
    // What is cut off below the largest of its half is lost; in a half of its own it is kept until the larger one comes.
    expect(add({ 0: large, 1: small, 2: -large }, 0)).toBe(0);
    expect(add({ 0: large, 1: -large, 2: small }, 0)).toBe(small);
    // c does not cut products off, and is added to the nearest.
    expect(add({ 0: small }, large)).toBe(large);
    expect(add({ 0: 2 ** -11, 2: 2 ** -13 }, large)).toBe(large + 2 ** -11);
  });

  test("any NaN gives 0x7fffffff; infinities stay", () => {
    const [infinite, one, zero] = [encode(f16, Infinity, "nosat"), encode(f16, 1), 0];
    const add = (a: number, b: number): number =>
      addProducts(operandOf(f16, [a, a]), 0, operandOf(f16, [b, b]), 0, 2, 0, 25);
    expect(add(infinite, zero)).toBe(0x7fffffff);
    expect(add(infinite, one)).toBe(0x7f800000);
  });

  test("subnormals keep the exponent of the smallest normals", () => {
    expect(exponentTable(f16)[1]).toBe(-14);
    expect(exponentTable(e4m3)[0x7e]).toBe(8);
    expect(exponentTable(bf16)[0x3f80]).toBe(0);
  });
});
