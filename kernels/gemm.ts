/**
 * General GEMM on tensor cores: y[m,n] = sum over k of x[m,k] * w[n,k], for any M; what the low-latency kernels leave over.
 *
 * A block makes a tile of y. One warpgroup of it copies, the others multiply, 64 rows each; between them lies a ring of
 * stages in shared memory, each 64 columns of K (128 bytes, swizzled as TMA writes and wgmma reads it):
 *
 *     producer    wait until empty -> stage i % stages: | x: tileM x 64 |  -> full
 *                                                       | w: tileN x 64 |
 *     consumers   wait until full  -> 4 x wgmma, while those of stage i - 1 end -> that one is empty
 *
 * Weights are frozen: the first `stages` tiles of them are on their way before the producer waits for the kernel that makes x.
 *
 * Blocks that run at the same time should share rows and columns in L2: the grid goes down a group of up to 8 row tiles
 * (block.x), then on to the next column tile (block.y), then to the next group (block.z).
 */
import {
  bf16,
  ceilDiv,
  type Expr,
  frozen,
  input,
  kernel,
  type LaneCount,
  output,
  tiledMma,
  wgmmaAtom,
} from "../dsl/index.ts";
import { composition, makeLayout, parseLayout, Swizzle } from "../dsl/layout/index.ts";
import { callerOfKernels } from "./caller.ts";
import { type GemmConfig, planOf, tileK } from "./gemm-plan.ts";
import type { OutName } from "./ll-gemm.ts";
import { fillRing } from "./ring.ts";

/** bf16 weights and tokens. */
export function gemmBf16<Out extends OutName>(config: GemmConfig<Out>) {
  const { M, N, K, out } = config;
  const plan = planOf(config);
  const { grid, block, alignBytes, alignBytesY } = plan;
  const params = {
    w: frozen(bf16, [N, K], { alignBytes }),
    x: input(bf16, [M, K], { alignBytes }),
    y: output(out, [M, N], { alignBytes: alignBytesY }),
  };
  return kernel({ name: `gemm_bf16_m${M}_n${N}_k${K}`, grid, block, params, at: callerOfKernels() }, (t, { w }) => {
    const { tileM, tileN, tilesM, stages, consumers, byTma, lanesY } = plan;
    const sX = t.sharedTile(bf16, ringOf(tileM, stages), { alignBytes: 1024 }); // (tileM, 64, stages)
    const sW = t.sharedTile(bf16, ringOf(tileN, stages), { alignBytes: 1024 }); // (tileN, 64, stages)
    const ring = t.pipeline(stages, { producers: byTma ? 1 : 128, consumers: consumers * 4 });
    const stage = (tile: typeof sX, i: Expr<"i32">) => tile.slice([null, null, ring.stage(i)]);

    const [tileRow, tileColumn] = [t.block.z.mul(t.grid.x).add(t.block.x), t.block.y];
    const steps = tileRow.lt(tilesM).select(t.dim(ceilDiv(K, tileK)), 0); // the last group may have blocks to spare
    t.pdl.launchDependents();

    const consume = () => {
      if (plan.movesRegisters) t.setRegisters("increase", 232);
      const { y } = t.pdl.wait();
      const mma = tiledMma(wgmmaAtom(tileN, bf16, bf16), { warps: [consumers, 1] }).slice(t.thread);
      const gC = mma.partitionC(y.tile([tileM, tileN], [tileRow, tileColumn])); // ((2,2,tileN / 8),1,1)
      const rC = t.fragment(gC);
      for (const i of t.range(steps)) {
        ring.wait(i);
        t.wgmmaFence();
        t.wgmma(rC, stage(sX, i).tile([64, tileK], [t.warp.div(4), 0]), stage(sW, i));
        t.wgmmaCommit();
        t.wgmmaWait(1); // stage i - 1 has been read
        t.when(i.gt(0).and(t.lane.eq(0)), () => ring.release(i.sub(1)));
      }
      t.wgmmaWait(0);
      // A lane has pairs of neighbours; they are stored together where rows of y keep them aligned.
      for (let value = 0; value < rC.size(); value += lanesY) {
        const [m = 0, n = 0] = gC.coordinate(value);
        const sums = lanesY === 2 ? t.pack(rC.get(value), rC.get(value + 1)) : rC.get(value);
        t.when(gC.inBounds(value), () => y.storeVec([m, n], (sums as Expr<"f32", LaneCount>).to(out)));
      }
    };

    /** One lane of one warp asks for whole tiles. */
    const produceByTma = () => {
      const boxes = { swizzleBytes: 128 } as const;
      const mapW = t.tensorMap(w, [tileN, tileK], boxes);
      const bytes = (tileM + tileN) * tileK * 2;
      const copyW = (i: Expr<"i32">) => {
        ring.full.arriveExpect(ring.stage(i), bytes);
        t.copyTensor(mapW, [tileColumn.mul(tileN), i.mul(tileK)], stage(sW, i), ring.full, ring.stage(i));
      };
      fillRing(t, ring, steps, copyW, () => {
        const { x } = t.pdl.wait();
        const mapX = t.tensorMap(x, [tileM, tileK], boxes);
        return (i) => t.copyTensor(mapX, [tileRow.mul(tileM), i.mul(tileK)], stage(sX, i), ring.full, ring.stage(i));
      });
    };

    /** For rows that are no multiples of 16 bytes: all four warps copy, each thread 8 elements of every 16th row. */
    const produceByThreads = () => {
      const { x } = t.pdl.wait();
      const thread = t.thread.rem(128);
      const copy = (from: typeof w | typeof x, tile: Expr<"i32">, to: typeof sX, i: Expr<"i32">) => {
        const parts = to.size(0) / 16;
        for (const part of t.range(parts)) {
          const source = from.tile([16, tileK], [tile.mul(parts).add(part), i]).partition(eightEach, thread);
          const registers = t.fragment(source);
          t.copy(source, registers, { guard: "edges" });
          t.copy(registers, to.tile([16, tileK], [part, 0]).partition(eightEach, thread));
        }
      };
      for (const i of t.range(steps)) {
        ring.acquire(i);
        copy(w, tileColumn, stage(sW, i), i);
        copy(x, tileRow, stage(sX, i), i);
        t.asyncFence(); // wgmma reads what this thread stored
        ring.full.arrive(ring.stage(i));
      }
    };

    t.when(t.warp.lt(consumers * 4), consume, () => {
      if (plan.movesRegisters) t.setRegisters("decrease", 40);
      if (byTma) t.when(t.warp.eq(consumers * 4), produceByTma);
      else produceByThreads();
    });
  });
}

/** (rows, 64, stages), row-major in each stage, swizzled: Sw<3,4,3> in bytes. */
const ringOf = (rows: number, stages: number) =>
  composition(new Swizzle(3, 3, 3), makeLayout([rows, tileK, stages], [tileK, 1, rows * tileK]));

/** (thread, value) -> element of (16, 64): 8 neighbours each, 8 threads a row. */
const eightEach = parseLayout("((8,16),8):((128,1),16)");

/** Projections of real models, at the M of prompts: what the tier is measured on. Every M, N and K is served. */
export const gemmConfigurations = [
  { model: "Llama-3.1-8B up projection", out: "bf16", N: 14336, K: 4096 },
  { model: "Llama-3.1-8B output projection", out: "bf16", N: 4096, K: 4096 },
  { model: "DeepSeek-V3 router", out: "f32", N: 256, K: 7168 },
  { model: "gpt-oss-120b QKV", out: "bf16", N: 5120, K: 2880 },
] as const;
