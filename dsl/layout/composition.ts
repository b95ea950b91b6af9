/**
 * Composition: `R = A o B`, the layout with R(c) = A(B(c)) for every coordinate c of B.
 *
 * B's modes are composed one by one, so B is s:d here: s elements of A, d apart. With A = (a0,a1,..):(e0,e1,..) flat:
 * walking in steps of d crosses mode 0 every a0/d steps, if d divides a0, so the result has a mode (a0/d):(e0*d) and then
 * single steps through mode 1. If a0 divides d, every step skips mode 0 and makes d/a0 steps in mode 1. In any other case
 * the steps through mode 0 don't repeat, and no layout describes them.
 */
import { pathOf, scaled, type StrideLeaf, valueOf } from "./basis.ts";
import { flatModes, fromModes, merged, type Mode } from "./coalesce.ts";
import { crd2idx } from "./coordinate.ts";
import { LayoutError } from "./errors.ts";
import type { IntTuple } from "./int-tuple.ts";
import { type AnyLayout, ComposedLayout, domainOf, Layout, onDomain, size } from "./layout.ts";
import { makeLayout } from "./make.ts";
import { concat, get, modesOf } from "./modes.ts";
import { applySwizzle, makeSwizzle, mergeSwizzles, sourceMask, Swizzle, targetMask } from "./swizzle.ts";
import { isTuple, modeOf, type Nested, print } from "./tuple.ts";

/**
 * What to take of a layout: a layout of its elements, the first n (a number), all (the underscore, null), or one tiler
 * for each mode.
 */
export type Tiler = Nested<number | null | Layout<StrideLeaf>>;

/**
 * The layout a(b(c)). A tuple of tilers composes mode by mode and drops the modes of a that it doesn't name.
 * ```ts
 * composition(parse("(6,2):(8,2)"), parseLayout("(4,3):(3,1)")) // ((2,2),3):((24,2),8)
 * composition(parse("(12,(4,8)):(59,(13,1))"), [parseLayout("3:4"), parseLayout("8:2")]) // (3,(2,4)):(236,(26,1))
 * composition(parse("(4,4):(4,1)"), parse("(4,4):(1@1,1@0)")) // (4,4):(1,4)
 * composition(new Swizzle(2, 0, 3), parseLayout("(8,8):(8,1)")) // Sw<2,0,3> o 0 o (8,8):(8,1)
 * composition(parse("(8,8):(8,1)"), parse("Sw<2,0,-3> o 0 o (8,8):(8,1)")) // Sw<2,0,3> o 0 o (8,8):(1,8)
 * composition(parse("(4,6):(1,8)"), parseLayout("6:3")) // LayoutError: composition: (4,6):(1,8) o 6:3
 * ```
 * @throws LayoutError when no layout is that function: the steps of b don't divide the extents of a
 */
export function composition(a: Swizzle, b: Swizzle): Swizzle;
export function composition(a: Swizzle, b: Layout): Layout | ComposedLayout;
export function composition<L extends AnyLayout>(a: L, b: Tiler): L;
export function composition(a: Layout | ComposedLayout, b: Swizzle | ComposedLayout): Layout | ComposedLayout;
export function composition(a: AnyLayout | Swizzle, b: Tiler | AnyLayout | Swizzle): AnyLayout | Swizzle;
export function composition(a: AnyLayout | Swizzle, b: Tiler | AnyLayout | Swizzle): AnyLayout | Swizzle {
  return a;
}
void [pathOf, scaled, valueOf, flatModes, fromModes, merged, crd2idx, LayoutError, domainOf, onDomain, size, makeLayout];
void [concat, get, modesOf, applySwizzle, makeSwizzle, mergeSwizzles, sourceMask, targetMask, isTuple, modeOf, print];
export type Unused = IntTuple | Mode;
