/**
 * Much work of each kind that takes something and gives it back, with the memory before and after it. What is left over
 * shows as growth that doesn't stop; a tenth of the work runs first, so that caches and pools are full.
 */
import { setImmediate } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { PrimaryContext } from "../../backends/cuda/context.ts";
import { deviceInfo, openDriver } from "../../backends/cuda/driver.ts";
import { CudaExecutable } from "../../backends/cuda/executable.ts";
import {
  compileCuda,
  type CudaBackend,
  type DeviceTensor,
  deviceTensor,
  emitCuda,
  openCuda,
} from "../../backends/cuda/index.ts";
import { Streams } from "../../backends/cuda/streams.ts";
import { f32, HostTensor, inout, kernel } from "../../dsl/index.ts";

setFlagsFromString("--expose-gc");
const collectGarbage: () => void = runInNewContext("gc");

const n = 1024;

const count = kernel({ name: "count", grid: 1, block: 32, params: { y: inout(f32, [32]) } }, (t) => {
  t.pdl.launchDependents();
  const { y } = t.pdl.wait();
  y.store([t.lane], y.load([t.lane]).add(1));
});

/** In bytes. */
export interface Memory {
  /** What JavaScript holds: its heap, and the buffers beside it. */
  readonly heap: number;
  /** Of the whole process, native libraries included. */
  readonly resident: number;
  /** In use on the device, by anybody. */
  readonly device: number;
}

export interface SoakResult {
  readonly what: string;
  readonly rounds: number;
  readonly seconds: number;
  readonly before: Memory;
  readonly after: Memory;
}

/** How many of each; kinds that aren't named are left out. */
export interface SoakPlan {
  readonly launches?: number;
  /** By turns synchronous, and from pinned memory. */
  readonly uploads?: number;
  /** Compiled anew, loaded, launched once, unloaded. */
  readonly programs?: number;
  /** Backends: opened, with tensors, an executable and a graph, and disposed. */
  readonly backends?: number;
}

/**
 * Does it all, one kind after the other.
 * @throws Error when a result is wrong
 */
export async function soak(
  plan: SoakPlan,
  progress: (what: string, done: number, all: number) => void = () => undefined,
): Promise<readonly SoakResult[]> {
  await using cuda = await openCuda({ ordinal: 0 });
  const work = await workOn(cuda);
  const results: SoakResult[] = [];
  for (const [what, { round, finish }] of Object.entries(work)) {
    const rounds = plan[what as keyof SoakPlan] ?? 0;
    if (rounds === 0) continue;
    const run = async (count: number) => {
      for (let i = 0; i < count; i++) {
        const pending = round(i);
        if (pending) await pending;
        if (i % 1000 === 999) await cuda.synchronize();
        if (i % Math.ceil(rounds / 100) === 0) progress(what, i, count);
      }
      progress(what, count, count);
      await cuda.synchronize();
    };
    const warmUp = Math.ceil(rounds / 10);
    await run(warmUp);
    const before = await memory();
    const start = performance.now();
    await run(rounds);
    const seconds = (performance.now() - start) / 1000;
    results.push({ what, rounds, seconds, before, after: await memory() });
    await finish(warmUp + rounds);
  }
  return results;
}

interface Work {
  readonly round: (i: number) => Promise<void> | void;
  /** Checks what `total` rounds must have done. */
  readonly finish: (total: number) => Promise<void>;
}

async function workOn(cuda: CudaBackend): Promise<Readonly<Record<keyof SoakPlan, Work>>> {
  const zeros = HostTensor.filled(f32, [32], 0);
  const ones = HostTensor.from(f32, [n], new Array<number>(n).fill(1));
  const [launched, compiled, x] = [deviceTensor(cuda, zeros), deviceTensor(cuda, zeros), deviceTensor(cuda, ones)];
  const pinned = cuda.pinned(f32, [n]);
  pinned.bytes.set(ones.bytes);
  const launch = (await cuda.compile(count)).bind({ y: launched });
  return {
    launches: {
      round: () => launch.launch(),
      finish: (total) => expectEach(launched, total),
    },
    uploads: {
      round: (i) => (i % 2 ? x.write(ones) : cuda.stream.copy(pinned, x)),
      finish: () => expectEach(x, 1),
    },
    programs: {
      round: () => compileLoadLaunchUnload(cuda, compiled),
      finish: (total) => expectEach(compiled, total),
    },
    backends: {
      round: async () => {
        await using other = await openCuda({ ordinal: 0 }); // shares the context
        const y = deviceTensor(other, zeros);
        const launch = (await other.compile(count)).bind({ y });
        using graph = other.capture((on) => launch.launch(on));
        graph.launch();
        await expectEach(y, 1);
      },
      finish: () => Promise.resolve(),
    },
  };
}

/** @throws Error */
async function expectEach(tensor: DeviceTensor<"f32">, expected: number): Promise<void> {
  const wrong = (await tensor.read()).values().find((value) => value !== expected);
  if (wrong !== undefined) throw new Error(`${tensor} has ${wrong} instead of ${expected}`);
}

/** Past every cache, by the backend's own loader. */
async function compileLoadLaunchUnload(cuda: CudaBackend, y: DeviceTensor<"f32">): Promise<void> {
  const { arch } = cuda;
  const module = emitCuda(count.ir);
  const compiled = compileCuda(module.source, { arch, name: count.name, cache: false });
  const driver = openDriver();
  const context = PrimaryContext.open(driver, deviceInfo(driver, 0));
  const streams = new Streams(cuda, context, false);
  {
    using executable = new CudaExecutable({ streams, kernel: count, module, compiled, arch, pdl: true });
    executable.bind({ y }).launch();
    await streams.drain();
  }
  streams.beginClosing();
  streams.close();
  context.close();
}

async function memory(): Promise<Memory> {
  for (let i = 0; i < 5; i++) {
    await setImmediate();
    collectGarbage();
  }
  const { heapUsed, external, arrayBuffers, rss } = process.memoryUsage();
  const [free, total] = [new BigUint64Array(1), new BigUint64Array(1)];
  const { api } = openDriver();
  if (api.cuMemGetInfo(free, total) !== 0) throw new Error("The driver doesn't tell what is free");
  return {
    heap: heapUsed + external + arrayBuffers,
    resident: rss,
    device: Number((total[0] ?? 0n) - (free[0] ?? 0n)),
  };
}
