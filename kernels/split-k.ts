/**
 * The end of a GEMM whose K was dealt out to the warps of a cluster: every warp has partial sums of the same 16 columns n of
 * y. Results are numbered 16 * m + n and owned in equal shares by the blocks of the cluster. Each warp sends what it has of
 * each result to its owner, through distributed shared memory; then each block adds up what it owns and stores it.
 *
 *     sPart   (slices, owned)   slice s = rank * warps + warp of whoever sent the row
 */
import { ceilDiv, type Expr, f32, type Fragment, type Partition, type Tensor, type Thread } from "../dsl/index.ts";
import type { GemmSizes, OutName } from "./ll-gemm.ts";

export interface SplitK<Out extends OutName = OutName> extends Pick<GemmSizes<Out>, "M" | "N" | "out"> {
  /** Tokens of the tile: 8 or 16. */
  readonly tokens: number;
  /** Warps of each block that have partial sums. */
  readonly warps: number;
}

/** Shared memory for the partial sums that this block will own. */
export function partialSums(t: Thread, { tokens, warps }: SplitK): Tensor<"f32", 2, "shared"> {
  const sPart = t.shared(f32, [t.cluster.size * warps, ownedBy(t, tokens)]); // (slices, owned)
  return sPart;
}

const ownedBy = (t: Thread, tokens: number): number => (16 * tokens) / t.cluster.size;

/** Hands one warp's sums to their owners. The other blocks must have started: after a t.cluster.wait(). */
export function sendPartials(
  t: Thread,
  { tokens }: SplitK,
  sPart: Tensor<"f32", 2, "shared">,
  slice: Expr<"i32">,
  rC: Fragment<"f32", "C">, // (4, 1, tokens / 8)
  gC: Partition<OutName, "output", "C">, // the same of a (16 n, tokens) tile of y
): void {
  const owned = ownedBy(t, tokens);
  for (let value = 0; value < rC.size(); value++) {
    const [m = t.dim(0), n = t.dim(0)] = gC.coordinate(value);
    const result = m.mul(16).add(n.rem(16));
    const to = t.cluster.size > 1 ? { peer: result.div(owned) } : {};
    sPart.store([slice, result.rem(owned)], rC.get(value), to);
  }
}

/** After a t.cluster.barrier(): a few lanes share each result, lane = (share, result). */
export function addPartials<Out extends OutName>(
  t: Thread,
  { M, N, out, tokens, warps }: SplitK<Out>,
  sPart: Tensor<"f32", 2, "shared">,
  tileN: Expr<"i32">,
  y: Tensor<Out, 2, "output">, // (M, N)
  scale: Expr<"f32"> | undefined,
): void {
  const slices = t.cluster.size * warps;
  const owned = ownedBy(t, tokens);
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
      const [m, n] = [result.div(16), tileN.mul(16).add(result.rem(16))];
      t.when(t.thread.lt(owned).and(m.lt(M)).and(n.lt(N)), () => {
        const total = scale ? sum.get().mul(scale) : sum.get();
        y.store([m, n], total.to(out));
      });
    });
  }
}
