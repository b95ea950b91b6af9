/** Inverses: from offsets back to numbers of elements. */
import { coalesce, flatModes, fromModes, merged, type Mode } from "./coalesce.ts";
import { composition } from "./composition.ts";
import { crd2idx } from "./coordinate.ts";
import { LayoutError } from "./errors.ts";
import { prefixProduct } from "./int-tuple.ts";
import { type AnyLayout, ComposedLayout, cosize, Layout, requireNumeric, size } from "./layout.ts";
import { Swizzle } from "./swizzle.ts";
import { leaves } from "./tuple.ts";

/** A flat mode and the number of the element that it steps to first. */
interface Numbered extends Mode<number> {
  readonly number: number;
}

/**
 * The largest layout r with layout(r(i)) == i.
 * ```ts
 * rightInverse(parseLayout("(8,4):(4,1)")) // (4,8):(8,1)
 * rightInverse(parseLayout("(4,2):(1,16)")) // 4:1
 * rightInverse(parse("Sw<1,0,2> o 0 o (4,4):(4,1)")) // Sw<1,0,-2> o 0 o (4,4):(4,1)
 * ```
 */
export function rightInverse<L extends AnyLayout>(layout: L): L;
export function rightInverse(layout: AnyLayout): Layout | ComposedLayout {
  if (layout instanceof ComposedLayout) return composedInverse(layout, rightInverse, "rightInverse");
  const found: Mode<number>[] = [];
  let next = 1;
  for (const { extent, stride, number } of byStride(requireNumeric(layout, "rightInverse"))) {
    if (stride !== next) continue;
    found.push({ extent, stride: number });
    next *= extent;
  }
  return fromModes(merged(found));
}

/**
 * The layout l with l(layout(i)) == i, for an injective layout. With strides of 0 besides, layout(l(layout(i))) == layout(i).
 * ```ts
 * leftInverse(parseLayout("(8,4):(4,1)")) // (4,8):(8,1)
 * leftInverse(parseLayout("(4,2):(1,16)")) // (16,2):(1,4)
 * leftInverse(parseLayout("(3,4):(2,3)")) // LayoutError: leftInverse of (3,4):(2,3)
 * ```
 * @throws LayoutError when a stride isn't a multiple of the next smaller one
 */
export function leftInverse<L extends AnyLayout>(layout: L): L;
export function leftInverse(layout: AnyLayout): Layout | ComposedLayout {
  if (layout instanceof ComposedLayout) return composedInverse(layout, leftInverse, "leftInverse");
  const modes = byStride(requireNumeric(layout, "leftInverse"));
  const extents: number[] = [];
  const strides: number[] = [0];
  let below = 1;
  for (const { stride, number } of modes) {
    if (stride === 0) continue;
    if (stride % below !== 0) {
      throw new LayoutError(
        `leftInverse of ${layout}: the stride ${stride} is not a multiple of the stride ${below} ` +
          `(Left inverse divisibility condition)`,
      );
    }
    extents.push(stride / below);
    strides.push(number);
    below = stride;
  }
  extents.push(modes.at(-1)?.extent ?? 1);
  return coalesce(new Layout(extents, strides));
}

/**
 * The layout n of all elements with offset 0: layout(n(i)) == 0.
 * ```ts
 * nullspace(parseLayout("(2,2,2):(1,0,2)")) // 2:2
 * ```
 */
export function nullspace(layout: Layout): Layout {
  const { shape, stride } = requireNumeric(layout, "nullspace");
  const numbers = leaves(prefixProduct(shape));
  const zeros = leaves(shape)
    .map((extent, i) => ({ extent, stride: extent === 1 ? 0 : (numbers[i] ?? 0) }))
    .filter((_, i) => leaves(stride)[i] === 0);
  return fromModes(zeros);
}

/** The coalesced modes by rising stride. Equal strides come in the order of an exchange sort, as in CuTe. */
function byStride(layout: Layout): readonly Numbered[] {
  const flat = flatModes(coalesce(layout));
  const numbers = leaves(prefixProduct(flat.map((mode) => mode.extent)));
  const modes = flat.map((mode, i): Numbered => ({ ...mode, number: numbers[i] ?? 1 }));
  for (let i = 0; i < modes.length; i++) {
    for (let j = i + 1; j < modes.length; j++) {
      const [a, b] = [modes[i], modes[j]];
      if (a && b && b.stride < a.stride) [modes[i], modes[j]] = [b, a];
    }
  }
  return modes;
}

/** (A o n o B)^-1 = B^-1 o -n o A^-1; a swizzle is its own inverse. */
function composedInverse(
  layout: ComposedLayout,
  invert: <L extends AnyLayout>(layout: L) => L,
  operation: "leftInverse" | "rightInverse",
): Layout | ComposedLayout {
  const { layoutA, offset, layoutB } = layout;
  const inverseB = invert(layoutB);
  if (!(layoutA instanceof Swizzle)) return new ComposedLayout(inverseB, -offset, invert(layoutA));
  const right = operation === "rightInverse";
  if (right && offset !== 0) {
    throw new LayoutError(`rightInverse of ${layout}: with the offset ${offset}, no element lies at 0`);
  }
  const inverse = offset === 0 ? composition(inverseB, layoutA) : afterOffset(layout, layoutA, inverseB);
  const undone = right
    ? (i: number) => crd2idx(crd2idx(i, inverse), layout) === i
    : (i: number) => crd2idx(crd2idx(crd2idx(i, layout), inverse), layout) === crd2idx(i, layout);
  // The swizzle may move elements to where the layout has none.
  for (let i = 0; i < Math.min(size(right ? inverse : layout), 2 ** 16); i++) {
    if (!undone(i)) throw new LayoutError(`${operation} of ${layout}: ${inverse} is none, at ${i}`);
  }
  return inverse;
}

/** The swizzle, then minus the offset, then the inverse of what it applied to. */
function afterOffset({ offset, layoutB }: ComposedLayout, swizzle: Swizzle, inverseB: Layout | ComposedLayout) {
  const bits = Math.ceil(Math.log2(Math.max(2, offset + cosize(layoutB))));
  const all = 2 ** Math.max(bits, swizzle.base + swizzle.bits + Math.abs(swizzle.shift));
  return new ComposedLayout(inverseB, -offset, new ComposedLayout(swizzle, 0, new Layout(all, 1)));
}
