/** What two layouts have in common: how far a copy from one to the other can go in one piece. */
import { coalesce, flatModes, fromModes, type Mode } from "./coalesce.ts";
import { composition } from "./composition.ts";
import { logicalDivide } from "./divide.ts";
import { LayoutError } from "./errors.ts";
import { gcd } from "./int-tuple.ts";
import { rightInverse } from "./inverse.ts";
import { type AnyLayout, ComposedLayout, domainOf, equal, Layout, requireNumeric, size } from "./layout.ts";
import { get } from "./modes.ts";
import { Swizzle } from "./swizzle.ts";
import { leaves } from "./tuple.ts";

/**
 * The longest layout r of elements that lie at 0, 1, 2, ... in both: a(r(i)) == i and b(r(i)) == i.
 * ```ts
 * maxCommonLayout(parseLayout("(4,8):(1,4)"), parseLayout("(8,4):(1,8)")) // 32:1
 * maxCommonLayout(parseLayout("(8,8):(1,8)"), parseLayout("(8,8):(8,1)")) // 1:0
 * ```
 */
export function maxCommonLayout(a: AnyLayout, b: AnyLayout): Layout {
  const inverse = rightInverse(requireNumeric(domainOf(b), "maxCommonLayout"));
  const common = leading(requireNumeric(domainOf(a), "maxCommonLayout"), flatModes(inverse));
  const count = Math.min(common.stride === 1 ? size(common) : 1, keptTogether(a, b));
  return count === 1 ? new Layout(1, 0) : composition(inverse, count);
}

/**
 * How many elements lie at 0, 1, 2, ... in both.
 * ```ts
 * maxCommonVector(parseLayout("32:1"), parseLayout("(8,4):(1,16)")) // 8
 * maxCommonVector(parse("Sw<2,3,3> o 0 o (64,8):(1,64)"), parseLayout("(64,8):(1,64)")) // 8
 * ```
 */
export function maxCommonVector(a: AnyLayout, b: AnyLayout): number {
  return size(maxCommonLayout(a, b));
}

/**
 * The largest n that layout allows upcast by: of how many elements each aligned group stays together.
 * ```ts
 * maxAlignment(parseLayout("(8,64):(64,1)")) // 512
 * maxAlignment(parseLayout("(12,8):(1,16)")) // 4
 * maxAlignment(parse("Sw<2,3,3> o 0 o (8,64):(64,1)")) // 8
 * ```
 */
export function maxAlignment(layout: AnyLayout): number {
  if (layout instanceof ComposedLayout) {
    const { layoutA, offset, layoutB } = layout;
    return layoutA instanceof Swizzle ? gcd(2 ** layoutA.base, offset, maxAlignment(layoutB)) : 1;
  }
  const flat = coalesce(requireNumeric(layout, "maxAlignment"));
  const permuted = logicalDivide(flat, rightInverse(flat));
  return gcd(size(permuted, 0), ...leaves(get(permuted, 1).stride));
}

/** The first mode of a o inverse. Modes of the inverse that don't compose can't belong to it. */
function leading(a: Layout, inverse: readonly Mode<number>[]): Layout {
  try {
    return get(coalesce(composition(a, fromModes(inverse))), 0);
  } catch (error) {
    if (error instanceof LayoutError && inverse.length > 1) return leading(a, inverse.slice(0, -1));
    throw error;
  }
}

/** How many neighbours stay neighbours: all if both swizzle alike, else those below the swizzled bits. */
function keptTogether(a: AnyLayout, b: AnyLayout): number {
  const composed = [a, b].filter((layout) => layout instanceof ComposedLayout);
  for (const layout of composed) {
    if (layout.layoutA instanceof Swizzle && layout.layoutB instanceof Layout) continue;
    throw new LayoutError(`maxCommonLayout compares layouts and swizzled layouts, not ${layout}`);
  }
  const [first, second] = composed;
  const alike = first && second && equal(first.layoutA, second.layoutA) && first.offset === second.offset;
  return alike ? Infinity : Math.min(...composed.map(below));
}

const below = ({ layoutA, offset }: ComposedLayout): number =>
  layoutA instanceof Swizzle && layoutA.bits > 0 ? gcd(2 ** layoutA.base, offset) : Infinity;
