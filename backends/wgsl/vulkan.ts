/** Vulkan on Linux: which drivers are installed, and which loader opens them. Dawn opens "libvulkan.so.1" by that name alone. */
import * as fs from "node:fs";
import { join } from "node:path";
import type { DeviceKind } from "./options.ts";

/** Places outside the loader's own search path where NVIDIA's container runtime puts its driver's description. */
const extraFolders: readonly string[] = ["/usr/local/nvidia/share/vulkan/icd.d"];

/** Places of driver descriptions (ICD files): those that VK_DRIVER_FILES or VK_ICD_FILENAMES names, or where a loader looks. */
export function driverPlaces(): readonly string[] {
  const named = process.env["VK_DRIVER_FILES"] ?? process.env["VK_ICD_FILENAMES"];
  return named === undefined ? [...searchPath(), ...extraFolders] : split(named);
}

/** The driver descriptions found in those places, by the kind of device that they promise. */
export function findDrivers(): Readonly<Record<DeviceKind, readonly string[]>> {
  const files = [...new Set(driverPlaces().flatMap(jsonFiles))];
  const kindOf = (file: string): DeviceKind =>
    /lvp|lavapipe/.test(file) ? "lavapipe" : /swiftshader/i.test(file) ? "swiftshader" : "gpu";
  const ofKind = (kind: DeviceKind): readonly string[] => files.filter((file) => kindOf(file) === kind);
  return { gpu: ofKind("gpu"), lavapipe: ofKind("lavapipe"), swiftshader: ofKind("swiftshader") };
}

function searchPath(): readonly string[] {
  const { HOME = "", XDG_CONFIG_HOME, XDG_CONFIG_DIRS, XDG_DATA_HOME, XDG_DATA_DIRS } = process.env;
  return [
    XDG_CONFIG_HOME || join(HOME, ".config"),
    ...split(XDG_CONFIG_DIRS || "/etc/xdg"),
    "/etc",
    XDG_DATA_HOME || join(HOME, ".local/share"),
    ...split(XDG_DATA_DIRS || "/usr/local/share:/usr/share"),
  ].map((folder) => join(folder, "vulkan/icd.d"));
}

function split(list: string): readonly string[] {
  return list.split(":").filter(Boolean);
}

/** The place itself when it is a file, the .json files in it when it is a folder. */
function jsonFiles(place: string): readonly string[] {
  try {
    if (!fs.statSync(place).isDirectory()) return [place];
    const names = fs.readdirSync(place).filter((name) => name.endsWith(".json"));
    return names.sort().map((name) => join(place, name));
  } catch {
    return [];
  }
}

/**
 * Runs `action` with exactly these drivers visible. A Vulkan loader reads the variables (the second is its older name)
 * each time that an instance is made, so one process can look at several drivers one after the other (measured).
 */
export async function withDrivers<T>(files: readonly string[], action: () => Promise<T>): Promise<T> {
  const names = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] as const;
  const before = names.map((name) => process.env[name]);
  for (const name of names) process.env[name] = files.join(":");
  try {
    return await action();
  } finally {
    names.forEach((name, i) => {
      const value = before[i];
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    });
  }
}

/**
 * Loads the first of these Vulkan loaders that opens. Keep the result for ever: Dawn's own dlopen finds it by its soname.
 * @param libraries functions that give a name for dlopen, or throw
 * @throws Error with the reason of each
 */
export async function loadVulkan(libraries: readonly (() => string)[]): Promise<object> {
  const { default: koffi } = await import("koffi");
  const reasons: string[] = [];
  for (const library of libraries) {
    try {
      return koffi.load(library());
    } catch (error) {
      reasons.push(messageOf(error));
    }
  }
  throw new Error(`no Vulkan loader: ${reasons.join("; ")}`);
}

/** First line of an error's message. */
export function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n", 1).join("");
}
