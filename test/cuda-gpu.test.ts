/**
 * The run-time layer on a real GPU: what the stand-in for libcuda can only pretend. Skipped without one. `npm run soak` does
 * the last but one test with far more rounds.
 */
import { setTimeout } from "node:timers/promises";
import koffi from "koffi";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compileCuda } from "../backends/cuda/compile.ts";
import {
  type FunctionHandle,
  type DevicePointer,
  type ModuleHandle,
  openDriver,
  type StreamHandle,
} from "../backends/cuda/driver.ts";
import * as cudaApi from "../backends/cuda/index.ts";
import { CudaBackend, type CudaQueue, cudaAvailable, emitCuda, openCuda } from "../backends/cuda/index.ts";
import { LaunchPacket } from "../backends/cuda/packet.ts";
import { type DeviceTensor, deviceTensor, frozenTensor } from "../backends/tensor.ts";
import { CaptureError, ceilDiv, f32, frozen, HostTensor, inout, input, kernel, output, scalar } from "../dsl/index.ts";
import { soak, type SoakPlan } from "../playground/soak/rounds.ts";
import { axpy, neverDone, recorded, tour } from "./cuda-api.ts";

const rounds = 20_000;
const n = 1024;

/** y = a * x + b[0], each kernel after the one ahead; the next one may start at once, and waits. */
const link = kernel(
  {
    name: "link",
    grid: ceilDiv(n, 32),
    block: 32,
    params: { b: frozen(f32, [1]), x: input(f32, [n]), y: output(f32, [n]), a: scalar(f32) },
  },
  (t, { b, a }) => {
    const bias = b.load([0]);
    t.pdl.launchDependents();
    const { x, y } = t.pdl.wait();
    const i = t.block.x.mul(32).add(t.lane);
    y.store([i], x.load([i]).mul(a).add(bias));
  },
);

const count = kernel({ name: "count", grid: 1, block: 32, params: { y: inout(f32, [32]) } }, (t) => {
  t.pdl.launchDependents();
  const { y } = t.pdl.wait();
  y.store([t.lane], y.load([t.lane]).add(1));
});

/** y = x + 1, long after the next kernel was let start. */
const late = kernel(
  { name: "late", grid: ceilDiv(n, 32), block: 32, params: { x: input(f32, [n]), y: output(f32, [n]) } },
  (t) => {
    t.pdl.launchDependents();
    const { x, y } = t.pdl.wait();
    const i = t.block.x.mul(32).add(t.lane);
    t.sleep(100_000);
    y.store([i], x.load([i]).add(1));
  },
);

