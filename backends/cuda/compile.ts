/**
 * CUDA C to cubin: machine code for one architecture, so that an old driver never has to translate anything.
 * NVRTC does it inside the process where it is found, nvcc otherwise; both get the same flags. What was compiled before
 * comes from the cache, and then no compiler is even loaded.
 */
import { describe } from "../../dsl/check.ts";
import { ArgumentError, NoCompilerError, TegulaError, ValueError } from "../../dsl/errors.ts";
import { cacheKey, type Compilation, type CubinOrigin, recall, remember, workingDirectory } from "./cache.ts";
import { type KernelResources, compilerError, kernelResources } from "./diagnostics.ts";
import { askDoctor } from "./libraries.ts";
import { nvccInstallation, openNvcc } from "./nvcc.ts";
import { nvrtcInstallation, openNvrtc } from "./nvrtc.ts";

/** A real architecture, e.g. `sm_90a`: the "a" gives access to the instructions of exactly this generation. */
export type CudaArch = `sm_${number}a`;

/** Architectures for which the generated code is compiled in tests. */
export const testedArchs: readonly CudaArch[] = ["sm_90a", "sm_100a", "sm_120a"];

export type CompilerKind = "nvrtc" | "nvcc";

export interface CompileOptions {
  readonly arch: CudaArch;
  /** The kernel's name, an identifier; for messages only. */
  readonly name: string;
  /** Takes this compiler only, instead of the first one found. */
  readonly compiler?: CompilerKind | undefined;
  /** False compiles in any case and keeps nothing, e.g. to time the compiler. */
  readonly cache?: boolean | undefined;
}

export interface CompiledCuda {
  readonly cubin: Uint8Array<ArrayBuffer>;
  /** What the compiler printed. */
  readonly log: string;
  /** E.g. "NVRTC 13.0" or "nvcc 13.0". */
  readonly compiler: string;
  readonly from: CubinOrigin;
  /** Wall-clock time of the compiler, or of finding it in the cache. */
  readonly ms: number;
}

/** What a compiler made of one file. Without an output, the log says why. */
export interface CompilerOutput {
  readonly output: Uint8Array<ArrayBuffer> | undefined;
  readonly log: string;
}

/** NVRTC or nvcc, found and ready. */
export interface CudaCompiler {
  readonly kind: CompilerKind;
  readonly label: string;
  readonly path: string;
  /**
   * Tells this installation from any other: a cubin in the cache is only good for the compiler that made it. Undefined where
   * nothing tells, and nothing is cached.
   */
  readonly installation: string | undefined;
  /** `fileName` is what messages call lines that no `#line` covers. */
  compile(source: string, fileName: string, flags: readonly string[], target: "cubin" | "ptx"): CompilerOutput;
}

/**
 * Compiles CUDA C for one architecture, or finds it in the cache. Blocks the thread: 15 to 80 ms with NVRTC, 0.2 to 0.8 s
 * with nvcc, about a millisecond from disk.
 * @throws CompileError with the TypeScript line; NoCompilerError when there is no compiler
 */
export function compileCuda(source: string, options: CompileOptions): CompiledCuda {
  return compileWith(source, options, []);
}

/**
 * Compiles and tells what each kernel in the file uses: registers, spills, shared memory.
 * @throws as compileCuda
 */
export function compileReport(source: string, options: CompileOptions): readonly KernelResources[] {
  return kernelResources(compileWith(source, options, ["--ptxas-options=-v"]).log);
}

/**
 * The compiler that compileCuda would take.
 * @throws NoCompilerError with everything tried
 */
export function findCompiler(kind?: CompilerKind): CudaCompiler {
  if (kind === "nvcc") return openNvcc();
  if (kind === "nvrtc") return openNvrtc();
  const reasons: string[] = [];
  for (const open of [openNvrtc, openNvcc]) {
    try {
      return open();
    } catch (error) {
      if (!(error instanceof TegulaError)) throw error;
      reasons.push(error.message);
    }
  }
  throw new NoCompilerError(["No compiler for CUDA C was found.", ...reasons].join("\n  "), { hint: askDoctor });
}

