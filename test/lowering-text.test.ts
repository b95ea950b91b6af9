/** Text that C and WGSL have in common: expressions keep their meaning with the parentheses left out, literals their value. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { atom, infix, shortestF32, type Text } from "../backends/lowering/text.ts";
import { decode, f32 } from "../dsl/index.ts";

/** JavaScript has these operators too, with the ranks that they have in C and WGSL where parentheses are left out. */
const operators = ["+", "-", "*", "/", "%", "<", ">=", "==", "&&", "||", "&", "|", "^", "<<"] as const;

/** An expression, and the same with all parentheses. */
interface Both {
  readonly text: Text;
  readonly full: string;
}

const { tree } = fc.letrec<{ tree: Both }>((tie) => ({
  tree: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.integer({ min: 1, max: 9 }).map((value) => ({ text: atom(String(value)), full: String(value) })),
    fc.tuple(fc.constantFrom(...operators), tie("tree"), tie("tree")).map(([operator, a, b]): Both => ({
      text: infix(operator, a.text, b.text),
      full: `(${a.full} ${operator} ${b.full})`,
    })),
  ),
}));

const valueOf = (code: string): unknown => new Function(`return ${code}`)();

describe("infix", () => {
  test("means the same without the parentheses that it leaves out", () => {
    fc.assert(
      fc.property(tree, ({ text, full }) => {
        expect(valueOf(text.code), text.code).toEqual(valueOf(full));
      }),
      { numRuns: 3000 },
    );
  });

  test("leaves out what nobody needs", () => {
    const [a, b, c] = ["a", "b", "c"].map(atom) as [Text, Text, Text];
    expect(infix("-", infix("-", a, b), c).code).toBe("a - b - c");
    expect(infix("-", a, infix("-", b, c)).code).toBe("a - (b - c)");
    expect(infix("+", infix("*", a, b), c).code).toBe("a * b + c");
    expect(infix("<", infix("+", a, b), c).code).toBe("a + b < c");
    expect(infix("&&", infix("<", a, b), infix("<", b, c)).code).toBe("a < b && b < c");
  });
});

test("a literal is the number, and no shorter text is", () => {
  const finite = fc
    .integer({ min: 0, max: 2 ** 32 - 1 })
    .map((bits) => decode(f32, bits))
    .filter(Number.isFinite);
  const digits = (text: string): number =>
    (
      text
        .replace(/e.*$/, "")
        .replace(/\D/g, "")
        .replace(/^0+|0+$/g, "") || "0"
    ).length;
  fc.assert(
    fc.property(finite, (value) => {
      const text = shortestF32(value);
      expect(Object.is(Math.fround(Number(text)), value), text).toBe(true);
      const shorter = value.toPrecision(Math.max(1, digits(text) - 1));
      if (digits(text) > 1) expect(Math.fround(Number(shorter))).not.toBe(value);
      expect(text).toMatch(/[.e]/);
    }),
    {
      numRuns: 3000,
      examples: [
        [0],
        [-0],
        [Math.fround(1 / 3)],
        [16777218],
        [Math.fround(0.1)],
        [2 ** -149],
        [(2 - 2 ** -23) * 2 ** 127],
      ],
    },
  );
});
