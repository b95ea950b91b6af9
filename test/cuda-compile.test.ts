/** Compiling CUDA C to cubins: with the nvcc of this machine where there is one, and with a stand-in for NVRTC. */
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { compileCuda, compileReport, type CudaArch, findCompiler, testedArchs } from "../backends/cuda/compile.ts";
import { kernelResources } from "../backends/cuda/diagnostics.ts";
import { openNvrtcLibrary } from "../backends/cuda/libraries.ts";
import { ArgumentError, CompileError, NoCompilerError, ValueError } from "../dsl/errors.ts";
import { buildFakeCuda, cCompiler, type FakeCuda } from "./fake-cuda/build.ts";

const source = `#line 3 "kernels/axpy.ts"
extern "C" __global__ void __launch_bounds__(128) axpy(const float* x, float* y, float a) {
  __shared__ float s[32];
#line 7 "kernels/axpy.ts"
  asm volatile("griddepcontrol.wait;" ::: "memory");
  s[threadIdx.x & 31] = x[threadIdx.x];
  __syncthreads();
#line 9 "kernels/axpy.ts"
  y[threadIdx.x] = s[threadIdx.x & 31] * a + 1.0f;
}
`;
const sm90 = { arch: "sm_90a", name: "axpy" } as const;

afterEach(() => vi.unstubAllEnvs());

function nvccOnThisMachine(): boolean {
  try {
    return findCompiler("nvcc").kind === "nvcc";
  } catch {
    console.warn("cuda-compile.test.ts: SKIPPED in part, there is no nvcc");
    return false;
  }
}

describe.skipIf(!nvccOnThisMachine())("nvcc", { timeout: 60_000 }, () => {
  const nvcc = { ...sm90, compiler: "nvcc" } as const;

  it.each(testedArchs)("makes a cubin for %s, with line numbers", (arch) => {
    const { cubin, compiler, log, ms } = compileCuda(source, { ...nvcc, arch, cache: false });
    expect([...cubin.subarray(0, 4)]).toEqual([0x7f, 0x45, 0x4c, 0x46]); // ELF
    expect(compiler).toMatch(/^nvcc \d+\.\d+$/);
    expect(log).toBe("");
    expect(ms).toBeGreaterThan(0);
    // -lineinfo: debuggers and profilers show the TypeScript file.
    expect(Buffer.from(cubin).includes("axpy.ts")).toBe(true);
  });

  it("reports registers, spills and shared memory", () => {
    const [axpy] = compileReport(source, nvcc);
    expect(axpy).toMatchObject({
      entry: "axpy",
      stackBytes: 0,
      spillStoreBytes: 0,
      spillLoadBytes: 0,
      sharedBytes: 128,
    });
    expect(axpy?.registers).toBeGreaterThan(4);
  });

  it("traces a C++ error to the TypeScript line", () => {
    const compile = () => compileCuda(source.replace("* a +", "* wrong +"), nvcc);
    expect(compile).toThrow(CompileError);
    expect(compile).toThrow(
      /^nvcc [\d.]+ refused axpy for sm_90a: identifier "wrong" is undefined\n  at kernels\/axpy\.ts:9:1\n  generated line `y\[threadIdx\.x\] = .* \* wrong \+ 1\.0f;` at axpy\.cu:9:1/,
    );
  });

  it("traces an error of the assembler to the TypeScript line", () => {
    expect(() => compileCuda(source.replace(".wait", ".wobble"), nvcc)).toThrow(
      /: Unknown modifier '\.wobble'\n  at kernels\/axpy\.ts:7:1\n  generated line `asm volatile\("griddepcontrol\.wobble;"/,
    );
  });

  it("leaves nothing behind", () => {
    const folder = mkdtempSync(join(tmpdir(), "tegula-test-"));
    vi.stubEnv("TMPDIR", folder);
    compileCuda(source, { ...nvcc, cache: false });
    expect(() => compileCuda("nonsense", nvcc)).toThrow(CompileError);
    expect(readdirSync(folder)).toEqual([]);
    rmSync(folder, { recursive: true });
  });
});

describe("compileCuda", () => {
  it("refuses names and architectures that would reach a command line, and NUL", () => {
    for (const name of ["", "a b", "../x", "x;y", "--help", "x\0"]) {
      expect(() => compileCuda(source, { ...sm90, name })).toThrow(ArgumentError);
    }
    expect(() => compileCuda(source, { ...sm90, arch: "sm_90a --run" as CudaArch })).toThrow(ArgumentError);
    expect(() => compileCuda("a\0b", sm90)).toThrow(ValueError);
  });

  it("lists what it tried when there is no compiler", () => {
    vi.stubEnv("TEGULA_LIBNVRTC", "/nowhere/libnvrtc.so.13");
    vi.stubEnv("TEGULA_NVCC", "/nowhere/nvcc");
    expect(() => compileCuda(source, sm90)).toThrow(NoCompilerError);
    expect(() => compileCuda(source, sm90)).toThrow(
      /libnvrtc\.so\.13: no such file[^]*\/nowhere\/nvcc: .*ENOENT[^]*npm run doctor/,
    );
  });

  it("reads the report of several kernels", () => {
    const log = `ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'first' for 'sm_90a'
ptxas info    : Function properties for first
    80 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 80 bytes cumulative stack size, 1024 bytes smem
ptxas info    : Compiling entry function 'second' for 'sm_90a'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, used 0 barriers`;
    expect(kernelResources(log)).toEqual([
      { entry: "first", registers: 255, stackBytes: 80, spillStoreBytes: 12, spillLoadBytes: 16, sharedBytes: 1024 },
      { entry: "second", registers: 12, stackBytes: 0, spillStoreBytes: 0, spillLoadBytes: 0, sharedBytes: 0 },
    ]);
  });
});

describe.skipIf(!cCompiler)("NVRTC, a stand-in", () => {
  let fake: FakeCuda;
  let nvrtcPath: string;
  beforeAll(() => {
    fake = buildFakeCuda();
    nvrtcPath = process.env["TEGULA_LIBNVRTC"] ?? "";
  });
  afterAll(() => fake.remove());

  it("comes before nvcc, gets the same flags, and finds its builtins beside itself", () => {
    const { cubin, compiler } = compileCuda("//kernel axpy\n// \u00e9", sm90);
    expect(compiler).toBe("NVRTC 13.0");
    expect(new TextDecoder().decode(cubin)).toBe("//kernel axpy\n// \u00e9\0");
    expect(fake.nvrtcOptions()).toContain("--fmad=false");
    compileReport("//kernel axpy", sm90);
    expect(fake.nvrtcOptions()).toContain("--ptxas-options=-v");
    expect(fake.nvrtcPrograms()).toBe(0);
  });

  it("is found in the wheel of a virtual environment", ({ skip }) => {
    const environment = mkdtempSync(join(tmpdir(), "tegula-venv-"));
    const folder = join(environment, "lib/python3.12/site-packages/nvidia/cu13/lib");
    mkdirSync(folder, { recursive: true });
    for (const file of readdirSync(dirname(nvrtcPath)))
      copyFileSync(join(dirname(nvrtcPath), file), join(folder, file));
    vi.stubEnv("TEGULA_LIBNVRTC", "");
    vi.stubEnv("VIRTUAL_ENV", environment);
    const { path } = openNvrtcLibrary();
    rmSync(environment, { recursive: true });
    if (!path.startsWith(environment)) skip(`this machine has an NVRTC of its own, ${path}`);
    expect(path).toBe(join(folder, basename(nvrtcPath)));
  });
});