/**
 * Looks for a compiler and loads none, since a warm cache needs none: one that is there may still fail.
 * @throws NoCompilerError with everything tried
 */
export function requireCompiler(): void {
  if (expectedInstallation(undefined) === undefined) findCompiler();
}

function compileWith(source: string, options: CompileOptions, extra: readonly string[]): CompiledCuda {
  if (typeof source !== "string" || typeof options !== "object" || options === null) {
    throw new ArgumentError(
      `The source is a string and its options an object, not ${describe(source)} and ${describe(options)}`,
      {
        hint: 'compileCuda(source, { arch: "sm_90a", name: "gemm" })',
      },
    );
  }
  const { arch, name, compiler: kind, cache = true } = options;
  // These become arguments and file names of a compiler; a C compiler would also end the source at a NUL.
  if (typeof name !== "string" || !/^[A-Za-z_]\w{0,199}$/.test(name)) {
    throw new ArgumentError(`A kernel's name must be an identifier, got ${describe(name)}`);
  }
  if (typeof arch !== "string" || !/^sm_\d{2,3}a$/.test(arch)) {
    throw new ArgumentError(`Not an architecture: ${describe(arch)}; e.g. sm_90a`);
  }
  if (kind !== undefined && kind !== "nvrtc" && kind !== "nvcc") {
    throw new ArgumentError(`There is no compiler ${describe(kind)}; nvrtc and nvcc are those that may be named`);
  }
  if (source.includes("\0")) throw new ValueError(`The source of ${name} holds a NUL character`);

  const flags = [
    `--gpu-architecture=${arch}`,
    "--std=c++17",
    "--fmad=false", // a * b + c rounds twice, as on every other backend; fma is asked for by name
    "--generate-line-info",
    ...extra,
  ];
  const job: Compilation = { source, fileName: `${name}.cu`, flags };
  if (!cache || workingDirectory() === undefined) return compileNow(job, findCompiler(kind), options);

  const expected = expectedInstallation(kind);
  const known = findInCache(job, expected);
  if (known) return known;
  const compiler = findCompiler(kind);
  // It can be another one than expected: a library that is there may not load.
  const elsewhere = compiler.installation === expected ? undefined : findInCache(job, compiler.installation);
  if (elsewhere) return elsewhere;
  const compiled = compileNow(job, compiler, options);
  if (compiler.installation !== undefined) remember(cacheKey(job, compiler.installation), compiled);
  return compiled;
}

/** The installation that findCompiler would open, without opening it where files alone tell. */
function expectedInstallation(kind: CompilerKind | undefined): string | undefined {
  return (kind !== "nvcc" ? nvrtcInstallation() : undefined) ?? (kind !== "nvrtc" ? nvccInstallation() : undefined);
}

function findInCache(job: Compilation, installation: string | undefined): CompiledCuda | undefined {
  if (installation === undefined) return undefined;
  const start = performance.now();
  const found = recall(cacheKey(job, installation));
  return found && { ...found, ms: performance.now() - start };
}

/** @throws CompileError */
function compileNow(job: Compilation, compiler: CudaCompiler, { arch, name }: CompileOptions): CompiledCuda {
  const { source, fileName, flags } = job;
  const start = performance.now();
  const { output: cubin, log } = compiler.compile(source, fileName, flags, "cubin");
  const ms = performance.now() - start;
  if (!cubin) {
    const ptx = () => compiler.compile(source, fileName, flags, "ptx").output;
    throw compilerError({ source, fileName, log, ptx, what: `${compiler.label} refused ${name} for ${arch}` });
  }
  return { cubin, log, compiler: compiler.label, from: "compiler", ms };
}
