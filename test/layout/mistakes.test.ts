/** What the layout algebra refuses, and what it says. */
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import {
  _,
  blockedProduct,
  complement,
  composition,
  ComposedLayout,
  crd2idx,
  get,
  idx2crd,
  Layout,
  LayoutError,
  leftInverse,
  logicalDivide,
  makeLayout,
  makeOrderedLayout,
  parse,
  parseLayout,
  rightInverse,
  slice,
  Swizzle,
  take,
  tileToShape,
  zippedDivide,
} from "../../dsl/layout/index.ts";
import { TegulaError } from "../../dsl/index.ts";

const layout = parseLayout("((2,2),8):((1,4),8)");

/** Everything but the position. */
function message(refused: () => unknown): string {
  try {
    refused();
  } catch (error) {
    expect(error).toBeInstanceOf(LayoutError);
    expect(error).toBeInstanceOf(TegulaError);
    const { message, at } = error as LayoutError;
    expect(at?.file ?? "test/layout/mistakes.test.ts").toBe("test/layout/mistakes.test.ts");
    return message.replace(/\n {2}at .*/, "");
  }
  return "nothing";
}

describe("every refusal shows the layouts and says why", () => {
  const refusals: readonly (readonly [string, () => unknown])[] = [
    ["shape and stride", () => new Layout([4, 8], [1, [4, 8]])],
    ["no extent is 0", () => makeLayout([4, 0])],
    ["fractions", () => makeLayout(4, 0.5)],
    ["order", () => makeOrderedLayout([4, 8], [1, [2, 3]])],
    ["coordinate rank", () => crd2idx([1, 2, 3], layout)],
    ["coordinate depth", () => crd2idx([1, [2, 3]], layout)],
    ["mode", () => get(layout, 2)],
    ["modes", () => take(layout, 1, 3)],
    ["slice", () => slice([_, 1, 2], layout)],
    ["composition: stride", () => composition(parse("(2,3):(2,64)"), parse("(2,3):(3,1)"))],
    ["composition: shape", () => composition(parse("(6,4):(1,8)"), parse("8:1"))],
    ["composition: carry", () => composition(parse("(4,2):(1,16)"), parse("(2,2):(3,3)"))],
    ["composition: tiler", () => composition(layout, [2, 2, 2])],
    ["composition: swizzle", () => composition(parseLayout("(6,6):(6,1)"), new Swizzle(1, 0, 2))],
    ["composition: swizzles", () => composition(new Swizzle(1, 0, 1), new Swizzle(1, 0, 2))],
    [
      "composition: offset",
      () => composition(parseLayout("64:1"), parse("Sw<1,0,2> o 4 o (4,4):(4,1)") as ComposedLayout),
    ],
    ["complement", () => complement(parse("(3,2,8):(16,8,2)"), 1024)],
    ["complement of coordinates", () => complement(parse("(4,8):(1@0,1@1)"))],
    ["leftInverse", () => leftInverse(parse("(3,6,4):(2,12,3)"))],
    ["rightInverse", () => rightInverse(parse("Sw<1,0,2> o 4 o (4,4):(4,1)"))],
    ["divide", () => logicalDivide(layout, [2, 2, 2])],
    ["divide under an underscore", () => zippedDivide(parse("(4,8):(1,4)"), [_, 4])],
    ["product", () => blockedProduct(layout, parseLayout("(2,3):(3,1)"))],
    ["tileToShape", () => tileToShape(parse("(8,8):(8,1)"), [16, 30])],
    ["swizzle", () => new Swizzle(3, 0, 2)],
    ["text: stride missing", () => parse("(4,8)")],
    ["text: parenthesis", () => parse("(4,8:(1,4)")],
    ["text: swizzle alone", () => parse("Sw<2,0,3>")],
    ["text: trailing", () => parse("4:1 4")],
    ["text: coordinates", () => parseLayout("(4,8):(1@0,1@1)")],
  ];
  test("messages", () => {
    expect(`\n${refusals.map(([what, refused]) => `${what}: ${message(refused)}`).join("\n")}\n`)
      .toMatchInlineSnapshot(`
        "
        shape and stride: (4,8):(1,(4,8)) is no layout
          Shape and stride need the same parentheses and whole numbers, the extents other than 0
        no extent is 0: (4,0):(1,4) is no layout
          Shape and stride need the same parentheses and whole numbers, the extents other than 0
        fractions: 4:0.5 is no layout
          Shape and stride need the same parentheses and whole numbers, the extents other than 0
        order: The shape (4,8) and the order (1,(2,3)) of its modes differ in profile
        coordinate rank: The coordinate (1,2,3) doesn't have the rank of the shape ((2,2),8)
        coordinate depth: The coordinate (2,3) is more deeply nested than the shape 8
        mode: ((2,2),8) has no mode 2
        modes: ((2,2),8):((1,4),8) has no modes 1 up to 3
        slice: The slice (_,1,2) doesn't fit ((2,2),8):((1,4),8)
        composition: stride: composition: (2,3):(2,64) o (2,3):(3,1) is not a layout: the step 3 and the extent 2 don't divide each other (Stride Divisibility Condition)
        composition: shape: composition: (6,4):(1,8) o 8:1 is not a layout: a mode of 6 elements doesn't divide 8 elements (Shape Divisibility Condition)
        composition: carry: composition: (4,2):(1,16) o (2,2):(3,3) is not a layout: the modes of the right one together step over the end of a mode of (4,2):(1,16)
        composition: tiler: composition: the tiler (2,2,2) has more modes than ((2,2),8):((1,4),8)
        composition: swizzle: composition: (6,6):(6,1) o Sw<1,0,2> is not a layout with a swizzle on its left
        composition: swizzles: composition: Sw<1,0,1> o Sw<1,0,2> is not one swizzle
          Only swizzles of one shift merge
        composition: offset: composition: 64:1 o (Sw<1,0,2> o 4 o (4,4):(4,1)) needs an offset of 0 on the right
        complement: complement of (3,2,8):(16,8,2): the mode 2:8 begins among the 16 offsets of the modes before it (Non-injective Layout detected in complement)
        complement of coordinates: complement needs a layout with numbers as strides, not (4,8):(1@0,1@1)
        leftInverse: leftInverse of (3,6,4):(2,12,3): the stride 3 is not a multiple of the stride 2 (Left inverse divisibility condition)
        rightInverse: rightInverse of Sw<1,0,2> o 4 o (4,4):(4,1): with the offset 4, no element lies at 0
        divide: logicalDivide: the tiler (2,2,2) has more modes than ((2,2),8):((1,4),8)
        divide under an underscore: The mode 4:1 doesn't split into a tile and the rest
          Under an underscore the mode itself must have two modes, the tile and the rest
        product: logicalProduct of ((2,2),8):((1,4),8) and (2,3):(3,1): composition: (2,3):(2,64) o (2,3):(3,1) is not a layout: the step 3 and the extent 2 don't divide each other (Stride Divisibility Condition)
        tileToShape: tileToShape: (8,8):(8,1) doesn't divide the shape (16,30)
        swizzle: Sw<3,0,2> is no swizzle: it needs bits >= 0, base >= 0, |shift| >= bits and 31 bits at most
        text: stride missing: "(4,8)" is no layout: expected ":" at its end
        text: parenthesis: "(4,8:(1,4)" is no layout: expected "," or ")" at ":(1,4)"
        text: swizzle alone: "Sw<2,0,3>" is no layout: expected "o" at its end
        text: trailing: "4:1 4" is no layout: expected the end at "4"
        text: coordinates: parseLayout needs a layout with numbers as strides, not (4,8):(1@0,1@1)
        "
      `);
  });
});

test("a number may run past the end of a layout, as in CuTe; idx2crd wraps", () => {
  expect(crd2idx(40, layout)).toBe(80);
  expect(idx2crd(33, [4, 8])).toEqual([1, 0]);
});

test("nothing here needs Node", () => {
  const folder = new URL("../../dsl/layout/", import.meta.url);
  const imports = readdirSync(folder).flatMap((file) =>
    [...readFileSync(new URL(file, folder), "utf8").matchAll(/ from "([^"]+)"/g)].map(([, name]) => name),
  );
  const outside = new Set(imports.filter((name) => !name?.startsWith("./")));
  expect([...outside].toSorted()).toEqual(["../errors.ts", "../source.ts"]);
});
