/**
 * Much work of each kind that takes something and gives it back, with the memory before and after it: what is not given back
 * shows as growth. A part of the work runs before the first look, so that caches and pools are full.
 */
import { setImmediate } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { openCudaSoak } from "./cuda.ts";
import { openWgslSoak } from "./wgsl.ts";
import type { SoakPlan } from "./work.ts";

export type { SoakPlan } from "./work.ts";

setFlagsFromString("--expose-gc");
const collectGarbage: () => void = runInNewContext("gc");

/** In bytes. */
export interface Memory {
  /** What JavaScript holds: its heap, and the buffers beside it. */
  readonly heap: number;
  /** Of the whole process, native libraries included. */
  readonly resident: number;
  /** In use on the device, by anybody; 0 where nothing tells. */
  readonly device: number;
}

export interface SoakResult {
  readonly what: string;
  readonly rounds: number;
  readonly seconds: number;
  readonly before: Memory;
  readonly after: Memory;
}

export const soakDevices = { cuda: openCudaSoak, wgsl: openWgslSoak };

/**
 * Does all that is planned, one kind after the other.
 * @throws NotFoundError without the device; Error when a result is wrong
 */
export async function soak(
  plan: SoakPlan,
  progress: (what: string, done: number, all: number) => void = () => undefined,
  device: keyof typeof soakDevices = "cuda",
): Promise<readonly SoakResult[]> {
  const { backend, work, warmUp: warmUpShare, usedBytes } = await soakDevices[device]();
  const results: SoakResult[] = [];
  try {
    for (const [what, { round, finish }] of Object.entries(work)) {
      const rounds = plan[what as keyof SoakPlan] ?? 0;
      if (rounds === 0) continue;
      const run = async (count: number) => {
        for (let i = 0; i < count; i++) {
          const pending = round(i);
          if (pending) await pending;
          if (i % 1000 === 999) await backend.synchronize();
          if (i % Math.ceil(rounds / 100) === 0) progress(what, i, count);
        }
        progress(what, count, count);
        await backend.synchronize();
      };
      const warmUp = Math.ceil(rounds * warmUpShare);
      await run(warmUp);
      const before = await memory(usedBytes);
      const start = performance.now();
      await run(rounds);
      const seconds = (performance.now() - start) / 1000;
      results.push({ what, rounds, seconds, before, after: await memory(usedBytes) });
      await finish?.(warmUp + rounds);
    }
    return results;
  } finally {
    await backend.dispose();
  }
}

async function memory(usedBytes: () => number): Promise<Memory> {
  for (let i = 0; i < 5; i++) {
    await setImmediate();
    collectGarbage();
  }
  const { heapUsed, external, arrayBuffers, rss } = process.memoryUsage();
  return { heap: heapUsed + external + arrayBuffers, resident: rss, device: usedBytes() };
}
