/**
 * Low-latency GEMM for weights of megabytes: y[m,n] = sum over k of x[m,k] * w[n,k], for 1 to 16 tokens m, at the speed of
 * memory. A block makes 64 columns n of y, a cluster shares K; one warp asks for tiles by TMA, four multiply 16 rows each:
 *
 *     warp 4      w: 64 rows x 128 bytes, `boxes` of them, and as much of x     -> stage 0, 1, ... of a ring
 *     warps 0..3  ldmatrix, mma: rows 16 * warp to 16 * warp + 15 of w          <-
 *
 * What matters is bytes under way. The ring fills half of shared memory, so that two blocks fit into a multiprocessor: that
 * of the next kernel in a PDL chain asks for its weights while this one still multiplies. The stages of weights are on their
 * way before the wait; tokens follow after it.
 *
 * Rows of K must be multiples of 16 bytes, which TMA wants.
 */
import {
  ceilDiv,
  type Dim,
  dims,
  type DType,
  type Expr,
  bf16,
  e4m3,
  type MmaAtom,
  mmaAtoms,
  ShapeError,
  type Tile,
  tiledMma,
} from "../dsl/index.ts";
import { composition, makeLayout, select, Swizzle } from "../dsl/layout/index.ts";
import { maxOf } from "../dsl/size.ts";
import {
  type Gemm,
  type GemmSizes,
  inBf16,
  inE4m3,
  type InName,
  type OutName,
  requireCounts,
  rowAlignBytes,
} from "./ll-gemm.ts";
import { addPartials, partialSums, sendPartials } from "./split-k.ts";

export interface LlGemmStreamConfig<Out extends OutName = OutName> extends GemmSizes<Out> {
  /** Blocks that share 64 columns, each with its part of K. Default: what keeps 132 multiprocessors busy. */
  readonly cluster?: 1 | 2 | 4 | 8;
  /** Boxes of 128 bytes of each row in a stage, 1 to 8. */
  readonly boxes?: number;
  /** Stages of the ring. Default: what fits into half of shared memory. */
  readonly stages?: number;
}

/** bf16 weights and tokens. @throws ShapeError unless K is a multiple of 8 */
export function llGemmStreamBf16<Out extends OutName>(config: LlGemmStreamConfig<Out>) {
  const plan = planOf(config, bf16);
  return inBf16("ll_gemm_stream", config, plan, (gemm) => multiply(gemm, mmaAtoms.m16n8k16.bf16, plan));
}

/** e4m3 weights and tokens, with one scale each that is read from device memory. @throws ShapeError unless K is a multiple of 16 */
export function llGemmStreamE4m3<Out extends OutName>(config: LlGemmStreamConfig<Out>) {
  const plan = planOf(config, e4m3);
  return inE4m3("ll_gemm_stream", config, plan, (gemm) => multiply(gemm, mmaAtoms.m16n8k32.e4m3, plan));
}

const rows = 64;
const mmaWarps = rows / 16;

