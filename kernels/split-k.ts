/**
 * The end of a GEMM whose K was dealt out to the warps of a cluster: they have partial sums of the same columns n of y.
 * Results are numbered m * columns + n and owned in equal shares by the blocks of the cluster. Each warp sends what it has of
 * each result to its owner, through distributed shared memory; then each block adds up what it owns and stores it.
 *
 *     sPart   (slices, owned)   a row for each slice of K
 */
import { ceilDiv, type Expr, f32, type Fragment, type Partition, type Tensor, type Thread } from "../dsl/index.ts";
import type { GemmSizes, OutName } from "./ll-gemm.ts";

export interface SplitK<Out extends OutName = OutName> extends Pick<GemmSizes<Out>, "M" | "N" | "out"> {
  /** Of y that a cluster makes. */
  readonly columns: number;
  /** Tokens of the tile: 8 or 16. */
  readonly tokens: number;
  /** In how many parts K was dealt out. */
  readonly slices: number;
}

/** Shared memory for the partial sums that this block will own. */
export function partialSums(t: Thread, splitK: SplitK): Tensor<"f32", 2, "shared"> {
  const sPart = t.shared(f32, [splitK.slices, ownedBy(t, splitK)]); // (slices, owned)
  return sPart;
}

const ownedBy = (t: Thread, { columns, tokens }: SplitK): number => (columns * tokens) / t.cluster.size;

/** Hands one warp's sums to their owners. The other blocks must have started: after a t.cluster.wait(). */
export function sendPartials(
  t: Thread,
  splitK: SplitK,
  sPart: Tensor<"f32", 2, "shared">,
  slice: Expr<"i32">,
  rC: Fragment<"f32", "C">, // (4, 1, tokens / 8)
  gC: Partition<OutName, "output", "C">, // the same of a (16 n, tokens) tile of y
): void {
  const owned = ownedBy(t, splitK);
  for (let value = 0; value < rC.size(); value++) {
    const [m = t.dim(0), n = t.dim(0)] = gC.coordinate(value);
    const result = m.mul(splitK.columns).add(n.rem(splitK.columns));
    const to = t.cluster.size > 1 ? { peer: result.div(owned) } : {};
    sPart.store([slice, result.rem(owned)], rC.get(value), to);
  }
}

/** After a t.cluster.barrier(): a few lanes share each result, lane = (share, result). */
export function addPartials<Out extends OutName>(
  t: Thread,
  splitK: SplitK<Out>,
  sPart: Tensor<"f32", 2, "shared">,
  tileN: Expr<"i32">,
  y: Tensor<Out, 2, "output">, // (M, N)
  scale: Expr<"f32"> | undefined,
): void {
  const { M, N, out, columns, slices } = splitK;
  const owned = ownedBy(t, splitK);
  const shares = Math.max(1, 32 / owned);
  for (let first = 0; first < owned; first += t.warps * 32) {
    t.when(t.thread.lt(Math.max(32, owned - first)), () => {
      const mine = t.thread.rem(owned).add(first);
      const sum = t.reg(f32, 0);
      for (const i of t.range(ceilDiv(slices, shares), { unroll: true })) {
        const part = i.mul(shares).add(t.thread.div(owned));
        const guard = part.lt(slices);
        sum.update((s) => s.add(sPart.load([part, mine], { guard })));
      }
      for (let distance = owned; distance < 32; distance *= 2) sum.update((s) => s.add(t.shuffleXor(s, distance)));
      const result = t.cluster.rank.mul(owned).add(mine);
      const [m, n] = [result.div(columns), tileN.mul(columns).add(result.rem(columns))];
      t.when(t.thread.lt(owned).and(m.lt(M)).and(n.lt(N)), () => {
        const total = scale ? sum.get().mul(scale) : sum.get();
        y.store([m, n], total.to(out));
      });
    });
  }
}
