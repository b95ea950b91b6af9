/** What a statement does to global memory. */
import type { Stmt, Tensor } from "../ir.ts";
import { isTileStmt, tileAccesses } from "../ir-tile.ts";

export interface Touch {
  readonly memory: Tensor;
  readonly reads: boolean;
  readonly writes: boolean;
}

export function touches(stmt: Stmt): readonly Touch[] {
  if (isTileStmt(stmt)) {
    return tileAccesses(stmt).flatMap(({ memory, writes }) =>
      memory.kind === "tensor" ? [{ memory, reads: !writes, writes }] : [],
    );
  }
  if (stmt.kind === "store") {
    return stmt.memory.kind === "tensor" ? [{ memory: stmt.memory, reads: false, writes: true }] : [];
  }
  if (stmt.kind !== "let") return [];
  const { op } = stmt.value;
  if ((op.kind !== "load" && op.kind !== "atomic") || op.memory.kind !== "tensor") return [];
  return [{ memory: op.memory, reads: true, writes: op.kind === "atomic" }];
}
