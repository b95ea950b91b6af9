/**
 * What a stepped kernel waits for. A cell is a barrier of any kind: arrivals still pending, the phase's parity, announced
 * bytes still to come. Cells change phase between two steps only. Each block of the cluster has cells for its block barrier,
 * named barriers and mbarriers; one cell, the last, is the cluster's barrier.
 */
import { UnsupportedError } from "../../dsl/errors.ts";
import type { MBarrier } from "../../dsl/ir-tile.ts";
import { type KernelIR, walk } from "../../dsl/ir.ts";

export class SyncCells {
  /** The block barrier's. */
  readonly block = 0;
  readonly perBlock: number;
  readonly count: number;
  /** The cluster barrier's. */
  readonly cluster: number;
  readonly hasCluster: boolean;
  readonly invocations: number;
  /** Of each cell of a block, arrivals that end its phase. */
  private readonly arrivals: number[];
  private readonly namedCells = new Map<number, number>();
  private readonly firstCells = new Map<MBarrier, number>();

  /** @throws UnsupportedError for a named barrier of varying size */
  constructor(ir: KernelIR) {
    const warps = ir.block / 32;
    this.invocations = warps * ir.cluster;
    this.arrivals = [warps];
    let hasCluster = false;
    walk(ir.body, (stmt) => {
      hasCluster ||= stmt.kind === "clusterWait" || stmt.kind === "clusterArrive";
      if (stmt.kind !== "namedBarrier") return;
      const known = this.namedCells.get(stmt.id);
      if (known === undefined) this.namedCells.set(stmt.id, this.arrivals.push(stmt.threads / 32) - 1);
      else if (this.arrivals[known] !== stmt.threads / 32) {
        throw new UnsupportedError(
          `${ir.name}: in WGSL the named barrier ${stmt.id} has one number of threads, not ${(this.arrivals[known] ?? 0) * 32} and ${stmt.threads}`,
          { at: stmt.at, hint: "Use another number for the barrier of the other size" },
        );
      }
    });
    for (const barrier of ir.mbarriers) {
      this.firstCells.set(barrier, this.arrivals.length);
      for (let i = 0; i < barrier.length; i++) this.arrivals.push(barrier.arrivals);
    }
    this.hasCluster = hasCluster;
    this.perBlock = this.arrivals.length;
    this.cluster = this.perBlock * ir.cluster;
    this.count = this.cluster + (hasCluster ? 1 : 0);
  }

  /** Of workgroup memory. */
  get bytes(): number {
    return 3 * Math.ceil(this.count / 4) * 16 + 48;
  }

  named(id: number): number {
    return this.namedCells.get(id) ?? 0;
  }

  /** The cell of a barrier's slot 0. */
  first(barrier: MBarrier): number {
    return this.firstCells.get(barrier) ?? 0;
  }

  declarations(): readonly string[] {
    const { count, perBlock, cluster, invocations } = this;
    const ofCluster = this.hasCluster ? `  if (cell == ${cluster}) { return ${invocations}; }\n` : "";
    return [
      `var<workgroup> cell_pending: array<atomic<i32>, ${count}>;`,
      `var<workgroup> cell_phase: array<atomic<u32>, ${count}>;`,
      `var<workgroup> cell_bytes: array<atomic<i32>, ${count}>;`,
      "var<workgroup> running_warps: atomic<i32>;",
      "var<workgroup> made_progress: atomic<u32>;",
      "var<workgroup> go_on: u32;",
      "fn cell_arrivals_i32(cell: i32) -> i32 {",
      `${ofCluster}  switch cell % ${perBlock} {`,
      ...this.cases(),
      "  }",
      "}",
      "fn reset_cells_u32(invocation: u32) {",
      `  for (var cell = i32(invocation); cell < ${count}; cell += ${invocations}) {`,
      "    atomicStore(&cell_pending[cell], cell_arrivals_i32(cell));",
      "    atomicStore(&cell_phase[cell], 0u);",
      "    atomicStore(&cell_bytes[cell], 0);",
      "  }",
      `  if (invocation == 0u) { atomicStore(&running_warps, ${invocations}); atomicStore(&made_progress, 0u); }`,
      "}",
      "fn advance_cell_i32(cell: i32) {",
      "  while (atomicLoad(&cell_pending[cell]) <= 0 && atomicLoad(&cell_bytes[cell]) == 0) {",
      "    atomicAdd(&cell_pending[cell], cell_arrivals_i32(cell));",
      "    atomicXor(&cell_phase[cell], 1u);",
      "  }",
      "}",
    ];
  }

  /** Cells with the same number of arrivals, together. */
  private cases(): readonly string[] {
    const cells = new Map<number, number[]>();
    for (const [cell, arrivals] of this.arrivals.entries()) cells.set(arrivals, [...(cells.get(arrivals) ?? []), cell]);
    const [usual] = [...cells].sort((a, b) => b[1].length - a[1].length);
    return [...cells].map(([arrivals, list]) =>
      arrivals === usual?.[0]
        ? `    default: { return ${arrivals}; }`
        : `    case ${list.join(", ")}: { return ${arrivals}; }`,
    );
  }
}
