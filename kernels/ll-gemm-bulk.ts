/**
 * Low-latency GEMM for weights of megabytes, read the way memory likes it: y[m,n] = sum over k of x[m,k] * w[n,k], for 1 to 16
 * tokens m. A cluster of blocks makes 16 or 32 columns n of y, each block with its part of K. One warp asks for long pieces of
 * each row by bulk copies, into a ring of stages in shared memory; the others multiply, each its part of every piece:
 *
 *     gW[row, :]   | stage 0: warp 0 | warp 1 | ... | last | stage 1: warp 0 | ...
 *
 * Rows in shared memory are 16 bytes longer than what they hold, so that the 8 rows of a fragment lie in different banks; K is
 * permuted as in ll-gemm-mma.ts, and a lane's 16 bytes are fragments of two instructions. Tokens come straight from L2, two
 * stages ahead.
 */
import {
  bf16,
  ceilDiv,
  dims,
  type DType,
  e4m3,
  type Expr,
  type Fragment,
  type MmaAtom,
  mmaAtoms,
  type Params,
  ShapeError,
  tiledMma,
} from "../dsl/index.ts";
import { select } from "../dsl/layout/index.ts";
import { maxOf } from "../dsl/size.ts";
import type { NoParams, WithEpilogue } from "./epilogue.ts";
import { permuteK } from "./ll-gemm-mma.ts";
import { type Gemm, type GemmSizes, inBf16, inE4m3, type InName, type OutName, requireCounts } from "./ll-gemm.ts";
import { addPartials, partialSums, partialTile } from "./split-k.ts";

export interface LlGemmBulkConfig<Out extends OutName = OutName> extends GemmSizes<Out> {
  /** Columns of y that a cluster makes: rows of w. Default 16. */
  readonly rows?: 16 | 32;
  /** Blocks that share these columns. Default 1. */
  readonly cluster?: 1 | 2 | 4 | 8;
  /** Warps that multiply, 1 to 15. Default 8. */
  readonly warps?: number;
  /** 64-byte pieces of each row that a warp takes of a stage, 1 to 8. Default 2. */
  readonly pieces?: number;
  /** Stages of the ring. Default: what 96 KiB have room for. */
  readonly stages?: number;
}

/** bf16 weights and tokens. @throws ShapeError unless stages divide K without a rest */
export function llGemmBulkBf16<Out extends OutName, P extends Params = NoParams>(
  config: LlGemmBulkConfig<Out> & WithEpilogue<P>,
) {
  const plan = planOf(config, bf16);
  return inBf16("ll_gemm_bulk", config, plan, (gemm) => multiply(gemm, mmaAtoms.m16n8k16.bf16, plan));
}

/** e4m3 weights and tokens, with one scale each that is read from device memory. @throws ShapeError as llGemmBulkBf16 */
export function llGemmBulkE4m3<Out extends OutName, P extends Params = NoParams>(
  config: LlGemmBulkConfig<Out> & WithEpilogue<P>,
) {
  const plan = planOf(config, e4m3);
  return inE4m3("ll_gemm_bulk", config, plan, (gemm) => multiply(gemm, mmaAtoms.m16n8k32.e4m3, plan));
}

