/** What the CUDA backend says when something fails, against the stand-in for libcuda (cuda-driver.test.ts). */
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import koffi from "koffi";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { cudaAvailable, openCuda } from "../backends/cuda/runtime.ts";
import { f32 } from "../dsl/dtype.ts";
import {
  ArgumentError,
  CompileError,
  ContextLostError,
  DeviceError,
  DisposedError,
  DriverTooOldError,
  LaunchRefusedError,
  NameError,
  NoDeviceError,
  NoDriverError,
  OutOfMemoryError,
  UnsupportedError,
} from "../dsl/errors.ts";
import { kernel } from "../dsl/kernel.ts";
import { output } from "../dsl/params.ts";
import { size } from "../dsl/size.ts";
import { makeCompiler } from "./children/cache-support.ts";
import { cCompiler } from "./fake-cuda/build.ts";
import { standInDriver } from "./fake-cuda/hooks.ts";
import { axpy, bound, boundAxpy, fakeKernel, idle, trap, valuesOf, vector } from "./fake-cuda/kernels.ts";

vi.mock("../backends/cuda/emit.ts", async () => (await import("./fake-cuda/kernels.ts")).fakeEmitter());

if (!cCompiler) console.warn("cuda-faults.test.ts: SKIPPED, there is no C compiler to build the stand-in for libcuda");

