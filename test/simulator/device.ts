/** The simulator as a device for tests that were written for others. */
import { expect } from "vitest";
import type { HostArguments, HostResults } from "../../backends/run.ts";
import { formatFinding, simulate } from "../../backends/simulator/index.ts";
import { type Kernel, type Params, TegulaError } from "../../dsl/index.ts";

/** Runs a kernel that must come to no finding, or to a deadlock, which is thrown. */
export function runClean<P extends Params>(kernel: Kernel<P>, args: HostArguments<P>, seed?: number): HostResults<P> {
  const { outputs, findings } = simulate(kernel, args, seed === undefined ? {} : { seed });
  const deadlock = findings.find(({ kind }) => kind === "deadlock");
  if (deadlock) throw new TegulaError(deadlock.message, { at: deadlock.at });
  expect(findings.map(formatFinding), `${kernel.name}, seed ${seed}`).toEqual([]);
  return outputs;
}

/** For tests that open a device. */
export const simulator = {
  name: "cuda" as const,
  device: "simulator",
  dispose: () => Promise.resolve(),
  synchronize: () => Promise.resolve(),
};
