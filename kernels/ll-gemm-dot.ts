/**
 * Low-latency GEMM, dot-product form: y[m,n] = sum over k of x[m,k] * w[n,k], for 1 to 16 tokens m.
 *
 * One block per column n, or per `rows` of them. Its threads take turns along row n of w, `lanes` elements at a time (16 bytes
 * where K allows):
 *
 *     gW[n, :]  | thread 0 | thread 1 | ... | last thread | thread 0 | thread 1 | ...
 *     k =         0          lanes                          chunk      chunk + lanes
 *
 * Weights are frozen: the first `prefetch` turns are on their way into registers before the kernel waits for the one that
 * makes x. Then each thread sums its part for every token; sums are added over the lanes of a warp, then over the warps.
 */
import {
  bf16,
  ceilDiv,
  type Dim,
  type DType,
  e4m3,
  type Expr,
  f32,
  type HostTensor,
  type Params,
  powerOfTwoDivisor,
} from "../dsl/index.ts";
import { maxOf } from "../dsl/size.ts";
import type { NoParams, WithEpilogue } from "./epilogue.ts";
import {
  type Gemm,
  type GemmSizes,
  inBf16,
  inE4m3,
  inF32,
  type InName,
  type OutName,
  requireConfig,
  requireCounts,
} from "./ll-gemm.ts";

export interface LlGemmDotConfig<Out extends OutName = OutName> extends GemmSizes<Out> {
  /** Warps per block, 1 to 32. Default: what leaves the fewest lanes idle at the end of K; 8 where K is a Size. */
  readonly warps?: number;
  /** Columns that a block makes, 1 to 4: their weights share the tokens that it loads. Default: 1. */
  readonly rows?: number;
  /** Turns of weights that each thread loads before the wait, 1 to 64. */
  readonly prefetch?: number;
}

/**
 * What the kernel computes, in float64 from exactly decoded inputs: y, and for the error bound the same sums of absolute
 * values. `scale` multiplies every element.
 */
export function gemmReference(x: HostTensor, w: HostTensor, scale = 1) {
  const [M = 0, K = 0] = x.shape;
  const [N = 0] = w.shape;
  const [xs, ws] = [x.values(), w.values()];
  const [y, magnitudes] = [new Float64Array(M * N), new Float64Array(M * N)];
  for (let m = 0; m < M; m++) {
    for (let n = 0; n < N; n++) {
      let [sum, magnitude] = [0, 0];
      for (let k = 0; k < K; k++) {
        const product = (xs[m * K + k] ?? 0) * (ws[n * K + k] ?? 0);
        sum += product;
        magnitude += Math.abs(product);
      }
      y[m * N + n] = sum * scale;
      magnitudes[m * N + n] = magnitude * Math.abs(scale);
    }
  }
  return { y, magnitudes };
}

/** bf16 weights and tokens. */
export function llGemmDotBf16<Out extends OutName, P extends Params = NoParams>(
  config: LlGemmDotConfig<Out> & WithEpilogue<P>,
) {
  const plan = planOf(config, bf16);
  return inBf16("ll_gemm_dot", config, plan, (gemm) => dotProducts(gemm, plan));
}

/** f32 weights and bf16 tokens. */
export function llGemmDotF32<Out extends OutName, P extends Params = NoParams>(
  config: LlGemmDotConfig<Out> & WithEpilogue<P>,
) {
  const plan = planOf(config, f32);
  return inF32("ll_gemm_dot", config, plan, (gemm) => dotProducts(gemm, plan));
}

/** e4m3 weights and tokens, with one scale each that is read from device memory. */
export function llGemmDotE4m3<Out extends OutName, P extends Params = NoParams>(
  config: LlGemmDotConfig<Out> & WithEpilogue<P>,
) {
  const plan = planOf(config, e4m3);
  return inE4m3("ll_gemm_dot", config, plan, (gemm) => dotProducts(gemm, plan));
}

