/**
 * From IR to WGSL: core features and default limits only. A workgroup runs a cluster of blocks, an invocation one warp
 * (statements.ts); kernels whose warps wait for each other one by one run in steps (stepped.ts).
 */
import { requireIR } from "../../dsl/check.ts";
import { UnsupportedError } from "../../dsl/errors.ts";
import type { KernelIR } from "../../dsl/ir.ts";
import { callerOfBackends } from "../caller.ts";
import { ModuleStatements, type WgslModule } from "./module.ts";
import { needsSteps, SteppedStatements } from "./stepped.ts";

export type { ScratchNeed, WgslModule } from "./module.ts";

/** The default limit of WebGPU, which every device has. */
const maxInvocations = 256;

/** Emits a verified kernel. @throws UnsupportedError that names what WGSL has no room for; ArgumentError for what is no IR */
export function emitWgsl(ir: KernelIR): WgslModule {
  requireIR("emitWgsl", ir, callerOfBackends);
  const warps = (ir.block / 32) * ir.cluster;
  if (warps > maxInvocations) {
    throw new UnsupportedError(
      `${ir.name}: a cluster of ${ir.cluster} blocks of ${ir.block} threads has ${warps} warps; WGSL runs ${maxInvocations} together`,
      { at: ir.at },
    );
  }
  if (!needsSteps(ir)) return new ModuleStatements(ir).emit();
  const first = new SteppedStatements(ir);
  first.emit();
  return new SteppedStatements(ir, first.crossing).emit();
}
