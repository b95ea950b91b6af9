/**
 * The CUDA backend against a stand-in for libcuda (fake-cuda/libcuda.c): every call crosses the real FFI, no GPU is needed.
 * What generated code does is tested elsewhere; here its source only declares kernels to the stand-in.
 */
import { setImmediate } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { type CudaOptions, cudaAvailable, openCuda, whyNoCuda } from "../backends/cuda/runtime.ts";
import type { DeviceTensor } from "../backends/tensor.ts";
import { f32, i32, u32 } from "../dsl/dtype.ts";
import { ArgumentError, DisposedError, UnsupportedError } from "../dsl/errors.ts";
import type { Kernel } from "../dsl/kernel.ts";
import { buildFakeCuda, cCompiler, type FakeCuda } from "./fake-cuda/build.ts";
import { axpy, axpyLaunch, bytesOf, fakeKernel, floatsOf, one, scalar, vector } from "./fake-cuda/kernels.ts";

vi.mock("../backends/cuda/emit.ts", async () => (await import("./fake-cuda/kernels.ts")).fakeEmitter());

setFlagsFromString("--expose-gc");
const collectGarbage: () => void = runInNewContext("gc");

if (!cCompiler) console.warn("cuda-driver.test.ts: SKIPPED, there is no C compiler to build the stand-in for libcuda");

