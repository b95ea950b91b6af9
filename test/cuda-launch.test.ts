/** Bound launches of the CUDA backend, on the stand-in for libcuda (cuda-driver.test.ts). */
import { setTimeout } from "node:timers/promises";
import { MessageChannel, receiveMessageOnPort } from "node:worker_threads";
import { describe, expect, it, vi } from "vitest";
import { openCuda } from "../backends/cuda/runtime.ts";
import { DeviceTensor, deviceTensor, frozenTensor } from "../backends/tensor.ts";
import { bf16, f32, i32, u32 } from "../dsl/dtype.ts";
import { ArgumentError, DisposedError } from "../dsl/errors.ts";
import { HostTensor } from "../dsl/host.ts";
import { cCompiler } from "./fake-cuda/build.ts";
import { standInDriver } from "./fake-cuda/hooks.ts";
import { axpy, bound, boundAxpy, fakeKernel, idle, valuesOf, vector } from "./fake-cuda/kernels.ts";

vi.mock("../backends/cuda/emit.ts", async () => (await import("./fake-cuda/kernels.ts")).fakeEmitter());

if (!cCompiler) console.warn("cuda-launch.test.ts: SKIPPED, there is no C compiler to build the stand-in for libcuda");

const use = fakeKernel("use", { tensors: { w: "frozen", y: "output" } });
const make = fakeKernel("make", { tensors: { w: "output" } });