function dotProducts<W extends InName, X extends InName>(
  { t, w: gW, storeOf, M, N, K }: Gemm<W, X>, // (N, K)
  { rows, lanes, chunk, turns, early, ragged }: ReturnType<typeof planOf>,
): void {
  const firstRow = t.block.x.mul(rows);
  const tokens = maxOf(M);
  const at = (turn: Expr<"i32">) => turn.mul(chunk).add(t.thread.mul(lanes));
  const inRow = (k: Expr<"i32">) => (ragged ? { guard: k.lt(K) } : {});
  const loadWeights = (row: number, k: Expr<"i32">) => {
    const n = firstRow.add(row);
    const isRow = typeof N === "number" && N % rows === 0 ? undefined : n.lt(N);
    const guard = isRow && ragged ? isRow.and(k.lt(K)) : (isRow ?? inRow(k).guard);
    return gW.loadVec([n, k], lanes, { cache: "stream", ...(guard && { guard }) });
  };

  const rWs = Array.from({ length: rows }, () => t.array(gW.dtype, early, { lanes })); // (early) of lanes
  for (const turn of t.range(early, { unroll: true })) {
    for (const [row, rW] of rWs.entries()) rW.set(turn, loadWeights(row, at(turn)));
  }
  t.pdl.launchDependents();
  const late = t.pdl.wait();
  const { x: gX } = late; // (M, K)
  const storeSum = storeOf(late);

  const rSums = rWs.map(() => t.array(f32, tokens, { init: 0 })); // (M)
  const addTurn = (k: Expr<"i32">, weights: readonly Expr<W, typeof lanes>[]) => {
    for (const m of t.range(tokens, { unroll: true })) {
      const addToken = () => {
        const rX = gX.loadVec([m, k], lanes, inRow(k));
        for (const [row, rSum] of rSums.entries()) {
          const rW = weights[row];
          if (rW) rSum.reg(m).addDot(rX, rW);
        }
      };
      if (typeof M === "number") addToken();
      else t.when(m.lt(M), addToken);
    }
  };
  for (const turn of t.range(early, { unroll: true })) {
    addTurn(
      at(turn),
      rWs.map((rW) => rW.get(turn)),
    );
  }
  if (maxOf(turns) > early) {
    for (const turn of t.range(early, turns)) {
      const k = at(turn);
      addTurn(
        k,
        rWs.map((_, row) => loadWeights(row, k)),
      );
    }
  }

  const sSum = t.shared(f32, [t.warps, rows, tokens]);
  for (const [row, rSum] of rSums.entries()) {
    for (const m of t.range(tokens, { unroll: true })) {
      const warpSum = t.warpSum(rSum.get(m));
      t.when(t.lane.eq(0), () => sSum.store([t.warp, row, m], warpSum));
    }
  }
  t.barrier();
  const [row, m] = [t.thread.div(tokens), t.thread.rem(tokens)];
  const n = firstRow.add(row);
  t.when(row.lt(rows).and(m.lt(M)).and(n.lt(N)), () => {
    const sum = t.reg(f32, 0);
    for (const warp of t.range(t.warps, { unroll: true })) sum.update((s) => s.add(sSum.load([warp, row, m])));
    storeSum(m, n, sum.get());
  });
}

function planOf(config: LlGemmDotConfig, dtype: DType) {
  requireConfig("llGemmDot", config, ["warps", "rows", "prefetch"]);
  const { N, K, rows = 1, prefetch = 8, ...given } = config;
  /** Elements per load: what 16 bytes hold, less where rows are not a multiple of that. */
  const lanes = powerOfTwoDivisor(K, 16 / dtype.bytes) as 1 | 2 | 4 | 8 | 16;
  const { warps = fewestIdle(K, lanes) } = given;
  requireCounts("llGemmDot", { warps }, 32);
  requireCounts("llGemmDot", { rows }, 4);
  requireCounts("llGemmDot", { prefetch }, 64);
  /** Elements of K that the block covers per turn. */
  const chunk = warps * 32 * lanes;
  const turns = ceilDiv(K, chunk);
  return {
    ...{ grid: ceilDiv(N, rows), cluster: 1, block: warps * 32, rows, lanes, chunk, turns },
    /** Turns loaded before the wait. */
    early: Math.min(prefetch, maxOf(turns)),
    /** Whether the last turn reaches beyond K. */
    ragged: typeof K !== "number" || K % chunk !== 0,
  };
}

/**
 * Of 1 to 16 warps those that leave the fewest lanes idle at the end of K, of equals the most: 14 instead of 7 warps take the
 * router's K = 7168 in two turns instead of four, 3.4 instead of 4.1 us at M = 8 on an H200; 28 warps are slower again.
 */
function fewestIdle(K: Dim, lanes: number): number {
  if (typeof K !== "number") return 8;
  const padded = (warps: number) => Math.ceil(K / (warps * 32 * lanes)) * warps;
  const counts = Array.from({ length: 16 }, (_, i) => 16 - i);
  return counts.reduce((best, warps) => (padded(warps) < padded(best) ? warps : best));
}

/**
 * Shapes of real models that the kernel ships for, each with any M from 1 to 16: routers of mixtures of experts, small
 * projections. Every other N >= 1 and K >= 1 is served too.
 */
export const llGemmDotConfigurations = [
  { model: "DeepSeek-V3 router", dtype: "bf16", out: "f32", N: 256, K: 7168 },
  { model: "Kimi-K2 router", dtype: "bf16", out: "f32", N: 384, K: 7168 },
  { model: "GLM-5 router", dtype: "bf16", out: "f32", N: 256, K: 6144 },
  { model: "Qwen3-30B-A3B router", dtype: "bf16", out: "f32", N: 128, K: 2048 },
  { model: "gpt-oss-120b router", dtype: "bf16", out: "bf16", N: 128, K: 2880 },
  { model: "Mixtral-8x7B router", dtype: "bf16", out: "f32", N: 8, K: 4096 },
  { model: "Mistral QKV slice", dtype: "e4m3", out: "bf16", N: 256, K: 12288 },
  { model: "MiniMax-M2 router", dtype: "f32", out: "f32", N: 256, K: 3072 },
  { model: "MiniMax-M3 router", dtype: "f32", out: "f32", N: 128, K: 6144 },
] as const;
