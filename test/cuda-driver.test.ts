/**
 * The CUDA backend against a stand-in for libcuda (fake-cuda/libcuda.c): every call crosses the real FFI, no GPU is needed.
 * What generated code does is tested elsewhere; here its source only declares kernels to the stand-in.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import type { BoundLaunch, BoundScalar } from "../backends/backend.ts";
import { cudaAvailable, type CudaBackend, openCuda, whyNoCuda } from "../backends/cuda/runtime.ts";
import { DeviceTensor } from "../backends/tensor.ts";
import { f32, i32, u32 } from "../dsl/dtype.ts";
import {
  ArgumentError,
  CompileError,
  DeviceError,
  DisposedError,
  NotFoundError,
  ShapeError,
  UnsupportedError,
} from "../dsl/errors.ts";
import type { Kernel } from "../dsl/kernel.ts";
import { buildFakeCuda, cCompiler, type FakeCuda } from "./fake-cuda/build.ts";

interface FakeModule {
  readonly source: string;
  readonly entry: string;
  readonly dynamicSharedBytes: number;
}

vi.mock("../backends/cuda/emit.ts", () => ({ emitCuda: (ir: { readonly module: FakeModule }) => ir.module }));

if (!cCompiler) console.warn("cuda-driver.test.ts: SKIPPED, there is no C compiler to build the stand-in for libcuda");

interface FakeKernelOptions {
  readonly tensors?: number;
  readonly scalars?: number;
  readonly staticShared?: number;
  readonly dynamicShared?: number;
  readonly maxThreads?: number;
  readonly block?: number;
  readonly more?: string;
}

function fakeKernel(name: string, options: FakeKernelOptions = {}): Kernel {
  const { tensors = 0, scalars = 0, staticShared = 0, maxThreads = 1024, more = "" } = options;
  const source = `//kernel ${name} ${tensors} ${scalars} ${staticShared} ${maxThreads}\n${more}`;
  const module: FakeModule = { source, entry: name, dynamicSharedBytes: options.dynamicShared ?? 0 };
  const at = { file: `kernels/${name}.ts`, line: 7, column: 3 };
  return { name, at, ir: { module, block: options.block ?? 64 } } as unknown as Kernel;
}

const axpy = fakeKernel("axpy", { tensors: 2, scalars: 2 });
const trap = fakeKernel("trap");
const nothing: BoundLaunch = { grid: [1, 1, 1], tensors: [], scalars: [] };

const scalar = (name: string, dtype: BoundScalar["dtype"], value: number): BoundScalar => ({ name, dtype, value });
const bytesOf = (values: readonly number[]) => new Uint8Array(new Float32Array(values).buffer);
const floatsOf = (bytes: Uint8Array<ArrayBuffer>) => [...new Float32Array(bytes.buffer)];

function vector(cuda: CudaBackend, values: readonly number[]): DeviceTensor {
  const tensor = new DeviceTensor(cuda.allocate(4 * values.length), f32, [values.length]);
  cuda.write(tensor.storage, 0, bytesOf(values));
  return tensor;
}

function axpyLaunch(x: DeviceTensor, y: DeviceTensor, a: number): BoundLaunch {
  const n = x.shape[0] ?? 0;
  return { grid: [2, 1, 1], tensors: [x, y], scalars: [scalar("a", f32, a), scalar("n", u32, n)] };
}

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

  it("keeps packets in place while the garbage collector works", async () => {
    await using cuda = await openCuda();
    const executable = await cuda.compile(axpy);
    const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
    for (let i = 0; i < 2000; i++) {
      cuda.launch(executable, axpyLaunch(x, y, 1));
      void new Array(2000).fill(i).map((value) => ({ value }));
    }
    expect(floatsOf(await cuda.read(y.storage, 0, 4))).toEqual([2000]);
  });

  it("passes each kind of scalar bit for bit, and refuses what koffi or C would bend", async () => {
    await using cuda = await openCuda();
    const executable = await cuda.compile(fakeKernel("scalars", { scalars: 3 }));
    const launch = (a: number, b: number, c: number) =>
      cuda.launch(executable, {
        ...nothing,
        scalars: [scalar("a", f32, a), scalar("b", i32, b), scalar("c", u32, c)],
      });
    launch(-0, -1, 2 ** 32 - 1);
    expect(fake.log().slice(-3)).toEqual(["scalar 80000000", "scalar ffffffff", "scalar ffffffff"]);
    for (const bad of [NaN, 2 ** 31, -(2 ** 31) - 1, 0.5]) expect(() => launch(0, bad, 0)).toThrow(ArgumentError);
    for (const bad of [NaN, 2 ** 32, -1, 2 ** 53]) expect(() => launch(0, 0, bad)).toThrow(ArgumentError);
    for (const grid of [0, -1, NaN, 2 ** 31, 1.5]) {
      expect(() => cuda.launch(executable, { ...nothing, grid: [grid, 1, 1] })).toThrow(ArgumentError);
    }
    for (const size of [0, -1, NaN, Infinity, 2 ** 60]) expect(() => cuda.allocate(size)).toThrow(ArgumentError);
    expect(() => cuda.launch(executable, nothing)).toThrow("takes 0 tensors and 3 scalars, got 0 and 0");
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

  it("maps the compiler's complaint to TypeScript", async () => {
    await using cuda = await openCuda();
    const more = '//log kernels/bad.ts(40): error: expected a ";"\n#line 40 "kernels/bad.ts"\nint x = 1\n';
    const bad = cuda.compile(fakeKernel("bad", { more }));
    await expect(bad).rejects.toThrow(CompileError);
    await expect(bad).rejects.toThrow(
      'NVRTC 13.0 refused bad for sm_90a: expected a ";"\n  at kernels/bad.ts:40:1\n  generated line `int x = 1` at bad.cu:4:1',
    );
    expect(fake.nvrtcPrograms()).toBe(0);
  });

  it("reserves shared memory above 48 KiB, and refuses what doesn't fit", async () => {
    await using cuda = await openCuda();
    const large = await cuda.compile(fakeKernel("large", { dynamicShared: 200_000, staticShared: 1000 }));
    cuda.launch(large, nothing);
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

  it("says what is free when memory runs out, and goes on", async () => {
    await using cuda = await openCuda();
    const first = cuda.allocate(512 * 1024);
    expect(() => cuda.allocate(768 * 1024)).toThrow("No room for 768 KiB on Fake H0: 512 KiB of 1 MiB are free");
    expect(cuda.allocate(512 * 1024).byteLength).toBe(512 * 1024);
    first.free();
    cuda.allocate(512 * 1024);
  });

  it("measures device time per launch", async () => {
    await using cuda = await openCuda();
    const executable = await cuda.compile(fakeKernel("idle"));
    expect(await cuda.timeUs(executable, nothing, 9)).toBeCloseTo((10 * 250) / 9, 3); // nine launches and one event
    await expect(cuda.timeUs(executable, nothing, 0)).rejects.toThrow(ArgumentError);
  });

  it("waits without blocking the event loop", async () => {
    await using cuda = await openCuda();
    const executable = await cuda.compile(fakeKernel("idle"));
    for (let i = 0; i < 20; i++) cuda.launch(executable, nothing);
    let turns = 0;
    let timer = setImmediate(function again() {
      turns++;
      timer = setImmediate(again);
    });
    await cuda.synchronize();
    clearImmediate(timer);
    expect(turns).toBeGreaterThan(0);
  });

  it("frees only after the launches that may use the memory", async () => {
    await using cuda = await openCuda();
    const [x, y] = [vector(cuda, [1]), vector(cuda, [1])];
    cuda.launch(await cuda.compile(axpy), axpyLaunch(x, y, 1));
    x.free();
    expect(fake.log().slice(-2)).toEqual(["cuStreamSynchronize", "cuMemFree_v2"]);
    expect(floatsOf(await cuda.read(y.storage, 0, 4))).toEqual([2]);
  });

  it("refuses freed memory, memory of another backend, and places outside", async () => {
    await using cuda = await openCuda();
    await using other = await openCuda();
    const executable = await cuda.compile(axpy);
    const [x, y] = [vector(cuda, [1]), vector(cuda, [1])];
    x.free();
    x.free();
    expect(x.storage.freed).toBe(true);
    expect(() => cuda.launch(executable, axpyLaunch(x, y, 1))).toThrow(DisposedError);
    expect(() => cuda.write(x.storage, 0, new Uint8Array(4))).toThrow(DisposedError);
    await expect(cuda.read(x.storage, 0, 4)).rejects.toThrow(DisposedError);
    expect(() => cuda.launch(executable, axpyLaunch(vector(other, [1]), y, 1))).toThrow(ArgumentError);
    expect(() => other.launch(executable, nothing)).toThrow("axpy was compiled by another backend");
    for (const offset of [1, -1, NaN, 2 ** 53]) {
      expect(() => cuda.write(y.storage, offset, new Uint8Array(4))).toThrow(ShapeError);
    }
    const detached = new Uint8Array(4);
    structuredClone(detached.buffer, { transfer: [detached.buffer] });
    expect(() => cuda.write(y.storage, 0, detached)).toThrow("detached");
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
    expect(() => cuda.launch(executable, nothing)).toThrow(DisposedError);
    await expect(cuda.synchronize()).rejects.toThrow(DisposedError);
    await expect(cuda.compile(axpy)).rejects.toThrow(DisposedError);

    const again = await openCuda();
    await again.dispose();
    expect(fake.leaks()).toBe(0);
  });

  it("says which kernel destroyed the context, to this call and every later one, until it is reopened", async () => {
    const cuda = await openCuda();
    const storage = cuda.allocate(4);
    cuda.launch(await cuda.compile(trap), nothing);
    const first = cuda.synchronize();
    await expect(first).rejects.toThrow(DeviceError);
    await expect(first).rejects.toThrow(
      "Kernel trap failed with CUDA_ERROR_ILLEGAL_ADDRESS (700: an illegal memory access was encountered), " +
        "seen waiting for launches; the context of CUDA device 0 is lost\n  at kernels/trap.ts:7:3",
    );
    const calls = fake.log().length;
    expect(() => cuda.allocate(4)).toThrow(
      /Not allocating 4 bytes, because of an earlier failure\. Kernel trap failed/,
    );
    expect(() => cuda.write(storage, 0, new Uint8Array(4))).toThrow(/openCuda\(\) again/);
    await expect(cuda.read(storage, 0, 4)).rejects.toThrow(DeviceError);
    const neighbour = openCuda(); // shares the context
    await expect(neighbour).rejects.toThrow(/Kernel trap failed/);
    expect(
      fake
        .log()
        .slice(calls)
        .filter((line) => !line.startsWith("cuDevice")),
    ).toEqual([]);
    storage.free();
    await cuda.dispose();

    await using reopened = await openCuda();
    expect(reopened.allocate(4).freed).toBe(false);
  });

  it("lists the suspects when several launches were under way; debug mode finds the one", async () => {
    const idle = fakeKernel("idle");
    await using cuda = await openCuda();
    for (const kernel of [idle, trap, idle]) cuda.launch(await cuda.compile(kernel), nothing);
    await expect(cuda.synchronize()).rejects.toThrow(/One of the kernels idle, trap \(launched last\) failed/);
    await cuda.dispose();

    await using careful = await openCuda({ debug: true });
    careful.launch(await careful.compile(idle), nothing);
    const executable = await careful.compile(trap);
    expect(() => careful.launch(executable, nothing)).toThrow(/^Kernel trap failed/);
  });

  it("passes on a launch that CUDA refuses, and goes on", async () => {
    await using cuda = await openCuda();
    const executable = await cuda.compile(axpy);
    const launch = axpyLaunch(vector(cuda, [1]), vector(cuda, [1]), 1);
    fake.fail("cuLaunchKernelEx", 701);
    expect(() => cuda.launch(executable, launch)).toThrow(
      "CUDA failed, launching axpy: CUDA_ERROR_FAKE (701: made up)\n  at kernels/axpy.ts:7:3",
    );
    cuda.launch(executable, launch);
    await cuda.synchronize();
  });

  it("explains a cubin that the driver refuses", async () => {
    await using cuda = await openCuda();
    fake.fail("cuModuleLoadData", 209);
    await expect(cuda.compile(axpy)).rejects.toThrow(
      /The driver \(CUDA 13\.0\) refuses axpy, made by NVRTC 13\.0 for sm_90a.*\n.*\n  Update the driver/,
    );
    await cuda.compile(axpy);
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

  it("says that there is no such device", async () => {
    await expect(openCuda({ ordinal: 1 })).rejects.toThrow("There is no CUDA device 1; 1 found");
    await expect(openCuda({ ordinal: NaN })).rejects.toThrow(NotFoundError);
    fake.device(0, 0, 0);
    expect(cudaAvailable()).toBe(false);
  });

  it("lists what it tried when there is no driver", async () => {
    const path = process.env["TEGULA_LIBCUDA"];
    vi.stubEnv("TEGULA_LIBCUDA", "/nowhere/libcuda.so.1");
    await expect(openCuda()).rejects.toThrow(/at TEGULA_LIBCUDA\. Tried:\n    \/nowhere\/libcuda\.so\.1: no such file/);
    vi.stubEnv("TEGULA_LIBCUDA", process.env["TEGULA_LIBNVRTC"] ?? "");
    await expect(openCuda()).rejects.toThrow(/not a driver that Tegula can use: Cannot find function 'cuInit'/);
    vi.unstubAllEnvs();
    expect(process.env["TEGULA_LIBCUDA"]).toBe(path);
  });
});