function multiply<In extends InName, Out extends OutName>(
  { t, w, scaleOf, M, N, out }: Gemm<In, Out>,
  atom: MmaAtom<In, In, "f32">,
  { cluster, boxK, boxes, stages, tokens, steps }: ReturnType<typeof planOf>,
): void {
  const splitK = { M, N, out, columns: rows, tokens, slices: cluster };
  const sPart = partialSums(t, splitK);
  t.cluster.arrive();

  // As TMA swizzles: 16-byte units within 8 rows of 128 bytes.
  const ringOf = (extent: number) =>
    composition(
      new Swizzle(3, 4 - Math.log2(w.dtype.bytes), 3),
      makeLayout([extent, boxK, boxes, stages], [boxK, 1, extent * boxK, extent * boxK * boxes]),
    );
  const sW = t.sharedTile(w.dtype, ringOf(rows), { alignBytes: 1024 }); // (64, boxK, boxes, stages)
  const sX = t.sharedTile(w.dtype, ringOf(tokens), { alignBytes: 1024 }); // (tokens, boxK, boxes, stages)
  const ring = t.pipeline(stages, { producers: 1, consumers: mmaWarps });
  const box = (tile: Tile<In, "shared">, b: number, i: Expr<"i32">) => tile.slice([null, null, b, ring.stage(i)]);

  const tileN = t.block.x.div(cluster);
  const kOf = (i: Expr<"i32">, b: number) => t.cluster.rank.mul(t.dim(steps)).add(i).mul(boxes).add(b).mul(boxK);

  const mma = tiledMma(atom).slice(t.lane);
  const rC = t.accumulator(mma, [16, tokens]); // (4, 1, tokens / 8)
  const consume = () => {
    for (const i of t.range(steps)) {
      ring.wait(i);
      for (let b = 0; b < boxes; b++) {
        const tA = mma.partitionA(box(sW, b, i).tile([16, boxK], [t.warp, 0])); // (value, 1, boxK / atom.K)
        const tB = mma.partitionB(box(sX, b, i)); // (value, tokens / 8, boxK / atom.K)
        const [rA, rB] = [t.matrixFragment(tA), t.matrixFragment(tB)];
        t.copyMatrix(tA, rA);
        t.copyMatrix(tB, rB);
        t.mma(rC, rA, rB);
      }
      t.warpBarrier(); // all lanes have read
      t.when(t.lane.eq(0), () => ring.release(i));
    }
  };
  const produce = () => {
    const swizzled = { swizzleBytes: 128 } as const;
    const mapW = t.tensorMap(w, [rows, boxK], swizzled);
    const bytes = (rows + tokens) * boxes * 128;
    const copyW = (i: Expr<"i32">) => {
      ring.full.arriveExpect(ring.stage(i), bytes);
      for (let b = 0; b < boxes; b++) {
        t.copyTensor(mapW, [tileN.mul(rows), kOf(i, b)], box(sW, b, i), ring.full, ring.stage(i));
      }
    };
    const early = t.dim(steps).min(stages);
    t.when(t.lane.eq(0), () => {
      for (const i of t.range(early)) copyW(i);
    });
    t.pdl.launchDependents();
    const { x } = t.pdl.wait();
    const mapX = t.tensorMap(x, [tokens, boxK], swizzled);
    const copyX = (i: Expr<"i32">) => {
      for (let b = 0; b < boxes; b++) {
        t.copyTensor(mapX, [0, kOf(i, b)], box(sX, b, i), ring.full, ring.stage(i));
      }
    };
    t.when(t.lane.eq(0), () => {
      for (const i of t.range(early)) copyX(i);
    });
    for (const i of t.range(early, steps)) {
      ring.acquire(i);
      t.when(t.lane.eq(0), () => {
        copyW(i);
        copyX(i);
      });
    }
  };
  t.when(t.warp.lt(mmaWarps), consume, produce);

  t.cluster.wait(); // the other blocks have started: their memory is there
  t.barrier(); // orders all after the warp that waited
  const late = t.pdl.afterBarrier();
  const tileY = late.y.tile([tokens, 16], [0, tileN.mul(mmaWarps).add(t.warp)]).map((layout) => select(layout, 1, 0));
  const gC = mma.partitionC(tileY);
  t.when(t.warp.lt(mmaWarps), () => sendPartials(t, splitK, sPart, t.cluster.rank, rC, gC));
  t.cluster.barrier();
  addPartials(t, splitK, sPart, tileN, late.y, scaleOf(late));
}

function planOf({ M, N, K, boxes = 2, ...given }: LlGemmStreamConfig, dtype: DType) {
  if (rowAlignBytes(K, dtype) !== 16) {
    throw new ShapeError(`ll_gemm_stream takes rows of whole 16 bytes, not of ${K} ${dtype.name}`, {
      hint: `K a multiple of ${16 / dtype.bytes}, promised for a Size by { multipleOf }; others are for llGemmMma`,
    });
  }
  requireCounts("llGemmStream", { boxes }, 8);
  const boxK = 128 / dtype.bytes;
  const tokens = maxOf(M) <= 8 ? 8 : 16;
  const tiles = Math.ceil(maxOf(N) / rows);
  const chunks = Math.ceil(maxOf(K) / (boxK * boxes));
  const { cluster = ([1, 2, 4] as const).find((c) => tiles * c >= 100 || c * 4 > chunks) ?? 8 } = given;
  const stageBytes = (rows + tokens) * boxes * 128;
  const steps: Dim = ceilDiv(ceilDiv(K, boxK * boxes), cluster);
  const { stages = Math.min(maxOf(steps), Math.floor((104 * 1024) / stageBytes)) } = given;
  return {
    ...{ grid: dims.mul(ceilDiv(N, rows), cluster), cluster, block: (mmaWarps + 1) * 32 },
    ...{ boxK, boxes, stages, tokens, steps },
  };
}
