/**
 * The CUDA backend against a stand-in for libcuda (fake-cuda/libcuda.c): every call crosses the real FFI, no GPU is needed.
 * Devices, memory, compiling and disposal; launches are in cuda-launch.test.ts. What generated code does is tested elsewhere;
 * here its source only declares kernels to the stand-in.
 */
import { setImmediate } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, it, vi } from "vitest";
import { cudaAvailable, openCuda, whyNoCuda } from "../backends/cuda/runtime.ts";
import { DisposedError, LaunchRefusedError, NoDeviceError, ShapeError, UnsupportedError } from "../dsl/errors.ts";
import { cCompiler } from "./fake-cuda/build.ts";
import { standInDriver } from "./fake-cuda/hooks.ts";
import { axpy, bound, boundAxpy, bytesOf, fakeKernel, floatsOf, idle, valuesOf, vector } from "./fake-cuda/kernels.ts";

vi.mock("../backends/cuda/emit.ts", async () => (await import("./fake-cuda/kernels.ts")).fakeEmitter());

setFlagsFromString("--expose-gc");
const collectGarbage: () => void = runInNewContext("gc");

if (!cCompiler) console.warn("cuda-driver.test.ts: SKIPPED, there is no C compiler to build the stand-in for libcuda");

describe.skipIf(!cCompiler)("CUDA backend on a stand-in driver", () => {
  const fake = standInDriver();

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

  it("views a piece of a tensor as a tensor", async () => {
    await using cuda = await openCuda();
    const whole = vector(cuda, [1, 2, 3, 4, 5, 6]);
    const piece = whole.view([2, 2], 1);
    expect(await valuesOf(piece)).toEqual([2, 3, 4, 5]);
    expect(await valuesOf(piece.view([2], 2))).toEqual([4, 5]);
    for (const [shape, offset] of [
      [[6], 1],
      [[1], -1],
      [[1], 0.5],
      [[1], NaN],
      [[7], 0],
    ] as const) {
      expect(() => whole.view(shape, offset)).toThrow(`f32[6] has no [${shape}] from element ${offset} on`);
    }
    expect(() => piece.view([3], 2)).toThrow("f32[2, 2] has no [3] from element 2 on");
  });

  it("reads what was there when it was asked to, without blocking the event loop", async () => {
    await using cuda = await openCuda();
    const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
    const add = await boundAxpy(cuda, x, y, 1);
    for (let i = 0; i < 20; i++) add.launch();
    const synchronized = () => fake.log().filter((line) => line === "cuStreamSynchronize").length;
    const before = synchronized();
    const first = cuda.read(y.storage, 0, 4);
    const twin = cuda.read(y.storage, 0, 4);
    expect(synchronized()).toBe(before);
    add.launch(); // waits for the two reads
    const second = cuda.read(y.storage, 0, 4);
    cuda.write(y.storage, 0, bytesOf([7]));
    const third = cuda.read(y.storage, 0, 4);
    expect((await Promise.all([first, twin, second, third])).flatMap(floatsOf)).toEqual([20, 20, 21, 7]);
  });

  it("compiles a kernel once", async () => {
    await using cuda = await openCuda();
    const executable = await cuda.compile(axpy);
    expect(executable.compiler).toBe("NVRTC 13.0");
    expect(await cuda.compile(axpy)).toBe(executable);
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
      (await bound(cuda, kernel)).launch();
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
    (await bound(cuda, fakeKernel("large", { dynamicShared: 200_000, staticShared: 1000 }))).launch();
    expect(fake.log()).toContain("launch large grid 1 1 1 block 64 1 1 shared 200000 attributes 1");
    await cuda.compile(fakeKernel("small", { dynamicShared: 49_152 }));
    expect(fake.log().filter((line) => line === "cuFuncSetAttribute")).toHaveLength(1);
    await expect(cuda.compile(fakeKernel("huge", { dynamicShared: 232_448, staticShared: 16 }))).rejects.toThrow(
      /^huge needs 227 KiB of shared memory per block, Fake H0 has 227 KiB\n  at .*\n  Use smaller tiles or fewer stages/,
    );
    const wide = cuda.compile(fakeKernel("wide", { block: 1024, maxThreads: 256 }));
    await expect(wide).rejects.toThrow(LaunchRefusedError);
    await expect(wide).rejects.toThrow("wide has 1024 threads per block, but with 255 registers each only 256 fit");
  });

  it("waits without blocking the event loop", async () => {
    await using cuda = await openCuda();
    const launch = await bound(cuda, idle);
    for (let i = 0; i < 20; i++) launch.launch();
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
    (await boundAxpy(cuda, x, y, 1)).launch();
    x.free();
    expect(fake.log().slice(-2)).toEqual(["cuStreamSynchronize", "cuMemFree_v2"]);
    expect(await valuesOf(y)).toEqual([2]);
  });

  it("frees at the end of a `using` block", async () => {
    await using cuda = await openCuda();
    let outer;
    {
      using tensor = vector(cuda, [1]);
      using storage = cuda.allocate(4);
      outer = [tensor.storage, storage];
    }
    expect(outer.map(({ freed }) => freed)).toEqual([true, true]);
  });

  it("refuses sizes that koffi or C would bend", async () => {
    await using cuda = await openCuda();
    for (const size of [0, -1, NaN, Infinity, 2 ** 60]) expect(() => cuda.allocate(size)).toThrow(ShapeError);
  });

  it("gives everything back, once", async () => {
    const cuda = await openCuda();
    const [x, y] = [vector(cuda, [1]), vector(cuda, [1])];
    const launch = await boundAxpy(cuda, x, y, 1);
    launch.launch();
    cuda.createStream();
    cuda.stream.record();
    cuda.capture((on) => launch.launch(on)).launch();
    const pending = cuda.synchronize();
    await Promise.all([cuda.dispose(), expect(pending).rejects.toThrow(DisposedError)]);
    await cuda.dispose();
    expect(fake.leaks()).toBe(0);
    expect(x.storage.freed && y.storage.freed).toBe(true);
    const use: readonly (() => unknown)[] = [
      () => cuda.allocate(1),
      () => launch.launch(),
      () => cuda.createStream(),
      () => cuda.adoptStream(0n),
      () => cuda.capture((on) => launch.launch(on)),
      () => cuda.stream.record(),
    ];
    for (const one of use) expect(one).toThrow("The CUDA backend was used after dispose()");
    await expect(cuda.synchronize()).rejects.toThrow(DisposedError);
    await expect(cuda.stream.synchronize()).rejects.toThrow(DisposedError);
    await expect(cuda.compile(axpy)).rejects.toThrow(DisposedError);
    await expect(launch.timeUs(1)).rejects.toThrow(DisposedError);

    const again = await openCuda();
    await again.dispose();
    expect(fake.leaks()).toBe(0);
  });

  it("waits for launches before it takes their code away", async () => {
    const cuda = await openCuda();
    (await bound(cuda, idle)).launch();
    await cuda.dispose();
    const log = fake.log();
    expect(log.indexOf("cuStreamSynchronize")).toBeGreaterThan(log.indexOf("cuLaunchKernelEx"));
    expect(log.indexOf("cuModuleUnload")).toBeGreaterThan(log.indexOf("cuStreamSynchronize"));
    expect(fake.leaks()).toBe(0);
  });

  describe("devices", () => {
    it("knows the architectures", async () => {
      for (const [major, minor, arch] of [
        [10, 0, "sm_100a"],
        [12, 0, "sm_120a"],
        [9, 0, "sm_90a"],
      ] as const) {
        fake.device(0, major, minor);
        await using cuda = await openCuda();
        expect(cuda.arch).toBe(arch);
      }
    });

    it("takes the first that is new enough, or the one that is named", async () => {
      fake.device(0, 8, 0);
      fake.device(1, 9, 0);
      fake.device(2, 10, 0);
      await using first = await openCuda();
      expect(first.device).toMatch(/^Fake H1 \(sm_90a/);
      await using third = await openCuda({ ordinal: 2 });
      expect(third.device).toMatch(/^Fake H2 \(sm_100a/);
      expect(cudaAvailable()).toBe(true);
      await expect(openCuda({ ordinal: 0 })).rejects.toThrow(
        /^Fake H0 has compute capability 8\.0; the CUDA backend needs SM90\+/,
      );
    });

    it("says what is there when all are too old, and when there is none", async () => {
      fake.device(0, 8, 9);
      fake.device(1, 7, 5);
      await expect(openCuda()).rejects.toThrow(UnsupportedError);
      expect(whyNoCuda()).toMatch(
        /^Fake H0 has compute capability 8\.9, Fake H1 has compute capability 7\.5; the CUDA backend needs SM90\+/,
      );
      await expect(openCuda({ ordinal: 2 })).rejects.toThrow("There is no CUDA device 2; 2 found");
      await expect(openCuda({ ordinal: NaN })).rejects.toThrow(NoDeviceError);
      fake.noDevice();
      expect(cudaAvailable()).toBe(false);
      await expect(openCuda()).rejects.toThrow("There is no CUDA device 0; 0 found");
    });

    it("keeps two of them apart", async () => {
      fake.device(1, 9, 0);
      await using a = await openCuda({ ordinal: 0 });
      await using b = await openCuda({ ordinal: 1 });
      const [x, y] = [vector(a, [1]), vector(b, [10])];
      const [onA, onB] = [await boundAxpy(a, x, vector(a, [0]), 1), await boundAxpy(b, y, vector(b, [0]), 1)];
      for (let i = 0; i < 3; i++) {
        onA.launch();
        onB.launch(); // in b's context, without asking it to be made current in between
      }
      expect(fake.log().filter((line) => line === "cuLaunchKernelEx")).toHaveLength(6);
      const problem = `x belongs to another backend (${b.device})`;
      await expect(boundAxpy(a, y, x, 1)).rejects.toThrow(problem);
      expect(() => onA.launch(b.stream)).toThrow("axpy: launch(on) takes a stream of the backend and thread");
    });
  });
});
