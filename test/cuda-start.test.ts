/** What the CUDA backend loads before it is needed: no compiler; on the stand-in for libcuda (cuda-driver.test.ts). */
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { findCompiler } from "../backends/cuda/compile.ts";
import { cudaAvailable, openCuda, whyNoCuda } from "../backends/cuda/runtime.ts";
import { cCompiler } from "./fake-cuda/build.ts";
import { standInDriver } from "./fake-cuda/hooks.ts";

if (!cCompiler) console.warn("cuda-start.test.ts: SKIPPED, there is no C compiler to build the stand-in for libcuda");

describe.skipIf(!cCompiler || process.platform !== "linux")("before the first compilation", () => {
  standInDriver();

  let folder = "";
  beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), "tegula-start-"))));
  afterEach(() => {
    vi.unstubAllEnvs();
    rmSync(folder, { recursive: true });
  });

  const isLoaded = (path: string) => readFileSync("/proc/self/maps", "utf8").includes(path);

  it("no compiler is loaded, though one is there", async () => {
    const path = join(folder, "libnvrtc.so.13");
    copyFileSync(process.env["TEGULA_LIBNVRTC"] ?? "", path);
    vi.stubEnv("TEGULA_LIBNVRTC", path);
    expect(cudaAvailable()).toBe(true);
    expect(whyNoCuda()).toBeUndefined();
    await using cuda = await openCuda();
    expect(cuda.arch).toBe("sm_90a");
    expect(isLoaded(path)).toBe(false);
    expect(findCompiler().path).toBe(path);
    expect(isLoaded(path)).toBe(true);
  });

  it("nvcc counts where there is no NVRTC, and that there is neither is said", () => {
    vi.stubEnv("TEGULA_LIBNVRTC", "/nowhere/libnvrtc.so.13");
    vi.stubEnv("TEGULA_NVCC", join(folder, "nvcc"));
    expect(cudaAvailable()).toBe(false);
    expect(whyNoCuda()).toMatch(
      /^No compiler for CUDA C was found\.[^]*libnvrtc\.so\.13: no such file[^]*nvcc: .*ENOENT/,
    );
    writeFileSync(join(folder, "nvcc"), "");
    expect(whyNoCuda()).toBeUndefined();
  });
});
