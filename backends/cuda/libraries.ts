/**
 * Finds and opens the shared libraries that CUDA needs: the driver (libcuda) and the run-time compiler (NVRTC).
 *
 * Handles are kept for the life of the process: koffi unloads a library when nothing refers to it any more, and a pointer
 * that the library gave would then lead nowhere.
 */
import { existsSync, readdirSync, realpathSync } from "node:fs";
import { delimiter, dirname, isAbsolute, join } from "node:path";
import koffi, { type LibraryHandle } from "koffi";
import { NotFoundError } from "../../dsl/errors.ts";

/** An opened shared library. `path` is what the loader was given: a full path, or a name that it looked up itself. */
export interface Library {
  readonly path: string;
  readonly handle: LibraryHandle;
}

interface Search {
  readonly what: string;
  /** An environment variable; when set, only the path in it is tried. */
  readonly variable: string;
  readonly candidates: () => Iterable<string>;
  readonly remedy: string;
}

const nvrtcNames = ["libnvrtc.so.13", "libnvrtc.so.12"] as const;

/**
 * Opens the driver library, libcuda.so.1. `TEGULA_LIBCUDA` may hold its path.
 * @throws NotFoundError with every path tried
 */
export function openDriverLibrary(): Library {
  return find({
    what: "The CUDA driver library",
    variable: "TEGULA_LIBCUDA",
    candidates: () => withFolders(["libcuda.so.1"], driverFolders),
    remedy:
      "Install NVIDIA's driver (in a container: start it with the NVIDIA container toolkit), or set TEGULA_LIBCUDA. " +
      "Without a GPU, the WGSL backend runs the same kernels.",
  });
}

/**
 * Opens NVRTC, CUDA's compiler as a library. `TEGULA_LIBNVRTC` may hold its path.
 * @throws NotFoundError with every path tried
 */
export function openNvrtcLibrary(): Library {
  return find({
    what: "NVRTC",
    variable: "TEGULA_LIBNVRTC",
    candidates: () => withFolders(nvrtcNames, [...toolkitLibraryFolders(), ...wheelFolders()]),
    remedy: "Install CUDA 12 or 13, or `pip install nvidia-cuda-nvrtc`, or set TEGULA_LIBNVRTC to libnvrtc.so.",
  });
}

const opened = new Map<string, Library>();

function find({ what, variable, candidates, remedy }: Search): Library {
  const explicit = process.env[variable];
  const tried: string[] = [];
  for (const path of explicit ? [explicit] : candidates()) {
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
  const how = explicit ? ` at ${variable}` : "";
  throw new NotFoundError([`${what} was not found${how}. Tried:`, ...tried].join("\n    "), { hint: remedy });
}

function open(path: string): Library {
  if (isAbsolute(path)) preloadBuiltins(path);
  const library = Object.freeze({ path, handle: koffi.load(path) });
  opened.set(path, library);
  return library;
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
      opened.set(builtins, { path: builtins, handle: koffi.load(builtins) });
    } catch {
      // NVRTC may still find its own; if it doesn't, the first compilation says so.
    }
  }
}

function* withFolders(names: readonly string[], folders: readonly string[]): Iterable<string> {
  yield* names;
  for (const folder of folders) yield* names.map((name) => join(folder, name));
}

const driverFolders = [
  "/usr/lib/x86_64-linux-gnu",
  "/usr/lib/aarch64-linux-gnu",
  "/usr/lib64",
  "/usr/local/nvidia/lib64",
  "/usr/local/cuda/compat",
  "/usr/lib/wsl/lib",
  "/run/opengl-driver/lib",
];

/** Roots of CUDA toolkits: from the environment, then /usr/local/cuda, then the newest version there. */
export function toolkitFolders(): readonly string[] {
  const versions = filesIn("/usr/local").filter((name) => name.startsWith("cuda-"));
  versions.sort((a, b) => b.localeCompare(a, "en", { numeric: true }));
  return unique([
    process.env["CUDA_HOME"],
    process.env["CUDA_PATH"],
    "/usr/local/cuda",
    ...versions.map((name) => join("/usr/local", name)),
  ]);
}

function toolkitLibraryFolders(): readonly string[] {
  return toolkitFolders().flatMap((root) => [join(root, "lib64"), join(root, "lib")]);
}

/** Where Python wheels of NVIDIA (and so PyTorch) put NVRTC. Python itself isn't started: a prefix says where to look. */
function wheelFolders(): readonly string[] {
  const python = executablesOnPath("python3")[0];
  // A virtual environment's python3 is a link: its own folder comes before the one that it links to.
  const prefixes = python ? [dirname(dirname(python)), dirname(dirname(realpathSync(python)))] : [];
  const sites = unique([process.env["VIRTUAL_ENV"], process.env["CONDA_PREFIX"], ...prefixes]).flatMap((prefix) =>
    filesIn(join(prefix, "lib"))
      .filter((name) => /^python3(\.\d+)?$/.test(name))
      .flatMap((name) => ["site-packages", "dist-packages"].map((folder) => join(prefix, "lib", name, folder)))
      .filter((site) => existsSync(site)),
  );
  return unique([...sites, "/usr/lib/python3/dist-packages"]).flatMap((site) => [
    join(site, "nvidia", "cu13", "lib"),
    join(site, "nvidia", "cuda_nvrtc", "lib"),
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
