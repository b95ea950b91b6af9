/**
 * SwiftShader, a Vulkan device in software, and the Vulkan loader beside it, out of the npm package @sparticuz/chromium
 * (linux-x64 only). Unpacked once per user into a cache folder whose content is checked before every use.
 */
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { brotliDecompressSync } from "node:zlib";
import { cacheFolder, makeFolder, whyNotPrivate } from "../cache-folder.ts";

/** Paths of unpacked files. */
export interface SwiftShader {
  /** The Vulkan loader, libvulkan.so.1. */
  readonly loader: string;
  /** The driver's description for VK_DRIVER_FILES. */
  readonly icd: string;
}

const packageName = "@sparticuz/chromium";
const loader = "libvulkan.so.1";
const icd = "vk_swiftshader_icd.json";
const wanted: ReadonlySet<string> = new Set([loader, icd, "libvk_swiftshader.so"]);
const manifest = "manifest.json";

/** Modules or folders from which the package is looked up: this file, then the working directory. */
export const defaultRoots: readonly string[] = [import.meta.url, pathToFileURL(join(process.cwd(), "noname.js")).href];

/**
 * Unpacks SwiftShader, or finds it unpacked. Safe with any number of processes at once.
 * @param roots file URLs of modules from which the package is resolved, in order
 * @throws Error whose message says why there is none, e.g. that the package isn't installed
 */
export function unpackSwiftShader(roots: readonly string[] = defaultRoots, cache = cacheFolder() ?? ""): SwiftShader {
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new Error(`${packageName} has SwiftShader for linux-x64 only, this is ${process.platform}-${process.arch}`);
  }
  const { version, archive } = findPackage(roots);
  const key = `swiftshader-${version}-${sha256(archive).slice(0, 16)}`;
  let folder = join(cache, key);
  if (whyNotPrivate(cache) !== undefined || !isComplete(folder)) {
    const files = [...readTar(brotliDecompressSync(archive))].filter(({ name }) => wanted.has(name));
    if (files.length !== wanted.size)
      throw new Error(`${packageName} ${version} lacks one of ${[...wanted].join(", ")}`);
    try {
      publish(files, cache, folder);
    } catch {
      folder = temporaryFolder();
      writeFiles(files, folder);
    }
  }
  return { loader: join(folder, loader), icd: join(folder, icd) };
}

function findPackage(roots: readonly string[]): { readonly version: string; readonly archive: Buffer } {
  for (const root of roots) {
    let folder: string;
    try {
      folder = dirname(createRequire(root).resolve(packageName));
    } catch {
      continue;
    }
    // The package exports no package.json, so walk up from its main module to the one with its name: its builds have others.
    let description = describe(folder);
    while (description?.name !== packageName && folder !== dirname(folder)) {
      folder = dirname(folder);
      description = describe(folder);
    }
    return {
      version: String(description?.version),
      archive: fs.readFileSync(join(folder, "bin", "swiftshader.tar.br")),
    };
  }
  throw new Error(`the npm package ${packageName} isn't installed`);
}

function describe(folder: string): { readonly name?: unknown; readonly version?: unknown } | undefined {
  const file = join(folder, "package.json");
  return fs.existsSync(file) ? (JSON.parse(fs.readFileSync(file, "utf8")) as object) : undefined;
}

interface TarFile {
  readonly name: string;
  readonly content: Buffer;
}

/** Regular files at the top of a ustar archive. */
function* readTar(tar: Buffer): Generator<TarFile> {
  const text = (from: number, length: number): string =>
    tar.toString("latin1", from, from + length).replace(/\0.*$/s, "");
  for (let at = 0; at + 512 <= tar.length && tar[at] !== 0;) {
    const size = Number.parseInt(text(at + 124, 12), 8);
    if (!(size >= 0 && at + 512 + size <= tar.length)) throw new Error("swiftshader.tar.br is truncated");
    const isFile = text(at + 156, 1) === "0" || text(at + 156, 1) === "";
    if (isFile) yield { name: text(at, 100).replace(/^\.\//, ""), content: tar.subarray(at + 512, at + 512 + size) };
    at += 512 + Math.ceil(size / 512) * 512;
  }
}

/** Puts every file in place by a rename of its own, so that a folder already in use never lacks one, even while it is repaired. */
function publish(files: readonly TarFile[], cache: string, folder: string): void {
  makeFolder(cache);
  const problem = whyNotPrivate(cache); // native code is loaded from it
  if (problem !== undefined) throw new Error(problem);
  const fresh = fs.mkdtempSync(join(cache, "new-"));
  try {
    writeFiles(files, fresh);
    makeFolder(folder);
    for (const name of [...wanted, manifest]) fs.renameSync(join(fresh, name), join(folder, name));
  } finally {
    fs.rmSync(fresh, { recursive: true, force: true });
  }
  if (!isComplete(folder)) throw new Error(`${folder} can't be written`);
}

/** The files and a manifest with the SHA-256 of each. */
function writeFiles(files: readonly TarFile[], folder: string): void {
  for (const { name, content } of files) fs.writeFileSync(join(folder, name), content, { mode: 0o700 });
  const sums = Object.fromEntries(files.map(({ name, content }) => [name, sha256(content)]));
  fs.writeFileSync(join(folder, manifest), JSON.stringify(sums));
}

/** Whether the folder holds every wanted file with the content that its manifest promises. Reads about 7 MB. */
function isComplete(folder: string): boolean {
  try {
    const sums: Readonly<Record<string, unknown>> = JSON.parse(fs.readFileSync(join(folder, manifest), "utf8"));
    return [...wanted].every((name) => sha256(fs.readFileSync(join(folder, name))) === sums[name]);
  } catch {
    return false;
  }
}

/** A folder that lives as long as this process. */
function temporaryFolder(): string {
  const folder = fs.mkdtempSync(join(tmpdir(), "tegula-"));
  process.once("exit", () => fs.rmSync(folder, { recursive: true, force: true }));
  return folder;
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
