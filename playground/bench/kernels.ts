/** Kernels of the measurement itself: how fast memory can be read here, and what a launch costs that does nothing. */
import { bf16, e4m3, f32, frozen, i32, inout, type Kernel, kernel, output } from "../../dsl/index.ts";
import { chooseLinear, linear } from "../../kernels/index.ts";
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

/** Our kernel for one cell: what `linear` takes. */
export function candidates({ dtype, out, N, K }: Case, M: number): readonly Candidate[] {
  const config = { M, N, K, weights: dtypes[dtype], out: dtypes[out] } as const;
  const { choice } = chooseLinear(config);
  return [{ name: choice, kernel: linear(config) as unknown as Kernel }];
}

const dtypes = { bf16, e4m3, f32 } as const;
