/** Layouts as tuples of modes: taking apart, putting together, slicing. None of these changes where an element lies. */
import type { StrideLeaf } from "./basis.ts";
import { crd2idx } from "./coordinate.ts";
import { LayoutError } from "./errors.ts";
import type { IntTuple } from "./int-tuple.ts";
import { type AnyLayout, ComposedLayout, Layout, onDomain } from "./layout.ts";
import { isTuple, leaves, modeOf, type Nested, print, unflattenLeaves, wrap } from "./tuple.ts";

/** CuTe's underscore: all of a mode, in coordinates and tilers. */
export const _ = null;

/** A coordinate with underscores for the modes to keep. */
export type Slice = Nested<number | null>;

const unit = new Layout<StrideLeaf>(1, 0);

/** The modes of a layout; of a layout without parentheses, itself. */
export function modesOf<D extends StrideLeaf>(layout: Layout<D>): readonly Layout<D>[] {
  return wrap(layout.shape).map((shape, i) => new Layout(shape, modeOf(layout.stride, i)));
}

/** The layout with these modes. */
export function concat<D extends StrideLeaf>(modes: readonly Layout<D>[]): Layout<D> {
  return new Layout<D>(
    modes.map((mode) => mode.shape),
    modes.map((mode) => mode.stride),
  );
}

/**
 * The mode at a path.
 * ```ts
 * get(parse("((2,4),8):((1,2),8)"), 0, 1) // 4:2
 * ```
 */
export function get<L extends AnyLayout>(layout: L, ...path: readonly number[]): L {
  return onDomain(layout, ({ shape, stride }) => new Layout(modeOf(shape, ...path), modeOf(stride, ...path)));
}

/**
 * The modes from `begin` up to but not including `end`.
 * ```ts
 * take(parse("(2,3,4):(1,2,6)"), 1, 3) // (3,4):(2,6)
 * ```
 */
export function take<L extends AnyLayout>(layout: L, begin: number, end: number): L {
  return onDomain(layout, (domain) => concat(range(modesOf(domain), begin, end, domain)));
}

/**
 * The modes with these numbers, in this order.
 * ```ts
 * select(parse("(2,3,4):(1,2,6)"), 2, 0) // (4,2):(6,1)
 * ```
 */
export function select<L extends AnyLayout>(layout: L, ...modes: readonly number[]): L {
  return onDomain(layout, (domain) => concat(modes.map((mode) => get(domain, mode))));
}

/**
 * Without inner parentheses.
 * ```ts
 * flatten(parse("((2,4),8):((1,2),8)")) // (2,4,8):(1,2,8)
 * ```
 */
export function flatten<L extends AnyLayout>(layout: L): L {
  return onDomain(layout, (domain) =>
    isTuple(domain.shape) ? new Layout(leaves(domain.shape), leaves(domain.stride)) : domain,
  );
}

/**
 * A flat layout with the parentheses of a profile.
 * ```ts
 * unflatten(parse("(2,4,8):(1,2,8)"), [[0, 0], 0]) // ((2,4),8):((1,2),8)
 * ```
 * @throws LayoutError unless it has as many modes as the profile has leaves
 */
export function unflatten<L extends AnyLayout>(layout: L, profile: IntTuple): L {
  return onDomain(layout, ({ shape, stride }) => {
    return new Layout(unflattenLeaves(leaves(shape), profile), unflattenLeaves(leaves(stride), profile));
  });
}

/**
 * Puts the modes from `begin` up to but not including `end` into one.
 * ```ts
 * group(parse("(2,3,4):(1,2,6)"), 0, 2) // ((2,3),4):((1,2),6)
 * ```
 */
export function group<L extends AnyLayout>(layout: L, begin: number, end: number): L {
  return onDomain(layout, (domain) => {
    const modes = modesOf(domain);
    return concat([...modes.slice(0, begin), concat(range(modes, begin, end, domain)), ...modes.slice(end)]);
  });
}

function range<T>(modes: readonly T[], begin: number, end: number, layout: AnyLayout): readonly T[] {
  if (0 <= begin && begin < end && end <= modes.length) return modes.slice(begin, end);
  throw new LayoutError(`${layout} has no modes ${begin} up to ${end}`);
}

/**
 * Adds modes on the right until the rank is `rank`.
 * ```ts
 * append(parse("4:1"), 2) // (4,1):(1,0)
 * append(parse("4:1"), 2, parseLayout("3:8")) // (4,3):(1,8)
 * ```
 */
export function append<L extends AnyLayout>(layout: L, rank: number, mode: Layout<StrideLeaf> = unit): L {
  return onDomain(layout, (domain) => pad(domain, rank, mode, (modes, more) => [...modes, ...more]));
}

/**
 * Adds modes on the left until the rank is `rank`.
 * ```ts
 * prepend(parse("4:1"), 2) // (1,4):(0,1)
 * ```
 */
