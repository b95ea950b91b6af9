/**
 * What was compiled before, in this process or any other of this user. A key stands for everything that decides about the
 * machine code, so the same key gives the same kernel; under another key nothing is found, and nothing ever goes stale.
 */
import { createHash } from "node:crypto";
import { readEntry, writeEntry } from "./cache-disk.ts";
import { type CachedCubin, entryFormat } from "./cache-entry.ts";

/** Where compiled code came from. */
export type CubinOrigin = "compiler" | "memory" | "disk";

export interface Compilation {
  readonly source: string;
  /** What the compiler calls the source. */
  readonly fileName: string;
  readonly flags: readonly string[];
}

/** Undefined when it was deleted: then nothing can be cached. */
export function workingDirectory(): string | undefined {
  try {
    return process.cwd();
  } catch {
    return undefined;
  }
}

/** SHA-256, in hexadecimal. `installation` tells one compiler from any other. */
export function cacheKey({ source, fileName, flags }: Compilation, installation: string): string {
  // A comment in the first line says who asked for the kernel, which decides about nothing.
  const code = source.replace(/^\/\/.*/, "");
  // Debug information holds full paths: relative ones in `#line` count from the working directory.
  const parts = [entryFormat, installation, compilerVariables(), flags, process.cwd(), fileName, code];
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex");
}

/** Variables like NVCC_APPEND_FLAGS and NVRTC_APPEND_FLAGS, which the compilers add to the flags. */
function compilerVariables(): readonly (readonly [string, string | undefined])[] {
  return Object.entries(process.env)
    .filter(([name]) => /^(NVCC|NVRTC|NVVM)_/.test(name))
    .sort(([a], [b]) => (a < b ? -1 : 1));
}

/** Enough for a thousand kernels; no process grows by more. */
const memoryLimitBytes = 16 * 2 ** 20;
/** Ordered by use, the latest last. */
const memory = new Map<string, CachedCubin>();
let memoryBytes = 0;

/** What is known under a key. The cubin is a copy, the caller's own. */
export function recall(key: string): (CachedCubin & { readonly from: CubinOrigin }) | undefined {
  const inMemory = memory.get(key);
  const entry = inMemory ?? readEntry(key);
  if (!entry) return undefined;
  keepInMemory(key, entry);
  return { ...entry, cubin: entry.cubin.slice(), from: inMemory ? "memory" : "disk" };
}

/** Keeps what a compiler made, in memory and on disk. */
export function remember(key: string, entry: CachedCubin): void {
  keepInMemory(key, { ...entry, cubin: entry.cubin.slice() });
  writeEntry(key, entry);
}

function keepInMemory(key: string, entry: CachedCubin): void {
  memoryBytes += entry.cubin.length - (memory.get(key)?.cubin.length ?? 0);
  memory.delete(key);
  memory.set(key, entry);
  for (const [oldest, { cubin }] of memory) {
    if (memoryBytes <= memoryLimitBytes) break;
    memory.delete(oldest);
    memoryBytes -= cubin.length;
  }
}