/** Microseconds of host time that one of `calls` calls takes. */
function hostUs(calls: number, call: () => void): number {
  const start = process.hrtime.bigint();
  for (let i = 0; i < calls; i++) call();
  return Number(process.hrtime.bigint() - start) / 1000 / calls;
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN;

describe.skipIf(!cudaAvailable())("the run-time layer on a GPU", { timeout: 600_000 }, () => {
  let cuda: CudaBackend;
  beforeAll(async () => {
    cuda = await openCuda();
  });
  afterAll(() => cuda?.dispose());

  const ones = HostTensor.from(f32, [n], new Array<number>(n).fill(1));
  const filled = (value: number) => HostTensor.from(f32, [n], new Array<number>(n).fill(value));
  const first = async (tensor: DeviceTensor) => {
    const values = (await tensor.read()).values();
    expect(values.every((value) => value === values[0])).toBe(true);
    return values[0];
  };

  /** `links` kernels in a row, from x through two tensors that take turns: y = x + links. */
  async function chainOf(on: CudaBackend, links: number) {
    const executable = await on.compile(link);
    const b = frozenTensor(on, HostTensor.from(f32, [1], [1]));
    const tensors = Array.from({ length: 3 }, () => deviceTensor(on, ones));
    const [x = tensors[0], ...turns] = tensors;
    const launches = Array.from({ length: links }, (_, i) => {
      const from = i === 0 ? x : turns[(i + 1) % 2];
      return executable.bind({ b, x: from as DeviceTensor<"f32">, y: turns[i % 2] as DeviceTensor<"f32">, a: 1 });
    });
    const chain = (queue: CudaQueue): void => {
      for (const launch of launches) launch.launch(queue);
    };
    return { x: x as DeviceTensor<"f32">, result: turns[(links - 1) % 2] as DeviceTensor<"f32">, b, launches, chain };
  }

  /** What the driver says is free, when all that was freed is. */
  async function freeBytes(): Promise<number> {
    await cuda.synchronize();
    const [free, total] = [new BigUint64Array(1), new BigUint64Array(1)];
    expect(openDriver().api.cuMemGetInfo(free, total)).toBe(0);
    return Number(free[0]);
  }

  it("launches at the price of a bare koffi call", async () => {
    const y = deviceTensor(cuda, f32, [32]);
    const bound = (await cuda.compile(count)).bind({ y });
    bound.launch();
    await cuda.synchronize();

    const { api, path } = openDriver();
    const { source, entry } = emitCuda(count.ir);
    const { cubin } = compileCuda(source, { arch: cuda.arch, name: entry });
    const out = new BigUint64Array(3);
    expect(api.cuModuleLoadData(out.subarray(0, 1), cubin)).toBe(0);
    expect(api.cuModuleGetFunction(out.subarray(1, 2), out[0] as ModuleHandle, entry)).toBe(0);
    expect(api.cuStreamCreate(out.subarray(2, 3), 1)).toBe(0);
    const [module, fn, stream] = [out[0] as ModuleHandle, out[1] as FunctionHandle, out[2] as StreamHandle];
    const shape = { block: 32, dynamicSharedBytes: 0, tensorCount: 1, scalarCount: 0, tensorMapCount: 0 };
    const packet = new LaunchPacket(shape);
    packet.setGrid([1, 1, 1]);
    packet.setOverlap(true);
    packet.setStream(stream);
    packet.setTensor(0, cuda.pointerOf(deviceTensor(cuda, f32, [32])) as DevicePointer);
    const params = new Uint8Array(packet.config.buffer, 128);
    const call = koffi.load(path).func("int cuLaunchKernelEx(void *config, void *fn, void *params, void *extra)");
    const bare = () => {
      if (call(packet.config, fn, params, null) !== 0) throw new Error("refused");
    };
    const ours = () => bound.launch();

    const times = { bare: [] as number[], ours: [] as number[] };
    for (let round = -2; round < 20; round++) {
      for (const [name, launch] of [["bare", bare] as const, ["ours", ours] as const]) {
        const us = hostUs(5000, launch); // 100,000 of each
        if (round >= 0) times[name].push(us);
        await cuda.synchronize();
        expect(api.cuStreamSynchronize(stream)).toBe(0);
      }
    }
    const [bareUs, oursUs] = [median(times.bare), median(times.ours)];
    console.log(`a bare koffi launch ${bareUs.toFixed(3)} us, a bound launch ${oursUs.toFixed(3)} us`);
    expect(oursUs / bareUs).toBeLessThan(1.05);
    expect(api.cuStreamDestroy(stream)).toBe(0);
    expect(api.cuModuleUnload(module)).toBe(0);
  });

  it("replays a graph of 100 kernels for less than 10 launches cost", async () => {
    const { chain, launches } = await chainOf(cuda, 100);
    using graph = cuda.capture(chain);
    const ten = () => {
      for (const launch of launches.slice(0, 10)) launch.launch();
    };
    const times = { graph: [] as number[], ten: [] as number[] };
    for (let round = -2; round < 20; round++) {
      for (const [name, enqueue] of [["graph", () => graph.launch()] as const, ["ten", ten] as const]) {
        const us = hostUs(8, enqueue); // few, so that no queue is ever full
        if (round >= 0) times[name].push(us);
        await cuda.synchronize();
      }
    }
    const [graphUs, tenUs] = [median(times.graph), median(times.ten)];
    console.log(`a graph of 100 kernels ${graphUs.toFixed(2)} us of host time, 10 launches ${tenUs.toFixed(2)} us`);
    expect(graphUs).toBeLessThan(tenUs);
  });

  it("runs a chain with PDL to the same end eagerly and as a graph, every time", async () => {
    for (const links of [1, 2, 7, 50]) {
      const { chain, result } = await chainOf(cuda, links);
      using graph = cuda.capture(chain);
      for (const run of [() => chain(cuda.stream), () => graph.launch()]) {
        for (let round = 0; round < 20; round++) {
          result.write(filled(-1));
          run();
          expect(await first(result)).toBe(1 + links);
        }
      }
    }
  });

  it("keeps programmatic edges in a graph, and gains by them", async () => {
    const links = 100;
    await using plain = await openCuda({ pdl: false });
    using overlapping = cuda.capture((await chainOf(cuda, links)).chain);
    using serial = plain.capture((await chainOf(plain, links)).chain);
    expect(overlapping.nodeCount).toBe(links);
    if (overlapping.programmaticEdges !== undefined) expect(overlapping.programmaticEdges).toBe(links - 1);
    expect(serial.programmaticEdges ?? 0).toBe(0);
    const [withPdl, without] = [await overlapping.timeUs(200), await serial.timeUs(200)];
    console.log(
      `100 dependent kernels: ${withPdl.toFixed(1)} us with programmatic edges, ${without.toFixed(1)} without`,
    );
    expect(withPdl).toBeLessThan(without);
  });

  it("keeps what a graph captured until the graph goes, and updates it", async () => {
    const before = await freeBytes();
    {
      const a = await chainOf(cuda, 3);
      const b = await chainOf(cuda, 3);
      using graph = cuda.capture(a.chain);
      for (const tensor of [a.x, a.b]) tensor.free();
      const others = Array.from({ length: 50 }, () => deviceTensor(cuda, filled(1000)));
      graph.launch(); // reads memory that nobody else was given meanwhile
      expect(await first(a.result)).toBe(4);
      graph.update(b.chain);
      b.x.write(filled(10));
      graph.launch();
      expect(await first(b.result)).toBe(13);
      const longer = await chainOf(cuda, 4);
      expect(() => graph.update(longer.chain)).toThrow(CaptureError);
      b.x.write(filled(20));
      graph.launch();
      expect(await first(b.result)).toBe(23);
      for (const tensor of others) tensor.free();
    }
    expect(Math.abs(before - (await freeBytes()))).toBeLessThan(64 * 2 ** 20);
  });

  it("ends a capture that fails, and captures again", async () => {
    const { chain, result } = await chainOf(cuda, 2);
    const failures: readonly ((on: CudaQueue) => unknown)[] = [
      () => {
        throw new CaptureError("on purpose");
      },
      (on) => {
        chain(on);
        cuda.allocate(16);
      },
      (on) => {
        chain(on);
        chain(cuda.stream);
      },
      async (on) => chain(on),
      () => undefined,
    ];
    for (const failure of failures) {
      expect(() => cuda.capture(failure as (on: CudaQueue) => void)).toThrow(CaptureError);
      using graph = cuda.capture(chain);
      graph.launch();
      expect(await first(result)).toBe(3);
    }
  });

  it("copies pinned memory in a stream's order, eagerly and in graphs", async () => {
    const { chain, x, result } = await chainOf(cuda, 5);
    const [up, down] = [cuda.pinned(f32, [n]), cuda.pinned(f32, [n])];
    const round = (on: CudaQueue) => {
      on.copy(up, x);
      chain(on);
      on.copy(result, down);
    };
    using graph = cuda.capture(round);
    using stream = cuda.createStream();
    for (const [value, run] of [
      [7, () => round(cuda.stream)],
      [8, () => round(stream)],
      [9, () => graph.launch()],
      [10, () => graph.launch(stream)],
    ] as const) {
      up.bytes.set(filled(value).bytes);
      down.bytes.fill(0xff);
      run();
      await cuda.synchronize();
      expect(down.values().every((one) => one === value + 5)).toBe(true);
    }
    up.dispose();
    down.dispose();
    expect(down.values()[0]).toBe(15);
  });

  it("overlaps a large pinned copy with the host, unlike a pageable one", async () => {
    const size = 64 * 2 ** 20;
    const pinned = cuda.pinned(f32, [size / 4]);
    const tensor = deviceTensor(cuda, f32, [size / 4]);
    const back = cuda.pinned(f32, [size / 4]);
    new Uint32Array(pinned.bytes.buffer, pinned.bytes.byteOffset, size / 4).forEach((_, i, words) => (words[i] = i));
    const enqueueUs = hostUs(1, () => cuda.stream.copy(pinned, tensor));
    using start = cuda.stream.record();
    cuda.stream.copy(tensor, back);
    using end = cuda.stream.record();
    const copyUs = await end.elapsedUs(start);
    console.log(`64 MiB pinned: enqueued in ${enqueueUs.toFixed(1)} us, ${(size / copyUs / 1000).toFixed(1)} GB/s`);
    expect(enqueueUs).toBeLessThan(copyUs / 2);
    expect(Buffer.compare(back.bytes, pinned.bytes)).toBe(0);
    for (const one of [pinned, back, tensor]) one[Symbol.dispose]();
  });

  it("orders streams by events", async () => {
    using other = cuda.createStream();
    for (let round = 0; round < 20; round++) {
      const [a, b] = [await chainOf(cuda, 30), await chainOf(cuda, 1)];
      const executable = await cuda.compile(link);
      const after = executable.bind({ b: b.b, x: a.result, y: b.result, a: 10 });
      a.chain(cuda.stream);
      using event = cuda.stream.record();
      other.waitFor(event);
      after.launch(other);
      expect(await first(b.result)).toBe(311);
      for (const tensor of [a.x, a.b, a.result, b.x, b.b, b.result]) tensor.free();
    }
  });

  describe("after a kernel that writes late", () => {
    /** y = x + 1, late; z = y + 1, as soon as it may; x is 10, 20, ... in round 1, 2, ..., and y and z are none of it before. */
    async function pair() {
      const [x, y, z] = [deviceTensor(cuda, f32, [n]), deviceTensor(cuda, f32, [n]), deviceTensor(cuda, f32, [n])];
      const b = frozenTensor(cuda, HostTensor.from(f32, [1], [1]));
      const produce = (await cuda.compile(late)).bind({ x, y });
      const consume = (await cuda.compile(link)).bind({ b, x: y, y: z, a: 1 });
      const eachRound = async (run: (expected: number) => Promise<void> | void) => {
        for (let round = 1; round <= 20; round++) {
          x.write(filled(10 * round));
          for (const tensor of [y, z]) tensor.write(filled(-1));
          await run(10 * round);
        }
        for (const tensor of [x, y, z, b]) tensor.free();
      };
      return { x, y, z, produce, consume, eachRound };
    }

    it("a copy to pinned memory has what it wrote", async () => {
      const { y, produce, eachRound } = await pair();
      using down = cuda.pinned(f32, [n]);
      await eachRound(async (value) => {
        produce.launch();
        cuda.stream.copy(y, down);
        await cuda.stream.synchronize();
        expect(down.values().every((one) => one === value + 1)).toBe(true);
      });
    });

    it("a kernel on another stream, behind an event or the stream itself, has what it wrote", async () => {
      const { z, produce, consume, eachRound } = await pair();
      using other = cuda.createStream();
      await eachRound(async (value) => {
        produce.launch();
        if (value % 20 === 0) {
          other.waitFor(cuda.stream);
        } else {
          using event = cuda.stream.record();
          other.waitFor(event);
        }
        consume.launch(other);
        expect(await first(z)).toBe(value + 2);
      });
    });

    it("a graph, another graph and an eager kernel go in order", async () => {
      const { x, y, z, produce, consume, eachRound } = await pair();
      const back = (await cuda.compile(late)).bind({ x: z, y: x });
      using ahead = cuda.capture((on) => produce.launch(on));
      using behind = cuda.capture((on) => {
        consume.launch(on);
        back.launch(on);
      });
      await eachRound(async (value) => {
        ahead.launch(); // y = x + 1
        behind.launch(); // z = y + 1, x = z + 1
        ahead.launch();
        consume.launch();
        expect(await first(x)).toBe(value + 3);
        expect(await first(y)).toBe(value + 4);
        expect(await first(z)).toBe(value + 5);
      });
    });

    it("a copy comes after it, and a kernel that may start early after the copy", async () => {
      const { x, y, z, produce, consume, eachRound } = await pair();
      using up = cuda.pinned(f32, [n]);
      await eachRound(async (value) => {
        up.bytes.set(filled(1000 + value).bytes);
        produce.launch();
        cuda.stream.copy(up, y); // over what the late kernel writes
        consume.launch();
        expect(await first(y)).toBe(1000 + value);
        expect(await first(z)).toBe(1001 + value);
        cuda.stream.copy(up, x); // and what the next one reads
        produce.launch();
        consume.launch();
        expect(await first(z)).toBe(1002 + value);
      });
    });
  });

  it("finds its context again after other libraries changed it", async () => {
    const { chain, result } = await chainOf(cuda, 2);
    using graph = cuda.capture(chain);
    const { api, path } = openDriver();
    const library = koffi.load(path);
    const create = library.func("int cuCtxCreate_v2(void *context, uint32_t flags, int device)");
    const destroy = library.func("int cuCtxDestroy_v2(void *context)");
    const context = new BigUint64Array(1);
    expect(create(context, 0, 0)).toBe(0); // and makes it current
    for (const steal of [() => api.cuCtxSetCurrent(null), () => api.cuCtxSetCurrent(context[0] as never)]) {
      for (const run of [() => chain(cuda.stream), () => graph.launch()]) {
        result.write(filled(-1));
        expect(steal()).toBe(0);
        run();
        expect(steal()).toBe(0);
        expect(await first(result)).toBe(3);
      }
    }
    expect(destroy(context[0])).toBe(0);
    expect(await first(result)).toBe(3);
  });

  it("adopts memory and streams that others made, and refuses what is none of it", async () => {
    const { api } = openDriver();
    const { b } = await chainOf(cuda, 1);
    const out = new BigUint64Array(2);
    expect(api.cuMemAlloc(out.subarray(0, 1), 8 * n)).toBe(0);
    expect(api.cuStreamCreate(out.subarray(1, 2), 1)).toBe(0);
    const [pointer, handle] = [out[0] ?? 0n, out[1] ?? 0n];
    let freed = 0;
    const x = cuda.adoptTensor({ pointer, dtype: f32, shape: [n] });
    const y = cuda.adoptTensor({ pointer: pointer + BigInt(4 * n), dtype: f32, shape: [n], onFree: () => freed++ });
    x.write(ones);
    {
      using stream = cuda.adoptStream(handle);
      (await cuda.compile(link)).bind({ b, x, y, a: 4 }).launch(stream);
      expect(await first(y)).toBe(5);
      using legacy = cuda.adoptStream(0n);
      (await cuda.compile(link)).bind({ b, x, y, a: 5 }).launch(legacy);
      expect(await first(y)).toBe(6);
    }
    expect(() => cuda.adoptTensor({ pointer, dtype: f32, shape: [2 * n + 1] })).toThrow(/its allocation has 8192/);
    expect(() => cuda.adoptTensor({ pointer: 4096n, dtype: f32, shape: [1] })).toThrow(/no address that CUDA knows/);
    const pinned = cuda.pinned(f32, [n]);
    const host = koffi.address(pinned.bytes);
    expect(() => cuda.adoptTensor({ pointer: host, dtype: f32, shape: [1] })).toThrow(/host memory/);
    for (const one of [x, y, pinned]) one[Symbol.dispose]();
    expect(freed).toBe(1);
    expect(api.cuStreamDestroy(handle as StreamHandle)).toBe(0);
    expect(api.cuMemFree(pointer as DevicePointer)).toBe(0);
  });

  it(`leaves nothing behind after ${rounds} launches, ${rounds / 10} uploads, ${rounds / 100} programs`, async () => {
    const kib = (bytes: number) => `${(bytes / 1024).toFixed(0)} KiB`;
    let plan: SoakPlan = {
      launches: rounds,
      uploads: rounds / 10,
      programs: rounds / 100,
      backends: rounds / 100,
    };
    let grown: readonly string[] = [];
    // What others take and give back beside this test shows, too, as growth or its opposite; a leak grows every time.
    for (let attempt = 0; attempt < 12; attempt++) {
      if (attempt > 0) await setTimeout(10_000);
      const again = (await soak(plan)).filter(({ what, rounds, before, after }) => {
        const [heap, device] = [after.heap - before.heap, after.device - before.device];
        console.log(`${rounds} ${what}: JavaScript's memory grew by ${kib(heap)}, device memory by ${kib(device)}`);
        return heap >= 2 ** 20 + 20 * rounds || Math.abs(device) >= 4 * 2 ** 20;
      });
      grown = again.map(({ what }) => what);
      if (grown.length === 0) break;
      plan = Object.fromEntries(again.map(({ what, rounds }) => [what, rounds]));
    }
    expect(grown).toEqual([]);
  });

  it("succeeds once in every operation of the API", async () => {
    const done = new Set<string>();
    const { api, restore } = recorded(cudaApi, done);
    await tour(api, axpy);
    restore();
    expect(neverDone(done)).toEqual([]);
  });
});