describe.skipIf(!cCompiler)("CUDA backend on a stand-in driver", () => {
  let fake: FakeCuda;
  beforeAll(() => {
    fake = buildFakeCuda();
  });
  beforeEach(() => fake.reset());
  afterAll(() => fake.remove());

  it("names the device and is available", async () => {
    await using cuda = await openCuda();
    expect(cuda.device).toBe("Fake H0 (sm_90a, driver 13.0)");
    expect(whyNoCuda()).toBeUndefined();
    expect(cudaAvailable()).toBe(true);
  });

  it("copies to the device and back, at offsets", async () => {
    await using cuda = await openCuda();
    const storage = cuda.allocate(16);
    cuda.write(storage, 0, bytesOf([1, 2, 3, 4]));
    cuda.write(storage, 8, bytesOf([30]));
    expect(floatsOf(await cuda.read(storage, 4, 12))).toEqual([2, 30, 4]);
    // A view in the middle of a larger buffer: its own bytes, not the buffer's first ones.
    cuda.write(storage, 0, bytesOf([9, 8, 7]).subarray(4, 8));
    expect(floatsOf(await cuda.read(storage, 0, 4))).toEqual([8]);
  });

  it("launches with the arguments, layout and attribute that C expects", async () => {
    await using cuda = await openCuda();
    const executable = await cuda.compile(axpy);
    expect(executable.compiler).toBe("NVRTC 13.0");
    const [x, y] = [vector(cuda, [1, 2, 3]), vector(cuda, [10, 20, 30])];
    cuda.launch(executable, axpyLaunch(x, y, 0.5));
    cuda.launch(executable, axpyLaunch(x, y, -2)); // refills the packet of a launch that hasn't run yet
    expect(floatsOf(await cuda.read(y.storage, 0, 12))).toEqual([8.5, 17, 25.5]);
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

  it("leaves the attribute away without PDL", async () => {
    await using cuda = await openCuda({ pdl: false });
    cuda.launch(await cuda.compile(axpy), axpyLaunch(vector(cuda, [1]), vector(cuda, [1]), 1));
    expect(fake.log()).toContain("launch axpy grid 2 1 1 block 64 1 1 shared 0 attributes 0");
  });

  describe("a frozen tensor that an earlier launch wrote", () => {
    const make = fakeKernel("make", { tensors: ["output"] });
    const update = fakeKernel("update", { tensors: ["inout"] });
    const use = fakeKernel("use", { tensors: ["frozen", "output"] });
    const take = fakeKernel("take", { tensors: ["input", "output"] });

    /** Three tensors, a way to launch, and the launches so far with their number of attributes. */
    async function bench(options: CudaOptions = {}) {
      const cuda = await openCuda(options);
      const [w, x, y] = [vector(cuda, [1]), vector(cuda, [1]), vector(cuda, [1])];
      for (const kernel of [make, update, use, take]) await cuda.compile(kernel);
      const launch = async (kernel: Kernel, ...tensors: readonly DeviceTensor[]) =>
        cuda.launch(await cuda.compile(kernel), one(kernel, ...tensors));
      const launches = () =>
        fake.log().flatMap(
          (line) =>
            line
              .match(/^launch (\w+) .* attributes (\d)/)
              ?.slice(1)
              .join(" ") ?? [],
        );
      return { cuda, w, x, y, launch, launches, [Symbol.asyncDispose]: () => cuda.dispose() };
    }

    it("makes the launch wait for all before it", async () => {
      await using b = await bench();
      await b.launch(make, b.w);
      await b.launch(use, b.w, b.x);
      await b.launch(update, b.y);
      await b.launch(use, b.y, b.x);
      expect(b.launches()).toEqual(["make 1", "use 0", "update 1", "use 0"]);
    });

    it("also when other launches lie between", async () => {
      await using b = await bench();
      await b.launch(make, b.w);
      for (let i = 0; i < 20; i++) await b.launch(take, b.x, b.y);
      await b.launch(use, b.w, b.x);
      expect(b.launches().slice(-2)).toEqual(["take 1", "use 0"]);
    });

    it("is written no more after that; but what the waiting launch writes is", async () => {
      await using b = await bench();
      await b.launch(make, b.w);
      await b.launch(use, b.w, b.x);
      await b.launch(use, b.w, b.y);
      await b.launch(use, b.x, b.y);
      expect(b.launches()).toEqual(["make 1", "use 0", "use 1", "use 0"]);
    });

    it("doesn't matter for inputs, memory that nothing wrote, and launches that write it later", async () => {
      await using b = await bench();
      await b.launch(use, b.w, b.x);
      await b.launch(take, b.x, b.y);
      await b.launch(use, b.w, b.x);
      await b.launch(make, b.w);
      expect(b.launches()).toEqual(["use 1", "take 1", "use 1", "make 1"]);
    });

    it("is written no more after anything that waits for everything", async () => {
      await using b = await bench();
      const other = vector(b.cuda, [1]);
      for (const wait of [
        () => b.cuda.synchronize(),
        () => b.cuda.write(b.x.storage, 0, bytesOf([1])),
        () => b.cuda.read(b.x.storage, 0, 4),
        () => other.free(),
      ]) {
        await b.launch(make, b.w);
        await wait();
        await b.launch(use, b.w, b.x);
        expect(b.launches().slice(-2)).toEqual(["make 1", "use 1"]);
      }
    });

    it("is still written when what was waited for came before", async () => {
      await using b = await bench();
      await b.launch(make, b.x);
      const before = b.cuda.synchronize();
      await b.launch(make, b.w);
      await before;
      await b.launch(use, b.w, b.y);
      expect(b.launches().slice(-2)).toEqual(["make 1", "use 0"]);
    });

    it("is still written when CUDA refused the launch that would have waited", async () => {
      await using b = await bench();
      await b.launch(make, b.w);
      fake.fail("cuLaunchKernelEx", 701);
      await expect(b.launch(use, b.w, b.x)).rejects.toThrow("made up");
      await b.launch(use, b.w, b.x);
      expect(b.launches()).toEqual(["make 1", "use 0"]);
    });

    it("never is in debug mode, which waits for each launch", async () => {
      await using b = await bench({ debug: true });
      await b.launch(make, b.w);
      await b.launch(use, b.w, b.x);
      expect(b.launches()).toEqual(["make 1", "use 1"]);
    });
  });

  it("reads what was there when it was asked to, without blocking the event loop", async () => {
    await using cuda = await openCuda();
    const executable = await cuda.compile(axpy);
    const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
    const add = () => cuda.launch(executable, axpyLaunch(x, y, 1));
    for (let i = 0; i < 20; i++) add();
    const synchronized = () => fake.log().filter((line) => line === "cuStreamSynchronize").length;
    const before = synchronized();
    const first = cuda.read(y.storage, 0, 4);
    const twin = cuda.read(y.storage, 0, 4);
    expect(synchronized()).toBe(before);
    add(); // waits for the two reads
    const second = cuda.read(y.storage, 0, 4);
    cuda.write(y.storage, 0, bytesOf([7]));
    const third = cuda.read(y.storage, 0, 4);
    expect((await Promise.all([first, twin, second, third])).flatMap(floatsOf)).toEqual([20, 20, 21, 7]);
  });

  it("works while other libraries change the thread's current context", async () => {
    await using cuda = await openCuda();
    const executable = await cuda.compile(axpy);
    const [x, y] = [vector(cuda, [1]), vector(cuda, [1])];
    fake.steal();
    cuda.launch(executable, axpyLaunch(x, y, 1));
    fake.steal();
    const reading = cuda.read(y.storage, 0, 4);
    fake.steal();
    expect(floatsOf(await reading)).toEqual([2]);
    fake.steal();
  });

  it("keeps packets in place while the garbage collector works", async () => {
    await using cuda = await openCuda();
    const executable = await cuda.compile(axpy);
    const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
    for (let i = 0; i < 2000; i++) {
      cuda.launch(executable, axpyLaunch(x, y, 1));
      void new Array(2000).fill(i).map((value) => ({ value }));
    }
    cuda.write(x.storage, 0, bytesOf([1])); // lets the stand-in run them all in one go
    expect(floatsOf(await cuda.read(y.storage, 0, 4))).toEqual([2000]);
  });

  it("passes each kind of scalar bit for bit, and refuses what koffi or C would bend", async () => {
    await using cuda = await openCuda();
    const executable = await cuda.compile(fakeKernel("scalars", { scalars: 3 }));
    const launch = (a: number, b: number, c: number) =>
      cuda.launch(executable, {
        ...one(executable.kernel),
        scalars: [scalar("a", f32, a), scalar("b", i32, b), scalar("c", u32, c)],
      });
    launch(-0, -1, 2 ** 32 - 1);
    expect(fake.log().slice(-3)).toEqual(["scalar 80000000", "scalar ffffffff", "scalar ffffffff"]);
    for (const bad of [NaN, 2 ** 31, -(2 ** 31) - 1, 0.5]) expect(() => launch(0, bad, 0)).toThrow(ArgumentError);
    for (const bad of [NaN, 2 ** 32, -1, 2 ** 53]) expect(() => launch(0, 0, bad)).toThrow(ArgumentError);
    for (const grid of [0, -1, NaN, 2 ** 31, 1.5]) {
      expect(() => cuda.launch(executable, { ...one(executable.kernel), grid: [grid, 1, 1] })).toThrow(ArgumentError);
    }
    for (const size of [0, -1, NaN, Infinity, 2 ** 60]) expect(() => cuda.allocate(size)).toThrow(ArgumentError);
    expect(() => cuda.launch(executable, one(executable.kernel))).toThrow("takes 0 tensors and 3 scalars, got 0 and 0");
  });

  it("compiles a kernel once", async () => {
    await using cuda = await openCuda();
    expect(await cuda.compile(axpy)).toBe(await cuda.compile(axpy));
    expect(fake.log().filter((line) => line === "cuModuleLoadData")).toHaveLength(1);
    expect(fake.nvrtcPrograms()).toBe(0);
    expect(fake.nvrtcOptions()).toEqual([
      "--gpu-architecture=sm_90a",
      "--std=c++17",
      "--fmad=false",
      "--generate-line-info",
    ]);
  });

  it("lets dropped kernels be collected, and unloads their code in the end", async () => {
    const cuda = await openCuda();
    const compileAndDrop = async () => {
      const kernel = fakeKernel("dropped");
      cuda.launch(await cuda.compile(kernel), one(kernel));
      await cuda.synchronize();
      return new WeakRef(kernel);
    };
    const dropped = await compileAndDrop();
    for (let i = 0; i < 20 && dropped.deref(); i++) {
      await setImmediate();
      collectGarbage();
    }
    expect(dropped.deref()).toBeUndefined();
    await cuda.dispose();
    expect(fake.leaks()).toBe(0);
  });

  it("reserves shared memory above 48 KiB, and refuses what doesn't fit", async () => {
    await using cuda = await openCuda();
    const large = await cuda.compile(fakeKernel("large", { dynamicShared: 200_000, staticShared: 1000 }));
    cuda.launch(large, one(large.kernel));
    expect(fake.log()).toContain("launch large grid 1 1 1 block 64 1 1 shared 200000 attributes 1");
    await cuda.compile(fakeKernel("small", { dynamicShared: 49_152 }));
    expect(fake.log().filter((line) => line === "cuFuncSetAttribute")).toHaveLength(1);
    await expect(cuda.compile(fakeKernel("huge", { dynamicShared: 232_448, staticShared: 16 }))).rejects.toThrow(
      "huge needs 227 KiB of shared memory per block, Fake H0 has 227 KiB",
    );
    await expect(cuda.compile(fakeKernel("wide", { block: 1024, maxThreads: 256 }))).rejects.toThrow(
      "wide has 1024 threads per block, but with 255 registers each only 256 fit",
    );
  });

  it("measures device time per launch", async () => {
    await using cuda = await openCuda();
    const executable = await cuda.compile(fakeKernel("idle"));
    expect(await cuda.timeUs(executable, one(executable.kernel), 9)).toBeCloseTo((10 * 250) / 9, 3); // nine launches and one event
    await expect(cuda.timeUs(executable, one(executable.kernel), 0)).rejects.toThrow(ArgumentError);
  });

  it("waits without blocking the event loop", async () => {
    await using cuda = await openCuda();
    const executable = await cuda.compile(fakeKernel("idle"));
    for (let i = 0; i < 20; i++) cuda.launch(executable, one(executable.kernel));
    let turns = 0;
    let waiting = true;
    const counting = (async () => {
      for (; waiting; turns++) await setImmediate();
    })();
    await cuda.synchronize();
    waiting = false;
    await counting;
    expect(turns).toBeGreaterThan(1);
  });

  it("frees only after the launches that may use the memory", async () => {
    await using cuda = await openCuda();
    const [x, y] = [vector(cuda, [1]), vector(cuda, [1])];
    cuda.launch(await cuda.compile(axpy), axpyLaunch(x, y, 1));
    x.free();
    expect(fake.log().slice(-2)).toEqual(["cuStreamSynchronize", "cuMemFree_v2"]);
    expect(floatsOf(await cuda.read(y.storage, 0, 4))).toEqual([2]);
  });

  it("gives everything back, once", async () => {
    const cuda = await openCuda();
    const executable = await cuda.compile(axpy);
    const [x, y] = [vector(cuda, [1]), vector(cuda, [1])];
    cuda.launch(executable, axpyLaunch(x, y, 1));
    const pending = cuda.synchronize();
    await Promise.all([cuda.dispose(), expect(pending).rejects.toThrow(DisposedError)]);
    await cuda.dispose();
    expect(fake.leaks()).toBe(0);
    expect(x.storage.freed && y.storage.freed).toBe(true);
    expect(() => cuda.allocate(1)).toThrow(DisposedError);
    expect(() => cuda.launch(executable, one(executable.kernel))).toThrow(DisposedError);
    await expect(cuda.synchronize()).rejects.toThrow(DisposedError);
    await expect(cuda.compile(axpy)).rejects.toThrow(DisposedError);

    const again = await openCuda();
    await again.dispose();
    expect(fake.leaks()).toBe(0);
  });

  it("waits for launches before it takes their code away", async () => {
    const cuda = await openCuda();
    const idle = fakeKernel("idle");
    cuda.launch(await cuda.compile(idle), one(idle));
    await cuda.dispose();
    const log = fake.log();
    expect(log.indexOf("cuStreamSynchronize")).toBeGreaterThan(log.indexOf("cuLaunchKernelEx"));
    expect(log.indexOf("cuModuleUnload")).toBeGreaterThan(log.indexOf("cuStreamSynchronize"));
    expect(fake.leaks()).toBe(0);
  });

  it("knows the architectures, and refuses old ones", async () => {
    for (const [major, minor, arch] of [
      [10, 0, "sm_100a"],
      [12, 0, "sm_120a"],
      [9, 0, "sm_90a"],
    ] as const) {
      fake.device(1, major, minor);
      await using cuda = await openCuda();
      expect(cuda.arch).toBe(arch);
    }
    fake.device(1, 8, 9);
    await expect(openCuda()).rejects.toThrow(UnsupportedError);
    expect(whyNoCuda()).toMatch(/Fake H0 has compute capability 8\.9; the CUDA backend needs SM90\+/);
  });
});
