/** The simulator's own face: arguments, schedules, what it counts, where it runs. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { createContext, runInContext } from "node:vm";
import { build } from "rolldown";
import { describe, expect, test } from "vitest";
import { simulate } from "../../backends/simulator/index.ts";
import {
  ArgumentError,
  bf16,
  f32,
  HostTensor,
  i32,
  inout,
  input,
  kernel,
  mmaAtoms,
  output,
  scalar,
  size,
} from "../../dsl/index.ts";

const range = (count: number): readonly number[] => Array.from({ length: count }, (_, i) => i);

describe("arguments", () => {
  const N = size("N", { multipleOf: 4, max: 64 });
  const scaled = kernel(
    {
      name: "scaled",
      grid: 1,
      block: 32,
      params: { x: input(f32, [N]), y: output(f32, [N]), z: output(f32, [2]), s: scalar(i32) },
    },
    (t, { s }) => {
      const { x, y } = t.pdl.wait();
      t.when(t.lane.lt(N), () => y.store([t.lane], x.load([t.lane]).mul(s.to(f32))));
    },
  );
  const ones = (count: number) => HostTensor.from(f32, [count], new Array<number>(count).fill(1));
  const fine = { x: ones(4), y: ones(4), s: 3 };

  test("fit; outputs keep what they had, or begin as NaN", () => {
    const { y, z } = simulate(scaled, fine).outputs;
    expect([...y.values(), ...z.values()]).toEqual([3, 3, 3, 3, NaN, NaN]);
  });

  // By `bind`, as on every device: test/conformance/bind.test.ts.
  test("that don't fit are refused", () => {
    expect(() => simulate(scaled, { ...fine, x: ones(6), y: ones(6) })).toThrow(ArgumentError);
    expect(() => simulate(scaled, { ...fine, x: ones(6), y: ones(6) })).toThrow("scaled: the size N is 6");
    expect(() => simulate(scaled, { ...fine, x: undefined as never, y: ones(4) })).toThrow("scaled: x is missing");
  });
});

test("one seed is one schedule; different seeds are different ones", () => {
  const arrivals = kernel(
    { name: "arrivals", grid: 4, block: 128, params: { n: inout(i32, [1]), y: output(i32, [16]) } },
    (t) => {
      const { n, y } = t.pdl.wait();
      t.when(t.lane.eq(0), () => y.store([t.block.x.mul(4).add(t.warp)], n.atomicAdd([0], 1)));
    },
  );
  const n = HostTensor.from(i32, [1], [0]);
  const order = (seed?: number): readonly number[] => [...simulate(arrivals, { n }, { seed }).outputs.y.values()];
  expect(order()).toEqual(range(16));
  expect(order(5)).toEqual(order(5));
  expect(order(5).toSorted((a, b) => a - b)).toEqual(range(16));
  expect(new Set([1, 2, 3, 4, 5, 6, 7, 8].map((seed) => order(seed).join())).size).toBeGreaterThan(4);
});

test("bits that are no numbers pass through registers, shuffles, shared memory and selects", () => {
  const words = [0x7f800001, 0xffc12345, 0x7fffffff, 0x80000000, 0xff800001, 1];
  const x = new HostTensor(f32, [32], new Uint8Array(Uint32Array.from(range(32), (i) => words[i % 6] ?? 0).buffer));
  const h = new HostTensor(bf16, [32], new Uint8Array(Uint16Array.from(range(32), (i) => 0x7f81 + 0x801 * i).buffer));
  const move = kernel(
    {
      name: "move",
      grid: 1,
      block: 32,
      params: { x: input(f32, [32]), h: input(bf16, [32]), y: output(f32, [32]), g: output(bf16, [32]) },
    },
    (t) => {
      const { x, h, y, g } = t.pdl.wait();
      const r = t.reg(f32, x.load([t.lane]));
      const s = t.shared(f32, [32]);
      s.store([t.lane], t.shuffleXor(t.shuffleXor(r, 5), 5));
      t.warpBarrier();
      const pair = t.pack(s.load([t.lane]), r.get());
      y.store([t.lane], t.lane.lt(16).select(pair.lane(0), pair.lane(1)).neg().neg());
      g.store([t.lane], h.load([t.lane]));
    },
  );
  const { y, g } = simulate(move, { x, h }).outputs;
  expect(y.bytes).toEqual(x.bytes);
  expect(g.bytes).toEqual(h.bytes);
});

describe("counts", () => {
  test("sectors of global requests, conflicts of shared ones, by line", () => {
    const strides = kernel(
      {
        name: "strides",
        grid: 2,
        block: 32,
        params: { x: input(f32, [1024], { alignBytes: 16 }), y: output(f32, [2, 32]) },
      },
      (t) => {
        const { x, y } = t.pdl.wait();
        const s = t.shared(f32, [32, 32]);
        const near = x.load([t.lane]);
        const far = x.load([t.lane.mul(32)]);
        const wide = x.loadVec([t.lane.mul(4)], 4);
        t.when(t.lane.lt(8), () => s.store([t.lane, 0], near)); // 8 lanes, one bank
        s.store([0, t.lane], far); // 32 lanes, 32 banks
        s.storeVec([t.lane, 4], wide); // 32 x 16 bytes, 4 banks
        t.warpBarrier();
        y.store([t.block.x, t.lane], s.load([0, 4])); // one word
      },
    );
    const x = HostTensor.from(f32, [1024], range(1024));
    const { counts } = simulate(strides, { x }, { check: "values" });
    const { total, lines } = counts;
    expect(total).toMatchObject({ globalLoads: 6, globalStores: 2, sharedRequests: 8, globalStoreBytes: 256 });
    expect(total.globalLoadBytes).toBe(2 * (128 + 128 + 512));
    expect(total.globalLoadSectors).toBe(2 * (4 + 32 + 16));
    const source = readFileSync(fileURLToPath(import.meta.url), "utf8").split("\n");
    const conflicts = (marker: string): number | undefined =>
      lines.get(`test/simulator/simulate.test.ts:${source.findIndex((line) => line.endsWith(`// ${marker}`)) + 1}`)
        ?.bankConflicts;
    expect(conflicts("8 lanes, one bank")).toBe(2 * 7);
    expect(conflicts("32 lanes, 32 banks")).toBe(0);
    // Four passes of 8 lanes; in each all 8 words of a bank: 7 more.
    expect(conflicts("32 x 16 bytes, 4 banks")).toBe(2 * 4 * 7);
    expect(conflicts("one word")).toBe(0);
    const byLines = [...lines.values()].reduce((sum, line) => sum + line.sharedRequests + line.globalLoads, 0);
    expect(byLines).toBe(total.sharedRequests + total.globalLoads);
  });

  test("products, shuffles, barriers, atomics", () => {
    const busy = kernel(
      { name: "busy", grid: 1, block: 64, params: { n: inout(i32, [1]), y: output(f32, [64]) } },
      (t) => {
        const { n, y } = t.pdl.wait();
        const lanes = (count: 4 | 8) => t.pack(...range(count).map(() => t.const(bf16, 1)));
        const sums = t.mmaVectors(
          mmaAtoms.m16n8k16.bf16,
          lanes(8),
          lanes(4),
          t.pack(...range(4).map(() => t.const(f32, 0))),
        );
        t.when(t.thread.lt(10), () => void n.atomicAdd([0], 1));
        t.barrier();
        y.store([t.thread], t.warpSum(t.lane.to(f32).fma(2, 1)).add(sums.lane(0) as never));
      },
    );
    const { counts } = simulate(busy, { n: HostTensor.from(i32, [1], [0]) });
    expect(counts.total).toMatchObject({ mmas: 2, barriers: 2, atomics: 10, shuffles: 10 });
    expect(counts.total.flops).toBe(2 * (2 * 16 * 8 * 16 + 32 * 2 + 32));
  });
});

test("it runs in a browser: where nothing of Node is", async () => {
  const script = `
    import { HostTensor, i32, kernel, output } from "../../dsl/index.ts";
    import { formatFinding, openSimulator, run, simulate } from "../../backends/simulator/index.ts";
    const swap = (isOrdered) =>
      kernel({ name: "swap", grid: 1, block: 32, params: { y: output(i32, [32]) } }, (t) => {
        const { y } = t.pdl.wait();
        const s = t.shared(i32, [32]);
        s.store([t.lane], t.lane);
        if (isOrdered) t.warpBarrier();
        y.store([t.lane], s.load([t.lane.xor(1)]));
      });
    globalThis.there = [typeof process, typeof require, typeof Buffer];
    globalThis.findings = simulate(swap(false), {}).findings.map(formatFinding);
    globalThis.values = openSimulator({ seed: 3 })
      .then((device) => run(device, swap(true), {}))
      .then(({ y }) => [...y.values()]);`;
  const root = new URL("../../", import.meta.url).pathname;
  const entry = `${root}test/simulator/page.js`;
  const { output: chunks } = await build({
    input: entry,
    platform: "browser",
    write: false,
    plugins: [
      { name: "page", resolveId: (id) => (id === entry ? id : null), load: (id) => (id === entry ? script : null) },
    ],
    transform: { define: { "import.meta.url": '"https://example.org/tegula.js"' } },
    output: { format: "iife" },
  });
  const page = createContext({ URL });
  runInContext(chunks[0].code, page);
  expect(page["there"]).toEqual(["undefined", "undefined", "undefined"]);
  expect(page["findings"]).toEqual([expect.stringMatching(/^race: s\[\d+\] is read by warp 0/)]);
  expect(await page["values"]).toEqual(range(32).map((i) => i ^ 1));
});
