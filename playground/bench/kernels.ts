/** Kernels of the measurement itself: how fast memory can be read here, and what a launch costs that does nothing. */
import { bf16, f32, frozen, i32, inout, type Kernel, kernel, output } from "../../dsl/index.ts";
import {
  llGemmDotBf16,
  llGemmDotE4m3,
  llGemmMmaBf16,
  llGemmMmaE4m3,
  llGemmStreamBf16,
  llGemmStreamE4m3,
} from "../../kernels/index.ts";
import type { Case } from "./cases.ts";

/** Bytes that a launch of `streamRead` reads: far more than L2 holds. */
export const streamBytes = 2 ** 30;

const words = streamBytes / 4;
const blocks = 132 * 8;
const perTurn = blocks * 512 * 4;

/** Reads all of `x` once, 16 bytes a load, 8 loads in flight. */
export const streamRead = kernel(
  {
    name: "stream_read",
    grid: blocks,
    block: 512,
    params: { x: frozen(i32, [words], { alignBytes: 16 }), y: inout(i32, [1]) },
  },
  (t, { x }) => {
    const { y } = t.pdl.wait();
    const sum = t.reg(i32, 0);
    const first = t.block.x.mul(512).add(t.thread).mul(4);
    for (const turn of t.range(Math.floor(words / perTurn / 8))) {
      const loads = Array.from({ length: 8 }, (_, i) => {
        const at = turn.mul(8).add(i).mul(perTurn).add(first);
        return x.loadVec([at], 4, { cache: "stream" });
      });
      for (const load of loads) for (let lane = 0; lane < 4; lane++) sum.update((s) => s.xor(load.lane(lane)));
    }
    // Never so: but the compiler can't know.
    t.when(sum.get().eq(0x5eed_0001), () => y.store([0], sum));
  },
);

/** What its loop covers of `words`. */
export const streamReadBytes = Math.floor(words / perTurn / 8) * 8 * perTurn * 4;

export const empty = kernel({ name: "empty", grid: 1, block: 32, params: { y: output(f32, [1]) } }, (t) => {
  t.pdl.launchDependents();
  t.pdl.wait();
});

export interface Candidate {
  readonly name: string;
  readonly kernel: Kernel;
}

/** Our kernels for one cell, of the families that may be the fastest: by tokens, and by bytes of weights. */
export function candidates({ dtype, out: outName, N, K }: Case, M: number): readonly Candidate[] {
  const config = { M, N, K, out: outName === "f32" ? f32 : bf16 };
  const families = {
    bf16: { dot: llGemmDotBf16, mma: llGemmMmaBf16, stream: llGemmStreamBf16 },
    e4m3: { dot: llGemmDotE4m3, mma: llGemmMmaE4m3, stream: llGemmStreamE4m3 },
  }[dtype];
  const bytes = N * K * (dtype === "bf16" ? 2 : 1);
  const serves: Readonly<Record<string, boolean>> = { dot: M <= 2, mma: bytes < 24e6, stream: bytes > 3e6 };
  return Object.entries(families)
    .filter(([name]) => serves[name])
    .map(([name, make]) => ({ name, kernel: make(config) as unknown as Kernel }));
}
