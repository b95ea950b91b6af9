/** nvcc as a compiler: a program of the CUDA toolkit, started without a shell, in a private folder that doesn't outlive it. */
import { spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { NoCompilerError } from "../../dsl/errors.ts";
import type { CompilerOutput, CudaCompiler } from "./compile.ts";
import { executablesOnPath, identify, toolkitFolders } from "./libraries.ts";

/** By installation. */
const found = new Map<string, CudaCompiler>();

/**
 * Finds nvcc: `TEGULA_NVCC`, or PATH, `CUDA_HOME`, `CUDA_PATH`, /usr/local/cuda*.
 * @throws NoCompilerError with every path tried
 */
export function openNvcc(): CudaCompiler {
  const tried: string[] = [];
  for (const path of candidates()) {
    const installation = installationOf(path);
    const known = found.get(installation);
    if (known?.path === path) return known;
    const { stdout, error } = askVersion(path);
    const version = /release (\d+\.\d+)/.exec(stdout ?? "")?.[1];
    if (version) {
      const compiler = nvcc(path, `nvcc ${version}`, installation);
      found.set(installation, compiler);
      return compiler;
    }
    tried.push(`${path}: ${error?.message ?? "doesn't say which release it is"}`);
  }
  const where = process.env["TEGULA_NVCC"] ? " at TEGULA_NVCC" : ", nor is it on the PATH";
  throw new NoCompilerError([`nvcc was not found${where}. Tried:`, ...tried].join("\n    "), {
    hint: "Install the CUDA toolkit, 12.0 or later (12.8 for sm_100a and sm_120a), or set TEGULA_NVCC.",
  });
}

/** The installation of the first nvcc that is there, which openNvcc opens if it works. */
export function nvccInstallation(): string | undefined {
  const path = candidates().find((candidate) => existsSync(candidate));
  return path && installationOf(path);
}

function candidates(): readonly string[] {
  const explicit = process.env["TEGULA_NVCC"];
  if (!explicit) return [...executablesOnPath("nvcc"), ...toolkitFolders().map((root) => join(root, "bin", "nvcc"))];
  return explicit.includes("/") ? [resolve(explicit)] : [...executablesOnPath(explicit), explicit];
}

/** By the files that make machine code. A script can start any compiler, so it has to be asked which. */
function installationOf(path: string): string {
  const program = identify(path);
  const folder = dirname(existsSync(path) ? realpathSync(path) : path);
  const others = [join(folder, "ptxas"), join(folder, "../nvvm/bin/cicc")].map(identify);
  return ["nvcc", program, ...others, isScript(path) ? askVersion(path).stdout : ""].join("\n");
}

function isScript(path: string): boolean {
  try {
    const file = openSync(path, "r");
    try {
      const start = Buffer.alloc(2);
      readSync(file, start);
      return start.toString() === "#!";
    } finally {
      closeSync(file);
    }
  } catch {
    return false;
  }
}

const answers = new Map<string, { readonly stdout: string; readonly error?: Error | undefined }>();

/** What it says of itself, asked once. */
function askVersion(path: string) {
  const identity = identify(path);
  const answer = answers.get(identity) ?? spawnSync(path, ["--version"], { encoding: "utf8" });
  answers.set(identity, answer);
  return answer;
}

function nvcc(path: string, label: string, installation: string): CudaCompiler {
  return {
    kind: "nvcc",
    label,
    path,
    installation,
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
