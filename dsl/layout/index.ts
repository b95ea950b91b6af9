/**
 * `tegula/layout`: CuTe's layout algebra. Layouts are functions from coordinates to offsets; tiles, partitions, fragments and
 * swizzles are made from one another by a few operations on them. No other part of Tegula is needed, nor Node.
 */
export { basis, makeBasisLike, ScaledBasis, type StrideLeaf } from "./basis.ts";
export { coalesce, filter, filterZeros } from "./coalesce.ts";
export { maxAlignment, maxCommonLayout, maxCommonVector } from "./common.ts";
export { compactMajor, compactOrder, type Order } from "./compact.ts";
export { complement } from "./complement.ts";
export { composition, type Tiler, withShape } from "./composition.ts";
export { crd2crd, crd2idx, idx2crd } from "./coordinate.ts";
export { flatDivide, logicalDivide, tiledDivide, zippedDivide } from "./divide.ts";
export { LayoutError } from "./errors.ts";
export {
  ceilDiv,
  compatible,
  congruent,
  elemLess,
  evenlyDivides,
  innerProduct,
  type IntTuple,
  prefixProduct,
  product,
  productEach,
  shapeDiv,
  weaklyCongruent,
} from "./int-tuple.ts";
export { leftInverse, nullspace, rightInverse } from "./inverse.ts";
export {
  type AnyLayout,
  ComposedLayout,
  coshape,
  cosize,
  depth,
  equal,
  Layout,
  rank,
  shape,
  size,
  stride,
} from "./layout.ts";
export { makeFragmentLike, makeLayoutLike } from "./like.ts";
export { makeComposedLayout, makeIdentityLayout, makeLayout, makeOrderedLayout } from "./make.ts";
export {
  _,
  append,
  dice,
  flatten,
  get,
  group,
  prepend,
  replace,
  select,
  type Slice,
  slice,
  sliceAndOffset,
  take,
  unflatten,
  zip,
} from "./modes.ts";
export { parse, parseLayout } from "./parse.ts";
export {
  blockedProduct,
  flatProduct,
  logicalProduct,
  rakedProduct,
  tiledProduct,
  tileToShape,
  zippedProduct,
} from "./product.ts";
export { downcast, recastLayout, upcast } from "./recast.ts";
export { show, type ShowOptions } from "./show.ts";
export { showSvg } from "./show-svg.ts";
export { applySwizzle, makeSwizzle, Swizzle } from "./swizzle.ts";
export type { Nested } from "./tuple.ts";
export { print } from "./tuple.ts";
