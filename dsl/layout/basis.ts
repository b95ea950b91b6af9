/**
 * Scaled basis elements, the strides of identity tensors: `3@1` steps by 3 along mode 1 of a coordinate. A layout with
 * such strides maps to coordinates instead of numbers.
 */
import { LayoutError } from "./errors.ts";
import type { IntTuple } from "./int-tuple.ts";
import { isTuple, type Nested, print } from "./tuple.ts";

/** `value` times the unit vector of the mode at `path`. */
export class ScaledBasis {
  readonly value: number;
  readonly path: readonly number[];

  /** @throws LayoutError unless all are whole numbers and the path names a mode */
  constructor(value: number, path: readonly number[]) {
    if (!path.length || ![value, ...path].every(Number.isSafeInteger) || path.some((mode) => mode < 0)) {
      throw new LayoutError(
        `A scaled basis is a whole number of steps along a mode, not ${[value, ...path].join("@")}`,
      );
    }
    this.value = value;
    this.path = Object.freeze([...path]);
    Object.freeze(this);
  }

  /** Innermost mode first, as in CuTe: path [0, 1] is `1@1@0`. */
  toString(): string {
    return [this.value, ...this.path.toReversed()].join("@");
  }
}

/** A stride: a number or a scaled basis element. */
export type StrideLeaf = number | ScaledBasis;

/**
 * The unit vector of the mode at a path.
 * ```ts
 * basis(1) // 1@1
 * basis(0, 2) // 1@2@0
 * ```
 */
export function basis(...path: readonly number[]): ScaledBasis {
  return new ScaledBasis(1, path);
}

/**
 * The strides that map each coordinate of a shape to itself.
 * ```ts
 * makeBasisLike([4, [2, 3]]) // (1@0,(1@0@1,1@1@1))
 * ```
 */
export function makeBasisLike(shape: IntTuple, ...path: readonly number[]): Nested<StrideLeaf> {
  if (isTuple(shape)) return shape.map((mode, i) => makeBasisLike(mode, ...path, i));
  return path.length ? basis(...path) : 1;
}

/** The number of steps in a stride. */
export const valueOf = (stride: StrideLeaf): number => (typeof stride === "number" ? stride : stride.value);

/** The mode that a stride steps along; a number steps along the whole codomain. */
export const pathOf = (stride: StrideLeaf): readonly number[] => (typeof stride === "number" ? [] : stride.path);

export function withValue(stride: StrideLeaf, value: number): StrideLeaf {
  return typeof stride === "number" ? value : new ScaledBasis(value, stride.path);
}

/** A stride times a number. Adding 0 makes a negative zero positive. */
export const scaled = (stride: StrideLeaf, by: number): StrideLeaf => withValue(stride, valueOf(stride) * by + 0);

export function sameStride(a: StrideLeaf, b: StrideLeaf): boolean {
  return valueOf(a) === valueOf(b) && pathOf(a).join() === pathOf(b).join();
}

/** A stride as a coordinate: `3@1` is `(0,3)`. */
export function coordinateOf(stride: StrideLeaf): IntTuple {
  return pathOf(stride).reduceRight<IntTuple>(
    (inner, mode) => [...Array<number>(mode).fill(0), inner],
    valueOf(stride),
  );
}

/**
 * The sum of two coordinates. Missing modes are 0.
 * @throws LayoutError for a number and a tuple
 */
export function addCoordinates(a: IntTuple, b: IntTuple): IntTuple {
  if (!isTuple(a) && !isTuple(b)) return a + b;
  if (a === 0) return b;
  if (b === 0) return a;
  if (!isTuple(a) || !isTuple(b)) {
    throw new LayoutError(
      `The coordinates ${print(a)} and ${print(b)} don't add: one is a number, the other a tuple`,
      "Strides of one layout are either all numbers or all scaled bases of modes that don't contain each other",
    );
  }
  const length = Math.max(a.length, b.length);
  return Array.from({ length }, (_, i) => addCoordinates(a[i] ?? 0, b[i] ?? 0));
}
