/**
 * Swizzles: a permutation of offsets that xors some bits of an offset onto others, so that a column of a row-major tile
 * in shared memory falls into different banks.
 *
 *   Sw<B,M,S>    0b ... YYY ... ZZZ ....     B bits ZZZ, above M untouched ones, are xored with the B bits YYY that
 *                       |---S---|  |-M-|     stand S places higher (lower for a negative S).
 */
import { LayoutError } from "./errors.ts";

/** `Sw<bits,base,shift>`, CuTe's Swizzle<B,M,S>. Immutable. */
export class Swizzle {
  readonly bits: number;
  readonly base: number;
  readonly shift: number;

  /** @throws LayoutError unless bits >= 0, base >= 0, |shift| >= bits and all of it fits into 31 bits */
  constructor(bits: number, base: number, shift: number) {
    const valid = [bits, base, shift].every(Number.isSafeInteger) && bits >= 0 && base >= 0 && Math.abs(shift) >= bits;
    if (!valid || (bits > 0 && base + Math.abs(shift) + bits > 31)) {
      throw new LayoutError(
        `Sw<${bits},${base},${shift}> is no swizzle: it needs bits >= 0, base >= 0, |shift| >= bits and 31 bits at most`,
      );
    }
    this.bits = bits;
    this.base = base;
    this.shift = shift + 0; // not a negative zero
    Object.freeze(this);
  }

  toString(): string {
    return `Sw<${this.bits},${this.base},${this.shift}>`;
  }
}

/** The bits that are read. */
export function sourceMask({ bits, base, shift }: Swizzle): number {
  return (2 ** bits - 1) * 2 ** (base + Math.max(0, shift));
}

/** The bits that change. */
export function targetMask({ bits, base, shift }: Swizzle): number {
  return (2 ** bits - 1) * 2 ** (base - Math.min(0, shift));
}

/**
 * A swizzled offset.
 * ```ts
 * applySwizzle(new Swizzle(2, 0, 3), 8) // 9
 * ```
 */
export function applySwizzle(swizzle: Swizzle, offset: number): number {
  // JavaScript's bit operations see 32 bits; what is above them doesn't take part.
  const low = ((offset % 2 ** 32) + 2 ** 32) % 2 ** 32;
  const source = (low & sourceMask(swizzle)) >>> 0;
  return offset - low + ((low ^ Math.floor(source / 2 ** swizzle.shift)) >>> 0);
}

/**
 * The swizzle that xors the bits `source` onto the bits `target`, if it is one.
 * ```ts
 * makeSwizzle(0b1000, 0b0100) // Sw<1,2,1>
 * makeSwizzle(0b11000000, 0b00000110) // Sw<2,1,5>
 * ```
 * @throws LayoutError when the bits differ in number or aren't adjacent
 */
export function makeSwizzle(source: number, target: number): Swizzle {
  const swizzle = findSwizzle(source, target);
  if (swizzle) return swizzle;
  throw new LayoutError(
    `No swizzle xors the bits 0b${source.toString(2)} onto 0b${target.toString(2)}`,
    "Both must be runs of equally many adjacent bits that don't overlap",
  );
}

/** As makeSwizzle, or undefined. */
export function findSwizzle(source: number, target: number): Swizzle | undefined {
  if (![source, target].every((mask) => Number.isSafeInteger(mask) && mask >= 0 && mask < 2 ** 31)) return undefined;
  const [from, to] = [trailingZeros(source), trailingZeros(target)];
  const bits = popcount(source);
  if (bits !== popcount(target) || Math.abs(from - to) < bits) return undefined;
  const swizzle = new Swizzle(bits, Math.min(from, to) % 32, from - to);
  return sourceMask(swizzle) === source && targetMask(swizzle) === target ? swizzle : undefined;
}

/** Swizzle a after swizzle b. @throws LayoutError when that isn't one swizzle */
export function mergeSwizzles(a: Swizzle, b: Swizzle): Swizzle {
  const one = findSwizzle(sourceMask(a) ^ sourceMask(b), targetMask(a) ^ targetMask(b));
  if (one && a.shift === b.shift) return one;
  throw new LayoutError(`composition: ${a} o ${b} is not one swizzle`, "Only swizzles of one shift merge");
}

function popcount(mask: number): number {
  return [...mask.toString(2)].filter((bit) => bit === "1").length;
}

/** 32 for 0. */
function trailingZeros(mask: number): number {
  return mask === 0 ? 32 : 31 - Math.clz32(mask & -mask);
}
