/**
 * The end of a GEMM whose K was dealt out to warps, in one block or a cluster: they have partial sums of the same columns n
 * of y. Results are numbered m * columns + n.
 *
 *     sBlock  (parts, tokens, columns + 4)  what each part of a block has; 4 more keep lanes of a fragment in different banks
 *     sPart   (cluster, owned)              what each block has of the results that this one owns
 *
 * Each block adds up its parts. In a cluster results are owned in equal shares: each block sends its sums to their owners,
 * neighbouring lanes neighbouring results, through distributed shared memory; and each adds up what it owns.
 */
import { type Expr, f32, type Index, type Tensor, type Thread } from "../dsl/index.ts";
import { select } from "../dsl/layout/index.ts";
import { maxOf } from "../dsl/size.ts";
import type { GemmSizes, StoreSum } from "./ll-gemm.ts";

export interface SplitK extends Pick<GemmSizes, "M" | "N"> {
  /** Of y that a block or cluster makes. */
  readonly columns: number;
  /** Tokens of the tile: 8 or 16. */
  readonly tokens: number;
  /** In how many parts a block's share of K was dealt out. */
  readonly parts: number;
}

export interface PartialSums {
  readonly sBlock: Tensor<"f32", 3, "shared">; // (parts, tokens, columns + 4)
  readonly sPart: Tensor<"f32", 2, "shared"> | undefined; // (cluster, owned); undefined without a cluster
}

/** Shared memory for partial sums. */
export function partialSums(t: Thread, splitK: SplitK): PartialSums {
  const { columns, tokens, parts } = splitK;
  const sBlock = t.shared(f32, [parts, tokens, columns + 4]);
  const { size } = t.cluster;
  return { sBlock, sPart: size === 1 ? undefined : t.shared(f32, [size, resultsOf(splitK) / size]) };
}

const resultsOf = ({ M, columns, tokens }: SplitK) => columns * Math.min(maxOf(M), tokens);

/** Where rows [row * rows, ...) of a part have their place, as an mma sees it. */
export function partialTile({ tokens }: SplitK, { sBlock }: PartialSums, part: Index, rows: number, row: Index) {
  return sBlock.tile([1, tokens, rows], [part, 0, row]).map((layout) => select(layout, 2, 1)); // (rows, tokens)
}

/**
 * After a barrier; of clusters the blocks must have started: after a t.cluster.wait(). All threads take part.
 */
export function addPartials(
  t: Thread,
  splitK: SplitK,
  { sBlock, sPart }: PartialSums,
  tileN: Expr<"i32">,
  storeSum: StoreSum,
): void {
  const { M, N, columns, parts } = splitK;
  const results = resultsOf(splitK);
  const owned = results / t.cluster.size;
  /** By one thread each. */
  const each = (count: number, body: (result: Expr<"i32">) => void) => {
    for (let first = 0; first < count; first += t.warps * 32) {
      const [result, rest] = [t.thread.add(first), count - first];
      if (rest >= t.warps * 32) body(result);
      else t.when(t.thread.lt(rest), () => body(result));
    }
  };
  const sumOf = (count: number, at: (i: Expr<"i32">) => Expr<"f32">) => {
    const sum = t.reg(f32, 0);
    for (const i of t.range(count, { unroll: true })) sum.update((s) => s.add(at(i)));
    return sum.get();
  };
  const ofBlock = (result: Expr<"i32">) =>
    sumOf(parts, (part) => sBlock.load([part, result.div(columns), result.rem(columns)]));
  const store = (result: Expr<"i32">, sum: Expr<"f32">) => {
    const [m, n] = [result.div(columns), tileN.mul(columns).add(result.rem(columns))];
    t.when(m.lt(M).and(n.lt(N)), () => storeSum(m, n, sum));
  };

  if (!sPart) {
    each(results, (result) => store(result, ofBlock(result)));
    return;
  }
  each(results, (result) => {
    sPart.store([t.cluster.rank, result.rem(owned)], ofBlock(result), { peer: result.div(owned) });
  });
  t.cluster.barrier();
  each(owned, (mine) => {
    const sum = sumOf(t.cluster.size, (block) => sPart.load([block, mine]));
    store(t.cluster.rank.mul(owned).add(mine), sum);
  });
}
