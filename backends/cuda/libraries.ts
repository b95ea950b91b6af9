/**
 * Finds and opens the shared libraries that CUDA needs: the driver (libcuda) and the run-time compiler (NVRTC).
 *
 * Handles are kept for the life of the process: koffi unloads a library when nothing refers to it any more, and a pointer
 * that the library gave would then lead nowhere.
 */
import { existsSync, readdirSync, readFileSync, realpathSync, statSync } from "node:fs";
import { basename, delimiter, dirname, isAbsolute, join, resolve } from "node:path";
import koffi, { type LibraryHandle } from "koffi";
import { NoCompilerError, NoDriverError, NotFoundError } from "../../dsl/errors.ts";
import { homeFolder } from "../cache-folder.ts";

/** An opened shared library. */
export interface Library {
  /** Full path; for a library that the loader looked up itself its name, where the system doesn't tell the path. */
  readonly path: string;
  /** As `identify` before it was opened. Undefined without a full path. */
  readonly identity: string | undefined;
  readonly handle: LibraryHandle;
}

/** Ends the hints of what is missing. */
export const askDoctor = "`npm run doctor` in Tegula's repository says what is here and what is missing.";

interface Search {
  readonly what: string;
  /** An environment variable; when set, only the path in it is tried. */
  readonly variable: string;
  readonly candidates: () => Iterable<string>;
  readonly remedy: string;
  readonly failure: typeof NotFoundError;
}

const driverName = "libcuda.so.1";
const nvrtcNames = ["libnvrtc.so.13", "libnvrtc.so.12"] as const;
const cublasLtNames = ["libcublasLt.so.13", "libcublasLt.so.12"] as const;

/**
 * Opens the driver library, libcuda.so.1. `TEGULA_LIBCUDA` may hold its path.
 * @throws NoDriverError with every path tried
 */
export function openDriverLibrary(): Library {
  return find({
    what: "The CUDA driver library",
    variable: "TEGULA_LIBCUDA",
    candidates: driverCandidates,
    remedy:
      "Install NVIDIA's driver (in a container: start it with the NVIDIA container toolkit), or set TEGULA_LIBCUDA. " +
      "Without a GPU, the WGSL backend runs the same kernels. " +
      askDoctor,
    failure: NoDriverError,
  });
}

const nvrtc: Search = {
  what: "NVRTC",
  variable: "TEGULA_LIBNVRTC",
  candidates: () => candidatesNamed(nvrtcNames),
  remedy: "Install CUDA 12 or 13, or `pip install nvidia-cuda-nvrtc`, or set TEGULA_LIBNVRTC to libnvrtc.so.",
  failure: NoCompilerError,
};

/**
 * Opens NVRTC, CUDA's compiler as a library. `TEGULA_LIBNVRTC` may hold its path.
 * @throws NoCompilerError with every path tried
 */
export function openNvrtcLibrary(): Library {
  return find(nvrtc);
}

/**
 * Opens cuBLASLt, for measuring beside it. `TEGULA_LIBCUBLASLT` may hold its path.
 * @throws NotFoundError with every path tried
 */
export function openCublasLtLibrary(): Library {
  return find({
    what: "cuBLASLt",
    variable: "TEGULA_LIBCUBLASLT",
    candidates: () => candidatesNamed(cublasLtNames),
    remedy: "Install CUDA 12 or 13, or `pip install nvidia-cublas`, or set TEGULA_LIBCUBLASLT to libcublasLt.so.",
    failure: NotFoundError,
  });
}

/** Identity of the file that openNvrtcLibrary tries first, without opening it. Undefined when only the loader may find one. */
export function nvrtcIdentity(): string | undefined {
  for (const path of candidatesOf(nvrtc)) {
    if (isAbsolute(path) && existsSync(path)) return opened.get(path)?.identity ?? identify(path);
  }
  return undefined;
}

/**
 * Names an installed file such that another version of it has another name: its path without links, size and time of change.
 * Reading 100 MB for a hash, or loading the file to ask for its version, would take longer than what the cache saves.
 */
export function identify(path: string): string {
  try {
    const real = realpathSync(path);
    const { size, mtimeNs } = statSync(real, { bigint: true });
    return `${real}, ${size} bytes, ${mtimeNs}`;
  } catch {
    return `${path}, missing`;
  }
}

const opened = new Map<string, Library>();

