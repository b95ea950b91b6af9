/**
 * IntTuples: nested tuples of whole numbers, and arithmetic on them. As a shape, `(4,(2,3))` is a 4 x 6 grid whose columns
 * are themselves 2 x 3.
 */
import { LayoutError } from "./errors.ts";
import { isTuple, leaves, mapLeaves, modeOf, type Nested, print, sameProfile, wrap } from "./tuple.ts";

/** `number | readonly IntTuple[]` */
export type IntTuple = Nested<number>;

/**
 * How many elements a shape has.
 * ```ts
 * product([[2, 4], 8]) // 64
 * ```
 */
export function product(tuple: IntTuple): number {
  if (!isTuple(tuple)) return tuple;
  let result = 1;
  for (const mode of tuple) result *= product(mode);
  return result;
}

/**
 * The product of each mode.
 * ```ts
 * productEach([[2, 4], 8]) // (8,8)
 * ```
 */
export function productEach(tuple: IntTuple): readonly number[] {
  return wrap(tuple).map(product);
}

/**
 * The sum of the products of corresponding leaves.
 * ```ts
 * innerProduct([1, 2], [3, 2]) // 7
 * ```
 * @throws LayoutError when the profiles differ
 */
export function innerProduct(a: IntTuple, b: IntTuple): number {
  if (!sameProfile(a, b)) throw new LayoutError(`innerProduct: ${print(a)} and ${print(b)} differ in profile`);
  const others = leaves(b);
  return leaves(a).reduce((sum, x, i) => sum + x * (others[i] ?? 0), 0);
}

/**
 * For each leaf the product of all leaves to its left, times `first`.
 * ```ts
 * prefixProduct([[2, 3], 4]) // ((1,2),6)
 * ```
 */
export function prefixProduct(tuple: IntTuple, first = 1): IntTuple {
  let next = first;
  return mapLeaves(tuple, (leaf) => {
    const here = next;
    next *= leaf;
    return here;
  });
}

/**
 * Division that rounds up. A tuple is divided by a number from the left, each mode by what is left over.
 * ```ts
 * ceilDiv(17, 4) // 5
 * ceilDiv([9, 5], [4, 5]) // (3,1)
 * ceilDiv([32, 4, 4], 64) // (1,2,4)
 * ```
 */
export function ceilDiv(a: number, b: number): number;
export function ceilDiv(a: IntTuple, b: IntTuple): IntTuple;
export function ceilDiv(a: IntTuple, b: IntTuple): IntTuple {
  if (!isTuple(a)) return Math.ceil(a / product(b)) + 0;
  if (!isTuple(b)) return dividedFromLeft(a, b, (x, y) => ceilDiv(x, y));
  if (b.length > a.length) throw new LayoutError(`ceilDiv: ${print(b)} has more modes than ${print(a)}`);
  return a.map((mode, i) => ceilDiv(mode, b[i] ?? 1));
}

/**
 * Division of shapes: like ceilDiv, but one number must divide the other.
 * ```ts
 * shapeDiv([[3, 4], 6], 36) // ((1,1),2)
 * shapeDiv(4, 6) // LayoutError: shapeDiv: 4 and 6 don't divide each other
 * ```
 */
export function shapeDiv(a: number, b: number): number;
export function shapeDiv(a: IntTuple, b: IntTuple): IntTuple;
export function shapeDiv(a: IntTuple, b: IntTuple): IntTuple {
  if (isTuple(a)) {
    if (!isTuple(b)) return dividedFromLeft(a, b, (x, y) => shapeDiv(x, y));
    if (a.length !== b.length) throw new LayoutError(`shapeDiv: ${print(a)} and ${print(b)} differ in rank`);
    return a.map((mode, i) => shapeDiv(mode, modeOf(b, i)));
  }
  const divisor = product(b);
  if (a % divisor !== 0 && divisor % a !== 0) {
    throw new LayoutError(`shapeDiv: ${a} and ${divisor} don't divide each other`);
  }
  return Math.trunc(a / divisor) || Math.sign(a) * Math.sign(divisor);
}

function dividedFromLeft(a: readonly IntTuple[], by: number, divide: (x: IntTuple, y: IntTuple) => IntTuple): IntTuple {
  let rest: IntTuple = by;
  return a.map((mode) => {
    const result = divide(mode, rest);
    rest = divide(rest, mode);
    return result;
  });
}

/** The greatest common divisor, which is not negative; gcd(0, n) = n. */
export function gcd(...numbers: readonly number[]): number {
  return numbers.reduce((a, b) => {
    while (b !== 0) [a, b] = [b, a % b];
    return Math.abs(a);
  }, 0);
}

/**
 * Whether two tuples have the same parentheses.
 * ```ts
 * congruent([[2, 4], 8], [[1, 2], 8]) // true
 * ```
 */
export function congruent(a: IntTuple, b: IntTuple): boolean {
  return sameProfile(a, b);
}

/**
 * Whether b has the parentheses of a, and perhaps more inside its leaves.
 * ```ts
 * weaklyCongruent([8, 8], [[2, 4], 8]) // true
 * ```
 */
export function weaklyCongruent(a: IntTuple, b: IntTuple): boolean {
  if (!isTuple(a)) return true;
  return isTuple(b) && a.length === b.length && a.every((mode, i) => weaklyCongruent(mode, modeOf(b, i)));
}

/**
 * Whether every coordinate of shape a is also one of shape b, and the sizes agree.
 * ```ts
 * compatible([8, 8], [[2, 4], 8]) // true
 * compatible([[2, 4], 8], [8, 8]) // false
 * ```
 */
export function compatible(a: IntTuple, b: IntTuple): boolean {
  if (!isTuple(a)) return a === product(b);
  return isTuple(b) && a.length === b.length && a.every((mode, i) => compatible(mode, modeOf(b, i)));
}

/**
 * Whether each extent of b divides that of a.
 * ```ts
 * evenlyDivides([128, 64], [8, 64]) // true
 * evenlyDivides([128, 60], [8, 64]) // false
 * ```
 */
export function evenlyDivides(a: IntTuple, b: IntTuple): boolean {
  if (!isTuple(b)) return product(a) === b * product(ceilDiv(a, b));
  return b.length <= wrap(a).length && b.every((mode, i) => evenlyDivides(modeOf(a, i), mode));
}

/**
 * Whether every leaf of a is less than that of b: the test of predicates, with a coordinate and the bounds of a tensor.
 * ```ts
 * elemLess([3, 7], [4, 8]) // true
 * elemLess([3, 8], [4, 8]) // false
 * ```
 */
export function elemLess(a: IntTuple, b: IntTuple): boolean {
  if (!isTuple(a) || !isTuple(b)) return product(a) < product(b);
  return a.length <= b.length && a.every((mode, i) => elemLess(mode, modeOf(b, i)));
}
