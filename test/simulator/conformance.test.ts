/**
 * The conformance suite once more, with the simulator for a device: every operation, conversion, access, loop and random
 * program, by the strict bounds that CUDA has. No program of the suite may come to a finding. What may depend on the order
 * of warps runs under a random schedule too.
 */
import { describe, test, vi } from "vitest";
import type { HostArguments } from "../../backends/run.ts";
import type { Kernel, Params } from "../../dsl/index.ts";
import { runClean, simulator } from "./device.ts";

type Define = (target: object, on: typeof test) => void;

const schedule = vi.hoisted(() => ({ seeds: [undefined] as readonly (number | undefined)[] }));

vi.mock("../conformance/backends.ts", () => ({
  conformance(define: Define) {
    for (const seed of schedule.seeds) {
      const run = async (kernel: Kernel, args: HostArguments<Params>) => runClean(kernel, args, seed);
      const backend = async () => ({ ...simulator, seed });
      describe(`simulator, seed ${seed}`, () => define({ ...simulator, run, backend }, test));
    }
  },
  compilerAvailable: () => false,
}));
vi.mock("../../backends/run.ts", () => ({
  run: async ({ seed }: { readonly seed?: number }, kernel: Kernel, args: HostArguments<Params>) =>
    runClean(kernel, args, seed),
}));

await import("../conformance/operations.test.ts");
await import("../conformance/conversions.test.ts");
schedule.seeds = [undefined, Date.now() % 1_000_000];
await import("../conformance/control.test.ts");
await import("../conformance/memory.test.ts");
await import("../conformance/warps.test.ts");
await import("../conformance/random.test.ts");
