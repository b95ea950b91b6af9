/**
 * Division: a layout cut into tiles. Each of these is layout o (tiler, rest), where rest = complement(tiler), and so never
 * loses an element; they differ in how they group the result.
 *
 *   layout (M,N,L), tilers (TM,TN)
 *   logicalDivide  ((TM,RM),(TN,RN),L)
 *   zippedDivide   ((TM,TN),(RM,RN,L))
 *   tiledDivide    ((TM,TN),RM,RN,L)
 *   flatDivide     (TM,TN,RM,RN,L)
 */
import type { StrideLeaf } from "./basis.ts";
import { coalesce } from "./coalesce.ts";
import { complement } from "./complement.ts";
import { composition, type Tiler } from "./composition.ts";
import { LayoutError, partOf } from "./errors.ts";
import { type AnyLayout, Layout, onDomain, rank, shape } from "./layout.ts";
import { makeLayout } from "./make.ts";
import { concat, modesOf } from "./modes.ts";
import { isTuple, print } from "./tuple.ts";

/**
 * Mode by mode (tile, rest).
 * ```ts
 * logicalDivide(parse("(4,2,3):(2,1,8)"), parseLayout("4:2")) // ((2,2),(2,3)):((4,1),(2,8))
 * logicalDivide(parse("(16,32):(32,1)"), [4, 8]) // ((4,4),(8,4)):((32,128),(1,8))
 * logicalDivide(parse("(16,32):(32,1)"), [_, 8]) // (16,(8,4)):(32,(1,8))
 * ```
 * @throws LayoutError when the tiler overlaps itself or its steps don't fit the layout
 */
export function logicalDivide<L extends AnyLayout>(layout: L, tiler: Tiler): L {
  return onDomain(layout, (domain) => divided(domain, tiler));
}

function divided(layout: Layout<StrideLeaf>, tiler: Tiler): Layout<StrideLeaf> {
  if (tiler === null) return layout;
  if (isTuple(tiler)) return eachMode("logicalDivide", layout, tiler, divided);
  const tile = tiler instanceof Layout ? tiler : makeLayout(tiler);
  return partOf(`logicalDivide of ${layout} by ${tile}`, () =>
    composition(layout, makeLayout(tile, complement(tile, shape(coalesce(layout))))),
  );
}

/**
 * All tiles together, then the rest: ((TM,TN,..),(RM,RN,..)).
 * ```ts
 * zippedDivide(parse("(16,32):(32,1)"), [4, 8]) // ((4,8),(4,4)):((32,1),(128,8))
 * ```
 */
export function zippedDivide<L extends AnyLayout>(layout: L, tiler: Tiler): L {
  return onDomain(layout, (domain) => unzipped(divided(domain, tiler), tiler));
}

/**
 * The tile, then each rest on its own: ((TM,TN,..),RM,RN,..).
 * ```ts
 * tiledDivide(parse("(16,32):(32,1)"), [4, 8]) // ((4,8),4,4):((32,1),128,8)
 * ```
 */
export function tiledDivide<L extends AnyLayout>(layout: L, tiler: Tiler): L {
  return onDomain(zippedDivide(layout, tiler), unpackRest);
}

/**
 * Everything on its own: (TM,TN,..,RM,RN,..).
 * ```ts
 * flatDivide(parse("(16,32):(32,1)"), [4, 8]) // (4,8,4,4):(32,1,128,8)
 * ```
 */
export function flatDivide<L extends AnyLayout>(layout: L, tiler: Tiler): L {
  return onDomain(zippedDivide(layout, tiler), unpackBoth);
}

/** Applies an operation with each tiler to the mode in its place. */
export function eachMode(
  operation: string,
  layout: Layout<StrideLeaf>,
  tilers: readonly Tiler[],
  f: (mode: Layout<StrideLeaf>, tiler: Tiler) => Layout<StrideLeaf>,
): Layout<StrideLeaf> {
  const modes = modesOf(layout);
  if (tilers.length > modes.length) {
    throw new LayoutError(`${operation}: the tiler ${print(tilers)} has more modes than ${layout}`);
  }
  return concat(modes.map((mode, i) => f(mode, tilers[i] ?? null)));
}

/** From ((TM,RM),(TN,RN),L) to ((TM,TN),(RM,RN,L)), following the parentheses of the tiler. */
export function unzipped(layout: Layout<StrideLeaf>, tiler: Tiler): Layout<StrideLeaf> {
  return concat(tileAndRest(layout, tiler));
}

function tileAndRest(layout: Layout<StrideLeaf>, tiler: Tiler): readonly Layout<StrideLeaf>[] {
  const modes = modesOf(layout);
  if (!isTuple(tiler)) {
    if (isTuple(layout.shape) && modes.length === 2) return modes;
    throw new LayoutError(
      `The mode ${layout} doesn't split into a tile and the rest`,
      "Under an underscore the mode itself must have two modes, the tile and the rest",
    );
  }
  const pairs = tiler.map((inner, i) => modes.slice(i, i + 1).flatMap((mode) => tileAndRest(mode, inner)));
  return [
    concat(pairs.flatMap((pair) => pair.slice(0, 1))),
    concat([...pairs.flatMap((pair) => pair.slice(1)), ...modes.slice(tiler.length)]),
  ];
}

/** (tile,(a,b)) as (tile,a,b). */
export const unpackRest = (layout: Layout<StrideLeaf>): Layout<StrideLeaf> =>
  concat(modesOf(layout).flatMap((mode, i) => (i === 0 ? [mode] : unpacked(mode))));

/** ((t,u),(a,b)) as (t,u,a,b). */
export const unpackBoth = (layout: Layout<StrideLeaf>): Layout<StrideLeaf> => concat(modesOf(layout).flatMap(unpacked));

const unpacked = (mode: Layout<StrideLeaf>) => (rank(mode) === 1 ? [mode] : modesOf(mode));
