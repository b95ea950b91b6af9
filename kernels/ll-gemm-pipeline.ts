/**
 * Low-latency GEMM with warps that have tasks of their own: y[m,n] = sum over k of x[m,k] * w[n,k], for 1 to 16 tokens m.
 *
 * Tiles of 16 weights' rows and of 16 tokens, 256 elements of K each, go through a ring of stages in shared memory:
 *
 *     warps 0, 1   wait for the kernel before, then copy tokens                                / warp 4  k   0 ..  63
 *     warps 2, 3   copy weights, from the kernel's first moment on       stage 0, 1, ...  -->  |  ...
 *                                                                                              \ warp 7  k 192 .. 255
 *
 * Copies run beside the threads (cp.async) and arrive at the stage's barrier when they are done. Only the warps that read
 * tokens wait for the kernel before; the others are ordered after it by the block's barrier, before they store.
 */
import { ceilDiv, dims, type Expr, type MmaAtom, mmaAtoms, type Params, type Tile, tiledMma } from "../dsl/index.ts";
import { composition, makeLayout, parseLayout, Swizzle } from "../dsl/layout/index.ts";
import type { NoParams, WithEpilogue } from "./epilogue.ts";
import {
  type Gemm,
  type GemmSizes,
  inBf16,
  inE4m3,
  type InName,
  type OutName,
  requireConfig,
  rowAlignBytes,
} from "./ll-gemm.ts";
import { addPartials, partialSums, partialTile } from "./split-k.ts";

export interface LlGemmPipelineConfig<Out extends OutName = OutName> extends GemmSizes<Out> {
  /** Blocks that share 16 columns, each with its part of K: 1, 2, 4 or 8. */
  readonly cluster?: 1 | 2 | 4 | 8;
  /** Tiles that fit into shared memory at a time. */
  readonly stages?: number;
}

/** Elements of K in a tile. */
const tileK = 256;
const copyWarps = 4;
const mmaWarps = 4;

/** bf16 weights and tokens. */
export function llGemmPipelineBf16<Out extends OutName, P extends Params = NoParams>(
  config: LlGemmPipelineConfig<Out> & WithEpilogue<P>,
) {
  const launch = launchOf(config);
  return inBf16("ll_gemm_pipeline", config, launch, (gemm) => multiply(gemm, mmaAtoms.m16n8k16.bf16, config));
}

/** e4m3 weights and tokens, with one scale each that is read from device memory. */
export function llGemmPipelineE4m3<Out extends OutName, P extends Params = NoParams>(
  config: LlGemmPipelineConfig<Out> & WithEpilogue<P>,
) {
  const launch = launchOf(config);
  return inE4m3("ll_gemm_pipeline", config, launch, (gemm) => multiply(gemm, mmaAtoms.m16n8k32.e4m3, config));
}

function launchOf(config: LlGemmPipelineConfig) {
  requireConfig("llGemmPipeline", config, ["cluster", "stages"]);
  const { N, cluster = 8 } = config;
  return { grid: dims.mul(ceilDiv(N, 16), cluster), cluster, block: (copyWarps + mmaWarps) * 32 };
}

function multiply<In extends InName>(
  { t, w, storeOf, M, N, K }: Gemm<In>,
  atom: MmaAtom<In, In, "f32">,
  { cluster = 8, stages = 4 }: LlGemmPipelineConfig,
): void {
  const splitK = { M, N, columns: 16, tokens: 16, parts: mmaWarps };
  const sums = partialSums(t, splitK);
  t.cluster.arrive();

  // Rows of 256 elements, their 16-byte units swizzled so that 8 rows of a column lie in 8 different bank groups.
  const lanes = 16 / w.dtype.bytes;
  const swizzle = new Swizzle(3, Math.log2(lanes), 8 - Math.log2(lanes));
  const staged = composition(swizzle, makeLayout([16, tileK, stages], [tileK, 1, 16 * tileK]));
  const sW = t.sharedTile(w.dtype, staged); // (16, 256, stages)
  const sX = t.sharedTile(w.dtype, staged); // (16, 256, stages)
  const pipe = t.pipeline(stages, { producers: copyWarps * 32, consumers: mmaWarps * 32 });

  const tileN = t.block.x.div(cluster);
  const tiles = ceilDiv(ceilDiv(K, tileK), cluster);
  const kOf = (i: Expr<"i32">) => i.mul(cluster).add(t.cluster.rank);

  // (thread,value) of 64 threads, each 16 contiguous bytes of a row at a time.
  const units = tileK / lanes;
  const tv = parseLayout(`((${units},${64 / units}),(${lanes},${units / 4})):((${16 * lanes},1),(16,${64 / units}))`);
  const async = rowAlignBytes(K, w.dtype) >= 4; // what cp.async moves at least
  const produce = (tile: (i: Expr<"i32">) => Tile<In, "frozen" | "input">, sTiles: Tile<In, "shared">) => {
    for (const i of t.range(tiles)) {
      pipe.acquire(i);
      const thread = t.thread.rem(64);
      const from = tile(i).partition(tv, thread);
      const to = sTiles.slice([null, null, pipe.stage(i)]).partition(tv, thread);
      if (async) {
        t.copyAsync(from, to, { guard: "edges" });
        pipe.full.arriveAfterCopies(pipe.stage(i));
      } else {
        const rTile = t.fragment(from);
        t.copy(from, rTile, { guard: "edges" });
        t.copy(rTile, to);
        pipe.full.arrive(pipe.stage(i));
      }
    }
  };
  const mma = tiledMma(atom).slice(t.lane);
  const rC = t.accumulator(mma, [16, 16]); // (4, 1, 2)
  const copyTokens = () => {
    const { x } = t.pdl.wait();
    produce((i) => x.tile([16, tileK], [0, kOf(i)]), sX);
  };
  const copyWeights = () => {
    produce((i) => w.tile([16, tileK], [tileN, kOf(i)]), sW);
    t.pdl.launchDependents();
  };
  const multiplyTiles = () => {
    const quarter = t.warp.sub(copyWarps);
    for (const i of t.range(tiles)) {
      pipe.wait(i);
      const part = (sTiles: Tile<In, "shared">) =>
        sTiles.slice([null, null, pipe.stage(i)]).tile([16, tileK / mmaWarps], [0, quarter]); // (16, 64)
      const [tA, tB] = [mma.partitionA(part(sW)), mma.partitionB(part(sX))];
      const [rA, rB] = [t.matrixFragment(tA), t.matrixFragment(tB)];
      t.copyMatrix(tA, rA);
      t.copyMatrix(tB, rB);
      t.mma(rC, rA, rB);
      pipe.release(i);
    }
    t.copy(rC, mma.partitionC(partialTile(splitK, sums, quarter, 16, 0)));
  };
  t.when(t.warp.lt(copyWarps / 2), copyTokens, () => t.when(t.warp.lt(copyWarps), copyWeights, multiplyTiles));

  t.barrier(); // sums are there, and what the first warps waited for
  t.cluster.wait(); // the other blocks have started: their memory is there
  const late = t.pdl.afterBarrier();
  addPartials(t, splitK, sums, tileN, storeOf(late));
}
