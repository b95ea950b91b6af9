/**
 * Products: a layout repeated. Each of these is (block, complement(block) o tiler): the tiler says how many blocks there are
 * and in which order they lie, in units of blocks; they differ in how they group the result.
 */
import type { StrideLeaf } from "./basis.ts";
import { type Order } from "./compact.ts";
import { complement } from "./complement.ts";
import { composition, type Tiler } from "./composition.ts";
import { eachMode, unpackBoth, unpackRest, unzipped } from "./divide.ts";
import { LayoutError, partOf } from "./errors.ts";
import { ceilDiv, evenlyDivides, type IntTuple, productEach } from "./int-tuple.ts";
import { type AnyLayout, cosize, Layout, onDomain, rank, requireNumeric, size } from "./layout.ts";
import { makeLayout, makeOrderedLayout } from "./make.ts";
import { append, get, zip } from "./modes.ts";
import { isTuple, print } from "./tuple.ts";

/**
 * (block, blocks), or mode by mode.
 * ```ts
 * logicalProduct(parse("(2,2):(4,1)"), parseLayout("6:1")) // ((2,2),(2,3)):((4,1),(2,8))
 * logicalProduct(parse("(4,8):(8,1)"), [3, 4]) // ((4,3),(8,4)):((8,1),(1,8))
 * ```
 * @throws LayoutError when the block overlaps itself or the blocks don't fit its gaps
 */
export function logicalProduct<L extends AnyLayout>(block: L, tiler: Tiler): L {
  return onDomain(block, (domain) => multiplied(domain, tiler));
}

function multiplied(block: Layout<StrideLeaf>, tiler: Tiler): Layout<StrideLeaf> {
  if (tiler === null) return block;
  if (isTuple(tiler)) return eachMode("logicalProduct", block, tiler, multiplied);
  const blocks = tiler instanceof Layout ? tiler : makeLayout(tiler);
  return partOf(`logicalProduct of ${block} and ${blocks}`, () => {
    const gaps = complement(requireNumeric(block, "logicalProduct"), size(block) * cosize(blocks));
    return makeLayout(block, composition(gaps, blocks));
  });
}

/**
 * All blocks together, then their repetitions: ((BM,BN,..),(TM,TN,..)).
 * ```ts
 * zippedProduct(parse("(2,5):(5,1)"), [3, 4]) // ((2,5),(3,4)):((5,1),(1,5))
 * ```
 */
export function zippedProduct<L extends AnyLayout>(block: L, tiler: Tiler): L {
  return onDomain(block, (domain) => unzipped(multiplied(domain, tiler), tiler));
}

/**
 * The block, then each repetition on its own: ((BM,BN,..),TM,TN,..).
 * ```ts
 * tiledProduct(parse("(2,5):(5,1)"), [3, 4]) // ((2,5),3,4):((5,1),1,5)
 * ```
 */
export function tiledProduct<L extends AnyLayout>(block: L, tiler: Tiler): L {
  return onDomain(zippedProduct(block, tiler), unpackRest);
}

/**
 * Everything on its own: (BM,BN,..,TM,TN,..).
 * ```ts
 * flatProduct(parse("(2,5):(5,1)"), [3, 4]) // (2,5,3,4):(5,1,1,5)
 * ```
 */
export function flatProduct<L extends AnyLayout>(block: L, tiler: Tiler): L {
  return onDomain(zippedProduct(block, tiler), unpackBoth);
}

/**
 * A grid of blocks, one beside the other: mode i is (block i, tiler i).
 * ```ts
 * blockedProduct(parse("(2,5):(5,1)"), parseLayout("(3,4):(1,3)")) // ((2,3),(5,4)):((5,10),(1,30))
 * ```
 */
export function blockedProduct<L extends AnyLayout>(block: L, tiler: Layout): L {
  return onDomain(block, (domain) => ranked(domain, tiler, (inner, outer) => zip(inner, outer)));
}

/**
 * A grid of interleaved blocks, like the teeth of rakes: mode i is (tiler i, block i).
 * ```ts
 * rakedProduct(parse("(2,5):(5,1)"), parseLayout("(3,4):(1,3)")) // ((3,2),(4,5)):((10,5),(30,1))
 * ```
 */
export function rakedProduct<L extends AnyLayout>(block: L, tiler: Layout): L {
  return onDomain(block, (domain) => ranked(domain, tiler, (inner, outer) => zip(outer, inner)));
}

type Join = (block: Layout<StrideLeaf>, blocks: Layout<StrideLeaf>) => Layout<StrideLeaf>;

function ranked(block: Layout<StrideLeaf>, tiler: Layout, join: Join): Layout<StrideLeaf> {
  const modes = Math.max(rank(block), rank(tiler));
  const result = multiplied(append(block, modes), append(tiler, modes));
  return join(get(result, 0), get(result, 1));
}

/**
 * A block repeated until it has a shape; across the first mode first, or in the order given.
 * ```ts
 * tileToShape(parse("(8,8):(8,1)"), [16, 32]) // ((8,2),(8,4)):((8,64),(1,128))
 * tileToShape(parse("(8,8):(8,1)"), [16, 32], [2, 1]) // ((8,2),(8,4)):((8,256),(1,64))
 * tileToShape(parse("(8,8):(8,1)"), [16, 30]) // LayoutError: tileToShape: (8,8):(8,1) doesn't divide the shape (16,30)
 * ```
 * @throws LayoutError when the block doesn't divide the shape
 */
export function tileToShape<L extends AnyLayout>(block: L, target: IntTuple, order: Order = "left"): L {
  return onDomain(block, (domain) => {
    const padded = rank(domain) <= rank(target) ? append(domain, rank(target)) : domain;
    const [blockShape, shape] = [productEach(padded.shape), productEach(target)];
    if (!evenlyDivides(shape, blockShape)) {
      throw new LayoutError(`tileToShape: ${block} doesn't divide the shape ${print(target)}`);
    }
    return blockedProduct(padded, makeOrderedLayout(ceilDiv(shape, blockShape), order));
  });
}
