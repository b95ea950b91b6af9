/** Where proofs run, by the names that --devices takes. */
import type { Backend } from "../../backends/backend.ts";
import { openCuda } from "../../backends/cuda/index.ts";
import { openSimulator } from "../../backends/simulator/index.ts";
import { openWgsl } from "../../backends/wgsl/index.ts";
import { ArgumentError } from "../../dsl/index.ts";

const ways = {
  wgsl: () => openWgsl(),
  simulator: () => openSimulator({ check: "values" }),
  cuda: () => openCuda(),
} as const satisfies Readonly<Record<string, () => Promise<Backend>>>;

export type DeviceName = keyof typeof ways;
export const deviceNames = Object.keys(ways) as readonly DeviceName[];

/** @throws ArgumentError unless it is a device's name */
export function deviceNamed(name: string): DeviceName {
  const known = deviceNames.find((one) => one === name);
  if (known) return known;
  throw new ArgumentError(`There is no device "${name}"`, { hint: `Choose among ${deviceNames.join(", ")}` });
}

/** The simulator gives results alone here, faster. @throws NotFoundError where there is none */
export function openDevice(name: DeviceName): Promise<Backend> {
  return ways[name]();
}