function find(search: Search): Library {
  const tried: string[] = [];
  for (const path of candidatesOf(search)) {
    const library = opened.get(path);
    if (library) return library;
    if (isAbsolute(path) && !existsSync(path)) {
      tried.push(`${path}: no such file`);
      continue;
    }
    try {
      return open(path);
    } catch (error) {
      tried.push(`${path}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  const { what, variable, remedy, failure: Failure } = search;
  const how = process.env[variable] ? ` at ${variable}` : "";
  throw new Failure([`${what} was not found${how}. Tried:`, ...tried].join("\n    "), { hint: remedy });
}

function candidatesOf({ variable, candidates }: Search): Iterable<string> {
  const explicit = process.env[variable];
  if (!explicit) return candidates();
  return [explicit.includes("/") ? resolve(explicit) : explicit];
}

function open(candidate: string): Library {
  if (isAbsolute(candidate)) preloadBuiltins(candidate);
  const before = isAbsolute(candidate) ? identify(candidate) : undefined;
  const handle = koffi.load(candidate);
  const path = isAbsolute(candidate) ? candidate : (loadedFrom(candidate) ?? candidate);
  const identity = before ?? (isAbsolute(path) ? identify(path) : undefined);
  const library = Object.freeze({ path, identity, handle });
  opened.set(candidate, library);
  return library;
}

/** Where the loader found the library of that name. Only Linux tells. */
function loadedFrom(name: string): string | undefined {
  try {
    const files = [...readFileSync("/proc/self/maps", "utf8").matchAll(/ (\/.*)$/gm)].map(([, file]) => file ?? "");
    const stem = name.replace(/\.so.*/, ".so");
    const matching = files.filter((file) => basename(file).startsWith(stem));
    return matching.find((file) => basename(file).startsWith(name)) ?? matching[0];
  } catch {
    return undefined;
  }
}

/**
 * NVRTC opens libnvrtc-builtins by its bare name, which works only if NVRTC was linked to look beside itself. A library
 * that is loaded already is found by name wherever it lies, so those beside it are loaded first.
 */
function preloadBuiltins(path: string): void {
  if (!path.includes("libnvrtc")) return;
  for (const file of filesIn(dirname(path))) {
    const builtins = join(dirname(path), file);
    if (!file.startsWith("libnvrtc-builtins.so") || opened.has(builtins)) continue;
    try {
      opened.set(builtins, { path: builtins, identity: undefined, handle: koffi.load(builtins) });
    } catch {
      // NVRTC may still find its own; if it doesn't, the first compilation says so.
    }
  }
}

/** By name first: the loader knows the driver's folder best. */
function* driverCandidates(): Iterable<string> {
  yield driverName;
  for (const folder of driverFolders) yield join(folder, driverName);
}

/** By name last: a file whose path is known can be looked up in the cache of compiled kernels without loading it. */
function* candidatesNamed(names: readonly string[]): Iterable<string> {
  for (const folder of toolkitLibraryFolders()) yield* names.map((name) => join(folder, name));
  yield* names;
}

/** In the loader's order, then what it doesn't search. */
function* toolkitLibraryFolders(): Iterable<string> {
  yield* (process.env["LD_LIBRARY_PATH"] ?? "").split(delimiter).filter((folder) => isAbsolute(folder));
  yield* systemFolders;
  for (const root of toolkitFolders()) yield* [join(root, "lib64"), join(root, "lib")];
  yield* wheelFolders();
}

const systemFolders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"];

const driverFolders = [
  ...systemFolders,
  "/usr/local/nvidia/lib64",
  "/usr/local/cuda/compat",
  "/usr/lib/wsl/lib",
  "/run/opengl-driver/lib",
];

/** Roots of CUDA toolkits: from the environment, then /usr/local/cuda and /opt/cuda, then the newest version there. */
export function toolkitFolders(): readonly string[] {
  const versions = filesIn("/usr/local").filter((name) => name.startsWith("cuda-"));
  versions.sort((a, b) => b.localeCompare(a, "en", { numeric: true }));
  return unique([
    process.env["CUDA_HOME"],
    process.env["CUDA_PATH"],
    "/usr/local/cuda",
    "/opt/cuda",
    ...versions.map((name) => join("/usr/local", name)),
  ]);
}

/** Where Python wheels of NVIDIA (and so PyTorch) put their libraries. Python itself isn't started: a prefix says where to look. */
function* wheelFolders(): Iterable<string> {
  for (const prefix of pythonPrefixes()) {
    for (const name of filesIn(join(prefix, "lib")).filter((name) => /^python3(\.\d+)?$/.test(name))) {
      for (const site of ["site-packages", "dist-packages"].map((folder) =>
        join(prefix, "lib", name, folder, "nvidia"),
      )) {
        if (existsSync(site)) yield* ["cu13", "cuda_nvrtc", "cublas"].map((name) => join(site, name, "lib"));
      }
    }
  }
}

/** Folders with a lib/python3.x: of environments in use, of python3 on the PATH, and where pip puts what has no other place. */
function pythonPrefixes(): readonly string[] {
  const python = executablesOnPath("python3")[0];
  // A virtual environment's python3 is a link: its own folder comes before the one that it links to.
  const prefixes = python ? [dirname(dirname(python)), dirname(dirname(realpathSync(python)))] : [];
  const versions = prefixes.map((prefix) => join(prefix, "versions")); // of pyenv
  return unique([
    process.env["VIRTUAL_ENV"],
    process.env["CONDA_PREFIX"],
    ...prefixes,
    ...versions.flatMap((folder) => filesIn(folder).map((name) => join(folder, name))),
    join(homeFolder(), ".local"),
    "/usr/local",
    "/usr",
  ]);
}

/** Full paths of the files called `name` in the folders of PATH, in order. */
export function executablesOnPath(name: string): readonly string[] {
  const folders = (process.env["PATH"] ?? "").split(delimiter).filter((folder) => isAbsolute(folder));
  return folders.map((folder) => join(folder, name)).filter((path) => existsSync(path));
}

function filesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function unique(paths: readonly (string | undefined)[]): readonly string[] {
  return [...new Set(paths.filter((path) => path !== undefined && path !== ""))].map(String);
}
