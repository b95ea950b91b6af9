/**
 * Low-latency GEMM for weights of megabytes: y[m,n] = sum over k of x[m,k] * w[n,k], for 1 to 16 tokens m, at the speed of
 * memory. A cluster of blocks makes 16 to 64 columns n of y, each block with its part of K. One warp asks for tiles by TMA, the
 * others multiply; between them lies a ring of stages in shared memory:
 *
 *     last warp     rows of w, `boxes` times 128 bytes each, and as much of x   -> stage 0, 1, ...
 *     group 0       ldmatrix, mma of boxes 0, groups, 2 * groups, ...              <-
 *     group 1       ...          of boxes 1, groups + 1, ...                       <-
 *
 * The warps of a group share its rows, 16 each.
 *
 * What matters is how many bytes are under way. The ring fills half of shared memory, so that two blocks fit into a
 * multiprocessor: that of the next kernel in a PDL chain asks for its weights while this one still multiplies. Weights are
 * frozen: all stages of them are on their way before the wait; tokens follow after it. L2 gives weights up first.
 */
import {
  bf16,
  ceilDiv,
  type Dim,
  dims,
  type DType,
  e4m3,
  type Expr,
  type MmaAtom,
  mmaAtoms,
  type Params,
  ShapeError,
  type Tile,
  tiledMma,
} from "../dsl/index.ts";
import { composition, makeLayout, Swizzle } from "../dsl/layout/index.ts";
import { maxOf } from "../dsl/size.ts";
import { callerOfKernels } from "./caller.ts";
import type { NoParams, WithEpilogue } from "./epilogue.ts";
import * as ll from "./ll-gemm.ts";
import { fillRing } from "./ring.ts";
import { addPartials, partialSums, partialTile } from "./split-k.ts";

export interface LlGemmStreamConfig<Out extends ll.OutName = ll.OutName> extends ll.GemmSizes<Out> {
  /** Columns of y that a cluster makes: rows of w. Default 64. */
  readonly rows?: 16 | 32 | 64;
  /** Blocks that share these columns. Default: as many as make 150 blocks or more of it all. */
  readonly cluster?: 1 | 2 | 4 | 8;
  /** Boxes of 128 bytes of each row in a stage, 1 to 16; a multiple of `groups`. */
  readonly boxes?: number;
  /** Stages of the ring. Default: half of shared memory, less where rings leave no room for the next kernel's. */
  readonly stages?: number;
  /** Groups of warps that share the boxes of a stage. */
  readonly groups?: 1 | 2 | 4 | 8;
}

/** bf16 weights and tokens. @throws ShapeError unless K is a multiple of 8, as TMA wants its rows */
export function llGemmStreamBf16<Out extends ll.OutName, P extends Params = NoParams>(
  config: LlGemmStreamConfig<Out> & WithEpilogue<P>,
) {
  const plan = planOf(config, bf16);
  return ll.inBf16("ll_gemm_stream", config, plan, (gemm) => multiply(gemm, mmaAtoms.m16n8k16.bf16, plan));
}

/** e4m3 weights and tokens, with one scale each that is read from device memory. @throws ShapeError unless K is a multiple of 16 */
export function llGemmStreamE4m3<Out extends ll.OutName, P extends Params = NoParams>(
  config: LlGemmStreamConfig<Out> & WithEpilogue<P>,
) {
  const plan = planOf(config, e4m3);
  return ll.inE4m3("ll_gemm_stream", config, plan, (gemm) => multiply(gemm, mmaAtoms.m16n8k32.e4m3, plan));
}

