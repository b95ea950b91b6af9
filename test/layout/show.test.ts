/** Pictures of layouts: tables for a terminal and SVG. */
import { expect, test } from "vitest";
import { LayoutError, parse, parseLayout, show, showSvg } from "../../dsl/layout/index.ts";

test("a table of offsets", () => {
  expect(`\n${show(parse("(4,(2,3)):(1,(4,8))"))}\n`).toMatchInlineSnapshot(`
    "
    (4,(2,3)):(1,(4,8))
         0    1    2    3    4    5
      +----+----+----+----+----+----+
    0 |  0 |  4 |  8 | 12 | 16 | 20 |
      +----+----+----+----+----+----+
    1 |  1 |  5 |  9 | 13 | 17 | 21 |
      +----+----+----+----+----+----+
    2 |  2 |  6 | 10 | 14 | 18 | 22 |
      +----+----+----+----+----+----+
    3 |  3 |  7 | 11 | 15 | 19 | 23 |
      +----+----+----+----+----+----+
    "
  `);
});

test("a table for each coordinate beyond the second mode", () => {
  expect(`\n${show(parse("(2,2,2):(4,2,1)"))}\n`).toMatchInlineSnapshot(`
    "
    (2,2,2):(4,2,1)
    (_,_,0)
        0   1
      +---+---+
    0 | 0 | 2 |
      +---+---+
    1 | 4 | 6 |
      +---+---+
    (_,_,1)
        0   1
      +---+---+
    0 | 1 | 3 |
      +---+---+
    1 | 5 | 7 |
      +---+---+
    "
  `);
});

test("a swizzled layout, and coordinates of an identity layout", () => {
  expect(`\n${show(parse("Sw<1,0,2> o 0 o (4,4):(4,1)"))}\n${show(parse("(2,2):(1@0,1@1)"))}\n`).toMatchInlineSnapshot(`
    "
    Sw<1,0,2> o 0 o (4,4):(4,1)
         0    1    2    3
      +----+----+----+----+
    0 |  0 |  1 |  2 |  3 |
      +----+----+----+----+
    1 |  5 |  4 |  7 |  6 |
      +----+----+----+----+
    2 |  8 |  9 | 10 | 11 |
      +----+----+----+----+
    3 | 13 | 12 | 15 | 14 |
      +----+----+----+----+
    (2,2):(1@0,1@1)
            0       1
      +-------+-------+
    0 | (0,0) | (0,1) |
      +-------+-------+
    1 | (1,0) | (1,1) |
      +-------+-------+
    "
  `);
});

test("which thread holds which element: operand B of mma.m16n8k8, 8 x 8", () => {
  expect(`\n${show(parseLayout("((4,8),2):((16,1),8)"), { tile: [8, 8] })}\n`).toMatchInlineSnapshot(`
    "
    ((4,8),2):((16,1),8)
    (4,8) threads, 2 values
             0        1        2        3        4        5        6        7
      +--------+--------+--------+--------+--------+--------+--------+--------+
    0 |  T0 V0 |  T0 V1 |  T1 V0 |  T1 V1 |  T2 V0 |  T2 V1 |  T3 V0 |  T3 V1 |
      +--------+--------+--------+--------+--------+--------+--------+--------+
    1 |  T4 V0 |  T4 V1 |  T5 V0 |  T5 V1 |  T6 V0 |  T6 V1 |  T7 V0 |  T7 V1 |
      +--------+--------+--------+--------+--------+--------+--------+--------+
    2 |  T8 V0 |  T8 V1 |  T9 V0 |  T9 V1 | T10 V0 | T10 V1 | T11 V0 | T11 V1 |
      +--------+--------+--------+--------+--------+--------+--------+--------+
    3 | T12 V0 | T12 V1 | T13 V0 | T13 V1 | T14 V0 | T14 V1 | T15 V0 | T15 V1 |
      +--------+--------+--------+--------+--------+--------+--------+--------+
    4 | T16 V0 | T16 V1 | T17 V0 | T17 V1 | T18 V0 | T18 V1 | T19 V0 | T19 V1 |
      +--------+--------+--------+--------+--------+--------+--------+--------+
    5 | T20 V0 | T20 V1 | T21 V0 | T21 V1 | T22 V0 | T22 V1 | T23 V0 | T23 V1 |
      +--------+--------+--------+--------+--------+--------+--------+--------+
    6 | T24 V0 | T24 V1 | T25 V0 | T25 V1 | T26 V0 | T26 V1 | T27 V0 | T27 V1 |
      +--------+--------+--------+--------+--------+--------+--------+--------+
    7 | T28 V0 | T28 V1 | T29 V0 | T29 V1 | T30 V0 | T30 V1 | T31 V0 | T31 V1 |
      +--------+--------+--------+--------+--------+--------+--------+--------+
    "
  `);
});

test("elements that several threads hold, or none", () => {
  expect(`\n${show(parseLayout("(4,2):(0,2)"), { tile: [2, 2] })}\n`).toMatchInlineSnapshot(`
    "
    (4,2):(0,2)
    4 threads, 2 values
               0          1
      +----------+----------+
    0 | T0 V0 +3 | T0 V1 +3 |
      +----------+----------+
    1 |        - |        - |
      +----------+----------+
    "
  `);
});

/** Tag names in order, checked to nest. */
function tags(svg: string): readonly string[] {
  const open: string[] = [];
  const names: string[] = [];
  for (const [, closing, name = "", selfClosing] of svg.matchAll(/<(\/?)([a-z]+)[^<>]*?(\/?)>/g)) {
    if (closing) expect(open.pop()).toBe(name);
    else if (!selfClosing) open.push(name);
    if (!closing) names.push(name);
  }
  expect(open).toEqual([]);
  return names;
}

test("the SVG is well-formed, with a cell for each element", () => {
  const svg = showSvg(parse("Sw<2,0,3> o 0 o (8,8):(8,1)"));
  expect(tags(svg).filter((name) => name === "rect")).toHaveLength(64 + 1);
  expect(svg).toContain("<title>Sw&lt;2,0,3&gt; o 0 o (8,8):(8,1)</title>");
  expect(tags(showSvg(parse("(2,3,4):(1,2,6)"))).filter((name) => name === "g")).toHaveLength(4);
});

test("thread-value cells are coloured by thread", () => {
  const svg = showSvg(parseLayout("((4,8),(2,2)):((32,1),(16,8))"), { tile: [16, 8] });
  const cells = [...svg.matchAll(/fill="(hsl[^"]*)"[^>]*><text><tspan[^>]*>T(\d+)</g)];
  expect(cells).toHaveLength(128);
  const colours = new Map(cells.map(([, colour, thread]) => [Number(thread), colour]));
  for (const [, colour, thread] of cells) expect(colour).toBe(colours.get(Number(thread)));
  expect(new Set(colours.values()).size).toBe(16);
});

test("what can't be drawn is refused", () => {
  expect(() => show(parse("(512,512):(1,512)"))).toThrow("a picture has at most 65536");
  expect(() => show(parse("(32,4):(1,32)"), { tile: [8, 8] })).toThrow(LayoutError);
  expect(() => show(parse("128:1"), { tile: [16, 8] })).toThrow("no thread-value layout of a 16 x 8 tile");
});
