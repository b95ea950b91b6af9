/**
 * Low-latency GEMM for weights of megabytes: y[m,n] = sum over k of x[m,k] * w[n,k], for 1 to 16 tokens m, at the speed of
 * memory. A cluster of blocks makes 64 columns n of y, each block with its part of K. One warp asks for tiles by TMA, the
 * others multiply; between them lies a ring of stages in shared memory:
 *
 *     last warp     64 rows of w, `boxes` times 128 bytes each, and as much of x   -> stage 0, 1, ...
 *     group 0       ldmatrix, mma of boxes 0, groups, 2 * groups, ...              <-
 *     group 1       ...          of boxes 1, groups + 1, ...                       <-
 *
 * The warps of a group share its 64 rows.
 *
 * What matters is how many bytes are under way. The ring fills half of shared memory, so that two blocks fit into a
 * multiprocessor: that of the next kernel in a PDL chain asks for its weights while this one still multiplies. Weights are
 * frozen: all stages of them are on their way before the wait; tokens follow after it.
 *
 * Where there are several times more tiles than blocks fit in at once, persistent blocks (`blocks`) keep their rings filled
 * from one tile to the next: only the first tile finds an empty one.
 */
import {
  bf16,
  ceilDiv,
  type Dim,
  dims,
  type DType,
  e4m3,
  type Expr,
  type Fragment,
  type Index,
  type MmaAtom,
  mmaAtoms,
  type Params,
  ShapeError,
  type Tile,
  tiledMma,
} from "../dsl/index.ts";
import { composition, makeLayout, select, Swizzle } from "../dsl/layout/index.ts";
import { maxOf } from "../dsl/size.ts";
import type { NoParams, WithEpilogue } from "./epilogue.ts";
import * as ll from "./ll-gemm.ts";
import { fillRing } from "./ring.ts";
import { addPartials, partialSums, partialTile } from "./split-k.ts";

