/**
 * Composition: `R = A o B`, the layout with R(c) = A(B(c)) for every coordinate c of B.
 *
 * B's modes are composed one by one, so think of B as s:d: s elements of A, d apart. With A = (a0,a1,..):(e0,e1,..) flat:
 * if d divides a0, walking in steps of d crosses mode 0 every a0/d steps, so the result has a mode (a0/d):(d*e0), and goes
 * on with single steps along mode 1. If a0 divides d, every step passes over mode 0 and is d/a0 steps along mode 1. In any
 * other case the walk doesn't repeat itself, and no layout describes it. The last mode of A never ends.
 *
 * The modes of B then add up, if no sum of theirs carries from one mode of A into the next. CuTe C++ doesn't check that; we
 * do, and refuse what it would compose wrongly.
 */
import { pathOf, scaled, type StrideLeaf, valueOf } from "./basis.ts";
import { flatModes, fromModes, merged, type Mode } from "./coalesce.ts";
import { crd2idx } from "./coordinate.ts";
import { LayoutError } from "./errors.ts";
import type { IntTuple } from "./int-tuple.ts";
import { type AnyLayout, ComposedLayout, Layout, requireNumeric, requireOffsets, size } from "./layout.ts";
import { makeLayout } from "./make.ts";
import { concat, get, modesOf } from "./modes.ts";
import { applySwizzle, findSwizzle, mergeSwizzles, sourceMask, Swizzle, targetMask } from "./swizzle.ts";
import { isTuple, leaves, type Nested, print } from "./tuple.ts";

/**
 * What to take of a layout: a layout of its elements, the first n (a number), everything (the underscore, null), or one
 * tiler for each mode.
 */
export type Tiler = Nested<number | null | Layout>;

/**
 * The layout a(b(c)). A tuple of tilers composes mode by mode and drops the modes of a that it doesn't name.
 * ```ts
 * composition(parse("(6,2):(8,2)"), parse("(4,3):(3,1)")) // ((2,2),3):((24,2),8)
 * composition(parse("(12,(4,8)):(59,(13,1))"), [parseLayout("3:4"), parseLayout("8:2")]) // (3,(2,4)):(236,(26,1))
 * composition(parse("(4,4):(4,1)"), parse("(4,4):(1@1,1@0)")) // (4,4):(1,4)
 * composition(new Swizzle(2, 0, 3), parseLayout("(8,8):(8,1)")) // Sw<2,0,3> o 0 o (8,8):(8,1)
 * composition(parse("(8,8):(8,1)"), parse("Sw<2,0,-3> o 0 o (8,8):(8,1)")) // Sw<2,0,3> o 0 o (8,8):(1,8)
 * composition(parse("(4,6):(1,8)"), parse("6:3")) // LayoutError: composition: (4,6):(1,8) o 6:3 is not a layout
 * ```
 * @throws LayoutError when no layout is that function: the steps of b don't fit the extents of a
 */
export function composition(a: Swizzle, b: Swizzle): Swizzle;
export function composition(a: Swizzle, b: Layout | ComposedLayout): Layout | ComposedLayout;
export function composition<L extends AnyLayout>(a: L, b: Tiler): L;
export function composition(a: Layout | ComposedLayout, b: Swizzle | ComposedLayout): Layout | ComposedLayout;
export function composition(a: AnyLayout, b: AnyLayout | Swizzle): AnyLayout;
export function composition(a: AnyLayout | Swizzle, b: Tiler | AnyLayout | Swizzle): AnyLayout | Swizzle {
  if (!(a instanceof Swizzle)) return compose(a, b);
  if (b instanceof Swizzle) return mergeSwizzles(a, b);
  if (!(b instanceof Layout || b instanceof ComposedLayout)) {
    throw new LayoutError(`composition: ${a} o ${print(b)}: a swizzle composes with a layout, not with a tiler`);
  }
  return a.bits === 0 ? b : new ComposedLayout(a, 0, requireOffsets(b, "A swizzle"));
}

/**
 * The layout with another shape, column-major over the elements.
 * ```ts
 * withShape(parse("(4,8):(8,1)"), [2, 16]) // (2,(2,8)):(8,(16,1))
 * ```
 */
export function withShape<L extends AnyLayout>(layout: L, shape: IntTuple): L {
  return composition(layout, makeLayout(shape));
}

function compose(a: AnyLayout, b: Tiler | AnyLayout | Swizzle): AnyLayout {
  if (a instanceof ComposedLayout) {
    return new ComposedLayout(a.layoutA, a.offset, requireOffsets(compose(a.layoutB, b), "composition"));
  }
  if (b instanceof Swizzle) return beforeSwizzle(requireNumeric(a, "composition with a swizzle"), b);
  if (!(b instanceof ComposedLayout)) return byMode(a, b);
  if (b.offset !== 0) throw new LayoutError(`composition: ${a} o (${b}) needs an offset of 0 on the right`);
  return compose(compose(a, b.layoutA), b.layoutB);
}

/** a o swizzle = swizzle' o a, where swizzle' xors the offsets of the bits that the swizzle xors. */
function beforeSwizzle(a: Layout, swizzle: Swizzle): Layout | ComposedLayout {
  if (swizzle.bits === 0) return a;
  const after = findSwizzle(crd2idx(sourceMask(swizzle), a), crd2idx(targetMask(swizzle), a));
  if (after && commute(a, swizzle, after)) return new ComposedLayout(after, 0, a);
  throw new LayoutError(`composition: ${a} o ${swizzle} is not a layout with a swizzle on its left`);
}

