/** Operations that act on each lane of a vector by itself: both backends write a scalar form and repeat it. */
import type { Op, Value } from "../../dsl/ir.ts";

export type LaneWise = Extract<Op, { readonly kind: "unary" | "binary" | "fma" | "select" | "convert" | "bitcast" }>;

export function laneWiseOperands(op: LaneWise): readonly Value[] {
  switch (op.kind) {
    case "unary":
    case "convert":
    case "bitcast":
      return [op.a];
    case "binary":
      return [op.a, op.b];
    case "fma":
      return [op.a, op.b, op.c];
    case "select":
      return [op.condition, op.yes, op.no];
  }
}
