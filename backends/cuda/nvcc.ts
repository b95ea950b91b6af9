/** nvcc as a compiler: a program of the CUDA toolkit, started without a shell, in a private folder that doesn't outlive it. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { NotFoundError } from "../../dsl/errors.ts";
import type { CompilerOutput, CudaCompiler } from "./compile.ts";
import { executablesOnPath, toolkitFolders } from "./libraries.ts";

const found = new Map<string, CudaCompiler>();

/**
 * Finds nvcc: `TEGULA_NVCC`, or PATH, `CUDA_HOME`, `CUDA_PATH`, /usr/local/cuda*.
 * @throws NotFoundError with every path tried
 */
export function openNvcc(): CudaCompiler {
  const explicit = process.env["TEGULA_NVCC"];
  const candidates = explicit
    ? [explicit]
    : [...executablesOnPath("nvcc"), ...toolkitFolders().map((root) => join(root, "bin", "nvcc"))];
  const tried: string[] = [];
  for (const path of candidates) {
    const known = found.get(path);
    if (known) return known;
    const { stdout, error } = spawnSync(path, ["--version"], { encoding: "utf8" });
    const version = /release (\d+\.\d+)/.exec(stdout ?? "")?.[1];
    if (version) {
      const compiler = nvcc(path, `nvcc ${version}`);
      found.set(path, compiler);
      return compiler;
    }
    tried.push(`${path}: ${error?.message ?? "doesn't say which release it is"}`);
  }
  const where = explicit ? " at TEGULA_NVCC" : ", nor is it on the PATH";
  throw new NotFoundError([`nvcc was not found${where}. Tried:`, ...tried].join("\n    "), {
    hint: "Install the CUDA toolkit, 12.0 or later (12.8 for sm_100a and sm_120a), or set TEGULA_NVCC.",
  });
}

function nvcc(path: string, label: string): CudaCompiler {
  return {
    kind: "nvcc",
    label,
    compile(source, fileName, flags, target) {
      const folder = mkdtempSync(join(tmpdir(), "tegula-")); // made with mode 0700
      try {
        return compileIn(folder, { path, source, fileName, flags, target });
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    },
  };
}

interface Job {
  readonly path: string;
  readonly source: string;
  readonly fileName: string;
  readonly flags: readonly string[];
  readonly target: "cubin" | "ptx";
}

function compileIn(folder: string, { path, source, fileName, flags, target }: Job): CompilerOutput {
  const input = join(folder, "kernel.cu");
  const output = join(folder, "kernel.out");
  writeFileSync(input, source);
  const { status, stdout, stderr, error } = spawnSync(
    path,
    [`--${target}`, ...flags, "--output-file", output, input],
    // The working directory stays: relative file names in #line mean this one. TMPDIR: nvcc's own files go too.
    { encoding: "utf8", env: { ...process.env, TMPDIR: folder }, maxBuffer: 64 << 20 },
  );
  const log = [stdout, stderr, error?.message]
    .filter(Boolean)
    .join("\n")
    .replaceAll(input, fileName)
    .replaceAll("kernel.cu", fileName);
  // nvcc has ptxas look over PTX too, and fails after writing it.
  const made = existsSync(output) && (status === 0 || target === "ptx");
  return { output: made ? new Uint8Array(readFileSync(output)) : undefined, log };
}
