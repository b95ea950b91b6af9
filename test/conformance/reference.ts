/**
 * What operations mean, written a second time: plain TypeScript on one number at a time. Integers are computed without
 * bounds and wrapped; f32 is computed in float64, which rounded once more is right for + - * / and sqrt.
 */
import type { DTypeName } from "../../dsl/index.ts";
import { decode, dtypes, encode } from "../../dsl/index.ts";
import type { BinaryFn, UnaryFn } from "../../dsl/ir.ts";

export type Numeric = "f32" | "i32" | "u32" | "bool";

const smallestNormal = 2 ** -126;
const isSubnormal = (x: number): boolean => x !== 0 && Math.abs(x) < smallestNormal;

export const toBits = (dtype: DTypeName, value: number): number => encode(dtypes[dtype], value, "nosat");
export const fromBits = (dtype: DTypeName, bits: number): number => decode(dtypes[dtype], bits);

/** The integer as i32 or u32 holds it. */
export function wrap(dtype: "i32" | "u32", value: bigint): number {
  return Number(dtype === "i32" ? BigInt.asIntN(32, value) : BigInt.asUintN(32, value));
}

export function binary(fn: BinaryFn, dtype: Numeric, a: number, b: number): number {
  switch (fn) {
    case "eq":
      return Number(a === b);
    case "ne":
      return Number(a !== b);
    case "lt":
      return Number(a < b);
    case "le":
      return Number(a <= b);
    case "gt":
      return Number(a > b);
    case "ge":
      return Number(a >= b);
    case "min":
      return Math.min(a, b);
    case "max":
      return Math.max(a, b);
    default:
      if (dtype === "f32") return float(fn, a, b);
      return dtype === "bool" ? Number(bits(fn, BigInt(a), BigInt(b))) : integer(fn, dtype, BigInt(a), BigInt(b));
  }
}

function float(fn: BinaryFn, a: number, b: number): number {
  const results: { readonly [F in BinaryFn]?: number } = { add: a + b, sub: a - b, mul: a * b, div: a / b };
  return Math.fround(results[fn] ?? fail(fn));
}

function integer(fn: BinaryFn, dtype: "i32" | "u32", a: bigint, b: bigint): number {
  switch (fn) {
    case "add":
      return wrap(dtype, a + b);
    case "sub":
      return wrap(dtype, a - b);
    case "mul":
      return wrap(dtype, a * b);
    case "div":
      return wrap(dtype, b === 0n ? a : a / b);
    case "rem":
      return wrap(dtype, b === 0n ? 0n : a % b);
    case "shl":
      return wrap(dtype, a << BigInt.asUintN(5, b));
    case "shr":
      return wrap(dtype, a >> BigInt.asUintN(5, b));
    default:
      return wrap(dtype, bits(fn, a, b));
  }
}

function bits(fn: BinaryFn, a: bigint, b: bigint): bigint {
  return { and: a & b, or: a | b, xor: a ^ b }[fn as string] ?? fail(fn);
}

export function unary(fn: UnaryFn, dtype: Numeric, a: number): number {
  switch (fn) {
    case "neg":
      return dtype === "i32" ? wrap(dtype, -BigInt(a)) : -a;
    case "abs":
      return dtype === "i32" ? wrap(dtype, a < 0 ? -BigInt(a) : BigInt(a)) : Math.abs(a);
    case "not":
      return dtype === "bool" ? 1 - a : wrap(dtype as "i32", ~BigInt(a));
    case "popcount":
      return (a >>> 0).toString(2).replaceAll("0", "").length;
    case "clz":
      return Math.clz32(a);
    case "round": {
      const down = Math.floor(a);
      return a - down === 0.5 ? (down % 2 === 0 ? down : down + 1) || 0 * a : Math.round(a);
    }
    case "rsqrt":
      return 1 / Math.sqrt(a);
    default:
      return Math[fn](a);
  }
}

/** a * b + c, rounded once. */
export function fma(a: number, b: number, c: number): number {
  const product = a * b; // exact: 24 + 24 bits
  const sum = product + c;
  if (!Number.isFinite(sum)) return sum;
  const back = sum - product;
  const error = product - (sum - back) + (c - back);
  return Math.fround(error === 0 ? sum : roundedToOdd(sum, error));
}

/** `sum` is the nearest float64 to sum + error; of the two around that the one whose last bit is set. */
function roundedToOdd(sum: number, error: number): number {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, sum);
  const word = view.getBigInt64(0);
  if (word & 1n) return sum;
  view.setBigInt64(0, word + (error > 0 === sum > 0 ? 1n : -1n));
  return view.getFloat64(0);
}

/** A conversion, from a dtype's value to a value of the other. */
export function convert(from: DTypeName, to: DTypeName, value: number): number {
  if (to === "bool") return Number(value !== 0);
  const target = dtypes[to];
  if (target.kind === "float") {
    return fromBits(to, encode(target, Math.fround(value), target.bytes === 1 ? "satfinite" : "nosat"));
  }
  if (dtypes[from].kind === "float") {
    const [low, high] = integerRange(to);
    return Number.isNaN(value) ? 0 : Math.min(Math.max(Math.trunc(value), low), high) + 0;
  }
  const width = 8 * target.bytes;
  return Number(target.kind === "signed" ? BigInt.asIntN(width, BigInt(value)) : BigInt.asUintN(width, BigInt(value)));
}

function integerRange(dtype: DTypeName): readonly [number, number] {
  const { kind, bytes } = dtypes[dtype];
  const span = 2 ** (8 * bytes);
  return kind === "signed" ? [-span / 2, span / 2 - 1] : [0, span - 1];
}

/**
 * The results that an f32 operation may have: the exact one, and on WGSL, whose devices may flush subnormal operands and
 * results to zero of either sign, those where any of them are flushed.
 */
export function allowed(
  flushes: boolean,
  compute: (...operands: number[]) => number,
  operands: readonly number[],
): readonly number[] {
  if (!flushes) return [compute(...operands)];
  const choices = operands.reduce<readonly (readonly number[])[]>(
    (lists, x) => lists.flatMap((list) => (isSubnormal(x) ? [x, 0, -0] : [x]).map((y) => [...list, y])),
    [[]],
  );
  const results = choices.map((choice) => compute(...choice));
  return results.flatMap((x) => (isSubnormal(x) ? [x, 0, -0] : [x]));
}

/** Equal to the bit, or both NaN. */
export const same = (a: number, b: number): boolean => Object.is(a, b);

/** Distance between neighbouring f32 at x. */
export function ulp(x: number): number {
  const exponent = Math.floor(Math.log2(Math.min(Math.max(Math.abs(x), smallestNormal), 2 ** 127)));
  return 2 ** (exponent - 23);
}

function fail(fn: string): never {
  throw new Error(`no reference for ${fn}`);
}
