/**
 * Oracles: which results of a kernel are right. O1 compares bits, on data that is exact in every order of summation. O2
 * accepts an interval around float64 that covers every order of f32 summation, and nothing wider. NaN never passes.
 */
import { type DType, decode, encode, HostTensor } from "../dsl/index.ts";

/** Half the distance between 1 and the next f32. */
const unitRoundoff = 2 ** -24;

/** What O2 must know about how a sum was made. */
export interface SummationModel {
  /** Terms per element: K of a GEMM. */
  readonly terms: number;
  /** Partial sums that are combined: threads or warps times splits. */
  readonly partials: number;
  /** WGSL devices may round the product and the sum of an fma separately, and flush subnormals. */
  readonly device: "cuda" | "wgsl" | "simulator";
}

/** One element that is out of its interval. */
export interface Difference {
  readonly index: readonly number[];
  readonly actual: number;
  readonly expected: number;
  readonly low: number;
  readonly high: number;
}

export interface Verdict {
  readonly ok: boolean;
  /** The first element, in row-major order, outside its interval. */
  readonly first: Difference | undefined;
  readonly wrong: number;
  /** The largest |actual - expected| as a share of what its interval allows; at most 1 where ok. */
  readonly worstShare: number;
  readonly worstError: number;
}

/**
 * O2: accepts `actual` where it lies in [round(c - B), round(c + B)] in its dtype, B = (K + s + 4) * 2^-24 * sum |a||b|.
 * `exact` and `magnitudes` are c and sum |a||b| per element, in float64.
 */
export function checkInterval(
  actual: HostTensor,
  exact: Float64Array,
  magnitudes: Float64Array,
  { terms, partials, device }: SummationModel,
): Verdict {
  const relative = (terms + partials + 4) * unitRoundoff;
  return judge(actual, (i) => {
    const bound = relative * (magnitudes[i] ?? 0);
    const wide = device === "wgsl" ? 2 * bound + terms * 2 ** -126 : bound;
    return { expected: exact[i] ?? Number.NaN, bound: wide };
  });
}

/** Accepts `actual` within `bound(i)` of `expected[i]`, both ends rounded to the dtype. */
export function checkWithin(actual: HostTensor, expected: Float64Array, bound: (i: number) => number): Verdict {
  return judge(actual, (i) => ({ expected: expected[i] ?? Number.NaN, bound: bound(i) }));
}

/** O1: bit for bit, after one rounding of the exact value. */
export function checkBits(actual: HostTensor, exact: Float64Array): Verdict {
  return judge(actual, (i) => ({ expected: exact[i] ?? Number.NaN, bound: 0 }));
}

function judge(actual: HostTensor, expectation: (i: number) => { expected: number; bound: number }): Verdict {
  const values = actual.values();
  let [wrong, worstShare, worstError] = [0, 0, 0];
  let first: Difference | undefined;
  values.forEach((value, i) => {
    const { expected, bound } = expectation(i);
    const [low, high] = [round(actual.dtype, expected - bound), round(actual.dtype, expected + bound)];
    const error = Math.abs(value - expected);
    if (error > worstError) worstError = error;
    const room = Math.max(high - expected, expected - low);
    if (error > 0) worstShare = Math.max(worstShare, error / room);
    if (value >= low && value <= high) return;
    wrong++;
    first ??= { index: unravel(i, actual.shape), actual: value, expected, low, high };
  });
  return { ok: wrong === 0, first, wrong, worstShare, worstError };
}

function round(dtype: DType, value: number): number {
  return decode(dtype, encode(dtype, value, dtype.bytes === 1 ? "satfinite" : "nosat"));
}

function unravel(i: number, shape: readonly number[]): readonly number[] {
  const index: number[] = [];
  for (const size of shape.toReversed()) {
    index.unshift(i % size);
    i = Math.floor(i / size);
  }
  return index;
}

/** A small seeded generator of uniform numbers in [0, 1): mulberry32. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Kinds of data. Each finds errors that others hide: cancellation, subnormals, extremes, zeros. */
export const dataClasses = ["uniform", "normal", "logUniform", "subnormal", "extreme", "sparse", "integers"] as const;
export type DataClass = (typeof dataClasses)[number];

/** A tensor of one class. "integers" is small enough to be exact in f32 whatever the order (O1). */
export function randomTensor<N extends "bf16" | "e4m3" | "f32">(
  dtype: DType<N>,
  shape: readonly number[],
  kind: DataClass,
  random: () => number,
): HostTensor<N> {
  const sign = (): number => (random() < 0.5 ? -1 : 1);
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const smallest = dtype.name === "e4m3" ? 2 ** -9 : 2 ** -133;
  // Products of two of these stay finite in f32 even when K of them are added.
  const largest = dtype.name === "e4m3" ? 448 : 2 ** 55;
  const draw: { readonly [K in DataClass]: () => number } = {
    uniform: random,
    normal,
    logUniform: () => sign() * 2 ** (random() * 16 - 8),
    subnormal: () => sign() * smallest * Math.floor(random() * 8),
    extreme: () => sign() * largest,
    sparse: () => (random() < 0.75 ? 0 : normal()),
    integers: () => Math.floor(random() * (dtype.name === "e4m3" ? 3 : 9)) - (dtype.name === "e4m3" ? 1 : 4),
  };
  const next = draw[kind];
  const count = shape.reduce((a, b) => a * b, 1);
  return HostTensor.from(dtype, shape, Float64Array.from({ length: count }, next));
}
