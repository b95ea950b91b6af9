/// <reference types="webgpu" preserve="true" />
/**
 * Finds a device for Dawn with core features and default limits: a GPU, else lavapipe, else SwiftShader out of an npm package.
 * Linux needs no installed Vulkan loader; macOS and Windows bring Metal and Direct3D.
 */
import { isMainThread } from "node:worker_threads";
import { describe } from "../../dsl/check.ts";
import { ArgumentError, NotFoundError } from "../../dsl/errors.ts";
import type { DeviceKind, DeviceOptions } from "./options.ts";
import { defaultRoots, unpackSwiftShader } from "./swiftshader.ts";
import { driverPlaces, findDrivers, loadVulkan, messageOf, withDrivers } from "./vulkan.ts";

const kinds: readonly DeviceKind[] = ["gpu", "lavapipe", "swiftshader"];

export interface FoundDevice {
  readonly device: GPUDevice;
  readonly kind: DeviceKind;
  /** For people, e.g. "NVIDIA H200 (Dawn, Vulkan)". */
  readonly label: string;
}

/**
 * What must live as long as the process. `webgpu` frees the object that `create()` returns as soon as it is garbage, under
 * pending work: crashes and hangs. On globalThis, because several copies of this module may be loaded.
 */
interface Pinned {
  /** The Vulkan loader. */
  vulkan: object | undefined;
  /** One instance for each list of drivers. */
  readonly instances: Map<string, GPU>;
  /** Those not destroyed yet. */
  readonly devices: Set<GPUDevice>;
  /** Searches run one at a time: they change environment variables. */
  last: Promise<unknown>;
}

const registry: { [key: symbol]: Pinned | undefined } = globalThis as { [key: symbol]: Pinned | undefined };
const pinned: Pinned = (registry[Symbol.for("tegula.wgsl.pinned")] ??= pin());

function pin(): Pinned {
  const devices = new Set<GPUDevice>();
  // Leaving with work under way (process.exit(), an uncaught error) crashes in lavapipe's threads now and then: 12 of 60 runs.
  process.on("exit", () => devices.forEach((device) => device.destroy()));
  return { vulkan: undefined, instances: new Map(), devices, last: Promise.resolve() };
}

/**
 * Opens a new device on the best adapter of the wanted kind. Adapters and instances are shared by all of them.
 * @throws NotFoundError listing what was tried; ArgumentError for an unknown kind
 */
export function openDevice(options: DeviceOptions = {}): Promise<FoundDevice> {
  const found = pinned.last.then(() => search(options));
  pinned.last = found.catch(() => undefined);
  return found;
}

async function search(options: DeviceOptions): Promise<FoundDevice> {
  if (typeof options !== "object" || options === null) {
    throw new ArgumentError(`openWgsl takes its options as an object, not ${describe(options)}`, {
      hint: 'openWgsl(), openWgsl({ device: "lavapipe" })',
    });
  }
  const { device, roots = defaultRoots } = options;
  const wanted = device ?? (process.env["TEGULA_WGSL_DEVICE"] || undefined);
  const accepted = kinds.filter((kind) => wanted === undefined || kind === wanted);
  if (accepted.length === 0) {
    throw new ArgumentError(`There is no WGSL device ${describe(wanted)}`, {
      hint: `Choose one of ${kinds.join(", ")}.`,
    });
  }
  const tried: string[] = [];
  for (const kind of accepted) {
    try {
      return process.platform === "linux" ? await openOnLinux(kind, roots) : await openInstance("", kind);
    } catch (error) {
      tried.push(`  ${kind}: ${messageOf(error)}`);
    }
  }
  const what = wanted === undefined ? "device to run WGSL on" : `WGSL device "${wanted}"`;
  throw new NotFoundError(`Found no ${what}. Tried:\n${tried.join("\n")}`, {
    hint:
      "`npm install --save-dev @sparticuz/chromium` gives one on linux-x64, Mesa's Vulkan drivers on any Linux " +
      "(Debian and Ubuntu: `apt install mesa-vulkan-drivers`; Mesa 25 works, 22 lacks what Dawn needs).",
  });
}