/** By trying the elements, up to a number after which swizzles have long repeated themselves. */
function commute(a: Layout, before: Swizzle, after: Swizzle): boolean {
  for (let i = 0; i < Math.min(size(a), 2 ** 16); i++) {
    if (crd2idx(applySwizzle(before, i), a) !== applySwizzle(after, crd2idx(i, a))) return false;
  }
  return true;
}

function byMode(a: Layout<StrideLeaf>, b: Tiler | Layout<StrideLeaf>): Layout<StrideLeaf> {
  if (b === null) return a;
  if (b instanceof Layout) return affine(a, b);
  if (!isTuple(b)) return affine(a, new Layout(b, 1));
  const modes = modesOf(a);
  if (b.length > modes.length) throw new LayoutError(`composition: the tiler ${print(b)} has more modes than ${a}`);
  return concat(b.map((tiler, i) => byMode(get(a, i), tiler)));
}

/** The flat modes of a (of the part that scaled bases point to), and how the modes of b step along them. */
interface Walk {
  readonly modes: readonly Mode[];
  /** For each mode of a, how far all modes of b together get along it. */
  readonly distances: number[];
  readonly signs: Set<number>;
}

function affine(a: Layout<StrideLeaf>, b: Layout<StrideLeaf>): Layout<StrideLeaf> {
  const walks = new Map<string, Walk>();
  const result = distribute(a, b, b, walks);
  for (const { modes, distances, signs } of walks.values()) {
    const carries = modes.slice(0, -1).some(({ extent }, i) => (distances[i] ?? 0) >= Math.abs(extent));
    if (modes.length > 1 && (carries || signs.size > 1) && !agrees(result, a, b)) {
      fail(a, b, `the modes of the right one together step over the end of a mode of ${fromModes(modes)}`);
    }
  }
  return result;
}

function distribute(a: Layout<StrideLeaf>, b: Layout<StrideLeaf>, part: Layout<StrideLeaf>, walks: Map<string, Walk>) {
  const { shape, stride } = part;
  if (isTuple(shape) || isTuple(stride)) {
    const modes: readonly Layout<StrideLeaf>[] = modesOf(part).map((mode) => distribute(a, b, mode, walks));
    return concat(modes);
  }
  if (stride === 0) return part;
  const path = pathOf(stride);
  const key = path.join();
  const walk = walks.get(key) ?? { modes: endless(flatModes(get(a, ...path))), distances: [], signs: new Set() };
  walks.set(key, walk);
  return fromWalk(walk, shape, valueOf(stride), (why) => fail(a, b, why));
}

/** Coalesced, but for the last mode, which stays even with extent 1: a coordinate may run on along it. */
function endless(modes: readonly Mode[]): readonly Mode[] {
  const last = modes.at(-1) ?? { extent: 1, stride: 0 };
  return merged([...modes.slice(0, -1), { extent: last.extent === 1 ? 2 : last.extent, stride: last.stride }]);
}

/** `count` elements, each `step` after the one before. */
function fromWalk({ modes, distances, signs }: Walk, count: number, step: number, refuse: (why: string) => never) {
  signs.add(Math.sign(step));
  const taken: Mode[] = [];
  for (const [i, { extent: signed, stride }] of modes.entries()) {
    const [extent, distance] = [Math.abs(signed), Math.abs(step)];
    if (i === modes.length - 1) {
      if (count !== 1 || !taken.length) taken.push({ extent: count, stride: scaled(stride, step) });
      break;
    }
    if (distance >= extent && distance % extent !== 0) {
      refuse(`the step ${step} and the extent ${extent} don't divide each other (Stride Divisibility Condition)`);
    }
    const here = Math.min(Math.ceil(extent / distance), count);
    if (here > 1) {
      if (count % here !== 0) {
        refuse(`a mode of ${here} elements doesn't divide ${count} elements (Shape Divisibility Condition)`);
      }
      if (count > here && extent % distance !== 0) {
        refuse(`the step ${step} doesn't divide the extent ${extent} that it crosses (Stride Divisibility Condition)`);
      }
      taken.push({ extent: here, stride: scaled(stride, step) });
      distances[i] = (distances[i] ?? 0) + (here - 1) * distance;
      count /= here;
    }
    step = Math.ceil(distance / extent) * Math.sign(step) * Math.sign(signed);
  }
  return fromModes(taken);
}

/** By trying every element: some layouts compose though their modes carry. */
function agrees(result: Layout<StrideLeaf>, a: Layout<StrideLeaf>, b: Layout<StrideLeaf>): boolean {
  if (size(b) > 2 ** 14 || leaves(b.stride).some((stride) => typeof stride !== "number")) return false;
  for (let i = 0; i < size(b); i++) {
    if (print(crd2idx(i, result)) !== print(crd2idx(crd2idx(i, b), a))) return false;
  }
  return true;
}

function fail(a: Layout<StrideLeaf>, b: Layout<StrideLeaf>, why: string): never {
  throw new LayoutError(`composition: ${a} o ${b} is not a layout: ${why}`);
}
