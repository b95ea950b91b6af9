/** From coordinates to offsets and back. */
import { addCoordinates, coordinateOf, scaled, type StrideLeaf } from "./basis.ts";
import { LayoutError } from "./errors.ts";
import { type IntTuple, prefixProduct, product } from "./int-tuple.ts";
import { type AnyLayout, ComposedLayout, Layout } from "./layout.ts";
import { applySwizzle, Swizzle } from "./swizzle.ts";
import { isTuple, modeOf, type Nested, print } from "./tuple.ts";

/**
 * Where a layout puts the element at a coordinate: a number counted from the left, a coordinate of the layout's profile, or
 * anything between. A layout with scaled bases gives a coordinate. Of a mere shape: the number of the coordinate.
 * ```ts
 * crd2idx([[1, 3], 2], parse("((2,4),8):((1,2),8)")) // 23
 * crd2idx([1, 2], parse("((2,4),8):((8,16),1)")) // 10
 * crd2idx(17, parse("((2,4),8):((8,16),1)")) // 10
 * crd2idx([1, 2], parse("(4,8):(1@1,1@0)")) // (2,1)
 * crd2idx([1, 2], [4, 8]) // 9
 * ```
 * @throws LayoutError when the coordinate doesn't fit the shape
 */
export function crd2idx(coord: IntTuple, layout: Layout | ComposedLayout): number;
export function crd2idx(coord: IntTuple, layout: AnyLayout | IntTuple): IntTuple;
export function crd2idx(coord: IntTuple, layout: AnyLayout | IntTuple): IntTuple {
  if (layout instanceof ComposedLayout) {
    const offset = layout.offset + crd2idx(coord, layout.layoutB);
    return layout.layoutA instanceof Swizzle ? applySwizzle(layout.layoutA, offset) : crd2idx(offset, layout.layoutA);
  }
  if (layout instanceof Layout) return step(coord, layout.shape, layout.stride);
  return step(coord, layout, prefixProduct(layout));
}

/** A number runs through the modes from the left; it may pass the end of the last one. */
function step(coord: IntTuple, shape: IntTuple, stride: Nested<StrideLeaf>): IntTuple {
  if (!isTuple(shape)) {
    if (isTuple(coord) || isTuple(stride)) {
      throw new LayoutError(`The coordinate ${print(coord)} is more deeply nested than the shape ${print(shape)}`);
    }
    return coordinateOf(scaled(stride, coord));
  }
  if (isTuple(coord) && coord.length !== shape.length) {
    throw new LayoutError(`The coordinate ${print(coord)} doesn't have the rank of the shape ${print(shape)}`);
  }
  let rest = coord;
  let result: IntTuple = 0;
  for (const [i, mode] of shape.entries()) {
    let here = isTuple(rest) ? modeOf(rest, i) : rest;
    if (!isTuple(rest) && i < shape.length - 1) {
      const extent = product(mode);
      here = rest % extent;
      rest = Math.trunc(rest / extent);
    }
    result = addCoordinates(result, step(here, mode, modeOf(stride, i)));
  }
  return result;
}

/**
 * The coordinate with a number, in a shape; or the coordinate that a compact layout maps to it.
 * ```ts
 * idx2crd(17, [[2, 4], 8]) // ((1,0),2)
 * idx2crd(17, parseLayout("(4,8):(8,1)")) // (2,1)
 * ```
 */
export function idx2crd(index: number, of: IntTuple | Layout): IntTuple {
  if (of instanceof Layout) return split(index, of.shape, of.stride);
  return isTuple(of) ? split(index, of, prefixProduct(of)) : index;
}

function split(index: number, shape: IntTuple, stride: IntTuple): IntTuple {
  if (isTuple(shape)) return shape.map((mode, i) => split(index, mode, modeOf(stride, i)));
  return shape === 1 || isTuple(stride) ? 0 : (Math.trunc(index / stride) % shape) + 0;
}

/**
 * A coordinate of one shape as the coordinate with the same number in another.
 * ```ts
 * crd2crd([1, 2], [4, 8], [2, 16]) // (1,4)
 * ```
 */
export function crd2crd(coord: IntTuple, from: IntTuple, to: IntTuple): IntTuple {
  if (isTuple(coord) && isTuple(from) && isTuple(to) && from.length === to.length) {
    const bothFit = from.every((mode, i) => product(mode) === product(modeOf(to, i)));
    if (bothFit) return coord.map((mode, i) => crd2crd(mode, modeOf(from, i), modeOf(to, i)));
  }
  const index = crd2idx(coord, from);
  if (isTuple(index)) throw new LayoutError(`The coordinate ${print(coord)} doesn't fit the shape ${print(from)}`);
  return idx2crd(index, to);
}
