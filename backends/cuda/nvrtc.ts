/**
 * NVRTC as a compiler: CUDA C to cubin inside this process (docs.nvidia.com/cuda/nvrtc). Every call is synchronous: an
 * asynchronous koffi call would not keep its buffers alive.
 */
import { DeviceError, TegulaError, UnsupportedError } from "../../dsl/errors.ts";
import type { CompilerOutput, CudaCompiler } from "./compile.ts";
import { type Library, nvrtcIdentity, openNvrtcLibrary } from "./libraries.ts";

/** nvrtcProgram, an opaque pointer; handed out through a one-element array. */
type Program = bigint & { readonly __nvrtcProgram: never };
type Out = BigUint64Array | Int32Array | Uint8Array;

/** Each function once: its C prototype, and the same in TypeScript. */
function declare({ handle }: Library) {
  const f = <A extends readonly unknown[]>(prototype: string): ((...args: A) => number) => handle.func(prototype);
  const errorText: (result: number) => string = handle.func("const char *nvrtcGetErrorString(int result)");
  return {
    errorText,
    version: f<[major: Int32Array, minor: Int32Array]>("int nvrtcVersion(void *major, void *minor)"),
    create: f<[program: Out, source: Uint8Array, name: string, headers: 0, contents: null, names: null]>(
      "int nvrtcCreateProgram(void *prog, void *src, const char *name, int numHeaders, void *headers, void *names)",
    ),
    compile: f<[program: Program, count: number, options: readonly string[]]>(
      "int nvrtcCompileProgram(uint64_t prog, int numOptions, const char **options)",
    ),
    destroy: f<[program: Out]>("int nvrtcDestroyProgram(void *prog)"),
    logSize: f<[program: Program, size: Out]>("int nvrtcGetProgramLogSize(uint64_t prog, void *size)"),
    log: f<[program: Program, log: Out]>("int nvrtcGetProgramLog(uint64_t prog, void *log)"),
    cubinSize: f<[program: Program, size: Out]>("int nvrtcGetCUBINSize(uint64_t prog, void *size)"),
    cubin: f<[program: Program, cubin: Out]>("int nvrtcGetCUBIN(uint64_t prog, void *cubin)"),
    ptxSize: f<[program: Program, size: Out]>("int nvrtcGetPTXSize(uint64_t prog, void *size)"),
    ptx: f<[program: Program, ptx: Out]>("int nvrtcGetPTX(uint64_t prog, void *ptx)"),
  };
}

type Nvrtc = ReturnType<typeof declare>;

const found = new Map<string, CudaCompiler>();

/**
 * Finds and loads NVRTC 12 or 13.
 * @throws NoCompilerError with every path tried; UnsupportedError for a library that isn't NVRTC
 */
export function openNvrtc(): CudaCompiler {
  const library = openNvrtcLibrary();
  const known = found.get(library.path);
  if (known) return known;
  const nvrtc = declareOrExplain(library);
  const [major, minor] = [new Int32Array(1), new Int32Array(1)];
  check(nvrtc, nvrtc.version(major, minor), "asking for its version");
  const compiler: CudaCompiler = {
    kind: "nvrtc",
    label: `NVRTC ${major[0]}.${minor[0]}`,
    path: library.path,
    installation: installation(library.identity),
    compile: (source, fileName, flags, target) => compile(nvrtc, source, fileName, flags, target),
  };
  found.set(library.path, compiler);
  return compiler;
}

/** The installation that openNvrtc opens, found without loading it where that is possible. Undefined when there is none. */
export function nvrtcInstallation(): string | undefined {
  const identity = nvrtcIdentity();
  if (identity !== undefined) return installation(identity);
  try {
    return openNvrtc().installation;
  } catch (error) {
    if (!(error instanceof TegulaError)) throw error;
    return undefined;
  }
}

function installation(identity: string | undefined): string | undefined {
  return identity && `nvrtc ${identity}`;
}

function declareOrExplain(library: Library): Nvrtc {
  try {
    return declare(library);
  } catch (error) {
    throw new UnsupportedError(
      `${library.path} is not an NVRTC that Tegula can use: ${error instanceof Error ? error.message : String(error)}`,
      { hint: "Install NVRTC of CUDA 12 or 13, e.g. `pip install nvidia-cuda-nvrtc`." },
    );
  }
}

function compile(
  nvrtc: Nvrtc,
  source: string,
  fileName: string,
  flags: readonly string[],
  target: "cubin" | "ptx",
): CompilerOutput {
  // For a virtual architecture NVRTC stops at PTX.
  const options = target === "ptx" ? flags.map((flag) => flag.replace("=sm_", "=compute_")) : flags;
  const slot = new BigUint64Array(1);
  check(
    nvrtc,
    nvrtc.create(slot, new TextEncoder().encode(`${source}\0`), fileName, 0, null, null),
    `reading ${fileName}`,
  );
  const program = (slot[0] ?? 0n) as Program;
  try {
    const result = nvrtc.compile(program, options.length, options);
    const log = text(fetchBytes(nvrtc, program, nvrtc.logSize, nvrtc.log));
    if (result !== 0) return { output: undefined, log: log || `${nvrtc.errorText(result)} (${result})` };
    const [size, content] = target === "cubin" ? [nvrtc.cubinSize, nvrtc.cubin] : [nvrtc.ptxSize, nvrtc.ptx];
    return { output: fetchBytes(nvrtc, program, size, content), log };
  } finally {
    nvrtc.destroy(slot);
  }
}

function fetchBytes(
  nvrtc: Nvrtc,
  program: Program,
  size: Nvrtc["logSize"],
  content: Nvrtc["log"],
): Uint8Array<ArrayBuffer> {
  const length = new BigUint64Array(1);
  check(nvrtc, size(program, length), "asking for the size of its output");
  const bytes = new Uint8Array(Number(length[0]));
  if (bytes.length > 0) check(nvrtc, content(program, bytes), "fetching its output");
  return bytes;
}

/** A C string, without the NUL that ends it. */
function text(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/** For calls that only fail when NVRTC itself is broken. */
function check(nvrtc: Nvrtc, result: number, doing: string): void {
  if (result !== 0) throw new DeviceError(`NVRTC failed, ${doing}: ${nvrtc.errorText(result)} (${result})`);
}
