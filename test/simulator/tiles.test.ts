/** Every tile operation and matrix instruction, by the tests that devices pass, with the simulator in their place. */
import { vi } from "vitest";
import type { HostArguments } from "../../backends/run.ts";
import type { Kernel, Params } from "../../dsl/index.ts";

vi.mock("../../backends/run.ts", async () => {
  const { runClean } = await import("./device.ts");
  return { run: async (_: unknown, kernel: Kernel, args: HostArguments<Params>) => runClean(kernel, args) };
});
vi.mock("../../backends/wgsl/index.ts", async (original) => {
  const { simulator } = await import("./device.ts");
  return { ...(await original<object>()), openWgsl: async () => simulator };
});
vi.mock("../harness.ts", async () => {
  const { runClean, simulator } = await import("./device.ts");
  return {
    devices: [{ name: "simulator", missing: false, open: async () => simulator }],
    runGuarded: async (_: unknown, kernel: Kernel, args: HostArguments<Params>) => runClean(kernel, args),
  };
});

await import("../tile-wgsl.test.ts");
await import("../atoms.test.ts");
