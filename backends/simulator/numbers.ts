/**
 * Arithmetic on single numbers that JavaScript's own doesn't give: f32 rounded once, truncated, and tables of what the
 * patterns of narrow types mean.
 */
import { type DType, type DTypeName, dtypes } from "../../dsl/dtype.ts";
import type { BinaryFn, UnaryFn } from "../../dsl/ir.ts";
import { decode } from "../../dsl/numerics.ts";

const largest = (2 - 2 ** -23) * 2 ** 127;
/** Halfway between the largest f32 and what would follow. */
const overflow = (2 - 2 ** -24) * 2 ** 127;

/** a * b + c of three f32, rounded once to nearest even. */
export function fma(a: number, b: number, c: number): number {
  const product = a * b; // exact: 24 + 24 bits
  const sum = product + c;
  const rounded = Math.fround(sum);
  const off = sum - rounded;
  // Rounding the rounded sum again is wrong only where it lies halfway between two f32, and not exactly.
  const neighbour = Math.abs(sum) === overflow ? Math.sign(sum) * largest : rounded + 2 * off;
  if (off === 0 || Math.fround(neighbour) !== neighbour) return rounded;
  const back = sum - product;
  const error = product - (sum - back) + (c - back);
  if (error === 0) return rounded;
  return error > 0 ? Math.max(rounded, neighbour) : Math.min(rounded, neighbour);
}

const word = new Int32Array(1);
const float = new Float32Array(word.buffer);

/** Bits of a float64 as an f32 with `fractionBits` of its 23, what is below cut off. */
export function truncatedBits(value: number, fractionBits: number): number {
  float[0] = value;
  let bits = word[0] ?? 0;
  // One step back towards zero; from infinity to the largest, unless 2^128 is reached.
  if (Math.abs(float[0] ?? 0) > Math.abs(value) && Math.abs(value) < 2 ** 128) bits--;
  return fractionBits < 23 && Number.isFinite(value) ? bits & -(2 ** (23 - fractionBits)) : bits;
}

/** The nearest whole number, ties to even; keeps the sign of zero. */
function round(x: number): number {
  const down = Math.floor(x);
  if (x - down !== 0.5) return Math.round(x);
  return (down % 2 === 0 ? down : down + 1) || 0 * x;
}

type OfOne = (a: number) => number;
type OfTwo = (a: number, b: number) => number;

/**
 * Results in float64, to be rounded to f32. That makes sqrt exact; exp, log, rsqrt and tanh are the nearest f32, or where
 * float64 can't tell, the one beside it. neg and abs are done on bits.
 */
export const floatUnary: { readonly [F in UnaryFn]?: OfOne } = {
  exp: Math.exp,
  log: Math.log,
  sqrt: Math.sqrt,
  rsqrt: (a) => 1 / Math.sqrt(a),
  tanh: Math.tanh,
  floor: Math.floor,
  ceil: Math.ceil,
  round,
};

/** Rounded to f32 once more these are right: float64 has more than twice its bits. */
const floatBinary: { readonly [F in BinaryFn]?: OfTwo } = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
  min: Math.min,
  max: Math.max,
};

/** Of i32 and u32, to be wrapped: what a typed array does by itself. As computeInteger (dsl/fold.ts), but quick. */
const integerBinary: { readonly [F in BinaryFn]?: OfTwo } = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: Math.imul,
  div: (a, b) => (b === 0 ? a : Math.trunc(a / b)),
  rem: (a, b) => (b === 0 ? 0 : a % b),
  min: Math.min,
  max: Math.max,
  and: (a, b) => a & b,
  or: (a, b) => a | b,
  xor: (a, b) => a ^ b,
  shl: (a, b) => a << (b & 31),
};

const comparisons: { readonly [F in BinaryFn]?: OfTwo } = {
  eq: (a, b) => Number(a === b),
  ne: (a, b) => Number(a !== b),
  lt: (a, b) => Number(a < b),
  le: (a, b) => Number(a <= b),
  gt: (a, b) => Number(a > b),
  ge: (a, b) => Number(a >= b),
};

/** A binary function on numbers of a dtype, its result to be stored in a typed array of the result's. */
export function binaryFn(fn: BinaryFn, dtype: DType): OfTwo {
  if (fn === "shr") return dtype.kind === "signed" ? (a, b) => a >> (b & 31) : (a, b) => a >>> (b & 31);
  const compute = comparisons[fn] ?? (dtype.kind === "float" ? floatBinary : integerBinary)[fn];
  if (!compute) throw new RangeError(`there is no ${fn} of ${dtype.name}`);
  return compute;
}

export function popcount(bits: number): number {
  let count = 0;
  for (let rest = bits; rest !== 0; rest &= rest - 1) count++;
  return count;
}

const values = new Map<DTypeName, Float32Array>();

/** The value of each pattern of a float type of 1 or 2 bytes. */
export function valueTable({ name, bytes }: DType): Float32Array {
  let table = values.get(name);
  if (!table) {
    table = Float32Array.from({ length: 2 ** (8 * bytes) }, (_, bits) => decode(dtypes[name], bits));
    values.set(name, table);
  }
  return table;
}

/** Exponents of zeros in sums: smaller than any other. */
const exponentOfZero = -1000;
const exponents = new Map<DTypeName, Int16Array>();

/** The exponent of each pattern; subnormals share that of the smallest normals. */
export function exponentTable(dtype: DType): Int16Array {
  const { name, bytes, exponentBits, fractionBits } = dtype;
  let table = exponents.get(name);
  if (!table) {
    const bias = 2 ** (exponentBits - 1) - 1;
    const decoded = valueTable(dtype);
    table = Int16Array.from({ length: 2 ** (8 * bytes) }, (_, bits) => {
      const field = (bits >> fractionBits) & (2 ** exponentBits - 1);
      return decoded[bits] === 0 ? exponentOfZero : Math.max(field, 1) - bias;
    });
    exponents.set(name, table);
  }
  return table;
}

/** The same of an f32's bits. */
export function exponentOf(bits: number): number {
  return (bits & 0x7fffffff) === 0 ? exponentOfZero : Math.max((bits >>> 23) & 0xff, 1) - 127;
}

/** A small seeded generator of uniform numbers in [0, 1): xorshift32. */
export function randomFrom(seed: number): () => number {
  // Seeds near to each other must not begin alike.
  let state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}
