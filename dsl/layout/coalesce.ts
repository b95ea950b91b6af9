/** Simplification: fewer modes, the same function from numbers to offsets. */
import { sameStride, scaled, type StrideLeaf } from "./basis.ts";
import { LayoutError } from "./errors.ts";
import type { IntTuple } from "./int-tuple.ts";
import { type AnyLayout, domainOf, Layout, onDomain } from "./layout.ts";
import { concat, modesOf } from "./modes.ts";
import { isTuple, leaves, type Nested, print, zipLeaves } from "./tuple.ts";

/** One `extent:stride` of a flat layout. */
export interface Mode<D extends StrideLeaf = StrideLeaf> {
  readonly extent: number;
  readonly stride: D;
}

/** The innermost modes, from left to right. */
export function flatModes<D extends StrideLeaf>({ shape, stride }: Layout<D>): readonly Mode<D>[] {
  return leaves(zipLeaves(shape, stride, (extent, step) => ({ extent, stride: step })));
}

/** The flat layout of these modes, without parentheses around a single one; of none, `1:0`. */
export function fromModes<D extends StrideLeaf>(modes: readonly Mode<D>[]): Layout<D | number> {
  const [first] = modes;
  if (!first) return new Layout<D | number>(1, 0);
  if (modes.length === 1) return new Layout<D | number>(first.extent, first.stride);
  return new Layout<D | number>(
    modes.map((mode) => mode.extent),
    modes.map((mode) => mode.stride),
  );
}

/** Drops modes of extent 1 and merges each mode that goes on where the one before ends. */
export function merged<D extends StrideLeaf>(modes: readonly Mode<D>[]): readonly Mode<D>[] {
  const result: Mode<D>[] = [];
  for (const mode of modes) {
    const last = result.at(-1);
    if (mode.extent === 1) continue;
    if (last && sameStride(scaled(last.stride, last.extent), mode.stride)) {
      result[result.length - 1] = { extent: last.extent * mode.extent, stride: last.stride };
    } else {
      result.push(mode);
    }
  }
  return result;
}

/**
 * The flat layout with the fewest modes that is the same function of a number. With a profile: of each part of the layout
 * that is a leaf of the profile.
 * ```ts
 * coalesce(parse("(2,(1,6)):(1,(6,2))")) // 12:1
 * coalesce(parse("((2,4),(2,1,6)):((1,2),(8,7,16))"), [0, 0]) // (8,12):(1,8)
 * ```
 * @throws LayoutError when the profile has more modes than the layout
 */
export function coalesce<L extends AnyLayout>(layout: L, profile: IntTuple = 0): L {
  return byProfile(layout, profile, "coalesce", (part) => fromModes(merged(flatModes(part))));
}

/**
 * With extent 1 instead of each mode of stride 0; or of each mode that is 0 in `profile`.
 * ```ts
 * filterZeros(parse("(2,4,6):(0,1,4)")) // (1,4,6):(0,1,4)
 * ```
 */
export function filterZeros<L extends AnyLayout>(layout: L, profile?: IntTuple): L {
  return onDomain(layout, ({ shape, stride }) => {
    const by: Nested<StrideLeaf> = profile ?? stride;
    return new Layout(onesWhereZero(by, shape), stride);
  });
}

function onesWhereZero(by: Nested<StrideLeaf>, shape: IntTuple): IntTuple {
  if (isTuple(by) && isTuple(shape)) return shape.map((mode, i) => onesWhereZero(by[i] ?? 1, mode));
  if (isTuple(by)) throw new LayoutError(`filterZeros: the profile ${print(by)} doesn't fit the shape ${print(shape)}`);
  return by === 0 ? zipLeaves(shape, shape, () => 1) : shape;
}

/**
 * Coalesced, without modes of stride 0: one coordinate for each offset, if the layout was injective besides.
 * ```ts
 * filter(parse("(2,4,6):(0,1,4)")) // 24:1
 * ```
 */
export function filter<L extends AnyLayout>(layout: L, profile: IntTuple = 0): L {
  return byProfile(layout, profile, "filter", (part) =>
    fromModes(merged(flatModes(part).filter((mode) => mode.stride !== 0))),
  );
}

/** Applies an operation to the parts of a layout at the leaves of a profile. Modes beyond the profile stay. */
function byProfile<L extends AnyLayout>(
  layout: L,
  profile: IntTuple,
  operation: string,
  f: (part: Layout<StrideLeaf>) => Layout<StrideLeaf>,
): L {
  const apply = (part: Layout<StrideLeaf>, by: IntTuple): Layout<StrideLeaf> => {
    if (!isTuple(by)) return f(part);
    const modes = modesOf(part);
    if (by.length > modes.length) {
      throw new LayoutError(`${operation}: the profile ${print(profile)} has more modes than ${domainOf(layout)}`);
    }
    return concat(modes.map((mode, i) => (i < by.length ? apply(mode, by[i] ?? 0) : mode)));
  };
  return onDomain(layout, (domain) => apply(domain, profile));
}
