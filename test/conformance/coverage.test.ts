/** What conformance kernels must have between them is asked for by files that there are, and is seen where it is. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { bf16, f32, i32, input, kernel, output, scalar, size } from "../../dsl/index.ts";
import { coveredFiles, featuresOf, requiredOf } from "./coverage.ts";

test("every kind of the IR belongs to a file of conformance tests, which asks for it at its end", () => {
  for (const file of coveredFiles) {
    const source = readFileSync(new URL(`${file}.test.ts`, import.meta.url), "utf8");
    expect(source, file).toMatch(/^conformance\(/m);
  }
  const required = coveredFiles.flatMap(requiredOf);
  expect(new Set(required).size).toBe(required.length);
  expect(requiredOf("operations")).toEqual(expect.arrayContaining(["binary: shl u32", "unary: tanh f32", "fma"]));
  expect(requiredOf("operations")).not.toContain("binary: shl f32"); // which typing refuses
  expect(requiredOf("conversions")).toEqual(expect.arrayContaining(["convert: f32 to e4m3", "bitcast: i8 to e5m2"]));
  expect(requiredOf("memory")).toEqual(expect.arrayContaining(["load: shared bf16 x8", "atomic: xor u32 global"]));
  expect(requiredOf("tiles")).toEqual(expect.arrayContaining(["mma: mma_m16n8k16_bf16", "cluster of 8"]));
});

test("features are found in statements, operations and their operands, inner blocks too", () => {
  const N = size("N");
  const { ir } = kernel(
    { name: "some", grid: N, block: 32, params: { s: scalar(i32), x: input(bf16, [N, 64]), y: output(f32, [N]) } },
    (t, { s }) => {
      const { x, y } = t.pdl.wait();
      for (const k of t.range(s)) {
        t.when(k.lt(N), () => y.store([k], x.load([k, t.lane.add(1)]).to(f32)));
      }
    },
  );
  const found = featuresOf(ir);
  for (const feature of [
    ...["for: not unrolled", "scalar: i32", "if", "binary: lt i32", "size", "store: global f32 x1", "cluster of 1"],
    ...["load: global bf16 x1", "load: normal", "convert: bf16 to f32", "id: lane", "induction", "const", "pdlWait"],
  ]) {
    expect(found).toContain(feature);
  }
  for (const absent of ["for: unrolled", "load: guarded", "barrier", "id: warp"]) expect(found).not.toContain(absent);
});