export function prepend<L extends AnyLayout>(layout: L, rank: number, mode: Layout<StrideLeaf> = unit): L {
  return onDomain(layout, (domain) => pad(domain, rank, mode, (modes, more) => [...more, ...modes]));
}

type Modes = readonly Layout<StrideLeaf>[];

function pad(layout: Layout<StrideLeaf>, rank: number, mode: Layout<StrideLeaf>, join: (a: Modes, b: Modes) => Modes) {
  const modes = modesOf(layout);
  if (modes.length > rank) throw new LayoutError(`${layout} has more than ${rank} modes already`);
  return modes.length === rank
    ? layout
    : concat(join(modes, Array<Layout<StrideLeaf>>(rank - modes.length).fill(mode)));
}

/**
 * Another mode in the place of one.
 * ```ts
 * replace(parse("(2,3,4):(1,2,6)"), 1, parseLayout("5:7")) // (2,5,4):(1,7,6)
 * ```
 */
export function replace<L extends AnyLayout>(layout: L, mode: number, by: Layout<StrideLeaf>): L {
  return onDomain(layout, (domain) => {
    get(domain, mode); // throws when there is none
    return isTuple(domain.shape) ? concat(modesOf(domain).with(mode, by)) : by;
  });
}

/**
 * Two layouts of one rank, mode by mode: ((a0,b0),(a1,b1),...).
 * ```ts
 * zip(parseLayout("(2,5):(5,1)"), parseLayout("(3,4):(10,30)")) // ((2,3),(5,4)):((5,10),(1,30))
 * ```
 * @throws LayoutError when the ranks differ
 */
export function zip<D extends StrideLeaf>(a: Layout<D>, b: Layout<D>): Layout<D> {
  const [left, right] = [modesOf(a), modesOf(b)];
  if (left.length !== right.length || isTuple(a.shape) !== isTuple(b.shape)) {
    throw new LayoutError(`zip: ${a} and ${b} differ in rank`);
  }
  return concat(left.map((mode, i) => concat([mode, ...right.slice(i, i + 1)])));
}

/**
 * The layout of the modes that have an underscore in the coordinate. The offset of the others is dropped, save for a
 * composed layout, which takes it up into its own.
 * ```ts
 * slice([_, 3], parse("((2,4),8):((1,2),8)")) // ((2,4)):((1,2))
 * slice([_, 3], parse("Sw<2,0,3> o 0 o (8,8):(8,1)")) // Sw<2,0,3> o 3 o (8):(8)
 * ```
 */
export function slice<L extends AnyLayout>(coord: Slice, layout: L): L {
  return sliceAndOffset(coord, layout)[0];
}

/**
 * The slice, and the offset of its first element.
 * ```ts
 * sliceAndOffset([_, 3], parse("((2,4),8):((1,2),8)")) // (((2,4)):((1,2)),24)
 * ```
 */
export function sliceAndOffset<L extends AnyLayout>(coord: Slice, layout: L): readonly [L, IntTuple] {
  const whole: AnyLayout = layout;
  if (whole instanceof ComposedLayout) {
    const inner = whole.layoutB;
    const offset = inner instanceof ComposedLayout ? 0 : crd2idx(origin(coord), inner);
    const moved: AnyLayout = new ComposedLayout(whole.layoutA, whole.offset + offset, slice(coord, inner));
    return [moved as L, 0];
  }
  const kept = onDomain(layout, (domain) => pick(coord, domain, (leaf) => leaf === null));
  return [kept, crd2idx(origin(coord), whole)];
}

/**
 * The layout of the modes that have a number in the coordinate: what slice leaves out.
 * ```ts
 * dice([_, 3], parse("((2,4),8):((1,2),8)")) // (8):(8)
 * ```
 */
export function dice<L extends AnyLayout>(coord: Slice, layout: L): L {
  return onDomain(layout, (domain) => pick(coord, domain, (leaf) => leaf !== null));
}

const origin = (coord: Slice): IntTuple => (isTuple(coord) ? coord.map(origin) : (coord ?? 0));

/** Keeps the modes whose part of the coordinate passes the test; inner parentheses of the coordinate vanish. */
function pick(coord: Slice, layout: Layout<StrideLeaf>, keep: (leaf: number | null) => boolean): Layout<StrideLeaf> {
  const kept = (part: Slice, mode: Layout<StrideLeaf>): Modes => {
    if (!isTuple(part)) return keep(part) ? [mode] : [];
    const modes = modesOf(mode);
    if (part.length !== modes.length) throw new LayoutError(`The slice ${print(coord)} doesn't fit ${layout}`);
    return modes.flatMap((inner, i) => kept(modeOf(part, i), inner));
  };
  const modes = kept(coord, layout);
  return !isTuple(coord) && modes[0] ? modes[0] : concat(modes);
}
