/** Complement: the gaps that a layout leaves, as a layout. */
import { flatModes, filter, fromModes, merged, type Mode } from "./coalesce.ts";
import { LayoutError } from "./errors.ts";
import { ceilDiv, type IntTuple, product } from "./int-tuple.ts";
import { type AnyLayout, cosize, domainOf, type Layout, requireNumeric } from "./layout.ts";
import { makeLayout } from "./make.ts";

/**
 * The layout of what `layout` must be repeated at to fill `cotarget` offsets (its own cosize if left out): ordered, and no
 * element of it but 0 is an offset of `layout`.
 * ```ts
 * complement(parseLayout("4:2"), 24) // (2,3):(1,8)
 * complement(parseLayout("(2,4):(1,6)")) // 3:2
 * complement(parseLayout("(4,2):(2,4)"), 24) // LayoutError: complement of (4,2):(2,4)
 * ```
 * @throws LayoutError when two elements of the layout have the same offset, or interleave
 */
export function complement(layout: AnyLayout, cotarget?: IntTuple): Layout {
  const filtered = filter(requireNumeric(domainOf(layout), "complement"));
  const target = cotarget ?? cosize(filtered);
  if (filtered.stride === 0) return makeLayout(product(target));
  const gaps: Mode<number>[] = [];
  let filled = 1;
  for (const { extent, stride } of flatModes(filtered).toSorted((a, b) => a.stride - b.stride)) {
    const times = Math.floor(stride / filled);
    if (times < 1) {
      throw new LayoutError(
        `complement of ${layout}: the mode ${extent}:${stride} begins among the ${filled} offsets of the modes before it ` +
          `(Non-injective Layout detected in complement)`,
      );
    }
    gaps.push({ extent: times, stride: filled });
    filled = stride * extent;
  }
  return fromModes(merged([...gaps, { extent: product(ceilDiv(target, filled)), stride: filled }]));
}
