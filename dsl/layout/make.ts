/** Constructors of layouts. */
import { makeBasisLike, type StrideLeaf } from "./basis.ts";
import { compactMajor, compactOrder, type Order } from "./compact.ts";
import type { IntTuple } from "./int-tuple.ts";
import { ComposedLayout, Layout } from "./layout.ts";
import { concat } from "./modes.ts";
import type { Swizzle } from "./swizzle.ts";
import type { Nested } from "./tuple.ts";

/**
 * A layout from a shape (column-major, or of the order given), from a shape and strides, or from the layouts of its modes.
 * ```ts
 * makeLayout([[2, 4], 8]) // ((2,4),8):((1,2),8)
 * makeLayout([4, 8], "right") // (4,8):(8,1)
 * makeLayout([4, 8], [1, 16]) // (4,8):(1,16)
 * makeLayout(parseLayout("4:1"), parseLayout("(2,3):(4,8)")) // (4,(2,3)):(1,(4,8))
 * ```
 * @throws LayoutError unless shape and stride have the same parentheses
 */
export function makeLayout(shape: IntTuple, major?: "left" | "right"): Layout;
export function makeLayout<D extends StrideLeaf>(shape: IntTuple, stride: Nested<D>): Layout<D>;
export function makeLayout<D extends StrideLeaf>(...modes: readonly [Layout<D>, ...Layout<D>[]]): Layout<D>;
export function makeLayout(
  ...args: readonly (Layout<StrideLeaf> | Nested<StrideLeaf> | string | undefined)[]
): Layout<StrideLeaf> {
  const modes = args.filter((arg) => arg instanceof Layout);
  if (modes.length) return concat(modes);
  const [shape, stride = "left"] = args as readonly [IntTuple, Nested<StrideLeaf> | "left" | "right" | undefined];
  return new Layout(shape, stride === "left" || stride === "right" ? compactMajor(shape, stride) : stride);
}

/**
 * `layoutA o offset o layoutB`: an offset of layoutB, plus `offset`, through layoutA.
 * ```ts
 * makeComposedLayout(new Swizzle(2, 0, 3), 0, makeLayout([8, 8], "right")) // Sw<2,0,3> o 0 o (8,8):(8,1)
 * ```
 */
export function makeComposedLayout(
  layoutA: Swizzle | Layout | ComposedLayout,
  offset: number,
  layoutB: Layout | ComposedLayout,
): ComposedLayout {
  return new ComposedLayout(layoutA, offset, layoutB);
}

/**
 * A dense layout whose modes are ordered by the numbers in `order`, the smallest densest.
 * ```ts
 * makeOrderedLayout([2, 3, 4], [2, 1, 3]) // (2,3,4):(3,1,6)
 * ```
 */
export function makeOrderedLayout(shape: IntTuple, order: Order): Layout {
  return new Layout(shape, compactOrder(shape, order));
}

/**
 * The layout that maps each coordinate to itself: tile it like a tensor, and its elements say where they came from.
 * ```ts
 * makeIdentityLayout([4, 8]) // (4,8):(1@0,1@1)
 * ```
 */
export function makeIdentityLayout(shape: IntTuple): Layout<StrideLeaf> {
  return new Layout(shape, makeBasisLike(shape));
}
