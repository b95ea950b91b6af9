/** The kinds of work that a soak does, whatever the device, and what they share. */
import type { Backend } from "../../backends/backend.ts";
import type { DeviceTensor } from "../../backends/tensor.ts";
import { f32, HostTensor, inout, kernel, u32 } from "../../dsl/index.ts";

/** How many of each; kinds that aren't named are left out. */
export interface SoakPlan {
  /** Of one bound launch. */
  readonly launches?: number;
  /** CUDA: by turns synchronous, and from pinned memory. WGSL: and read back. */
  readonly uploads?: number;
  /** Compiled anew, bound, launched once, given up. */
  readonly programs?: number;
  /** Backends: opened, with tensors, an executable and a launch (CUDA: a graph), and disposed. */
  readonly backends?: number;
}

export interface Work {
  readonly round: (i: number) => Promise<void> | void;
  /** Checks what `total` rounds must have come to, where a round doesn't check it itself. */
  readonly finish?: (total: number) => Promise<void>;
}

export interface SoakDevice {
  readonly backend: Backend;
  readonly work: Readonly<Record<keyof SoakPlan, Work>>;
  /** How much of the work runs before anything is measured, so that caches and pools are full. */
  readonly warmUp: number;
  /** Device memory in use, by anybody; 0 where nothing tells. */
  readonly usedBytes: () => number;
}

/** What `count` counts in. */
export const zeros = HostTensor.filled(u32, [32], 0);
/** What is uploaded. */
export const ones = HostTensor.from(f32, [1024], new Array<number>(1024).fill(1));

/** y += 1; a new kernel with each call. */
export const counting = () =>
  kernel({ name: "count", grid: 1, block: 32, params: { y: inout(u32, [32]) } }, (t) => {
    t.pdl.launchDependents();
    const { y } = t.pdl.wait();
    y.store([t.lane], y.load([t.lane]).add(1));
  });
export const count = counting();

/** @throws Error unless every element is `expected` */
export async function expectEach(tensor: DeviceTensor, expected: number): Promise<void> {
  const wrong = (await tensor.read()).values().find((value) => value !== expected);
  if (wrong !== undefined) throw new Error(`${tensor} has ${wrong} instead of ${expected}`);
}
