/**
 * `tegula/simulator`: runs a kernel in plain TypeScript, warp by warp, exactly as the IR says, and tells what it did wrong.
 * Slow, but it sees what no device shows: races, reads of what nobody wrote, missing waits. It runs in a browser too.
 */
import type { HostArguments, HostResults } from "../run.ts";
import { HostTensor } from "../../dsl/host.ts";
import { isWritten } from "../../dsl/ir.ts";
import type { Kernel } from "../../dsl/kernel.ts";
import type { Params } from "../../dsl/params.ts";
import { Context } from "./context.ts";
import type { KernelCounts } from "./counts.ts";
import { type Finding, unravel, type Unwritten } from "./findings.ts";
import { launchOf } from "./launch.ts";
import { Machine } from "./machine.ts";

export type { Counts, KernelCounts, LineCounts } from "./counts.ts";
export { type Finding, type FindingKind, formatFinding, type Unwritten } from "./findings.ts";

export interface SimulateOptions {
  /**
   * "all": accesses are checked against each other. "values": results alone, faster; of findings only out-of-bounds,
   * misaligned, divergence, arrivals and deadlock.
   */
  readonly check?: "all" | "values";
  /** Runs clusters and warps in a random order, interrupts warps, and ends copies early: the same for the same seed. */
  readonly seed?: number;
}

export interface Simulation<P extends Params> {
  readonly outputs: HostResults<P>;
  readonly findings: readonly Finding[];
  /** Outputs with elements that nobody wrote. Empty with `check: "values"`. */
  readonly unwritten: readonly Unwritten[];
  readonly counts: KernelCounts;
}

/**
 * Runs one launch on host data, as `run` does on a device. Never throws for what the kernel does: that is a finding.
 * ```ts
 * const { outputs, findings } = simulate(gemm, { w, x });
 * for (const finding of findings) console.error(formatFinding(finding));
 * ```
 * @throws ArgumentError for data that doesn't fit the kernel's parameters
 */
export function simulate<P extends Params>(
  kernel: Kernel<P>,
  args: HostArguments<P>,
  { check = "all", seed }: SimulateOptions = {},
): Simulation<P> {
  const { ir } = kernel;
  const launch = launchOf(ir, args);
  const context = new Context(ir, launch, check === "all");
  new Machine(context, launch, seed).run();
  const outputs: Record<string, HostTensor> = {};
  const unwritten: Unwritten[] = [];
  for (const [{ name, role, dtype, at }, { bytes, count, dims, shadow }] of context.tensors) {
    if (!isWritten(role)) continue;
    outputs[name] = new HostTensor(dtype, dims, new Uint8Array(bytes));
    if (role !== "output" || !shadow) continue;
    const missing = Array.from({ length: count }, (_, i) => i).filter((i) => !shadow.isWritten(i));
    const [first] = missing;
    if (first !== undefined) unwritten.push({ tensor: name, count: missing.length, first: unravel(first, dims), at });
  }
  const { list: findings } = context.findings;
  return { outputs: outputs as HostResults<P>, findings, unwritten, counts: context.counters.result };
}
