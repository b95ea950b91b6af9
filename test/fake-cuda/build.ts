/** Builds the stand-ins for libcuda and NVRTC with the machine's C compiler, and points the backend at them. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import koffi from "koffi";

export const cCompiler = ["cc", "gcc", "clang"].find((name) => spawnSync(name, ["--version"]).status === 0);

export interface FakeCuda {
  readonly reset: () => void;
  readonly device: (count: number, major: number, minor: number) => void;
  /** The next call of this function answers with this CUresult. */
  readonly fail: (cudaFunction: string, result: number) => void;
  /** Another library of this thread makes its own context current. */
  readonly steal: () => void;
  /** Calls since reset(), with details of launches. */
  readonly log: () => readonly string[];
  /** Kinds of things not given back; 0 when all were. */
  readonly leaks: () => number;
  readonly nvrtcOptions: () => readonly string[];
  readonly nvrtcPrograms: () => number;
  readonly remove: () => void;
}

export function buildFakeCuda(): FakeCuda {
  const folder = mkdtempSync(join(tmpdir(), "tegula-fake-cuda-"));
  const make = (output: string, ...inputs: readonly string[]) => {
    const path = join(folder, output);
    execFileSync(cCompiler ?? "cc", ["-shared", "-fPIC", "-O1", "-w", "-o", path, ...inputs, "-ldl"]);
    return path;
  };
  const cudaPath = make("libcuda.so.1", join(import.meta.dirname, "libcuda.c"));
  const nvrtcPath = make("libnvrtc.so.13", join(import.meta.dirname, "libnvrtc.c"));
  const builtins = "libnvrtc-builtins.so.13.0"; // looked up by the name that the linker writes into it
  make(builtins, `-Wl,-soname,${builtins}`, "-x", "c", "/dev/null");
  process.env["TEGULA_LIBCUDA"] = cudaPath;
  process.env["TEGULA_LIBNVRTC"] = nvrtcPath;

  const cuda = koffi.load(cudaPath);
  const nvrtc = koffi.load(nvrtcPath);
  const lines = (text: string) => text.split("\n").filter(Boolean);
  const readLog = cuda.func("const char *fake_log()");
  const readOptions = nvrtc.func("const char *fake_options()");
  return {
    reset: cuda.func("void fake_reset()"),
    device: cuda.func("void fake_device(int count, int major, int minor)"),
    fail: cuda.func("void fake_fail(const char *name, int result)"),
    steal: cuda.func("void fake_steal()"),
    log: () => lines(readLog()),
    leaks: cuda.func("int fake_leaks()"),
    nvrtcOptions: () => lines(readOptions()),
    nvrtcPrograms: nvrtc.func("int fake_programs()"),
    remove: () => rmSync(folder, { recursive: true }),
  };
}
