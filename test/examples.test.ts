/**
 * The examples in the doc comments of the DSL are true, and every public operation is in one.
 *
 * An example is traced in a kernel of its own, with the names of `tegula`, `tegula/layout` and `scopeOf` below. A line
 * `expression // result` is compared: an Expr by its constant or type, tiles and fragments by their layout, all else as
 * text. `// SomeError: part of the message` says what is thrown.
 */
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import * as tegula from "../dsl/index.ts";
import { formatType } from "../dsl/ir.ts";
import * as layout from "../dsl/layout/index.ts";

const { bf16, bool, Expr, f32, Fragment, frozen, input, kernel, mmaAtoms, output, size, Tile, tiledMma, wgmmaAtom } =
  tegula;

const folder = new URL("../dsl/", import.meta.url);
const sources = readdirSync(folder, { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".ts"))
  .map((file) => ({ file, text: readFileSync(new URL(file, folder), "utf8") }));

function examplesIn(text: string): readonly string[] {
  const blocks = text.matchAll(/^ *\* ```ts\n([^]*?)^ *\* ```$/gm);
  return [...blocks].map(([, block = ""]) => block.replace(/^ *\* ?/gm, "").trim());
}

type Check = (run: () => unknown, result: string) => void;

/** Runs an example in which `expression // result` calls `check`. */
function runExample(code: string, scope: Readonly<Record<string, unknown>>, check: Check): void {
  const checked = code.replace(
    /^(\S.*[^;,{(]) \/\/ (.+)$/gm,
    (_, expression: string, result: string) => `check(() => (${expression}), ${JSON.stringify(result)});`,
  );
  const all = { ...scope, check };
  new Function(...Object.keys(all), `{ ${checked}\n }`)(...Object.values(all));
}

const compare: Check = (run, result) => {
  const [, error, message] = /^(\w+Error): (.+)$/.exec(result) ?? [];
  if (error === undefined || message === undefined) expect(shown(run())).toBe(result);
  else expect(run).toThrow(expect.objectContaining({ name: error, message: expect.stringContaining(message) }));
};

function shown(value: unknown): string {
  if (value instanceof Tile || value instanceof Fragment) return String(value.layout);
  if (!(value instanceof Expr)) return layout.print(value as layout.Nested<unknown>);
  const { op, type } = value.value;
  if (op.kind !== "const") return formatType(type);
  return String(type.dtype.name === "bool" ? op.value === 1 : op.value);
}

const rows = size("rows", { max: 64 });
const params = {
  w: frozen(bf16, [64, 512], { alignBytes: 16 }),
  x: input(bf16, [64, 128], { alignBytes: 16 }),
  y: output(f32, [64, 64], { alignBytes: 16 }),
  table: frozen(f32, [rows]),
};

type Body = Parameters<typeof kernel<typeof params>>[1];

/** What examples take for granted. */
function scopeOf(...[t, { w }]: Parameters<Body>): Readonly<Record<string, unknown>> {
  const { x, y } = t.pdl.wait();
  const rowMajor = (m: number, n: number) => layout.makeLayout([m, n], [n, 1]);
  const operand = layout.composition(new layout.Swizzle(3, 3, 3), rowMajor(64, 64));
  const mma = tiledMma(mmaAtoms.m16n8k16.bf16).slice(t.lane);
  const wgmma = tiledMma(wgmmaAtom(64, bf16, bf16)).slice(t.thread);
  const gX = x.tile([16, 16], [0, 0]);
  const gA = mma.partitionA(w.tile([16, 64], [0, 0]));
  const gB = mma.partitionB(x.tile([8, 64], [0, 0]));
  return {
    ...{ t, w, x, y, rows },
    ...{ gX, rX: t.fragment(gX), sX: t.sharedTile(bf16, rowMajor(16, 16)), line: t.shared(bf16, [128]) },
    // For m16n8k16.
    ...{ mma, gA, rA: t.fragment(gA), gB, rB: t.fragment(gB), rC: t.accumulator(mma, [16, 8]) },
    ...{ sA: t.sharedTile(bf16, rowMajor(16, 16)), rows8: t.shared(bf16, [32, 8]) },
    ...{ a8: x.loadVec([0, 0], 8), b4: x.loadVec([0, 0], 4), c4: t.reg(f32, 0, 4).get() },
    // For wgmma.
    wide: t.accumulator(wgmma, [64, 64]),
    left: t.sharedTile(bf16, operand, { alignBytes: 1024 }),
    right: t.sharedTile(bf16, operand, { alignBytes: 1024 }),
    // For copies beside the thread.
    ...{ barrier: t.mbarrier(1, 1), boxes: t.tensorMap(x, [16, 64]), box: t.sharedTile(bf16, rowMajor(16, 64)) },
  };
}

describe.each(sources.filter(({ text }) => examplesIn(text).length > 0))("$file", ({ file, text }) => {
  test.each(examplesIn(text).map((code) => ({ code, title: code.split("\n")[0] })))("$title", ({ code }) => {
    if (file.startsWith("layout/")) return runExample(code, layout, compare);
    kernel({ name: "example", grid: 4, block: 128, cluster: 2, params }, (t, early) => {
      // A condition that nothing uses would be a mistake.
      const used = (value: unknown): unknown => {
        if (value instanceof Expr && value.dtype === bool) t.when(value as tegula.Expr<"bool">, () => {});
        return value;
      };
      const scope = { ...layout, ...tegula, ...scopeOf(t, early) };
      runExample(code, scope, (run, result) => compare(() => used(run()), result));
    });
  });
});

test("a result that is wrong is noticed", () => {
  expect(() => runExample("1 + 1 // 3", {}, compare)).toThrow();
  expect(() => runExample("shapeDiv(4, 6) // LayoutError: nothing", layout, compare)).toThrow();
});

/** Files without operations of authors. What errors say is in the tests of mistakes. */
const internal = /^(verify\/|trace\.ts$|errors\.ts$)/;
/** Where the examples of two files without comments on operations are. */
const elsewhere: Readonly<Record<string, string>> = { "numerics.ts": "dtype.ts", "print.ts": "kernel.ts" };

/** A doc comment, if there is one, and the public method right below it. */
const member = /((?:^ {2}\/\*\*(?:(?!\*\/)[^])*\*\/\n)?)^ {2}(?:static )?([a-z]\w*)[<(]/gm;

/** How operations are written in an example, as patterns: `x.add(`, `tiledMma(`, `dims.mul(`. */
function operationsIn(file: string, text: string): readonly string[] {
  const names: string[] = [];
  for (const [, body = ""] of text.matchAll(/^export (?:class|interface) [^]*?\{\n([^]*?)^\}/gm)) {
    for (const [, comment = "", name = ""] of body.matchAll(member)) {
      if (!comment.includes("@internal") && !/^(constructor|toString)$/.test(name)) names.push(`\\.${name}\\(`);
    }
  }
  const exported: Readonly<Record<string, unknown>> = file.startsWith("layout/") ? layout : tegula;
  for (const [, name = ""] of text.matchAll(/^export (?:function|const) (\w+)/gm)) {
    const value = exported[name];
    if (typeof value === "function") names.push(`(?<![.\\w])${name}\\(`);
    else if (typeof value === "object" && value !== null) {
      const members = Object.entries(value).filter(([, member]) => typeof member === "function");
      names.push(...members.map(([member]) => `\\b${name}\\.${member}\\(`));
    }
  }
  return [...new Set(names)];
}

test("every public operation is in an example of its file", () => {
  const operations = sources
    .filter(({ file }) => !internal.test(file))
    .flatMap(({ file, text }) => operationsIn(file, text).map((pattern) => ({ file, pattern })));
  expect(operations.length).toBeGreaterThan(200);
  const without = operations.filter(({ file, pattern }) => {
    const documented = sources.find((source) => source.file === (elsewhere[file] ?? file));
    return !new RegExp(pattern).test(examplesIn(documented?.text ?? "").join("\n"));
  });
  expect(without).toEqual([]);
});
