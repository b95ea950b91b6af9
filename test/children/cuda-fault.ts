/**
 * Makes one fault on a real GPU, the one that its argument names, and prints what every step answered, as JSON. The parent
 * is test/cuda-gpu-faults.test.ts; it never shares a context with a fault.
 */
import koffi from "koffi";
import { Worker } from "node:worker_threads";
import { compileCuda } from "../../backends/cuda/compile.ts";
import { openDriver } from "../../backends/cuda/driver.ts";
import { deviceTensor, emitCuda, openCuda, run, type CudaBackend } from "../../backends/cuda/index.ts";
import { f32, HostTensor } from "../../dsl/index.ts";
import { count, far, farShared, handWritten, type HandWritten, misaligned } from "./cuda-support.ts";

export interface Step {
  readonly doing: string;
  /** Class and message of what it threw. */
  readonly error?: string;
  readonly message?: string;
  /** What it returned, if that is a number or text. */
  readonly value?: unknown;
  readonly tookMs: number;
}

const steps: Step[] = [];

async function step(doing: string, action: () => unknown): Promise<void> {
  const start = performance.now();
  let outcome: Omit<Step, "doing" | "tookMs">;
  try {
    const value = await action();
    outcome = typeof value === "number" || typeof value === "string" ? { value } : {};
  } catch (error) {
    const known = error instanceof Error ? error : new Error(String(error));
    outcome = { error: known.name, message: known.message };
  }
  steps.push({ doing, ...outcome, tookMs: performance.now() - start });
}

/** Everything that a program may go on to do after a fault; then gives all back, and tries to begin anew. */
async function afterwards(cuda: CudaBackend, healthy: Healthy): Promise<void> {
  const { launch, graph, y } = healthy;
  const host = HostTensor.filled(f32, [32], 0);
  await step("later: allocate", () => cuda.allocate(4));
  await step("later: write", () => y.write(host));
  await step("later: read", () => y.read());
  await step("later: launch", () => launch.launch());
  await step("later: launch a graph", () => graph.launch());
  await step("later: capture", () => cuda.capture((on) => launch.launch(on)));
  await step("later: pinned", () => cuda.pinned(f32, [1]));
  await step("later: createStream", () => cuda.createStream());
  await step("later: record", () => cuda.stream.record());
  await step("later: synchronize", () => cuda.synchronize());
  await step("later: compile", () => cuda.compile(farShared));
  await step("later: open", () => openCuda());
  await step("free", () => y.free());
  await step("dispose a graph", () => graph.dispose());
  await step("dispose", () => cuda.dispose());
  await step("reopen", async () => {
    await using again = await openCuda();
    const { y } = await run(again, count, { y: HostTensor.filled(f32, [32], 0) });
    return y.values()[31];
  });
}

/** A backend on which something has run well. */
async function healthyBackend(options: Parameters<typeof openCuda>[0] = {}) {
  const cuda = await openCuda(options);
  const y = deviceTensor(cuda, HostTensor.filled(f32, [32], 0));
  const launch = (await cuda.compile(count)).bind({ y });
  const graph = cuda.capture((on) => launch.launch(on));
  graph.launch();
  launch.launch();
  await step("before", async () => (await y.read()).values()[31]);
  return { cuda, y, launch, graph };
}

type Healthy = Awaited<ReturnType<typeof healthyBackend>>;

/** 2 GiB before the tensor, where nothing is mapped. */
async function farLaunch({ cuda, y }: Healthy) {
  return (await cuda.compile(far)).bind({ y, i: -(2 ** 29) });
}

async function sticky(launchOf: (healthy: Healthy) => Promise<{ launch(): void }>): Promise<void> {
  const healthy = await healthyBackend();
  const launch = await launchOf(healthy);
  await step("launch", () => launch.launch());
  await step("fault", () => healthy.cuda.synchronize());
  await afterwards(healthy.cuda, healthy);
}

async function stickyByHand(name: string, source: string): Promise<void> {
  const healthy = await healthyBackend();
  await handWritten(healthy.cuda, { name, source }, async (launch, wait) => {
    await step("launch", launch);
    await step("fault", wait);
  });
  await afterwards(healthy.cuda, healthy);
}