describe.skipIf(!cCompiler)("faults on a stand-in driver", () => {
  const fake = standInDriver();
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "tegula-faults-"));
  });
  afterEach(() => void vi.unstubAllEnvs());
  afterAll(() => rmSync(folder, { recursive: true }));

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
    const tooMuch = () => cuda.allocate(768 * 1024);
    expect(tooMuch).toThrow(OutOfMemoryError);
    expect(tooMuch).toThrow("No room on Fake H0, allocating 768 KiB: 512 KiB of 1 MiB are free");
    expect(cuda.allocate(512 * 1024).byteLength).toBe(512 * 1024);
    first.free();
    cuda.allocate(512 * 1024);
    // Not only memory that the caller asked for.
    fake.fail("cuModuleLoadData", 2);
    await expect(cuda.compile(idle)).rejects.toThrow(/^No room on Fake H0, loading idle: 0 bytes of 1 MiB are free\n/);
    const launch = await bound(cuda, idle);
    fake.fail("cuLaunchKernelEx", 2);
    expect(() => launch.launch()).toThrow(OutOfMemoryError);
    launch.launch();
    await cuda.dispose();
    fake.fail("cuDevicePrimaryCtxRetain", 2);
    await expect(openCuda()).rejects.toThrow(/^No room on Fake H0, creating a context\n/);
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
      expect(() => cuda.write(y.storage, offset, new Uint8Array(4))).toThrow(ArgumentError);
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

  it("says which kernel destroyed the context, to this call and every later one, also when all was disposed", async () => {
    const cuda = await openCuda();
    const storage = cuda.allocate(4);
    const launch = await bound(cuda, trap);
    launch.launch();
    const first = cuda.synchronize();
    await expect(first).rejects.toThrow(ContextLostError);
    await expect(first).rejects.toThrow(
      "Kernel trap failed with CUDA_ERROR_ILLEGAL_ADDRESS (700: an illegal memory access was encountered), " +
        "seen waiting for launches; the context of CUDA device 0 is lost\n  at kernels/trap.ts:7:3",
    );
    const calls = fake.log().length;
    expect(() => cuda.allocate(4)).toThrow(
      /Not allocating 4 bytes, because of an earlier failure\. Kernel trap failed/,
    );
    expect(() => cuda.write(storage, 0, new Uint8Array(4))).toThrow(/\n  Only a new process can use the device again/);
    await expect(cuda.read(storage, 0, 4)).rejects.toThrow(ContextLostError);
    expect(() => launch.launch()).toThrow(/^Not launching trap, because of an earlier failure\. Kernel trap failed/);
    expect(() => cuda.pinned(f32, [1])).toThrow(ContextLostError);
    const neighbour = openCuda(); // shares the context
    await expect(neighbour).rejects.toThrow(/^Not opening Fake H0, because of an earlier failure\. Kernel trap failed/);

    for (const kernel of [trap, idle])
      await expect(cuda.compile(kernel)).rejects.toThrow(/^Not compiling (trap|idle), b/);

    expect(
      fake
        .log()
        .slice(calls)
        .filter((line) => !line.startsWith("cuDevice")),
    ).toEqual([]);
    storage.free();
    await cuda.dispose();

    const reopened = openCuda();
    await expect(reopened).rejects.toThrow(ContextLostError);
    await expect(reopened).rejects.toThrow(/^Not opening Fake H0, because of an earlier failure\. Kernel trap failed/);
    fake.reset(); // as a new process finds it
    await using again = await openCuda();
    expect(again.allocate(4).freed).toBe(false);
  });

  it("lists the suspects when several launches were under way; debug mode finds the one", async () => {
    await using cuda = await openCuda();
    for (const kernel of [idle, trap, idle]) (await bound(cuda, kernel)).launch();
    await expect(cuda.synchronize()).rejects.toThrow(
      /One of the kernels idle, trap \(launched last\) failed.*\n  idle at kernels\/idle\.ts:7:3\n  trap at kernels\/trap\.ts:7:3\n/,
    );
    await cuda.dispose();
    fake.reset();

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
    fake.reset();

    await using again = await openCuda();
    (await bound(again, trap)).launch();
    for (const name of names) (await bound(again, fakeKernel(name))).launch();
    await expect(again.synchronize()).rejects.toThrow(
      /One of the kernels kernel4, kernel5, .*kernel19 \(launched last\)/,
    );
  });

  it.each([214, 220, 226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721])(
    "takes the context for lost after CUresult %i",
    async (result) => {
      const cuda = await openCuda();
      (await bound(cuda, idle)).launch();
      fake.fail("cuEventQuery", result);
      await expect(cuda.synchronize()).rejects.toThrow(ContextLostError);
      expect(() => cuda.allocate(4)).toThrow(ContextLostError);
      await cuda.dispose();
      await using again = await openCuda(); // if the driver lets it
      again.allocate(4);
    },
  );

  it("says what to do when another library has destroyed the context", async () => {
    await using cuda = await openCuda();
    fake.fail("cuMemAlloc_v2", 709);
    const allocate = () => cuda.allocate(4);
    expect(allocate).toThrow(ContextLostError);
    expect(allocate).toThrow(
      /\n  Another library destroyed it, e\.g\. by cudaDeviceReset\(\)\. .*openCuda\(\) again\.$/,
    );
  });

  it("says what a launch takes that CUDA refuses, and goes on", async () => {
    await using cuda = await openCuda();
    const y = vector(cuda, [1]);
    const launch = await boundAxpy(cuda, vector(cuda, [1]), y, 1);
    fake.fail("cuLaunchKernelEx", 701);
    const refused = () => launch.launch();
    expect(refused).toThrow(
      "CUDA refuses launching axpy: CUDA_ERROR_FAKE (701: made up); each launch takes " +
        "64 threads of 255 registers and 0 bytes of shared memory per block\n  at kernels/axpy.ts:7:3\n  Take less of it",
    );
    fake.fail("cuLaunchKernelEx", 912);
    expect(refused).toThrow(LaunchRefusedError);
    fake.fail("cuLaunchKernelEx", 1);
    expect(refused).toThrow("CUDA failed, launching axpy: CUDA_ERROR_FAKE (1: made up)\n  at kernels/axpy.ts:7:3");
    launch.launch();
    expect(await valuesOf(y)).toEqual([2]);
  });

  it("explains a cubin of another architecture", async () => {
    await using cuda = await openCuda();
    fake.fail("cuModuleLoadData", 209);
    const compiling = cuda.compile(axpy);
    await expect(compiling).rejects.toThrow(UnsupportedError);
    await expect(compiling).rejects.toThrow(
      /^Fake H0 can't run axpy, made by NVRTC 13\.0 for sm_90a: .*\(209.*\n  at kernels\/axpy\.ts:7:3\n  Its compute capability is 9\.0/,
    );
    await cuda.compile(axpy);
  });

  it("explains a cubin of a compiler that is newer than the driver", async () => {
    vi.stubEnv("TEGULA_LIBNVRTC", "/nowhere/libnvrtc.so.13");
    for (const release of ["13.1", "14.0"]) {
      await using cuda = await openCuda();
      vi.stubEnv("TEGULA_NVCC", makeCompiler(folder, { name: `nvcc-${release}`, release }).path);
      fake.fail("cuModuleLoadData", 222);
      const compiling = cuda.compile(axpy);
      await expect(compiling).rejects.toThrow(DriverTooOldError);
      await expect(compiling).rejects.toThrow(
        `The driver (CUDA 13.0) refuses axpy, made by nvcc ${release} for sm_90a: CUDA_ERROR_FAKE (222: made up)\n` +
          "  at kernels/axpy.ts:7:3\n" +
          "  Update the driver, or let TEGULA_LIBNVRTC name an NVRTC no newer than CUDA 13.0.",
      );
    }
    for (const release of ["12.9", "13.0"]) {
      await using cuda = await openCuda();
      vi.stubEnv("TEGULA_NVCC", makeCompiler(folder, { name: `nvcc-${release}`, release }).path);
      fake.fail("cuModuleLoadData", 200);
      await expect(cuda.compile(axpy)).rejects.toThrow(`Fake H0 can't run axpy, made by nvcc ${release}`);
    }
  });

  it("says that there is no such device", async () => {
    await expect(openCuda({ ordinal: 1 })).rejects.toThrow(/^There is no CUDA device 1; 1 found\n.*npm run doctor/);
    await expect(openCuda({ ordinal: NaN })).rejects.toThrow(NoDeviceError);
    fake.noDevice();
    expect(cudaAvailable()).toBe(false);
  });

  it.each([
    [
      34,
      NoDriverError,
      /libcuda\.so\.1 is only a stand-in to link with, of the CUDA toolkit: .*\n.*LD_LIBRARY_PATH.*npm run doctor/,
    ],
    [100, NoDeviceError, /^No NVIDIA GPU: CUDA_ERROR_FAKE \(100: made up\) \(driver .*\n.*nvidia-smi.*npm run doctor/],
    [803, DeviceError, /^CUDA doesn't start: CUDA_ERROR_FAKE \(803: made up\) .*\n.*restart the machine/],
  ] as const)("says what to do when cuInit answers %i", async (result, failure, message) => {
    const path = join(mkdtempSync(join(folder, "driver-")), "libcuda.so.1");
    copyFileSync(fake.path, path); // another file: a driver with a state of its own, not started yet
    const driver = koffi.load(path);
    driver.func("void fake_reset()")();
    driver.func("void fake_fail(const char *name, int result)")("cuInit", result);
    vi.stubEnv("TEGULA_LIBCUDA", path);
    const opening = openCuda();
    await expect(opening).rejects.toThrow(failure);
    await expect(opening).rejects.toThrow(message);
    await using cuda = await openCuda(); // what failed is not remembered
    expect(cuda.device).toMatch("Fake H0");
  });

  it("lists what it tried when there is no driver", async () => {
    vi.stubEnv("TEGULA_LIBCUDA", "/nowhere/libcuda.so.1");
    await expect(openCuda()).rejects.toThrow(NoDriverError);
    await expect(openCuda()).rejects.toThrow(
      /at TEGULA_LIBCUDA\. Tried:\n    \/nowhere\/libcuda\.so\.1: no such file[^]*npm run doctor/,
    );
    vi.stubEnv("TEGULA_LIBCUDA", process.env["TEGULA_LIBNVRTC"] ?? "");
    await expect(openCuda()).rejects.toThrow(/not a driver that Tegula can use: Cannot find function 'cuInit'/);
    await expect(openCuda()).rejects.toThrow(DriverTooOldError);
  });
});

describe("without CUDA", () => {
  it("a NUL in a name is refused: no C string holds it", () => {
    const made = (name: string, parameter: string, rows: string) =>
      kernel(
        { name, grid: 1, block: 32, params: { [parameter]: output(f32, [size(rows)]) } },
        (t) => void t.pdl.wait(),
      );
    expect(made("k", "y", "N").name).toBe("k");
    expect(() => made("k\0", "y", "N")).toThrow(NameError);
    expect(() => made("k", "y\0", "N")).toThrow(NameError);
    expect(() => made("k", "y", "N\0")).toThrow(NameError);
  });

  it("WGSL runs where neither driver nor compiler is", () => {
    const nowhere = { TEGULA_LIBCUDA: "/nowhere", TEGULA_LIBNVRTC: "/nowhere", TEGULA_NVCC: "/nowhere/nvcc" };
    const script = join(import.meta.dirname, "children/wgsl-open.ts");
    const env = { ...process.env, ...nowhere };
    const { stdout } = spawnSync(process.execPath, ["--import", "tsx", script], {
      env,
      encoding: "utf8",
      timeout: 60_000,
    });
    expect(stdout).toMatch(/: 3 6 9 12\n$/); // by the kernel of wgsl-support.ts
  });
});