describe.skipIf(!cCompiler)("launches on a stand-in driver", () => {
  const fake = standInDriver();

  it("have the arguments, layout and attribute that C expects", async () => {
    await using cuda = await openCuda();
    const [x, y] = [vector(cuda, [1, 2, 3]), vector(cuda, [10, 20, 30])];
    (await boundAxpy(cuda, x, y, 0.5)).launch();
    (await boundAxpy(cuda, x, y, -2)).launch(); // a packet of its own: the first may not have run yet
    expect(await valuesOf(y)).toEqual([8.5, 17, 25.5]);
    const log = fake.log();
    expect(log).toContain("launch axpy grid 2 1 1 block 64 1 1 shared 0 attributes 1");
    expect(log).toContain("attribute 6 = 1");
    expect(log.filter((line) => line.startsWith("scalar"))).toEqual([
      "scalar 3f000000",
      "scalar 00000003",
      "scalar c0000000",
      "scalar 00000003",
    ]);
  });

  it("leave the attribute away without PDL", async () => {
    await using cuda = await openCuda({ pdl: false });
    (await boundAxpy(cuda, vector(cuda, [1]), vector(cuda, [1]), 1)).launch();
    expect(fake.log()).toContain("launch axpy grid 2 1 1 block 64 1 1 shared 0 attributes 0");
  });

  it("are one call of the driver each, from the first on", async () => {
    await using cuda = await openCuda();
    const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
    const launch = await boundAxpy(cuda, x, y, 1);
    const other = await bound(cuda, idle);
    const stream = cuda.createStream();
    for (const enqueue of [() => launch.launch(), () => launch.launch(stream), () => other.launch()]) {
      for (let i = 0; i < 3; i++) {
        const before = fake.calls();
        enqueue();
        expect(fake.calls() - before).toBe(1);
      }
    }
  });

  it("find their context again when another library has made its own current", async () => {
    await using cuda = await openCuda();
    const [x, y] = [vector(cuda, [1]), vector(cuda, [1])];
    const launch = await boundAxpy(cuda, x, y, 1);
    const graph = cuda.capture((on) => launch.launch(on));
    fake.steal();
    launch.launch();
    fake.steal();
    graph.launch();
    for (const answer of [400, 709]) {
      fake.fail("cuLaunchKernelEx", answer); // what other drivers say to it
      launch.launch();
    }
    fake.steal();
    const reading = valuesOf(y);
    fake.steal();
    expect(await reading).toEqual([5]);
    fake.steal();
  });

  it("change their scalars without being bound again", async () => {
    await using cuda = await openCuda();
    const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
    const launch = await boundAxpy(cuda, x, y, 1);
    const set = (scalars: object) => launch.set(scalars as never);
    launch.launch();
    set({ a: 10 });
    launch.launch();
    set({});
    launch.launch();
    expect(await valuesOf(y)).toEqual([21]);
    expect(() => set({ a: NaN })).toThrow("axpy: a is NaN");
    expect(() => set({ x })).toThrow("axpy: x is a tensor, which set() can't change");
    expect(() => set({ N: 3 })).toThrow("axpy: there is no scalar N");
    launch.launch();
    expect(await valuesOf(y)).toEqual([31]);
  });

  it("pass each kind of scalar bit for bit, and refuse what koffi or C would bend", async () => {
    await using cuda = await openCuda();
    const kernel = fakeKernel("scalars", { scalars: { a: f32, b: i32, c: u32 } });
    const launch = async (a: unknown, b: unknown, c: unknown) => (await bound(cuda, kernel, { a, b, c })).launch();
    await launch(-0, -1, 2 ** 32 - 1);
    expect(fake.log().slice(-3)).toEqual(["scalar 80000000", "scalar ffffffff", "scalar ffffffff"]);
    for (const bad of [NaN, 2 ** 31, -(2 ** 31) - 1, 0.5, 1n, "1"]) {
      await expect(launch(0, bad, 0)).rejects.toThrow(ArgumentError);
    }
    for (const bad of [NaN, 2 ** 32, -1, 2 ** 53]) await expect(launch(0, 0, bad)).rejects.toThrow(ArgumentError);
    for (const grid of [0, -1, NaN, 2 ** 31, 1.5]) {
      const wrong = fakeKernel("grids", { grid: [grid, 1, 1] });
      await expect(bound(cuda, wrong)).rejects.toThrow(ArgumentError);
    }
  });

  it("refuse memory that goes away after they were bound", async () => {
    await using cuda = await openCuda();
    const [x, y] = [vector(cuda, [1]), vector(cuda, [1])];
    const launch = await boundAxpy(cuda, x, y, 1);
    launch.launch();
    x.free();
    const calls = fake.calls();
    expect(() => launch.launch()).toThrow(DisposedError);
    expect(() => launch.launch()).toThrow("axpy: the memory of x was freed");
    expect(fake.calls()).toBe(calls);
    await expect(boundAxpy(cuda, x, y, 1)).rejects.toThrow("axpy: the memory of x was freed");
  });

  it("refuse outputs that overlap other arguments, by address", async () => {
    await using cuda = await openCuda();
    const x = vector(cuda, [1, 2, 3, 4]);
    const message = "axpy: x and y share memory that the kernel writes";
    await expect(boundAxpy(cuda, x, x, 1)).rejects.toThrow(message);
    await expect(boundAxpy(cuda, x.view([2], 0), x.view([2], 1), 1)).rejects.toThrow(message);
    (await boundAxpy(cuda, x.view([2], 0), x.view([2], 2), 10)).launch();
    expect(await valuesOf(x)).toEqual([1, 2, 13, 24]);
    // The same bytes through two doors.
    const lent = { pointer: fake.foreignMemory(16), dtype: f32, shape: [4] };
    await expect(boundAxpy(cuda, cuda.adoptTensor(lent), cuda.adoptTensor(lent), 1)).rejects.toThrow(message);
  });

  it("refuse tensors that begin where the kernel doesn't expect it", async () => {
    await using cuda = await openCuda();
    const wide = fakeKernel("wide", { tensors: { x: "input" }, alignBytes: 16 });
    const x = vector(cuda, [1, 2, 3, 4, 5]);
    await bound(cuda, wide, { x: x.view([1], 4) });
    await expect(bound(cuda, wide, { x: x.view([1], 3) })).rejects.toThrow(
      "wide: x is promised to be aligned to 16 bytes; it begins 12 bytes after a multiple of that",
    );
  });

  it("keep packets in place while the garbage collector works", async () => {
    await using cuda = await openCuda();
    const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
    const launches = [await boundAxpy(cuda, x, y, 1), await boundAxpy(cuda, x, y, 2)];
    for (let i = 0; i < 2000; i++) {
      launches[i % 2]?.launch();
      void new Array(2000).fill(i).map((value) => ({ value }));
    }
    await cuda.synchronize();
    expect(await valuesOf(y)).toEqual([3000]);
  });

  it("are timed by the device", async () => {
    await using cuda = await openCuda();
    const launch = await bound(cuda, idle);
    expect(await launch.timeUs(9)).toBeCloseTo((10 * 250) / 9, 3); // nine launches and one event
    for (const bad of [0, -1, NaN, 0.5]) await expect(launch.timeUs(bad)).rejects.toThrow(ArgumentError);
    await cuda.dispose();
    expect(fake.leaks()).toBe(0);
  });

  describe("frozen parameters", () => {
    it("take frozen tensors alone", async () => {
      await using cuda = await openCuda();
      const [w, y] = [vector(cuda, [1]), vector(cuda, [1])];
      await expect(bound(cuda, use, { w, y })).rejects.toThrow(
        /^use: w is a frozen parameter, and may be read while earlier kernels still write; got a tensor that isn't frozen\n.*\n.*frozenTensor\(backend, hostTensor\), or w\.freeze\(\)/,
      );
      (await bound(cuda, use, { w: w.freeze(), y })).launch();
      (await bound(cuda, use, { w: frozenTensor(cuda, HostTensor.from(f32, [1], [1])), y })).launch();
      expect(fake.log().filter((line) => /^launch use .* attributes 1$/.test(line))).toHaveLength(2);
    });

    it("take views of frozen tensors", async () => {
      await using cuda = await openCuda();
      const w = frozenTensor(cuda, HostTensor.from(f32, [4], [1, 2, 3, 4]));
      expect(w.view([1], 3).frozen).toBe(true);
      (await bound(cuda, use, { w: w.view([1], 3), y: vector(cuda, [0]) })).launch();
    });

    it("freeze a tensor when what was enqueued has ended, on every stream", async () => {
      await using cuda = await openCuda();
      const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
      (await boundAxpy(cuda, x, y, 1)).launch(cuda.createStream());
      y.freeze();
      const waits = fake.log().filter((line) => line === "cuStreamSynchronize").length;
      expect(await valuesOf(y)).toEqual([1]);
      y.freeze();
      expect(waits).toBeGreaterThan(2); // two writes, and then some
    });

    it("refuse to be written from then on, saying where they were frozen", async () => {
      await using cuda = await openCuda();
      const [x, w] = [vector(cuda, [1]), vector(cuda, [1])];
      const launch = await bound(cuda, make, { w });
      const graph = cuda.capture((on) => launch.launch(on));
      launch.launch();
      const data = HostTensor.from(f32, [1], [2]);
      const pinned = cuda.pinned(f32, [1]);
      w.freeze();
      const frozenHere = /frozen at test\/cuda-launch\.test\.ts:\d+:\d+/;
      const calls = fake.calls();
      for (const write of [
        () => w.write(data),
        () => cuda.write(w.storage, 0, data.bytes),
        () => w.view([1]).write(data),
        () => cuda.stream.copy(x, w),
        () => cuda.stream.copy(pinned, w),
        () => launch.launch(),
        () => graph.launch(),
      ]) {
        expect(write).toThrow(ArgumentError);
        expect(write).toThrow(frozenHere);
      }
      expect(fake.calls()).toBe(calls);
      await expect(bound(cuda, make, { w })).rejects.toThrow(
        /^make: w is output, but the tensor given is frozen: nothing writes it any more\n.*\n.*Write into a tensor of its own/,
      );
      await expect(boundAxpy(cuda, x, w, 1)).rejects.toThrow(frozenHere);
      (await boundAxpy(cuda, w, x, 1)).launch(); // reading is fine
    });
  });

  it("recognize what came from another thread", async () => {
    await using cuda = await openCuda();
    const [x, y] = [vector(cuda, [1]), vector(cuda, [1])];
    const { port1, port2 } = new MessageChannel();
    port1.postMessage(x);
    const { message } = receiveMessageOnPort(port2) as { message: unknown };
    await expect(bound(cuda, axpy, { x: message, y, a: 1 })).rejects.toThrow(
      /^axpy: x must be a tensor on the device, not an Object\n.*\n.*comes from another thread.*cuda\.adoptTensor/,
    );
    expect(() => cuda.stream.copy(message as typeof x, y)).toThrow(/comes from another thread.*cuda\.adoptTensor/);
    const launch = await boundAxpy(cuda, x, y, 1);
    expect(() => launch.launch({} as never)).toThrow("launch(on) takes a stream of the backend and thread");
    port1.close();
    await setTimeout(0);
  });

  it("free what they allocated when writing it fails", async () => {
    const cuda = await openCuda();
    const data = HostTensor.from(bf16, [2], [1, 2]);
    structuredClone(data.bytes.buffer, { transfer: [data.bytes.buffer] });
    expect(() => deviceTensor(cuda, data)).toThrow("detached");
    expect(fake.log().filter((line) => line === "cuMemFree_v2")).toHaveLength(1);
    expect(() => new DeviceTensor(cuda.allocate(2), bf16, [2])).toThrow("needs 4 bytes, the storage has 2");
    await cuda.dispose();
    expect(fake.leaks()).toBe(0);
  });
});
