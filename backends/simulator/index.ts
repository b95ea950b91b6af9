/**
 * `tegula/simulator`: runs a kernel in plain TypeScript, warp by warp, exactly as the IR says, and tells what it did wrong.
 * Slow, but it sees what no device shows: races, reads of what nobody wrote, missing waits. It runs in a browser too.
 */
import type { Kernel } from "../../dsl/kernel.ts";
import type { Params } from "../../dsl/params.ts";
import { requireKernel } from "../bind.ts";
import { bindHost, type HostArguments } from "../run.ts";
import type { Simulation } from "./launch.ts";
import { SimulatorBackend, SimulatorExecutable, type SimulatorOptions } from "./runtime.ts";

export { DeviceTensor, deviceTensor, type FrozenTensor, frozenTensor } from "../tensor.ts";
export { type HostArguments, type HostResults, prepare, PreparedRun, run } from "../run.ts";
export type { Arguments, Scalars } from "../bind.ts";
export type { Backend, Executable, Launch, Storage } from "../backend.ts";
export type { Counts, KernelCounts, LineCounts } from "./counts.ts";
export { type Finding, type FindingKind, formatFinding, type Unwritten } from "./findings.ts";
export { HazardError, type Simulation, type SimulatorLaunch } from "./launch.ts";
export { openSimulator, SimulatorBackend, type SimulatorExecutable, type SimulatorOptions } from "./runtime.ts";

/**
 * Runs one launch on host data, as `run` does on a device, at once. What the kernel does wrong is no error, but a finding.
 * ```ts
 * const { outputs, findings } = simulate(gemm, { w, x });
 * for (const finding of findings) console.error(formatFinding(finding));
 * ```
 * @throws ArgumentError for data that doesn't fit the kernel's parameters
 */
export function simulate<P extends Params>(
  kernel: Kernel<P>,
  args: HostArguments<P>,
  options: SimulatorOptions = {},
): Simulation<P> {
  requireKernel(kernel);
  const executable = new SimulatorExecutable(kernel, new SimulatorBackend(options));
  return bindHost(executable, args).launch.simulate();
}