const scenarios: Readonly<Record<string, () => Promise<void>>> = {
  "outside a tensor": () => sticky(farLaunch),

  "misaligned address": () =>
    sticky(async ({ cuda, y }) => {
      const x = deviceTensor(cuda, HostTensor.filled(f32, [32], 0));
      return (await cuda.compile(misaligned())).bind({ x, y } as never);
    }),

  /** 256 MiB beyond; addresses of shared memory have 32 bits. */
  "shared memory outside": () => sticky(async ({ cuda, y }) => (await cuda.compile(farShared)).bind({ y, i: 2 ** 26 })),

  "illegal address": () =>
    stickyByHand("lost", 'extern "C" __global__ void lost() { asm volatile("st.global.u32 [%0], 1;" :: "l"(64ull)); }'),

  trap: () => stickyByHand("trapped", 'extern "C" __global__ void trapped() { asm volatile("trap;"); }'),

  "seen late": async () => {
    const healthy = await healthyBackend();
    const fatal = await farLaunch(healthy);
    await healthy.cuda.synchronize();
    healthy.launch.launch();
    fatal.launch();
    healthy.launch.launch();
    await step("fault", () => healthy.cuda.synchronize());
    await healthy.cuda.dispose();
  },

  "in a graph": async () => {
    const healthy = await healthyBackend();
    const fatal = await farLaunch(healthy);
    const graph = healthy.cuda.capture((on) => {
      healthy.launch.launch(on);
      fatal.launch(on);
    });
    await healthy.cuda.synchronize();
    graph.launch();
    await step("fault", () => healthy.y.read());
    await healthy.cuda.dispose();
  },

  debug: async () => {
    const healthy = await healthyBackend({ debug: true });
    const fatal = await farLaunch(healthy);
    await step("launch before", () => healthy.launch.launch());
    await step("fault", () => fatal.launch());
    await step("launch after", () => healthy.launch.launch());
    await healthy.cuda.dispose();
  },

  "out of memory": async () => {
    const { cuda, launch, y } = await healthyBackend();
    const [free, total] = [new BigUint64Array(1), new BigUint64Array(1)];
    openDriver().api.cuMemGetInfo(free, total);
    await step("too much", () => cuda.allocate(2 ** 50));
    // Part of it is in use; other tests may want the rest, so it isn't taken bit by bit.
    await step("all there is", () => cuda.allocate(Number(total[0])));
    await step("launch", () => launch.launch());
    await step("less", () => cuda.allocate(2 ** 20).byteLength);
    await step("result", async () => (await y.read()).values()[31]);
    await cuda.dispose();
  },

  "launch refused": async () => {
    const { cuda, y } = await healthyBackend();
    const refuse = (doing: string, made: HandWritten) =>
      step(doing, () =>
        handWritten(cuda, made, (launch, wait) => {
          launch();
          return wait();
        }),
      );
    const empty = (name: string, attributes = "") => `extern "C" __global__ void ${attributes} ${name}() {}`;
    await refuse("shared memory", { name: "wide", source: empty("wide"), dynamicSharedBytes: 228 * 1024 });
    // 128 values, of which the last is needed first, and no bound on the threads.
    const registers = `extern "C" __global__ void heavy() {
      unsigned v[128], sum = 0;
#pragma unroll
      for (int i = 0; i < 128; ++i) asm volatile("mov.u32 %0, %%clock;" : "=r"(v[i]));
#pragma unroll
      for (int i = 127; i >= 0; --i) sum = sum * 3 + v[i];
      __shared__ volatile unsigned result;
      result = sum;
    }`;
    await refuse("registers", { name: "heavy", source: registers, block: 1024 });
    const clusters = empty("crowd", "__cluster_dims__(16, 1, 1)");
    await refuse("cluster", { name: "crowd", source: clusters, cluster: 16 });
    await refuse("architecture", { name: "other", source: empty("other"), arch: "sm_100a" });
    await step("goes on", async () => {
      (await cuda.compile(count)).bind({ y }).launch();
      return (await y.read()).values()[31];
    });
    await cuda.dispose();
  },

  compiler: async () => {
    const cuda = await openCuda();
    const { source, entry } = emitCuda(count.ir);
    const wrong = source.replace("+ 1.0f", "+ wrong");
    await step("compile", () => compileCuda(wrong, { arch: cuda.arch, name: entry, cache: false }));
    await cuda.dispose();
  },

  "unjoined stream": async () => {
    const { cuda, launch, y } = await healthyBackend();
    const { api, path } = openDriver();
    const lib = koffi.load(path);
    const recordOn = lib.func("int cuEventRecord(void *event, void *stream)");
    const waitOn = lib.func("int cuStreamWaitEvent(void *stream, void *event, uint32_t flags)");
    const fill = lib.func("int cuMemsetD32Async(uint64_t at, uint32_t value, size_t count, void *stream)");
    const pointer = cuda.pointerOf(y);
    const [event, stream] = [new BigUint64Array(1), new BigUint64Array(1)];
    api.cuEventCreate(event, 2);
    api.cuStreamCreate(stream, 1);
    await step("capture", () =>
      cuda.capture((on) => {
        launch.launch(on);
        on.foreign("forking", { reads: [], writes: [] }, (captured) => {
          const results = [
            recordOn(event[0], captured),
            waitOn(stream[0], event[0], 0),
            fill(pointer, 0, 32, stream[0]),
          ];
          if (results.some((result) => result !== 0)) throw new Error(`refused: ${results.join()}`);
        });
      }),
    );
    await step("capture again", () => {
      using graph = cuda.capture((on) => launch.launch(on));
      graph.launch();
      return graph.nodeCount;
    });
    await step("result", async () => (await y.read()).values()[31]);
    await cuda.dispose();
  },

  "another thread": async () => {
    const { cuda, y } = await healthyBackend();
    const script = JSON.stringify(new URL("cuda-thread.ts", import.meta.url).href);
    const worker = new Worker(`import("tsx/esm/api").then((tsx) => (tsx.register(), import(${script})))`, {
      eval: true,
      workerData: { y, pointer: cuda.pointerOf(y) },
    });
    const answers = await new Promise<Readonly<Record<string, unknown>>>((resolve, reject) => {
      worker.once("message", resolve);
      worker.once("error", reject);
    });
    steps.push({ doing: "stranger", tookMs: 0, ...(answers as { error: string; message: string }) });
    await step("result", async () => (await y.read()).values()[31]);
    await worker.terminate();
    await cuda.dispose();
  },
};

const scenario = scenarios[process.argv[2] ?? ""];
if (!scenario) throw new Error(`no fault "${process.argv[2]}"`);
await scenario();
console.log(JSON.stringify(steps));
