/** Memory accesses: where they stand, and whether they certainly happen. */
import { i32 } from "../dtype.ts";
import {
  type Block,
  type KernelIR,
  type LaneCount,
  type Memory,
  peerOf,
  type Register,
  type Shared,
  type Type,
  type Value,
} from "../ir.ts";
import type { Location } from "../source.ts";
import { checkAlignment } from "./alignment.ts";
import { checkBounds, legalSizes } from "./bounds.ts";
import { FactsAnalysis } from "./facts.ts";
import { matricesOf, spanOf } from "./warpgroup.ts";

/** One load, store or atomic: `type.lanes` elements from `index` on, which must be aligned to them. */
export interface Access {
  readonly memory: Memory;
  readonly index: readonly Value[];
  readonly type: Type;
  /** Of whole copies and matrices: how many elements of memory, one after the other, they reach over. */
  readonly span?: number;
  /** false where the guard is never true. */
  readonly possible: boolean;
  /** Whether every thread certainly performs it. */
  readonly certain: boolean;
  /** Whether it is of the kind that a guard can keep from happening. */
  readonly takesGuard: boolean;
  readonly at: Location;
}

/** @throws AlignmentError, OutOfBoundsError */
export function checkAccesses(ir: KernelIR, facts: FactsAnalysis): void {
  visitAccesses(ir, facts, (access) => {
    checkAlignment(access, facts);
    if (access.possible) checkBounds(access, facts);
  });
  for (const sizes of legalSizes(ir)) {
    const there = new FactsAnalysis(ir, sizes);
    // What is not certain may depend on the sizes in ways that the facts don't see.
    visitAccesses(ir, there, (access) => {
      if (access.certain) checkBounds(access, there);
    });
  }
}

/** Those of memory, and of register arrays, which obey the same rule. */
function visitAccesses(ir: KernelIR, facts: FactsAnalysis, see: (access: Access) => void): void {
  const visit = (block: Block, certain: boolean): void => {
    for (const stmt of block) {
      const access = { possible: true, certain, takesGuard: false, at: stmt.at };
      if ("slot" in stmt) {
        const { name, length, at } = stmt.barrier;
        const memory: Memory = { ...oneEach(name, length), at };
        see({ ...access, memory, index: [stmt.slot], type: { dtype: i32, lanes: 1 } });
      }
      const peer = peerOf(stmt);
      if (peer) {
        const cluster: Memory = { ...oneEach("the cluster", ir.cluster), at: ir.at };
        see({ ...access, memory: cluster, index: [peer], type: { dtype: i32, lanes: 1 } });
      }
      if (stmt.kind === "let") {
        const { op, type } = stmt.value;
        if (op.kind === "load") {
          const guard = op.guard ? facts.decides(op.guard) : true;
          const guarded = { possible: guard !== false, certain: certain && guard === true, takesGuard: true };
          see({ ...access, ...guarded, memory: op.memory, index: op.index, type });
        }
        if (op.kind === "ldmatrix") see({ ...access, memory: op.memory, index: op.index, type: row(op.memory) });
        if (op.kind === "atomic") see({ ...access, memory: op.memory, index: op.index, type });
        if (op.kind === "read" && op.index) see({ ...access, ...element(op.register, op.index) });
      } else if (stmt.kind === "write" && stmt.index) {
        see({ ...access, ...element(stmt.register, stmt.index) });
      } else if (stmt.kind === "stmatrix") {
        see({ ...access, memory: stmt.memory, index: stmt.index, type: row(stmt.memory) });
      } else if (stmt.kind === "copyAsync") {
        const type = { dtype: stmt.to.dtype, lanes: stmt.lanes };
        const guard = stmt.guard ? facts.decides(stmt.guard) : true;
        see({ ...access, memory: stmt.to, index: stmt.toIndex, type });
        const guarded = { possible: guard !== false, certain: certain && guard === true, takesGuard: true };
        see({ ...access, ...guarded, memory: stmt.memory, index: stmt.index, type });
      } else if (stmt.kind === "bulkCopy") {
        const span = Math.max(1, facts.of(stmt.count).min);
        see({ ...access, memory: stmt.to, index: stmt.toIndex, type: row(stmt.to), span });
        see({ ...access, memory: stmt.memory, index: stmt.index, type: row(stmt.memory), span });
      } else if (stmt.kind === "tensorCopy") {
        const span = stmt.map.box.reduce((count, extent) => count * extent, 1);
        see({ ...access, memory: stmt.to, index: stmt.toIndex, type: row(stmt.to), span });
      } else if (stmt.kind === "wgmma") {
        for (const [operand, rows] of matricesOf(stmt)) {
          const { memory, index } = operand;
          see({ ...access, memory, index, type: row(memory), span: spanOf(operand, rows) / memory.dtype.bytes });
        }
      } else if (stmt.kind === "store") {
        see({ ...access, memory: stmt.memory, index: stmt.index, type: stmt.value.type });
      } else if (stmt.kind === "for") {
        const [from, to] = [facts.of(stmt.from), facts.of(stmt.to)];
        // A loop that never runs accesses nothing.
        if (to.max > from.min) visit(stmt.body, certain && to.min > from.max);
      } else if (stmt.kind === "if") {
        const decided = facts.decides(stmt.condition);
        if (decided !== false) visit(stmt.then, certain && decided === true);
        if (decided !== true) visit(stmt.otherwise, certain && decided === false);
      }
    }
  };
  visit(ir.body, true);
}

/** 16 bytes: what ldmatrix, stmatrix and bulk copies need aligned. */
function row({ dtype }: Memory): Type {
  return { dtype, lanes: (16 / dtype.bytes) as LaneCount };
}

/** As memory: what is numbered from 0 to `count` - 1. */
function oneEach(name: string, count: number): Omit<Shared, "at"> {
  return { kind: "shared", name, dtype: i32, shape: [count], alignBytes: 16 };
}

function element({ name, length = 1, at }: Register, index: Value): Pick<Access, "memory" | "index" | "type"> {
  return { memory: { ...oneEach(name, length), at }, index: [index], type: { dtype: i32, lanes: 1 } };
}