async function openOnLinux(kind: DeviceKind, roots: readonly string[]): Promise<FoundDevice> {
  const installed = findDrivers()[kind];
  if (kind !== "swiftshader" && installed.length === 0) {
    throw new Error(`no Vulkan driver for one in ${driverPlaces().join(", ")}`);
  }
  const drivers = installed.length > 0 ? installed : [unpackSwiftShader(roots).icd];
  const bundled = (): string => unpackSwiftShader(roots).loader;
  const system = (): string => "libvulkan.so.1";
  pinned.vulkan ??= await loadVulkan(kind === "swiftshader" ? [bundled, system] : [system, bundled]);
  return withDrivers(drivers, () => openInstance(drivers.join(":"), kind));
}

async function openInstance(key: string, kind: DeviceKind): Promise<FoundDevice> {
  let gpu = pinned.instances.get(key);
  if (gpu === undefined) {
    const { create } = await importWebgpu();
    // SwiftShader writes zeros to shared memory element by element: 4 KiB take it 0.4 s to compile, Tint's loop 0.08 s.
    const unrolled = "disable-dawn-features=use_vulkan_zero_initialize_workgroup_memory_extension";
    gpu = create(kind === "swiftshader" ? [unrolled] : []);
    pinned.instances.set(key, gpu);
  }
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (adapter === null) {
    const nvidia = key.includes("nvidia") ? "; NVIDIA's driver needs libEGL.so.1 (Debian: libegl1)" : "";
    const worker = isMainThread ? "" : "; in a worker thread VK_DRIVER_FILES must be set before Node starts";
    throw new Error(`Dawn finds no usable adapter${key && ` through ${key}`}${nvidia}${worker}`);
  }
  const found = kindOf(adapter.info);
  if (found !== kind) throw new Error(`the adapter is ${adapter.info.description || adapter.info.device}`);
  const device = await adapter.requestDevice({ label: "tegula" });
  pinned.devices.add(device);
  void device.lost.then(() => pinned.devices.delete(device));
  return { device, kind, label: labelOf(adapter.info, kind) };
}

async function importWebgpu(): Promise<typeof import("webgpu")> {
  try {
    return await import("webgpu");
  } catch (error) {
    throw new Error(`the npm package webgpu has no Dawn for ${process.platform}-${process.arch}: ${messageOf(error)}`);
  }
}

/** The kind of an adapter; undefined for a software adapter that is neither of the two, such as Windows' own. */
function kindOf({ architecture, device, description, isFallbackAdapter }: GPUAdapterInfo): DeviceKind | undefined {
  const text = [architecture, device, description].join(" ").toLowerCase();
  if (text.includes("swiftshader")) return "swiftshader";
  if (text.includes("llvmpipe") || text.includes("lavapipe")) return "lavapipe";
  return isFallbackAdapter ? undefined : "gpu";
}

function labelOf({ device, description }: GPUAdapterInfo, kind: DeviceKind): string {
  if (kind === "swiftshader") return "SwiftShader (Dawn)";
  // The description is "llvmpipe: Mesa 25.0.7-2~bpo12+1 (LLVM 15.0.6) 0.0.1".
  if (kind === "lavapipe") return `llvmpipe (Dawn, ${/Mesa [\d.]+/.exec(description)?.[0] ?? description})`;
  const api = process.platform === "darwin" ? "Metal" : process.platform === "win32" ? "Direct3D 12" : "Vulkan";
  // Dawn gives names in lower case with hyphens: nvidia-h200, nvidia-geforce-rtx-4090, amd-radeon-780m-graphics.
  const word = (text: string): string =>
    /\d|^(nvidia|amd|rtx|gtx|xe)$/.test(text) ? text.toUpperCase() : text.charAt(0).toUpperCase() + text.slice(1);
  return `${(device || description || "GPU").split("-").map(word).join(" ")} (Dawn, ${api})`;
}
