/**
 * Nested tuples: a leaf or a list of nested tuples, `4` or `((2,4),8)`. The profile of a tuple is where its parentheses
 * stand. Shapes, strides, coordinates and tilers are all nested tuples.
 */
import { LayoutError } from "./errors.ts";

export type Nested<T> = T | readonly Nested<T>[];

export function isTuple<T>(tuple: Nested<T>): tuple is readonly Nested<T>[] {
  return Array.isArray(tuple);
}

/** The modes of a tuple; a leaf is its own single mode. */
export function wrap<T>(tuple: Nested<T>): readonly Nested<T>[] {
  return isTuple(tuple) ? tuple : [tuple];
}

/** Without the parentheses around a single mode: `((4))` is `4`. */
export function unwrap<T>(tuple: Nested<T>): Nested<T> {
  const [only] = wrap(tuple);
  return isTuple(tuple) && tuple.length === 1 && only !== undefined ? unwrap(only) : tuple;
}

/** All leaves, from left to right. */
export function leaves<T>(tuple: Nested<T>): readonly T[] {
  return isTuple(tuple) ? tuple.flatMap(leaves) : [tuple];
}

export function mapLeaves<T, U>(tuple: Nested<T>, f: (leaf: T) => U): Nested<U> {
  return isTuple(tuple) ? tuple.map((mode) => mapLeaves(mode, f)) : f(tuple);
}

/** The leaves of two tuples of one profile, paired. */
export function zipLeaves<T, U, V>(a: Nested<T>, b: Nested<U>, f: (x: T, y: U) => V): Nested<V> {
  if (isTuple(a)) return a.map((mode, i) => zipLeaves(mode, modeOf(b, i), f));
  if (isTuple(b)) throw new LayoutError(`${print(a)} and ${print(b)} differ in profile`);
  return f(a, b);
}

/**
 * The mode at a path. A leaf is its own mode 0.
 * @throws LayoutError when there is none
 */
export function modeOf<T>(tuple: Nested<T>, ...path: readonly number[]): Nested<T> {
  const [first, ...rest] = path;
  if (first === undefined) return tuple;
  const mode = wrap(tuple)[first];
  if (mode === undefined) throw new LayoutError(`${print(tuple)} has no mode ${first}`);
  return modeOf(mode, ...rest);
}

/**
 * A flat list of leaves with the parentheses of `profile`.
 * @throws LayoutError when their numbers differ
 */
export function unflattenLeaves<T>(flat: readonly T[], profile: Nested<unknown>): Nested<T> {
  const rest = [...flat];
  const result = mapLeaves(profile, () => {
    const leaf = rest.shift();
    if (leaf === undefined) throw new LayoutError(`${print(flat)} has too few modes for the profile ${print(profile)}`);
    return leaf;
  });
  if (rest.length) throw new LayoutError(`${print(flat)} has too many modes for the profile ${print(profile)}`);
  return result;
}

/** Whether two tuples have the same parentheses. */
export function sameProfile(a: Nested<unknown>, b: Nested<unknown>): boolean {
  if (!isTuple(a) || !isTuple(b)) return isTuple(a) === isTuple(b);
  return a.length === b.length && a.every((mode, i) => sameProfile(mode, b[i]));
}

/**
 * As CuTe prints tuples.
 * ```ts
 * print([[2, 4], 8]) // ((2,4),8)
 * print([_, 3]) // (_,3)
 * ```
 */
export function print(tuple: Nested<unknown>): string {
  return isTuple(tuple) ? `(${tuple.map(print).join(",")})` : tuple === null ? "_" : String(tuple);
}

/** A copy that nobody can change. */
export function frozen<T>(tuple: Nested<T>): Nested<T> {
  return isTuple(tuple) ? Object.freeze(tuple.map(frozen)) : tuple;
}
