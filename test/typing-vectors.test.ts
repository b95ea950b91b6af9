/** Typing of operations on vectors: every choice of lanes is accepted where the IR has a meaning for it, and nowhere else. */
import { describe, expect, test } from "vitest";
import { bool, type DType, DTypeError, f32, i32 } from "../dsl/index.ts";
import { formatType, type LaneCount, type Op, type Value } from "../dsl/ir.ts";
import { resultType } from "../dsl/typing.ts";

const at = { file: "by-hand.ts", line: 1, column: 1 };
const counts: readonly LaneCount[] = [1, 2, 4, 8, 16];

function value(dtype: DType, lanes: LaneCount): Value {
  return { id: 0, type: { dtype, lanes }, op: { kind: "const", value: 0 }, at, name: undefined };
}

/** The type of an operation's result, or "refused". */
function typeOf(op: Parameters<typeof resultType>[0]): string {
  try {
    return formatType(resultType(op, at));
  } catch (error) {
    if (error instanceof DTypeError) return "refused";
    throw error;
  }
}

const formatted = (dtype: DType, lanes: number): string => (lanes === 1 ? dtype.name : `${dtype.name}x${lanes}`);

describe("lanes", () => {
  test("a slice begins at a multiple of its own lanes and ends within the vector", () => {
    for (const of of counts) {
      for (const lanes of counts) {
        for (let first = -2; first <= 17; first++) {
          const fits = first >= 0 && first % lanes === 0 && first + lanes <= of;
          const op = { kind: "slice", a: value(f32, of), first, lanes } satisfies Op;
          expect(typeOf(op), `${lanes} of ${of} from ${first}`).toBe(fits ? formatted(f32, lanes) : "refused");
        }
      }
    }
  });

  test("a condition selects whole vectors, or lane by lane as many", () => {
    for (const conditions of counts) {
      for (const lanes of counts) {
        const [yes, no] = [value(i32, lanes), value(i32, lanes)];
        const op = { kind: "select", condition: value(bool, conditions), yes, no } satisfies Op;
        const fits = conditions === 1 || conditions === lanes;
        expect(typeOf(op), `${conditions} conditions, ${lanes} lanes`).toBe(fits ? formatted(i32, lanes) : "refused");
      }
    }
  });

  test("parts of one type join to as many lanes as there is a vector for", () => {
    for (const lanes of counts) {
      for (let parts = 1; parts <= 17; parts++) {
        const op = { kind: "join", parts: Array.from({ length: parts }, () => value(f32, lanes)) } satisfies Op;
        const fits = parts > 1 && (counts as readonly number[]).includes(parts * lanes);
        expect(typeOf(op), `${parts} of ${lanes}`).toBe(fits ? formatted(f32, parts * lanes) : "refused");
      }
    }
  });

  test("operands of arithmetic have the same number of them", () => {
    for (const a of counts) {
      for (const b of counts) {
        const op = { kind: "binary", fn: "add", a: value(f32, a), b: value(f32, b) } satisfies Op;
        expect(typeOf(op)).toBe(a === b ? formatted(f32, a) : "refused");
        const dot = { kind: "dot", a: value(f32, a), b: value(f32, b), c: value(f32, 1) } satisfies Op;
        expect(typeOf(dot)).toBe(a === b ? "f32" : "refused");
      }
    }
  });
});
