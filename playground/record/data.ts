/** Seeded operands of products, as bit patterns: kinds of data on which ways of adding differ. */
import { decode, type DType, encode, f32 } from "../../dsl/index.ts";
import { isNaNBits } from "../../dsl/numerics.ts";

/**
 * integers: exact in f32 whatever the order. normal: around 0, about 1 large. wide: every finite pattern alike, sums of any
 * size. cancellation: pairs of products that nearly cancel, neighbours or half of K apart, so that what was cut off shows.
 * subnormal: where exponents end. special: a few infinities, NaN, largest and smallest among normal ones.
 */
export const dataKinds = ["integers", "normal", "wide", "cancellation", "subnormal", "special"] as const;
export type DataKind = (typeof dataKinds)[number];

export type Random = () => number;

/** The operands of c + a * b^T, each row by row: a (M, K), b (N, K), c (M, N). */
export interface Operands {
  readonly a: readonly number[];
  readonly b: readonly number[];
  readonly c: readonly number[];
}

export interface ProductShape {
  readonly M: number;
  readonly N: number;
  readonly K: number;
  readonly a: DType;
  readonly b: DType;
  readonly c: DType;
}

const list = (count: number, next: (i: number) => number): number[] => Array.from({ length: count }, (_, i) => next(i));

/** About normal, mean 0 and variance 1/3: from sums alone, as functions of Math may differ between machines. */
export const normal = (random: Random): number => random() + random() + random() + random() - 2;

export function operandsOf({ M, N, K, a, b, c }: ProductShape, kind: DataKind, random: Random): Operands {
  if (a.kind === "signed") {
    const [word, byte] = [() => Math.floor(random() * 2 ** 32), () => Math.floor(random() * 256)];
    return { a: list(M * K, byte), b: list(N * K, byte), c: list(M * N, word) };
  }
  const [drawA, drawB] = [a, b].map((dtype) => () => element(dtype, kind, random)) as [Random, Random];
  const operands = { a: list(M * K, drawA), b: list(N * K, drawB), c: [] as number[] };
  if (kind === "cancellation") {
    cancel(operands.a, K, (bits) => opposite(a, bits, random));
    cancel(operands.b, K, (bits) => bits);
  }
  return { ...operands, c: list(M * N, () => addend(a, b, c, kind, random)) };
}

/** Gives one of each pair of a row's elements what the other makes of it. */
function cancel(elements: number[], K: number, partner: (bits: number) => number): void {
  for (const [i, bits] of elements.entries()) {
    const k = i % K;
    // The second quarter of a row with the last one; in the others neighbours.
    const apart = k >= K / 4 && k < K / 2 ? K / 2 : k % 2 === 0 && k < (3 * K) / 4 ? 1 : 0;
    if (apart > 0) elements[i + apart] = partner(bits);
  }
}

/** The negative, or its neighbour. */
function opposite(dtype: DType, bits: number, random: Random): number {
  const negative = (bits ^ (2 ** (8 * dtype.bytes - 1))) >>> 0;
  const near = random() < 0.5 ? negative : (negative ^ 1) >>> 0;
  return isFinite(dtype, near) ? near : negative;
}

function element(dtype: DType, kind: DataKind, random: Random): number {
  const { bytes, fractionBits, exponentBits } = dtype;
  const sign = random() < 0.5 ? 0 : 2 ** (8 * bytes - 1);
  switch (kind) {
    case "integers":
      return encode(dtype, bytes === 1 ? Math.floor(random() * 3) - 1 : Math.floor(random() * 9) - 4, "nosat");
    case "normal":
      return encode(dtype, normal(random), "nosat");
    case "wide":
      return finite(dtype, random);
    case "cancellation": {
      // Exponents within 8 of 1.
      const middle = 2 ** (exponentBits - 1) - 1;
      const exponent = middle + Math.floor(random() * Math.min(16, 2 * middle)) - Math.min(8, middle - 1);
      return sign + Math.min(exponent, 2 ** exponentBits - 2) * 2 ** fractionBits + below(2 ** fractionBits, random);
    }
    case "subnormal": {
      // The smallest normal ones too, and now and then 1.
      if (random() < 0.25) return encode(dtype, 1, "nosat") + sign;
      return sign + below(2 ** (fractionBits + 1), random);
    }
    case "special": {
      const infinity = (2 ** exponentBits - 1) * 2 ** fractionBits;
      const rare = [infinity, infinity + 1, infinity - 1, 1, 0, 2 ** (8 * bytes - 1) - 1];
      return random() < 1 / 32
        ? sign + (rare[below(rare.length, random)] ?? 0)
        : encode(dtype, normal(random), "nosat");
    }
  }
}

/** Of the size of a product. */
function addend(a: DType, b: DType, c: DType, kind: DataKind, random: Random): number {
  if (kind === "integers") return encode(c, below(2001, random) - 1000);
  if (kind === "normal" || kind === "special") return encode(c, normal(random), "nosat");
  if (kind === "subnormal" && random() < 0.5) return below(2 ** 24, random);
  const product = decode(a, element(a, kind, random)) * decode(b, element(b, kind, random)) * (random() + 0.5);
  const shift = kind === "cancellation" ? 2 ** -below(24, random) : 1;
  const bits = encode(c, product * shift, "satfinite");
  return Number.isFinite(product) ? bits : finite(f32, random);
}

/** Any finite pattern. */
function finite(dtype: DType, random: Random): number {
  const bits = below(2 ** (8 * dtype.bytes), random);
  // Without the lowest bit of the exponent it is neither infinite nor NaN.
  return isFinite(dtype, bits) ? bits : (bits ^ (2 ** dtype.fractionBits)) >>> 0;
}

function isFinite(dtype: DType, bits: number): boolean {
  return !isNaNBits(dtype, bits) && Number.isFinite(decode(dtype, bits));
}

export const below = (count: number, random: Random): number => Math.floor(random() * count);
