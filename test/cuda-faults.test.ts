/** What the CUDA backend says when something fails, against the stand-in for libcuda (cuda-driver.test.ts). */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { cudaAvailable, openCuda } from "../backends/cuda/runtime.ts";
import { f32 } from "../dsl/dtype.ts";
import { ArgumentError, CompileError, DeviceError, DisposedError, NotFoundError, ShapeError } from "../dsl/errors.ts";
import { buildFakeCuda, cCompiler, type FakeCuda } from "./fake-cuda/build.ts";
import { axpy, bound, boundAxpy, fakeKernel, idle, trap, valuesOf, vector } from "./fake-cuda/kernels.ts";

vi.mock("../backends/cuda/emit.ts", async () => (await import("./fake-cuda/kernels.ts")).fakeEmitter());

if (!cCompiler) console.warn("cuda-faults.test.ts: SKIPPED, there is no C compiler to build the stand-in for libcuda");

describe.skipIf(!cCompiler)("faults on a stand-in driver", () => {
  let fake: FakeCuda;
  beforeAll(() => {
    fake = buildFakeCuda();
  });
  beforeEach(() => fake.reset());
  afterEach(() => expect(fake.violations()).toBe(0));
  afterAll(() => fake.remove());

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

  it("says what is free when memory runs out, and goes on", async () => {
    await using cuda = await openCuda();
    const first = cuda.allocate(512 * 1024);
    expect(() => cuda.allocate(768 * 1024)).toThrow("No room for 768 KiB on Fake H0: 512 KiB of 1 MiB are free");
    expect(cuda.allocate(512 * 1024).byteLength).toBe(512 * 1024);
    first.free();
    cuda.allocate(512 * 1024);
  });

  it("refuses freed memory, memory of another backend, and places outside", async () => {
    await using cuda = await openCuda();
    await using other = await openCuda();
    const [x, y] = [vector(cuda, [1]), vector(cuda, [1])];
    x.free();
    x.free();
    expect(x.storage.freed).toBe(true);
    await expect(boundAxpy(cuda, x, y, 1)).rejects.toThrow(DisposedError);
    expect(() => cuda.write(x.storage, 0, new Uint8Array(4))).toThrow(DisposedError);
    await expect(cuda.read(x.storage, 0, 4)).rejects.toThrow(DisposedError);
    await expect(boundAxpy(cuda, vector(other, [1]), y, 1)).rejects.toThrow(ArgumentError);
    expect(() => other.write(y.storage, 0, new Uint8Array(4))).toThrow(ArgumentError);
    expect(() => other.pointerOf(y)).toThrow(ArgumentError);
    for (const offset of [1, -1, NaN, 2 ** 53]) {
      expect(() => cuda.write(y.storage, offset, new Uint8Array(4))).toThrow(ShapeError);
    }
    const detached = new Uint8Array(4);
    structuredClone(detached.buffer, { transfer: [detached.buffer] });
    expect(() => cuda.write(y.storage, 0, detached)).toThrow("detached");
  });

  it("ends a read whose memory or backend goes away meanwhile", async () => {
    const cuda = await openCuda();
    const [x, y] = [vector(cuda, [1]), vector(cuda, [1])];
    const launch = await boundAxpy(cuda, x, y, 1);
    launch.launch();
    const ofFreed = expect(cuda.read(y.storage, 0, 4)).rejects.toThrow("Device memory was used after it was freed");
    launch.launch(); // even though this lets the read copy at once
    y.free();
    await ofFreed;
    (await boundAxpy(cuda, vector(cuda, [1]), x, 1)).launch();
    const ofDisposed = expect(cuda.read(x.storage, 0, 4)).rejects.toThrow(DisposedError);
    await Promise.all([cuda.dispose(), ofDisposed]);
    expect(fake.leaks()).toBe(0);
  });

  it("says which kernel destroyed the context, to this call and every later one, until it is reopened", async () => {
    const cuda = await openCuda();
    const storage = cuda.allocate(4);
    const launch = await bound(cuda, trap);
    launch.launch();
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
    expect(() => launch.launch()).toThrow(/^Not launching trap, because of an earlier failure\. Kernel trap failed/);
    expect(() => cuda.pinned(f32, [1])).toThrow(DeviceError);
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
    await using cuda = await openCuda();
    for (const kernel of [idle, trap, idle]) (await bound(cuda, kernel)).launch();
    await expect(cuda.synchronize()).rejects.toThrow(/One of the kernels idle, trap \(launched last\) failed/);
    await cuda.dispose();

    await using careful = await openCuda({ debug: true });
    (await bound(careful, idle)).launch();
    const launch = await bound(careful, trap);
    expect(() => launch.launch()).toThrow(/^Kernel trap failed/);
  });

  it("forgets suspects that are known to have ended well", async () => {
    await using cuda = await openCuda();
    const names = Array.from({ length: 20 }, (_, i) => `kernel${i}`);
    const launches = await Promise.all(names.map((name) => bound(cuda, fakeKernel(name))));
    for (const launch of launches) launch.launch();
    await cuda.synchronize();
    for (const launch of [launches[3], launches[5]]) launch?.launch();
    (await bound(cuda, trap)).launch();
    await expect(cuda.synchronize()).rejects.toThrow(/One of the kernels kernel3, kernel5, trap \(launched last\)/);
    await cuda.dispose();

    await using again = await openCuda();
    (await bound(again, trap)).launch();
    for (const name of names) (await bound(again, fakeKernel(name))).launch();
    await expect(again.synchronize()).rejects.toThrow(
      /One of the kernels kernel4, kernel5, .*kernel19 \(launched last\)/,
    );
  });

  it("passes on a launch that CUDA refuses, and goes on", async () => {
    await using cuda = await openCuda();
    const y = vector(cuda, [1]);
    const launch = await boundAxpy(cuda, vector(cuda, [1]), y, 1);
    fake.fail("cuLaunchKernelEx", 701);
    expect(() => launch.launch()).toThrow(
      "CUDA failed, launching axpy: CUDA_ERROR_FAKE (701: made up)\n  at kernels/axpy.ts:7:3",
    );
    launch.launch();
    expect(await valuesOf(y)).toEqual([2]);
  });

  it("explains a cubin that the driver refuses", async () => {
    await using cuda = await openCuda();
    fake.fail("cuModuleLoadData", 209);
    await expect(cuda.compile(axpy)).rejects.toThrow(
      /The driver \(CUDA 13\.0\) refuses axpy, made by NVRTC 13\.0 for sm_90a.*\n.*\n  Update the driver/,
    );
    await cuda.compile(axpy);
  });

  it("says that there is no such device", async () => {
    await expect(openCuda({ ordinal: 1 })).rejects.toThrow("There is no CUDA device 1; 1 found");
    await expect(openCuda({ ordinal: NaN })).rejects.toThrow(NotFoundError);
    fake.noDevice();
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
