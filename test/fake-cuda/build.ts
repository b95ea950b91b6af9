/** Builds the stand-ins for libcuda and NVRTC with the machine's C compiler, and points the backend at them. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import koffi from "koffi";

export const cCompiler = ["cc", "gcc", "clang"].find((name) => spawnSync(name, ["--version"]).status === 0);

export interface FakeCuda {
  readonly path: string;
  /** One device of SM90, nothing in use, an empty log. */
  readonly reset: () => void;
  /** Adds a device, or changes one. */
  readonly device: (ordinal: number, major: number, minor: number) => void;
  readonly noDevice: () => void;
  /** The next call of this function answers with this CUresult. */
  readonly fail: (cudaFunction: string, result: number) => void;
  /** Another library of this thread makes its own context current. */
  readonly steal: () => void;
  /** Another library of this thread does what no capture survives; it ends with this CUresult, 901 unless another is said. */
  readonly interfere: (result?: number) => void;
  /** Keeps no log and drops kernels, to see what calling costs. */
  readonly quiet: (quiet: boolean) => void;
  /** Calls since reset(), with details of launches. */
  readonly log: () => readonly string[];
  /** Number of calls since reset(), also of those that the log leaves out. */
  readonly calls: () => number;
  /** What would have corrupted memory, or broken a capture. */
  readonly violations: () => number;
  /** Kinds of things not given back; 0 when all were. */
  readonly leaks: () => number;
  /** Memory and a stream of another library in this process. */
  readonly foreignMemory: (bytes: number, device?: number) => bigint;
  readonly foreignStream: (device?: number) => bigint;
  /** Its owner destroys it, whatever work is in it. */
  readonly destroyForeignStream: (stream: bigint) => void;
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
  process.env["TEGULA_CACHE"] = "off"; // its "machine code" is for the stand-in alone

  const cuda = koffi.load(cudaPath);
  const nvrtc = koffi.load(nvrtcPath);
  const lines = (text: string) => text.split("\n").filter(Boolean);
  const readLog = cuda.func("const char *fake_log()");
  const readOptions = nvrtc.func("const char *fake_options()");
  const foreignMemory = cuda.func("int64_t fake_foreign_memory(int size, int device)");
  const interfere: (result: number) => void = cuda.func("void fake_interfere(int result)");
  const foreignStream = cuda.func("int64_t fake_foreign_stream(int device)");
  const reset: () => void = cuda.func("void fake_reset()");
  reset();
  return {
    path: cudaPath,
    reset,
    device: cuda.func("void fake_device(int ordinal, int major, int minor)"),
    noDevice: cuda.func("void fake_no_device()"),
    fail: cuda.func("void fake_fail(const char *name, int result)"),
    steal: cuda.func("void fake_steal()"),
    interfere: (result = 901) => interfere(result),
    quiet: cuda.func("void fake_quiet(bool quiet)"),
    log: () => lines(readLog()),
    calls: cuda.func("int64_t fake_calls()"),
    violations: cuda.func("int fake_violations()"),
    leaks: cuda.func("int fake_leaks()"),
    foreignMemory: (bytes, device = 0) => BigInt(foreignMemory(bytes, device)),
    foreignStream: (device = 0) => BigInt(foreignStream(device)),
    destroyForeignStream: cuda.func("void fake_destroy_foreign_stream(int64_t stream)"),
    nvrtcOptions: () => lines(readOptions()),
    nvrtcPrograms: nvrtc.func("int fake_programs()"),
    remove: () => rmSync(folder, { recursive: true }),
  };
}
