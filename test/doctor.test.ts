/** `npm run doctor`, as its reader would run it: on this machine, and with the environment broken in several ways. */
import { execFile, spawnSync } from "node:child_process";
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cudaAvailable } from "../backends/cuda/index.ts";
import { openNvrtcLibrary } from "../backends/cuda/libraries.ts";
import type { Finding } from "../playground/doctor-probe.ts";
import { buildFakeCuda, cCompiler, type FakeCuda } from "./fake-cuda/build.ts";

/** Of this machine. */
const ownNvrtc = (() => {
  try {
    return openNvrtcLibrary().path;
  } catch {
    return undefined;
  }
})();

const patience = { timeout: 120_000 };
const environment = { ...process.env };
let home: string;
beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), "tegula-doctor-"));
});
afterAll(() => rmSync(home, { recursive: true }));

interface Report {
  readonly runsOn: readonly string[];
  readonly openWgsl?: string;
  readonly findings: readonly Finding[];
}

interface Examined {
  readonly code: number | string | null | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

function doctor(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Examined> {
  const options = { env: { ...environment, TEGULA_CACHE_DIR: join(home, "cache"), ...env } };
  return new Promise((resolve) => {
    execFile(process.execPath, ["--import", "tsx", "playground/doctor.ts", ...args], options, (error, stdout, stderr) =>
      resolve({ code: error ? error.code : 0, stdout, stderr }),
    );
  });
}

/** What it says to tools, by name of the finding. */
async function examine(env: Readonly<Record<string, string>>) {
  const { code, stdout, stderr } = await doctor(["--json"], env);
  expect(stderr).toBe("");
  const { runsOn, openWgsl, findings } = JSON.parse(stdout) as Report;
  expect(code).toBe(runsOn.length > 0 ? 0 : 1);
  const of = (name: string) => findings.find((finding) => finding.name === name);
  return { code, runsOn, openWgsl, findings, of };
}

describe("the doctor", patience, () => {
  it("prints in aligned columns what runs kernels here, and what mends the rest", async () => {
    const { code, stdout, stderr } = await doctor([], { TEGULA_NVCC: "/nowhere/nvcc" });
    expect([code, stderr]).toEqual([0, ""]);
    for (const line of [
      /^Node +ok +\d+\.\d+\.\d+ on /m,
      /^koffi +ok +\d+\.\d+\.\d+$/m,
      /^webgpu +ok +\d+\.\d+\.\d+$/m,
      /^nvcc +(missing|none) +nvcc was not found at TEGULA_NVCC\. Tried:\n +\/nowhere\/nvcc: /m,
      /^WGSL (gpu|lavapipe|swiftshader) +ok +.*Dawn.*; runs kernels$/m,
      /^cache +ok +.*cache\/cubin: 0 kernels, 0 bytes of 256 MiB$/m,
      /^Kernels run on: .*Dawn.* openWgsl\(\) takes .*\(Dawn/m,
    ]) {
      expect(stdout).toMatch(line);
    }
    expect(stdout).not.toContain("npm run doctor"); // what errors say to others
    const [table = "", , mend = ""] = stdout.split("\n\n");
    const columns = table
      .split("\n")
      .map((line) => /^\S+(?: \S+)? +(?:ok|missing|broken|none) +/.exec(line)?.[0].length);
    expect(new Set(columns.filter(Boolean)).size).toBe(1);
    expect(mend).toMatch(/^ +nvcc +unset TEGULA_NVCC$/m);
    expect(mend).not.toMatch("WGSL"); // of which one device is enough
    if (cudaAvailable()) return;
    expect(stdout).toMatch(/^driver +missing +The CUDA driver library was not found\. Tried:\n +libcuda\.so\.1: /m);
    expect(mend).toMatch(/^ +driver +(docker run --gpus all|apt install nvidia-driver|ubuntu-drivers install)/m);
  });

  it("blames variables that lead nowhere, folders that can't be used, and finds nothing that runs", async () => {
    const cache = join(home, "poisoned");
    mkdirSync(join(cache, "cubin"), { recursive: true });
    chmodSync(cache, 0o777);
    writeFileSync(join(home, "libnvrtc.so.13"), "no library");
    writeFileSync(join(home, "swiftshader_icd.json"), "{}");
    const { code, runsOn, openWgsl, of } = await examine({
      TEGULA_LIBCUDA: "/nowhere/libcuda.so.1",
      TEGULA_LIBNVRTC: join(home, "libnvrtc.so.13"),
      TEGULA_NVCC: "/bin/false",
      TEGULA_CACHE_DIR: cache,
      VK_DRIVER_FILES: join(home, "swiftshader_icd.json"),
    });
    expect(of("driver")).toMatchObject({ status: "missing", mend: "unset TEGULA_LIBCUDA" });
    expect(of("driver")?.text).toMatch("/nowhere/libcuda.so.1: no such file");
    expect(of("NVRTC")).toMatchObject({ status: "missing", mend: "unset TEGULA_LIBNVRTC" });
    expect(of("NVRTC")?.text).toMatch(/libnvrtc\.so\.13: Failed to load/);
    expect(of("nvcc")).toMatchObject({ status: "missing", mend: "unset TEGULA_NVCC" });
    expect(of("cache")).toEqual({
      name: "cache",
      status: "broken",
      text: `${cache} can be written to by others`,
      mend: `chmod go-w ${cache}`,
    });
    expect(of("WGSL gpu")?.text).toBe(`no Vulkan driver for one in ${join(home, "swiftshader_icd.json")}`);
    expect(of("WGSL swiftshader")?.text).toMatch("Dawn finds no usable adapter");
    expect([code, runsOn, openWgsl]).toEqual([1, [], undefined]);
  });
});

describe.skipIf(!cCompiler)("with stand-ins for CUDA, the doctor", patience, () => {
  let fake: FakeCuda;
  let nvrtc: string;
  beforeAll(() => {
    fake = buildFakeCuda();
    nvrtc = process.env["TEGULA_LIBNVRTC"] ?? "";
  });
  afterAll(() => fake.remove());

  /** A driver that does something when it is loaded. */
  function libcuda(atStart: string): string {
    const path = join(home, "libcuda.so.1");
    const input = `void abort(void); void fake_reset(void);
      __attribute__((constructor)) static void start(void) { ${atStart} }`;
    const files = [join(import.meta.dirname, "fake-cuda/libcuda.c"), "-x", "c", "-"];
    const built = spawnSync(cCompiler ?? "cc", ["-shared", "-fPIC", "-w", "-o", path, ...files], { input });
    expect(built.status, built.stderr.toString()).toBe(0);
    return path;
  }

  it("shows each GPU with capability and memory, and whether kernels run there; and the NVRTC of `pip install`", async () => {
    const folder = join(home, ".local/lib/python3.12/site-packages/nvidia/cu13/lib");
    mkdirSync(folder, { recursive: true });
    for (const file of readdirSync(dirname(nvrtc))) copyFileSync(join(dirname(nvrtc), file), join(folder, file));
    const path = libcuda("fake_reset();"); // which adds the device
    const env = { TEGULA_LIBCUDA: path, TEGULA_LIBNVRTC: "", HOME: home, TEGULA_CACHE: "off" };
    const { of, findings } = await examine(env);
    expect(of("driver")).toMatchObject({ status: "ok", gpus: 1 });
    expect(of("driver")?.text).toContain(`CUDA 13.0, ${path}`);
    expect(of("GPU 0")).toMatchObject({ status: "broken" }); // the stand-in runs no real kernels
    expect(of("GPU 0")?.text).toMatch(/^Fake H0, compute capability 9\.0; 1 MiB; /);
    const names = findings.map(({ name }) => name);
    expect(names.indexOf("GPU 0")).toBe(names.indexOf("driver") + 1);
    expect(of("NVRTC")).toMatchObject({ status: "ok" });
    expect(of("NVRTC")?.text).toContain(`, ${ownNvrtc ?? join(folder, basename(nvrtc))}; compiles kernels`);
    expect(of("cache")).toEqual({ name: "cache", status: "none", text: "TEGULA_CACHE is off" });
  });

  it("survives a driver that takes its process down, and a variable that means nothing", async () => {
    const env = { TEGULA_LIBCUDA: libcuda("abort();"), TEGULA_CACHE_SIZE: "1 GB" };
    const { of, runsOn } = await examine(env);
    expect(of("driver")).toMatchObject({ status: "broken", mend: "unset TEGULA_LIBCUDA" });
    expect(of("driver")?.text).toMatch(/^Looking at it ended with SIGABRT/);
    expect(of("cache")).toMatchObject({ status: "broken", mend: "unset TEGULA_CACHE_SIZE" });
    expect(runsOn.length).toBeGreaterThan(0);
  });
});
