/** Integer arithmetic on ranges and divisors: what each operation makes of what is known about its operands. */
import type { BinaryFn } from "../ir.ts";
import { gcd } from "../size.ts";

export interface Range {
  readonly min: number;
  readonly max: number;
}

export interface Divisible extends Range {
  /** 0 for the constant 0, which is a multiple of everything. */
  readonly multipleOf: number;
}

/** Their exact result may need more than 32 bits: -2^31 / -1 does. */
export const wrapping: ReadonlySet<string> = new Set(["add", "sub", "mul", "div", "shl"]);

/** Rising or falling in each operand, so that corner values of the operands give corner values of the result. */
export const monotone: ReadonlySet<string> = new Set(["add", "sub", "mul", "div", "min", "max", "shl", "shr"]);

/** Values among which the extremes lie, or undefined. */
export function cornersOf(fn: BinaryFn, a: Range, b: Range): readonly number[] | undefined {
  const pairs = [
    [a.min, b.min],
    [a.min, b.max],
    [a.max, b.min],
    [a.max, b.max],
  ] as const;
  switch (fn) {
    case "add":
      return pairs.map(([x, y]) => x + y);
    case "sub":
      return pairs.map(([x, y]) => x - y);
    case "mul":
      return pairs.map(([x, y]) => x * y);
    case "min":
      return [Math.min(a.min, b.min), Math.min(a.max, b.max)];
    case "max":
      return [Math.max(a.min, b.min), Math.max(a.max, b.max)];
    case "div":
      return b.min >= 1 ? pairs.map(([x, y]) => Math.trunc(x / y)) : undefined;
    case "rem":
      return b.min >= 1 && a.min >= 0 ? [0, Math.min(a.max, b.max - 1)] : undefined;
    case "and": {
      // Clears bits of whichever is not negative.
      const bounds = [a, b].filter(({ min }) => min >= 0).map(({ max }) => max);
      return bounds.length > 0 ? [0, Math.min(...bounds)] : undefined;
    }
    case "shl":
    case "shr": {
      const by = shiftCounts(b);
      const shift = (x: number, y: number): number => (fn === "shl" ? x * 2 ** y : Math.floor(x / 2 ** y));
      return by && [a.min, a.max].flatMap((x) => [shift(x, by.min), shift(x, by.max)]);
    }
    case "or":
    case "xor":
      return a.min >= 0 && b.min >= 0 ? [0, 2 ** Math.ceil(Math.log2(Math.max(a.max, b.max) + 1)) - 1] : undefined;
    default:
      return undefined;
  }
}

/** Counts are taken modulo 32; undefined where they may wrap around at some point in between. */
function shiftCounts({ min, max }: Range): Range | undefined {
  if (min >= 0 && max <= 31) return { min, max };
  return min === max ? { min: min & 31, max: min & 31 } : undefined;
}

/** What divides the exact result, before it wraps; 0 for 0. */
export function divisor(fn: BinaryFn, a: Divisible, b: Divisible): number {
  const constant = b.min === b.max ? b.min : undefined;
  const quotient = (by: number): number => (a.multipleOf % by === 0 ? a.multipleOf / by : 1);
  switch (fn) {
    case "add":
    case "sub":
    case "min":
    case "max":
    case "rem": // a - q * b
      return gcd(a.multipleOf, b.multipleOf);
    case "mul": {
      const product = a.multipleOf * b.multipleOf;
      // Beyond 2^53 only powers of two are exact.
      return Number.isSafeInteger(product) ? product : lowestBit(a.multipleOf) * lowestBit(b.multipleOf);
    }
    case "shl": {
      const product = a.multipleOf * 2 ** (shiftCounts(b)?.min ?? 0);
      return Number.isSafeInteger(product) ? product : lowestBit(product);
    }
    case "shr":
      return constant === undefined ? 1 : quotient(2 ** (constant & 31));
    case "div":
      return constant !== undefined && constant >= 1 ? quotient(constant) : 1;
    case "and": {
      // x & ~7 is a multiple of 8.
      const bits = [a.multipleOf, b.multipleOf].map(lowestBit);
      return bits.includes(0) ? 0 : Math.max(...bits);
    }
    case "or":
    case "xor":
      return gcd(lowestBit(a.multipleOf), lowestBit(b.multipleOf));
    default:
      return 1;
  }
}

/** The largest power of two that divides; 0 for 0. */
export function lowestBit(value: number): number {
  if (value === 0) return 0;
  let bit = 1;
  while (value % (bit * 2) === 0) bit *= 2;
  return bit;
}
