/** Folding of constants against exact arithmetic, and the typing rules over all dtypes. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { bool, type DType, dtypes, f32, kernel, output, u32 } from "../dsl/index.ts";
import { computeInteger } from "../dsl/fold.ts";
import type { BinaryFn, Value } from "../dsl/ir.ts";
import type { Location } from "../dsl/source.ts";
import { convertible, resultType } from "../dsl/typing.ts";
import { caught } from "./mistake.ts";

const at: Location = { file: "by-hand.ts", line: 1, column: 1 };
const constant = (dtype: DType, value: number): Value => ({
  id: 0,
  type: { dtype, lanes: 1 },
  op: { kind: "const", value },
  at,
  name: undefined,
});

describe("folding", () => {
  /** Integer arithmetic as ir.ts words it, in exact numbers. */
  const exact: { readonly [F in BinaryFn]: (x: bigint, y: bigint, signed: boolean) => bigint | boolean } = {
    add: (x, y) => x + y,
    sub: (x, y) => x - y,
    mul: (x, y) => x * y,
    div: (x, y) => (y === 0n ? x : x / y),
    rem: (x, y) => (y === 0n ? 0n : x % y),
    min: (x, y) => (x < y ? x : y),
    max: (x, y) => (x > y ? x : y),
    and: (x, y) => x & y,
    or: (x, y) => x | y,
    xor: (x, y) => x ^ y,
    shl: (x, y) => x << (y & 31n),
    shr: (x, y) => x >> (y & 31n),
    eq: (x, y) => x === y,
    ne: (x, y) => x !== y,
    lt: (x, y) => x < y,
    le: (x, y) => x <= y,
    gt: (x, y) => x > y,
    ge: (x, y) => x >= y,
  };
  const wrapped = (result: bigint | boolean, signed: boolean): number | boolean => {
    if (typeof result === "boolean") return result;
    return Number(signed ? BigInt.asIntN(32, result) : BigInt.asUintN(32, result));
  };
  const edges = [0, 1, 2, 31, 32, 33, 2 ** 31 - 1, 2 ** 31];
  const word = fc.oneof(
    fc.constantFrom(...edges),
    fc.integer({ min: 0, max: 64 }),
    fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  );

  test.each(Object.keys(exact) as BinaryFn[])("%s agrees with exact arithmetic modulo 2^32", (fn) => {
    fc.assert(
      fc.property(word, word, fc.boolean(), (x, y, signed) => {
        const [a, b] = signed ? [x | 0, y | 0] : [x, y];
        const result = computeInteger(fn, a, b, signed);
        expect(result).toBe(wrapped(exact[fn](BigInt(a), BigInt(b), signed), signed));
      }),
      { numRuns: 300 },
    );
  });

  test("of traced constants leaves a constant, and of neutral operands the other", () => {
    const methods = ["add", "sub", "mul", "div", "rem", "min", "max", "and", "or", "xor", "shl", "shr"] as const;
    fc.assert(
      fc.property(fc.constantFrom(...methods), word, word, (fn, x, y) => {
        kernel({ name: "folds", grid: 1, block: 32, params: { y: output(u32, [1]) } }, (t) => {
          t.pdl.wait();
          const folded = t.const(u32, x)[fn](t.const(u32, y)).value;
          expect(folded.op).toEqual({ kind: "const", value: computeInteger(fn, x, y, false) });
          const lane = t.lane.to(u32);
          const neutral = { add: 0, sub: 0, mul: 1, div: 1, or: 0, xor: 0, shl: 0, shr: 0 };
          if (fn in neutral) expect(lane[fn](neutral[fn as "add"]).value).toBe(lane.value);
        });
      }),
      { numRuns: 100 },
    );
  });
});

describe("typing", () => {
  const all = Object.values(dtypes);
  const pairs = all.flatMap((a) => all.map((b) => [a, b] as const));

  test("arithmetic takes two operands of one numeric dtype, comparisons make bool", () => {
    for (const [a, b] of pairs) {
      const [x, y] = [constant(a, 1), constant(b, 1)];
      const typeOf = (fn: BinaryFn): unknown => caught(() => resultType({ kind: "binary", fn, a: x, b: y }, at));
      const numeric = ["f32", "i32", "u32"].includes(a.name) && a === b;
      expect(typeOf("add") === undefined).toBe(numeric);
      expect(typeOf("rem") === undefined).toBe(numeric && a !== f32);
      expect(typeOf("eq") === undefined).toBe(numeric || (a === bool && b === bool));
      if (numeric) expect(resultType({ kind: "binary", fn: "lt", a: x, b: y }, at)).toEqual({ dtype: bool, lanes: 1 });
    }
  });

  test("every dtype converts to every other in one step or through f32 or u32", () => {
    for (const [a, b] of pairs) {
      if (a === b) continue;
      const between = a.kind === "float" || b.kind === "float" ? f32 : u32;
      expect(convertible(a, b) || (convertible(a, between) && convertible(between, b)), `${a.name} to ${b.name}`).toBe(
        true,
      );
    }
  });

  test("bits are reinterpreted between dtypes of one size only", () => {
    for (const [a, b] of pairs) {
      const error = caught(() => resultType({ kind: "bitcast", a: constant(a, 1), to: b }, at));
      expect(error === undefined).toBe(a.bytes === b.bytes && a !== bool && b !== bool);
    }
  });
});
