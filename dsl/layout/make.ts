/** Constructors of layouts. */
import { makeBasisLike, type ScaledBasis, type StrideLeaf } from "./basis.ts";
import { compactMajor, compactOrder, type Order } from "./compact.ts";
import type { IntTuple } from "./int-tuple.ts";
import { ComposedLayout, Layout } from "./layout.ts";
import { concat, get, take } from "./modes.ts";
import type { Swizzle } from "./swizzle.ts";
import { mapLeaves, type Nested, zipLeaves } from "./tuple.ts";

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
 * A dense layout of the same shape whose modes are in the order of the layout's strides. Strides of 0 stay.
 * ```ts
 * makeLayoutLike(parseLayout("(2,3,4,5):(0,42,1,0)")) // (2,3,4,5):(0,4,1,0)
 * ```
 */
export function makeLayoutLike(layout: Layout): Layout {
  return new Layout(layout.shape, compactOrder(withoutZeros(layout), layout.stride));
}

/**
 * A layout for registers that hold a copy: like makeLayoutLike, but mode 0 is the densest, from left to right.
 * ```ts
 * makeFragmentLike(parseLayout("((2,2),4,8):((64,8),512,16)")) // ((2,2),4,8):((1,2),32,4)
 * ```
 */
export function makeFragmentLike(layout: Layout): Layout {
  const modes = Array.isArray(layout.shape) ? layout.shape.length : 1;
  if (modes === 1) return makeLayout(layout.shape);
  const first = get(layout, 0);
  const atom = compactMajor(withoutZeros(first), "left");
  const rest = take(layout, 1, modes);
  const size = mapLeaves(atom, (d) => d);
  void size;
  return concat([new Layout(first.shape, atom), rest]);
}

/**
 * The layout that maps each coordinate to itself: tile it like a tensor, and its elements say where they came from.
 * ```ts
 * makeIdentityLayout([4, 8]) // (4,8):(1@0,1@1)
 * ```
 */
export function makeIdentityLayout(shape: IntTuple): Layout<ScaledBasis> {
  return new Layout(shape, makeBasisLike(shape));
}

function withoutZeros({ shape, stride }: Layout): IntTuple {
  return zipLeaves(stride, shape, (step, extent) => (step === 0 ? 1 : extent));
}
