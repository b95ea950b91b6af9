/** The benchmark's own parts, as far as they need no GPU: its shapes, data, statistics and reports. */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { emitCuda } from "../backends/cuda/emit.ts";
import { openWgsl, type WgslBackend } from "../backends/wgsl/index.ts";
import { cases, peers, tokenCounts } from "../playground/bench/cases.ts";
import { elementAt, fill, productOf } from "../playground/bench/data.ts";
import { candidates, empty, streamRead } from "../playground/bench/kernels.ts";
import type { Cell } from "../playground/bench/measure.ts";
import { floorUs, readmeWith, type Run, summary, table } from "../playground/bench/report.ts";
import { roofline } from "../playground/bench/roofline.ts";
import { geometricMean, interleaved, quantiles } from "../playground/bench/statistics.ts";
import { DeviceTensor } from "../backends/tensor.ts";
import { bf16, e4m3 } from "../dsl/index.ts";

let wgsl: WgslBackend;
beforeAll(async () => void (wgsl = await openWgsl()));
afterAll(() => wgsl.dispose());

test("shapes are there once each, and every peer's cell is one of them", () => {
  const keys = cases().map(({ dtype, out, N, K }) => [dtype, out, N, K].join());
  expect(new Set(keys).size).toBe(keys.length);
  expect(keys.length).toBeGreaterThan(40);
  const shapes = new Set(cases().map(({ dtype, N, K }) => [dtype, N, K].join()));
  for (const [key, { ratio, name }] of peers()) {
    expect(shapes).toContain(key.split(",").slice(0, 3).join());
    expect(ratio).toBeGreaterThan(0);
    expect(name).not.toBe("");
  }
});

test.each(["bf16", "e4m3"] as const)("the device's %s data are those of TypeScript, whole and small", async (dtype) => {
  const type = { bf16, e4m3 }[dtype];
  const count = 5000;
  const storage = wgsl.allocate(count * type.bytes);
  await fill(wgsl, dtype, storage, 11);
  const values = (await new DeviceTensor(storage, type, [count]).read()).values();
  const most = dtype === "bf16" ? 4 : 1;
  expect([...values]).toEqual(Array.from({ length: count }, (_, i) => elementAt(dtype, 11, i)));
  expect([Math.min(...values), Math.max(...values)]).toEqual([-most, most]);
  // No sum of products leaves the integers of f32, at any K of the shapes.
  expect(Math.max(...cases().map(({ K }) => K)) * most ** 2).toBeLessThan(2 ** 24);
  const product = productOf(dtype, 100, { seed: 11, start: 50 }, { seed: 11, start: 50 });
  expect(product).toBe(values.slice(50, 150).reduce((sum, value) => sum + value * value, 0));
});

test("the kernels of every cell and of the limits are traced and emitted", () => {
  for (const shape of cases()) {
    for (const M of tokenCounts) {
      expect(candidates(shape, M).length).toBeGreaterThan(0);
    }
  }
  expect(emitCuda(empty.ir).source).toContain("pdl_wait");
  expect(emitCuda(streamRead.ir).source).toContain("no_allocate");
});

class Moment {
  readonly #us: number;

  constructor(us: number) {
    this.#us = us;
  }

  async elapsedUs(since: unknown): Promise<number> {
    return this.#us - (since instanceof Moment ? since.#us : NaN);
  }

  [Symbol.dispose](): void {}
}

test("quantiles and means", async () => {
  expect(quantiles(Array.from({ length: 101 }, (_, i) => 100 - i))).toEqual({ p5: 5, median: 50, p95: 95 });
  expect(geometricMean([1, 4, 16])).toBeCloseTo(4);
  let [order, nowUs] = ["", 0];
  const graph = (name: string, us: number) => ({
    launches: 10,
    launch: () => void ((order += name), (nowUs += us)),
    record: () => new Moment(nowUs),
  });
  const [a, b] = await interleaved([graph("a", 20), graph("b", 30)], 2);
  expect([a?.median, b?.median]).toEqual([2, 3]);
  expect(order).toBe("ababab"); // one round to warm up
});

const cell = (M: number, us: number, cublas: number): Cell => {
  const same = (median: number) => ({ p5: median, median, p95: median });
  return {
    ...{ group: "router", where: "somewhere <&>", N: 256, K: 7168, dtype: "bf16", out: "f32", M },
    ...{
      kernel: "mma",
      trials: { mma: us },
      ours: same(us),
      oursHot: same(us),
      oursWithoutPdl: same(us + 1),
      noise: 0.01,
      bytes: 3.7e6,
      replays: 200,
      launches: 100,
    },
    ...{ cublas: same(cublas), cublasHot: same(cublas), cublasBest: same(cublas / 2) },
  };
};
const run: Run = {
  ...{
    date: "2026-11-23",
    device: "a device",
    cublasLt: "13.1.0",
    revision: "abc",
    replays: 2,
    failures: ["one failed"],
  },
  limits: { streamBytesPerUs: 4.4e6, emptyUs: 0.72, emptyWithoutPdlUs: 1.07 },
  cells: [cell(1, 2, 8), cell(8, 2.5, 4)],
};

test("the table, the summary and the README's table say what was measured", () => {
  const [, first] = table(run).split("\n");
  expect(first).toMatch(/256 {2}7168 {2}bf16.*mma.*2\.00.*1850.*8\.00 {2}4\.00.*4\.00 {2}2\.00/);
  expect(summary(run)).toMatch(
    /stream read 4\.40 TB\/s[^]*2\.53x \(2 cells\)[^]*slower than the best of 8 in 1: 8x256x7168 bf16\none failed/,
  );
  const marks = "a\n<!-- made by npm run bench -->\nold\n<!-- end of what it made -->\nb";
  const readme = readmeWith(marks, run);
  expect(readme).toMatch(/^a\n<!-- made by npm run bench -->\n\n\| N x K[^]*\n<!-- end of what it made -->\nb$/);
  expect(readme).toMatch(/\| 256 x 7168 bf16 \| somewhere <&> \| 2\.00 \(2\.0x\) \| - +\| - +\| 2\.50 \(0\.8x\) \| - /);
  expect(() => readmeWith("no marks", run)).toThrow("no <!-- made");
  expect(floorUs({ bytes: 44e6 }, run.limits)).toBeCloseTo(10);
  expect(floorUs({ bytes: 4 }, run.limits)).toBe(0.72);
});

test("the README's table is made from the run in the repository, which went through every cell", () => {
  const read = (path: string): string => readFileSync(new URL(path, import.meta.url), "utf8");
  const stored = JSON.parse(read("../playground/bench/h200.json")) as Run;
  const readme = read("../README.md");
  expect(readmeWith(readme, stored)).toBe(readme);
  expect(roofline(stored)).toBe(read("../playground/bench/h200.svg"));
  expect(stored.cells.length).toBe(cases().length * tokenCounts.length);
  expect(stored.failures).toEqual([]);
});

test("the roofline has a point for each time, between its axes", () => {
  const svg = roofline(run);
  expect(svg.match(/<title>/g)?.length).toBe(4);
  const places = [...svg.matchAll(/cx="([\d.]+)" cy="([\d.]+)"/g)].map(([, x, y]) => [Number(x), Number(y)] as const);
  for (const [x, y] of places) {
    expect(x).toBeGreaterThanOrEqual(70);
    expect(x).toBeLessThanOrEqual(840);
    expect(y).toBeGreaterThanOrEqual(40);
    expect(y).toBeLessThanOrEqual(470);
  }
  expect(svg).not.toMatch(/NaN|undefined/);
});
