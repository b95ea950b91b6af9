/** Strides of dense layouts: each element right after another, in an order of the modes. A mode of extent 1 has stride 0. */
import { LayoutError } from "./errors.ts";
import { type IntTuple, product } from "./int-tuple.ts";
import { isTuple, leaves, mapLeaves, modeOf, print, sameProfile, zipLeaves } from "./tuple.ts";

/** Which mode is dense: "left" is column-major, CuTe's LayoutLeft; "right" is row-major; or the rank of each mode. */
export type Order = "left" | "right" | IntTuple;

/**
 * Strides of a dense layout of a shape, the leftmost or the rightmost mode densest, from stride `first` on.
 * ```ts
 * compactMajor([[2, 4], 8], "left") // ((1,2),8)
 * compactMajor([[2, 4], 8], "right") // ((32,8),1)
 * ```
 */
export function compactMajor(shape: IntTuple, major: "left" | "right", first = 1): IntTuple {
  if (major === "right") return reversed(compactMajor(reversed(shape), "left", first));
  let next = first;
  return mapLeaves(shape, (extent) => {
    if (extent === 1) return 0;
    const here = next;
    next *= extent;
    return here;
  });
}

/**
 * Strides of a dense layout whose modes are ordered by the numbers in `order`, the smallest densest.
 * ```ts
 * compactOrder([2, 3, 4], [2, 1, 3]) // (3,1,6)
 * ```
 * @throws LayoutError unless shape and order have the same profile
 */
export function compactOrder(shape: IntTuple, order: Order): IntTuple {
  if (order === "left" || order === "right") return compactMajor(shape, order);
  if (!sameProfile(shape, order)) {
    throw new LayoutError(`The shape ${print(shape)} and the order ${print(order)} of its modes differ in profile`);
  }
  const extents = leaves(shape);
  const places = leaves(order);
  return zipLeaves(shape, order, (extent, place) =>
    extent === 1 ? 0 : product(extents.filter((_, i) => (places[i] ?? 0) < place)),
  );
}

function reversed(tuple: IntTuple): IntTuple {
  return isTuple(tuple) ? tuple.map((_, i) => reversed(modeOf(tuple, tuple.length - 1 - i))) : tuple;
}