function multiply<In extends ll.InName>(
  { t, w, storeOf, M, N }: ll.Gemm<In>,
  atom: MmaAtom<In, In, "f32">,
  { rows, cluster, boxK, boxes, stages, groups, mmaWarps, tokens, steps }: ReturnType<typeof planOf>,
): void {
  const splitK = { M, N, columns: rows, tokens, parts: groups };
  const sums = partialSums(t, splitK);
  t.cluster.arrive();

  // As TMA swizzles: 16-byte units within 8 rows of 128 bytes.
  const swizzle = new Swizzle(3, 4 - Math.log2(w.dtype.bytes), 3);
  const ringOf = (extent: number) =>
    composition(swizzle, makeLayout([extent, boxK, boxes, stages], [boxK, 1, extent * boxK, extent * boxK * boxes]));
  const sW = t.sharedTile(w.dtype, ringOf(rows), { alignBytes: 1024 }); // (rows, boxK, boxes, stages)
  const sX = t.sharedTile(w.dtype, ringOf(tokens), { alignBytes: 1024 }); // (tokens, boxK, boxes, stages)
  const ring = t.pipeline(stages, { producers: 1, consumers: mmaWarps });
  const box = (tile: Tile<In, "shared">, b: number | Expr<"i32">, i: Expr<"i32">) =>
    tile.slice([null, null, b, ring.stage(i)]);
  const tileN = t.block.x.div(cluster);
  const mma = tiledMma(atom).slice(t.lane);
  const rC = t.accumulator(mma, [16, tokens]); // (4, 1, tokens / 8)
  const [group, part] = [t.warp.div(mmaWarps / groups), t.warp.rem(mmaWarps / groups)];

  const consume = () => {
    t.pdl.launchDependents();
    for (const i of t.range(steps)) {
      ring.wait(i);
      for (let first = 0; first < boxes; first += groups) {
        const b = groups === 1 ? first : group.add(first);
        const tA = mma.partitionA(box(sW, b, i).tile([16, boxK], [part, 0])); // (value, 1, boxK / atom.K)
        const tB = mma.partitionB(box(sX, b, i)); // (value, tokens / 8, boxK / atom.K)
        const [rA, rB] = [t.matrixFragment(tA), t.matrixFragment(tB)];
        t.copyMatrix(tA, rA);
        t.copyMatrix(tB, rB);
        t.mma(rC, rA, rB);
      }
      t.warpBarrier(); // all lanes have read
      t.when(t.lane.eq(0), () => ring.release(i));
    }
    t.copy(rC, mma.partitionC(partialTile(splitK, sums, group, 16, part)));
  };
  const produce = () => {
    const swizzled = { swizzleBytes: 128 } as const;
    const eachBox = (i: Expr<"i32">, copy: (b: number, k: Expr<"i32">) => void) => {
      const first = t.cluster.rank.mul(t.dim(steps)).add(i).mul(boxes);
      for (let b = 0; b < boxes; b++) copy(b, first.add(b).mul(boxK));
    };
    const mapW = t.tensorMap(w, [rows, boxK], swizzled);
    const copyW = (i: Expr<"i32">) => {
      ring.full.arriveExpect(ring.stage(i), (rows + tokens) * boxes * 128);
      eachBox(i, (b, k) => {
        t.copyTensor(mapW, [tileN.mul(rows), k], box(sW, b, i), ring.full, ring.stage(i), { cache: "stream" });
      });
    };
    fillRing(t, ring, t.dim(steps), copyW, () => {
      t.pdl.launchDependents();
      const { x } = t.pdl.wait();
      const mapX = t.tensorMap(x, [tokens, boxK], swizzled);
      return (i) => eachBox(i, (b, k) => t.copyTensor(mapX, [0, k], box(sX, b, i), ring.full, ring.stage(i)));
    });
  };
  t.when(t.warp.lt(mmaWarps), consume, produce);

  t.barrier(); // sums are there, and what the last warp waited for
  t.cluster.wait(); // the other blocks have started: their memory is there
  addPartials(t, splitK, sums, tileN, storeOf(t.pdl.afterBarrier()));
}

function planOf(config: LlGemmStreamConfig, dtype: DType) {
  ll.requireConfig("llGemmStream", config, ["rows", "cluster", "boxes", "stages", "groups"]);
  const { M, N, K, ...given } = config;
  if (ll.rowAlignBytes(K, dtype) !== 16) {
    throw new ShapeError(`ll_gemm_stream takes rows of whole 16 bytes, not of ${K} ${dtype.name}`, {
      at: callerOfKernels(),
      hint: `K a multiple of ${16 / dtype.bytes}, promised for a Size by { multipleOf }; others are for llGemmMma`,
    });
  }
  const { rows = 64 } = given;
  const { groups = (dtype.bytes === 1 ? 128 : 64) / rows } = given;
  const { boxes = Math.max(2, groups) } = given;
  ll.requireCounts("llGemmStream", { boxes, "boxes / groups": boxes / groups }, 16);
  const boxK = 128 / dtype.bytes;
  const tokens = maxOf(M) <= 8 ? 8 : 16;
  const tiles = Math.ceil(maxOf(N) / rows);
  const chunks = Math.ceil(maxOf(K) / (boxK * boxes));
  const { cluster = ([1, 2, 4] as const).find((c) => tiles * c >= 150 || c * 4 > chunks) ?? 8 } = given;
  const steps: Dim = ceilDiv(ceilDiv(K, boxK * boxes), cluster);
  const stageBytes = (rows + tokens) * boxes * 128;
  // Blocks that run at once leave a third of all shared memory to those of the next kernel; measured on an H200: 264 blocks
  // with 4 stages 8.9 us, with 5 stages 11.3 (8 x 2112 x 7168).
  const blocks = tiles * cluster;
  const ringBytes = blocks <= 264 ? Math.min(104 * 1024, 20.7e6 / blocks) : 104 * 1024;
  const { stages = Math.max(2, Math.min(maxOf(steps), Math.floor(ringBytes / stageBytes))) } = given;
  ll.requireCounts("llGemmStream", { stages }, 64);
  const mmaWarps = (rows / 16) * groups;
  return {
    ...{ grid: dims.mul(ceilDiv(N, rows), cluster), cluster, block: (mmaWarps + 1) * 32 },
    ...{ rows, boxK, boxes, stages, groups, mmaWarps, tokens, steps },
  };
}
