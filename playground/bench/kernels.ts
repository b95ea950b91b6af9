/** Kernels of the measurement itself: how fast memory can be read here, and what a launch costs that does nothing. */
import { bf16, e4m3, f32, frozen, i32, inout, type Kernel, kernel, output } from "../../dsl/index.ts";
import { chooseLinear, linear } from "../../kernels/index.ts";
import type { Case } from "./cases.ts";

/** Bytes that a launch of `streamRead` reads: far more than L2 holds. */
export const streamBytes = 2 ** 30;

const words = streamBytes / 4;
const perBlock = 512 * 4 * 2;

/** Reads all of `x` once: 16 KiB a block, two loads of 16 bytes a thread. The fastest of the ways tried. */
export const streamRead = kernel(
  {
    name: "stream_read",
    grid: words / perBlock,
    block: 512,
    params: { x: frozen(i32, [words], { alignBytes: 16 }), y: inout(i32, [1]) },
  },
  (t, { x }) => {
    const first = t.block.x.mul(perBlock).add(t.thread.mul(4));
    const loads = [0, 512 * 4].map((further) => x.loadVec([first.add(further)], 4, { cache: "stream" }));
    const { y } = t.pdl.wait();
    const sum = t.reg(i32, 0);
    for (const load of loads) for (let lane = 0; lane < 4; lane++) sum.update((s) => s.xor(load.lane(lane)));
    // Never so: but the compiler can't know.
    t.when(sum.get().eq(0x5eed_0001), () => y.store([0], sum));
  },
);

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