export interface LlGemmStreamConfig<Out extends ll.OutName = ll.OutName> extends ll.GemmSizes<Out> {
  /** Blocks that share 64 columns. Default: as many as make 150 blocks or more of it all. */
  readonly cluster?: 1 | 2 | 4 | 8;
  /**
   * Persistent blocks, without clusters: each makes several tiles of 64 columns, one after the other, and asks for weights of
   * the next while it ends the last. Default: a block, or a cluster, for each tile.
   */
  readonly blocks?: number;
  /** Boxes of 128 bytes of each row in a stage, 1 to 8; a multiple of `groups`. */
  readonly boxes?: number;
  /** Stages of the ring. Default: half of shared memory, less where rings leave no room for the next kernel's. */
  readonly stages?: number;
  /** Groups of warps that share the boxes of a stage. */
  readonly groups?: 1 | 2 | 4;
  /** Rows of w that a warp multiplies; more of them share the tokens that it loads. */
  readonly rowsPerWarp?: 16 | 32;
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

/** Of w, in a block. */
const rows = 64;

function multiply<In extends ll.InName>(gemm: ll.Gemm<In>, atom: MmaAtom<In, In, "f32">, plan: Plan): void {
  if (plan.blocks === undefined) multiplyInClusters(gemm, atom, plan);
  else multiplyPersistently(gemm, atom, plan, plan.blocks);
}

/** One tile each. */
function multiplyInClusters<In extends ll.InName>(gemm: ll.Gemm<In>, atom: MmaAtom<In, In, "f32">, plan: Plan): void {
  const { t, storeOf, M, N } = gemm;
  const { cluster, groups, rowsPerWarp, mmaWarps, tokens, steps } = plan;
  const splitK = { M, N, columns: rows, tokens, parts: groups };
  const sums = partialSums(t, splitK);
  t.cluster.arrive();
  const tileN = t.block.x.div(cluster);
  const { mma, group, part, accumulate, produce } = streamOf(gemm, atom, plan);
  const rC = t.accumulator(mma, [rowsPerWarp, tokens]); // (4, rowsPerWarp / 16, tokens / 8)

  const consume = () => {
    t.pdl.launchDependents();
    accumulate(rC, 0, steps);
    t.copy(rC, mma.partitionC(partialTile(splitK, sums, group, rowsPerWarp, part)));
  };
  t.when(t.warp.lt(mmaWarps), consume, () =>
    produce(
      t.dim(steps),
      () => tileN,
      (i) => t.cluster.rank.mul(t.dim(steps)).add(i),
    ),
  );

  t.barrier(); // sums are there, and what the last warp waited for
  t.cluster.wait(); // the other blocks have started: their memory is there
  const late = t.pdl.afterBarrier();
  addPartials(t, splitK, sums, tileN, storeOf(late));
}

/** Persistent blocks: tiles block.x, block.x + blocks, ... of each. All their steps follow one another in its ring. */
function multiplyPersistently<In extends ll.InName>(
  gemm: ll.Gemm<In>,
  atom: MmaAtom<In, In, "f32">,
  plan: Plan,
  blocks: number,
): void {
  const { t, storeOf, M, N } = gemm;
  const { groups, rowsPerWarp, mmaWarps, tokens } = plan;
  const splitK = { M, N, columns: rows, tokens, parts: groups };
  const sums = groups === 1 ? undefined : partialSums(t, splitK);
  const { mma, group, part, accumulate, produce } = streamOf(gemm, atom, plan);
  const [tiles, steps] = [t.dim(plan.tiles), t.dim(plan.steps)];
  // Of the warps that multiply: nothing at the end of a tile concerns the last warp, which is in the next one already.
  const barriers = { stored: 1, read: 2, threads: mmaWarps * 32 };

  const consume = () => {
    t.pdl.launchDependents();
    const late = t.pdl.wait(); // tokens come no earlier
    const storeSum = storeOf(late);
    for (const tile of t.range(t.block.x, tiles, { step: blocks })) {
      const first = tile.div(blocks).mul(steps);
      const rC = t.accumulator(mma, [rowsPerWarp, tokens]); // (4, rowsPerWarp / 16, tokens / 8)
      accumulate(rC, first, first.add(steps));

      const row = tile.mul(rows / rowsPerWarp).add(part);
      const gC = mma.partitionC(late.y.tile([tokens, rowsPerWarp], [0, row]).map((layout) => select(layout, 1, 0)));
      const store = (totals: readonly Expr<"f32">[]) => {
        for (const [value, total] of totals.entries()) {
          const [m, n] = gC.coordinate(value) as [Expr<"i32">, Expr<"i32">];
          t.when(gC.inBounds(value), () => storeSum(m, n, total));
        }
      };
      const own = () => Array.from({ length: rC.size() }, (_, value) => rC.get(value));
      if (!sums) {
        store(own());
      } else {
        const partOf = (g: Index) => mma.partitionC(partialTile(splitK, sums, g, rowsPerWarp, part));
        const addAndStore = () => {
          t.namedBarrier(barriers.stored, barriers.threads);
          const others = Array.from({ length: groups - 1 }, (_, g) => partOf(g + 1));
          const totals = own().map((sum, value) => others.reduce((total, tC) => total.add(tC.load(value)), sum));
          t.namedArrive(barriers.read, barriers.threads);
          store(totals);
        };
        const handOver = () => {
          t.copy(rC, partOf(group));
          t.namedArrive(barriers.stored, barriers.threads);
          t.namedBarrier(barriers.read, barriers.threads);
        };
        t.when(group.eq(0), addAndStore, handOver);
      }
    }
  };
  const turns = tiles
    .add(blocks - 1)
    .sub(t.block.x)
    .div(blocks);
  const produceAll = () =>
    produce(
      turns.mul(steps),
      (i) => t.block.x.add(i.div(steps).mul(blocks)),
      (i) => i.rem(steps),
    );
  t.when(t.warp.lt(mmaWarps), consume, produceAll);
}

/** The ring, and what the warps on both its sides do. Step i of a block lies in stage i % stages. */
function streamOf<In extends ll.InName>(
  { t, w }: ll.Gemm<In>,
  atom: MmaAtom<In, In, "f32">,
  { boxK, boxes, stages, groups, rowsPerWarp, mmaWarps, tokens }: Plan,
) {
  // As TMA swizzles: 16-byte units within 8 rows of 128 bytes.
  const swizzle = new Swizzle(3, 4 - Math.log2(w.dtype.bytes), 3);
  const ringOf = (extent: number) =>
    composition(swizzle, makeLayout([extent, boxK, boxes, stages], [boxK, 1, extent * boxK, extent * boxK * boxes]));
  const sW = t.sharedTile(w.dtype, ringOf(rows), { alignBytes: 1024 }); // (64, boxK, boxes, stages)
  const sX = t.sharedTile(w.dtype, ringOf(tokens), { alignBytes: 1024 }); // (tokens, boxK, boxes, stages)
  const ring = t.pipeline(stages, { producers: 1, consumers: mmaWarps });
  const box = (tile: Tile<In, "shared">, b: number | Expr<"i32">, i: Expr<"i32">) =>
    tile.slice([null, null, b, ring.stage(i)]);
  const mma = tiledMma(atom).slice(t.lane);
  const [group, part] = [t.warp.div(mmaWarps / groups), t.warp.rem(mmaWarps / groups)];

  /** Adds the products of steps `from` up to `to`, by a warp that multiplies. */
  const accumulate = (rC: Fragment<"f32", "C", typeof atom>, from: Index, to: Index) => {
    for (const i of t.range(from, to)) {
      ring.wait(i);
      for (let first = 0; first < boxes; first += groups) {
        const b = groups === 1 ? first : group.add(first);
        const tA = mma.partitionA(box(sW, b, i).tile([rowsPerWarp, boxK], [part, 0])); // (value, rows, boxK / atom.K)
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
  /** Asks for `steps` steps, by the last warp: step i is of tile `tileOf(i)`, there number `stepOf(i)` along K. */
  const produce = (steps: Expr<"i32">, tileOf: (i: Expr<"i32">) => Expr<"i32">, stepOf: typeof tileOf) => {
    const swizzled = { swizzleBytes: 128 } as const;
    const eachBox = (i: Expr<"i32">, copy: (b: number, k: Expr<"i32">) => void) => {
      const first = stepOf(i).mul(boxes);
      for (let b = 0; b < boxes; b++) copy(b, first.add(b).mul(boxK));
    };
    const mapW = t.tensorMap(w, [rows, boxK], swizzled);
    const copyW = (i: Expr<"i32">) => {
      ring.full.arriveExpect(ring.stage(i), (rows + tokens) * boxes * 128);
      const tileN = tileOf(i);
      eachBox(i, (b, k) => t.copyTensor(mapW, [tileN.mul(rows), k], box(sW, b, i), ring.full, ring.stage(i)));
    };
    fillRing(t, ring, steps, copyW, () => {
      t.pdl.launchDependents();
      const { x } = t.pdl.wait();
      const mapX = t.tensorMap(x, [tokens, boxK], swizzled);
      return (i) => eachBox(i, (b, k) => t.copyTensor(mapX, [0, k], box(sX, b, i), ring.full, ring.stage(i)));
    });
  };
  return { mma, group, part, accumulate, produce };
}

type Plan = ReturnType<typeof planOf>;

function planOf({ M, N, K, ...given }: LlGemmStreamConfig, dtype: DType) {
  if (ll.rowAlignBytes(K, dtype) !== 16) {
    throw new ShapeError(`ll_gemm_stream takes rows of whole 16 bytes, not of ${K} ${dtype.name}`, {
      hint: `K a multiple of ${16 / dtype.bytes}, promised for a Size by { multipleOf }; others are for llGemmMma`,
    });
  }
  const { groups = dtype.bytes === 1 ? 2 : 1, rowsPerWarp = 16, blocks } = given;
  const { boxes = Math.max(2, groups) } = given;
  ll.requireCounts("llGemmStream", { boxes, "boxes / groups": boxes / groups }, 8);
  const boxK = 128 / dtype.bytes;
  const tokens = maxOf(M) <= 8 ? 8 : 16;
  const tiles = ceilDiv(N, rows);
  const chunks = Math.ceil(maxOf(K) / (boxK * boxes));
  const spread = () => ([1, 2, 4] as const).find((c) => maxOf(tiles) * c >= 150 || c * 4 > chunks) ?? 8;
  const { cluster = blocks === undefined ? spread() : 1 } = given;
  if (blocks !== undefined) {
    ll.requireCounts("llGemmStream", { blocks }, 65535);
    if (cluster !== 1) {
      throw new ShapeError(
        `llGemmStream: ${blocks} blocks for all tiles and clusters of ${cluster} exclude each other`,
        {
          hint: "Leave out cluster, or blocks",
        },
      );
    }
  }
  const steps: Dim = ceilDiv(ceilDiv(K, boxK * boxes), cluster);
  const stageBytes = (rows + tokens) * boxes * 128;
  // Blocks that run at once leave a third of all shared memory to those of the next kernel; measured on an H200: 264 blocks
  // with 4 stages 8.9 us, with 5 stages 11.3 (8 x 2112 x 7168).
  const grid = dims.mul(blocks === undefined ? tiles : dims.min(tiles, blocks), cluster);
  const ringBytes = maxOf(grid) <= 264 ? Math.min(104 * 1024, 20.7e6 / maxOf(grid)) : 104 * 1024;
  const { stages = Math.max(2, Math.min(maxOf(steps), Math.floor(ringBytes / stageBytes))) } = given;
  ll.requireCounts("llGemmStream", { stages }, 64);
  const mmaWarps = (rows / rowsPerWarp) * groups;
  return {
    ...{ grid, cluster, block: (mmaWarps + 1) * 32 },
    ...{ blocks, tiles, boxK, boxes, stages, groups, rowsPerWarp, mmaWarps, tokens, steps },
  };
}