function multiply<In extends InName>(
  { t, w, storeOf, M, N }: Gemm<In>,
  atom: MmaAtom<In, In, "f32">,
  { cluster, rows, warps, warpK, stageK, stages, steps, tokens }: ReturnType<typeof planOf>,
): void {
  const splitK = { M, N, columns: rows, tokens, parts: warps };
  const sums = partialSums(t, splitK);
  t.cluster.arrive();

  const pad = 16 / w.dtype.bytes;
  const sW = t.shared(w.dtype, [stages, rows, stageK + pad], { alignBytes: 128 });
  const ring = t.pipeline(stages, { producers: 1, consumers: warps });
  const tileN = t.block.x.div(cluster);
  /** Counted in stages along K. */
  const stepK = (i: Expr<"i32">) => t.cluster.rank.mul(steps).add(i);

  const produce = () => {
    const row = t.lane.rem(rows);
    const n = tileN.mul(rows).add(row).min(t.dim(N).sub(1)); // the last row again where there are no more
    const ask = (i: Expr<"i32">) => {
      t.when(t.lane.eq(0), () => ring.full.arriveExpect(ring.stage(i), rows * stageK * w.dtype.bytes));
      t.when(t.lane.lt(rows), () =>
        t.copyBulk(w, [n, stepK(i).mul(stageK)], sW, [ring.stage(i), row, 0], stageK, ring.full, ring.stage(i)),
      );
    };
    const early = Math.min(stages, steps);
    for (const i of t.range(early)) ask(i);
    t.pdl.launchDependents();
    if (steps === early) return;
    for (const i of t.range(early, steps)) {
      ring.acquire(i);
      ask(i);
    }
  };

  const mma = tiledMma(atom, { permute: [null, null, permuteK[w.dtype.bytes] ?? null] }).slice(t.lane);
  const consume = () => {
    const { x } = t.pdl.wait();
    const rC = t.accumulator(mma, [rows, tokens]); // (4, rows / 16, tokens / 8)
    const gB = (i: Expr<"i32">) => mma.partitionB(x.tile([tokens, warpK], [0, stepK(i).mul(warps).add(t.warp)]));
    const loadTokens = (i: Expr<"i32">, rB: Fragment<In, "B", typeof atom>) => t.copy(gB(i), rB, { guard: "edges" });
    const rBs = Array.from({ length: Math.min(2, steps) }, () => t.fragment(gB(t.dim(0)))); // (value, tokens / 8, warpK / atom.K)
    for (const [i, rB] of rBs.entries()) loadTokens(t.dim(i), rB);
    const step = (i: Expr<"i32">, rB: Fragment<In, "B", typeof atom>) => {
      ring.wait(i);
      const tA = mma.partitionA(
        sW.tile([1, rows, warpK], [ring.stage(i), 0, t.warp]).map((layout) => select(layout, 1, 2)),
      ); // (value, rows / 16, warpK / atom.K)
      const rA = t.fragment(tA);
      t.copy(tA, rA);
      t.mma(rC, rA, rB);
      t.warpBarrier(); // all lanes have read: what is multiplied has arrived
      t.when(t.lane.eq(0), () => ring.release(i));
      loadTokens(i.add(2), rB);
    };
    for (const round of t.range(Math.floor(steps / 2))) {
      for (const [i, rB] of rBs.entries()) step(round.mul(2).add(i), rB);
    }
    const [rB] = rBs;
    if (steps % 2 === 1 && rB) step(t.dim(steps - 1), rB);
    t.copy(rC, mma.partitionC(partialTile(splitK, sums, t.warp, rows, 0)));
  };
  t.when(t.warp.lt(warps), consume, produce);

  t.barrier(); // sums are there, and what the other warps waited for
  t.cluster.wait(); // the other blocks have started: their memory is there
  addPartials(t, splitK, sums, tileN, storeOf(t.pdl.afterBarrier()));
}

function planOf({ M, N, K, rows = 16, cluster = 1, warps = 8, pieces = 2, ...given }: LlGemmBulkConfig, dtype: DType) {
  requireCounts("llGemmBulk", { warps }, 15);
  requireCounts("llGemmBulk", { pieces }, 8);
  const warpK = (pieces * 64) / dtype.bytes;
  const stageK = warps * warpK;
  if (typeof K !== "number" || K % (stageK * cluster) !== 0) {
    throw new ShapeError(`ll_gemm_bulk cuts K into ${cluster} times stages of ${stageK}, which ${K} is not`, {
      hint: "Choose warps, pieces and cluster that divide K; others are for llGemmMma",
    });
  }
  const steps = K / (stageK * cluster);
  const stageBytes = rows * (stageK * dtype.bytes + 16);
  const { stages = Math.max(2, Math.min(steps, Math.floor((96 * 1024) / stageBytes))) } = given;
  requireCounts("llGemmBulk", { stages }, 64);
  return {
    ...{ grid: dims.mul(ceilDiv(N, rows), cluster), cluster, block: (warps + 1) * 32 },
    ...{ rows, warps, warpK, stageK, stages, steps },
    tokens: maxOf(M) <= 8 ? 8 : 16,
  };
}
