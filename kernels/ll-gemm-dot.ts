/**
 * Low-latency GEMM, dot-product form: y[m,n] = sum over k of x[m,k] * w[n,k], for 1 to 16 tokens m.
 *
 * One block per column n. Its threads take turns along row n of w, `lanes` elements at a time (16 bytes where K allows):
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
  frozen,
  type HostTensor,
  input,
  kernel,
  output,
  powerOfTwoDivisor,
  ShapeError,
  type Tensor,
  type Thread,
} from "../dsl/index.ts";
import { maxOf } from "../dsl/size.ts";
import { type LlGemmSizes, type OutName, requireTokens } from "./ll-gemm.ts";

export interface LlGemmDotConfig<Out extends OutName = OutName> extends LlGemmSizes<Out> {
  /** Warps per block, 1 to 32. Default: what leaves the fewest lanes idle at the end of K; 8 where K is a Size. */
  readonly warps?: number;
  /** Turns of weights that each thread loads before the wait. */
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
export function llGemmDotBf16<Out extends OutName>(config: LlGemmDotConfig<Out>) {
  const { M, N, K, out } = config;
  const tiling = tile(config, bf16);
  const { block, alignBytes } = tiling;
  return kernel(
    {
      name: kernelName("bf16", config),
      grid: N,
      block,
      params: {
        w: frozen(bf16, [N, K], { alignBytes }),
        x: input(bf16, [M, K], { alignBytes }),
        y: output(out, [M, N]),
      },
    },
    (t, { w }) => dotProducts(t, config, tiling, w, () => t.pdl.wait()),
  );
}

/** e4m3 weights and tokens, with one scale each that is read from device memory. */
export function llGemmDotE4m3<Out extends OutName>(config: LlGemmDotConfig<Out>) {
  const { M, N, K, out } = config;
  const tiling = tile(config, e4m3);
  const { block, alignBytes } = tiling;
  return kernel(
    {
      name: kernelName("e4m3", config),
      grid: N,
      block,
      params: {
        w: frozen(e4m3, [N, K], { alignBytes }),
        wScale: frozen(f32, [1]),
        x: input(e4m3, [M, K], { alignBytes }),
        xScale: input(f32, [1]),
        y: output(out, [M, N]),
      },
    },
    (t, { w, wScale }) => {
      const rScaleW = wScale.load([0]);
      dotProducts(t, config, tiling, w, () => {
        const { x, y, xScale } = t.pdl.wait();
        return { x, y, scale: rScaleW.mul(xScale.load([0])) };
      });
    },
  );
}

interface Operands<In extends "bf16" | "e4m3", Out extends OutName> {
  readonly x: Tensor<In, 2, "input">;
  readonly y: Tensor<Out, 2, "output">;
  readonly scale?: Expr<"f32">;
}

function dotProducts<In extends "bf16" | "e4m3", Out extends OutName>(
  t: Thread,
  { M, K, out }: LlGemmDotConfig<Out>,
  { lanes, chunk, turns, early, ragged }: Tiling,
  gW: Tensor<In, 2, "frozen">, // (N, K)
  wait: () => Operands<In, Out>,
): void {
  const n = t.block.x;
  const tokens = maxOf(M);
  const at = (turn: Expr<"i32">) => turn.mul(chunk).add(t.thread.mul(lanes));
  const inRow = (k: Expr<"i32">) => (ragged ? { guard: k.lt(K) } : {});

  const rW = t.array(gW.dtype, early, { lanes }); // (early) of lanes
  for (const turn of t.range(early, { unroll: true })) {
    const k = at(turn);
    rW.set(turn, gW.loadVec([n, k], lanes, { cache: "stream", ...inRow(k) }));
  }
  t.pdl.launchDependents();
  const { x: gX, y: gY, scale } = wait(); // (M, K), (M, N)

  const rSum = t.array(f32, tokens, { init: 0 }); // (M)
  const addTurn = (k: Expr<"i32">, weights: Expr<In, typeof lanes>) => {
    for (const m of t.range(tokens, { unroll: true })) {
      const addToken = () => {
        const rX = gX.loadVec([m, k], lanes, inRow(k));
        rSum.reg(m).addDot(rX, weights);
      };
      if (typeof M === "number") addToken();
      else t.when(m.lt(M), addToken);
    }
  };
  for (const turn of t.range(early, { unroll: true })) addTurn(at(turn), rW.get(turn));
  if (maxOf(turns) > early) {
    for (const turn of t.range(early, turns)) {
      const k = at(turn);
      addTurn(k, gW.loadVec([n, k], lanes, { cache: "stream", ...inRow(k) }));
    }
  }

  const sSum = t.shared(f32, [t.warps, tokens]);
  for (const m of t.range(tokens, { unroll: true })) {
    const warpSum = t.warpSum(rSum.get(m));
    t.when(t.lane.eq(0), () => sSum.store([t.warp, m], warpSum));
  }
  t.barrier();
  t.when(t.thread.lt(M), () => {
    const m = t.thread;
    const sum = t.reg(f32, 0);
    for (const warp of t.range(t.warps, { unroll: true })) sum.update((s) => s.add(sSum.load([warp, m])));
    const result = scale ? sum.get().mul(scale) : sum.get();
    (gY as Tensor<OutName, 2, "output">).store([m, n], result.to(out));
  });
}

interface Tiling {
  readonly block: number;
  readonly alignBytes: number;
  /** Elements per load: what 16 bytes hold, less where rows are not a multiple of that. */
  readonly lanes: 1 | 2 | 4 | 8 | 16;
  /** Elements of K that the block covers per turn. */
  readonly chunk: number;
  readonly turns: Dim;
  /** Turns loaded before the wait. */
  readonly early: number;
  /** Whether the last turn reaches beyond K. */
  readonly ragged: boolean;
}

function tile(config: LlGemmDotConfig, dtype: DType): Tiling {
  const { M, K, prefetch = 8 } = config;
  requireTokens("llGemmDot", M);
  const lanes = powerOfTwoDivisor(K, 16 / dtype.bytes) as Tiling["lanes"];
  const warps = config.warps ?? fewestIdle(K, lanes);
  if (!(Number.isInteger(warps) && warps >= 1 && warps <= 32 && Number.isInteger(prefetch) && prefetch >= 1)) {
    throw new ShapeError(`llGemmDot takes 1 to 32 warps and a prefetch of at least 1, not ${warps} and ${prefetch}`);
  }
  const chunk = warps * 32 * lanes;
  const turns = ceilDiv(K, chunk);
  return {
    block: warps * 32,
    alignBytes: lanes * dtype.bytes,
    lanes,
    chunk,
    turns,
    early: Math.min(prefetch, maxOf(turns)),
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

function kernelName(dtype: string, { M, N, K }: LlGemmDotConfig): string {
  return `ll_gemm_dot_${dtype}_m${M}_n${N}_k${K}`;
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
] as const;
