/** Operations that act on each lane of a vector by itself: both backends write a scalar form and repeat it. */
import type { Op } from "../../dsl/ir.ts";

export type LaneWise = Extract<Op, { readonly kind: "unary" | "binary" | "fma" | "select" | "convert" | "bitcast" }>;

/** What a prelude function that applies the operation lane by lane is called, before the types of its operands. */
export function laneWiseName(op: LaneWise): string {
  if (op.kind === "unary" || op.kind === "binary") return op.fn;
  return "to" in op ? `${op.kind}_${op.to.name}` : op.kind;
}
