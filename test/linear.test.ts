/** `linear`: what it takes for which sizes, that all it may take is right, and that few tokens give the bits of many. */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, expectTypeOf, test } from "vitest";
import type { Backend } from "../backends/backend.ts";
import { emitCuda } from "../backends/cuda/index.ts";
import {
  bf16,
  dims,
  e4m3,
  f16,
  f32,
  HostTensor,
  type Kernel,
  size,
  TegulaError,
  UnsupportedError,
} from "../dsl/index.ts";
import {
  checkBits,
  chooseLinear,
  epilogue,
  gemmReference,
  linear,
  type LinearConfig,
  llGemmDotBf16,
  llGemmDotF32,
  llGemmMmaBf16,
  llGemmPipelineE4m3,
  llGemmStreamBf16,
  randomTensor,
  relu,
  seededRandom,
} from "../kernels/index.ts";
import { formatChoice, kernelOf, parseChoice } from "../kernels/linear-space.ts";
import { tableFor, tableOf, type TunedEntry } from "../kernels/tuned.ts";
import { choicesToTry, shapesToTune } from "../playground/tune/search.ts";
import { devices, runGuarded } from "./harness.ts";
import { caught } from "./mistake.ts";

const dtypes = { bf16, e4m3, f32 } as const;
const tokenOf = (name: string) => (name === "e4m3" ? e4m3 : bf16);
const entries = tableFor();
const here = "test/linear.test.ts";
const tableWith = (choice: string) => ({
  device: "NVIDIA X1",
  date: "2026-11-23",
  entries: [{ dtype: "bf16", N: 256, K: 7168, M: 8, choice, us: 3 }],
});
const weightsOf = ({ dtype }: TunedEntry) => dtypes[dtype as keyof typeof dtypes];

test("every entry of the table is what linear takes for its sizes, and a kernel", () => {
  expect(entries.length).toBeGreaterThan(200);
  for (const entry of entries) {
    const { M, N, K, choice } = entry;
    const config = { M, N, K, weights: weightsOf(entry), out: bf16 };
    expect(chooseLinear(config)).toEqual({ choice, from: "tuned", measuredOn: tableOf().device });
    expect(formatChoice(parseChoice(choice))).toBe(choice);
    expect(entry.us).toBeGreaterThan(0.5);
  }
  expect(new Set(entries.map(({ dtype, N, K, M }) => [dtype, N, K, M].join())).size).toBe(entries.length);
});

test("any sizes of up to 16 tokens have a kernel", () => {
  const random = seededRandom(5);
  const upTo = (most: number) => 1 + Math.floor(random() * most);
  for (let i = 0; i < 150; i++) {
    const [M, N, K] = [upTo(16), upTo(2 ** upTo(15)), upTo(2 ** upTo(14))];
    const weights = [bf16, e4m3, f32][i % 3] ?? bf16;
    const config = { M, N, K, weights, out: bf16 };
    expect(linear(config).name, JSON.stringify([M, N, K, chooseLinear(config)])).toContain(`n${N}_k${K}`);
  }
});

test("sizes between those of the table take the neighbour's way to cut them", () => {
  const at = (M: number, N: number, K: number) => chooseLinear({ M, N, K, weights: bf16, out: f32 });
  expect(at(3, 256, 7168)).toEqual(at(4, 256, 7168));
  expect(at(13, 256, 7168)).toEqual(at(16, 256, 7168));
  expect(at(8, 250, 7168)).toMatchObject({ from: "near", near: [256, 7168] });
  expect(at(8, 2624, 2880).from).toBe("near");
  const M = size("M", { max: 8 });
  expect(chooseLinear({ M, N: 256, K: 7168, weights: bf16, out: f32 })).toEqual(at(8, 256, 7168));
  const ofSizes = chooseLinear({ M, N: size("N"), K: size("K"), weights: bf16, out: f32 });
  expect(ofSizes).toEqual({ choice: "mma", from: "default" });
  expect(chooseLinear({ M: 17, N: 256, K: 7168, weights: bf16, out: f32 })).toEqual({
    choice: "gemm",
    from: "default",
  });
});

test("a choice says on which GPU it was measured, which may be another than the one asked for", () => {
  const config = { M: 8, N: 256, K: 7168, weights: bf16, out: f32, device: "NVIDIA H100" };
  for (const N of [256, 250]) {
    const { device, ...others } = { ...config, N };
    expect(chooseLinear({ device, ...others })).toEqual(chooseLinear(others));
    expect(chooseLinear({ device, ...others }).measuredOn).toMatch(/^NVIDIA H200/);
  }
  expect(chooseLinear({ ...config, N: size("N") })).not.toHaveProperty("measuredOn");
});

test("an own table, as npm run tune writes it, is used instead of ours", () => {
  const choice = "mma rows=16 cluster=2 warps=4 pieces=2 early=1";
  const table = tableWith(choice);
  const config = { M: 8, N: 256, K: 7168, weights: bf16, out: f32, table };
  expect(chooseLinear(config)).toEqual({ choice, from: "tuned", measuredOn: table.device });
  expect(linear(config).ir).toMatchObject({ cluster: 2, block: 128 });
  expect(chooseLinear({ ...config, N: 384 })).toMatchObject({
    from: "near",
    near: [256, 7168],
    measuredOn: table.device,
  });
  const none = chooseLinear({ ...config, weights: e4m3 });
  expect(none.from).toBe("default");
});

test.each<[string, Partial<LinearConfig>, string]>([
  ["too many tokens", { M: 40, weights: e4m3 }, "No kernel serves 40 tokens with weights in e4m3"],
  ["a size without an end", { M: size("M"), weights: f32 }, "No kernel serves up to"],
  ["rows apart", { strides: { x: [8000, 1] } }, "x has rows 8000 apart and elements 1 apart"],
  ["columns", { strides: { w: [1, 256] } }, "Make it contiguous: [7168, 1]"],
  ["another type", { weights: f16 as never }, "weights in bf16, e4m3 or f32, not in"],
  ["no tokens", { M: 0 }, "M is 0"],
  ["half a column", { N: 1.5 }, "N is 1.5"],
  ["the same bits for many", { M: 32, batchInvariant: true }, "Multiply 16 tokens at a time"],
  ["a misspelt option", { batchinvariant: true } as object, "not { batchinvariant }"],
  ["no type of results", { out: undefined as never }, "out is missing: it says in what dtype results are stored"],
  ["another type of results", { out: f16 as never }, "out is bf16, f32 or e4m3, not f16"],
  ["a file's name for a table", { table: "mine.json" as never }, 'A table is what npm run tune wrote, not "mine.json"'],
  ["a table with a strange choice", { table: tableWith("mma rows") }, "wrote, entry 0 is none"],
])("%s: an error says so", (_, wrong, message) => {
  const error = caught(() => linear({ M: 8, N: 256, K: 7168, weights: bf16, out: f32, ...wrong }));
  expect(error).toBeInstanceOf(TegulaError);
  expect(String(error)).toContain(message);
  expect(String(error)).toContain("at test/linear.test.ts:");
});

test("a kernel is made where it was asked for, by linear or by a family", () => {
  const config = { M: 8, N: 64, K: 128, out: f32 } as const;
  const kernels: readonly Kernel[] = [
    linear({ ...config, weights: bf16 }),
    llGemmDotF32(config),
    llGemmMmaBf16(config),
    llGemmPipelineE4m3(config),
    llGemmStreamBf16(config),
  ];
  const first = kernels[0]?.at.line ?? 0;
  const lines = readFileSync(here, "utf8").split("\n");
  expect(lines[first - 1]).toContain("linear({ ...config, weights: bf16 })");
  expect(kernels.map(({ at }) => `${at.file}:${at.line}`)).toEqual(kernels.map((_, i) => `${here}:${first + i}`));
  for (const kernel of kernels) {
    const { source } = emitCuda(kernel.ir);
    expect(source.split("\n")[0]).toBe(`// ${kernel.name}: generated by Tegula from ${here}:${kernel.at.line}`);
    expect(source).toMatch(/#line \d+ "kernels\/ll-gemm-/);
  }
});

test.each([
  [
    "an unknown option",
    { warp: 4 },
    "Options here are { M, N, K, out, epilogue, warps, rows, prefetch }, not { warp }",
  ],
  ["no type of results", { out: undefined }, "out is missing"],
  ["a size that is computed", { N: dims.mul(size("N"), 2) }, "N is (N * 2)"],
  ["no columns", { N: 0 }, "llGemmDot takes whole numbers from 1 on, or sizes; N is 0"],
  ["too many warps", { warps: 33 }, "warps of llGemmDot: a whole number from 1 to 32, not 33"],
  ["too many tokens", { M: 17 }, "serves 1 to 16 tokens, not 17"],
])("%s of a family: an error names the author's line", (_, wrong, message) => {
  const error = caught(() => llGemmDotBf16({ M: 8, N: 64, K: 128, out: f32, ...wrong } as never));
  expect(String(error)).toContain(message);
  expect(String(error)).toContain(`at ${here}:`);
});

test("an epilogue goes along, but not to the general GEMM", () => {
  const end = epilogue({}, (sum) => relu(sum));
  const config = { N: 64, K: 64, weights: bf16, out: bf16, epilogue: end } as const;
  expect(linear({ M: 8, ...config }).ir.tensors.length).toBe(3);
  expect(() => linear({ M: 64, ...config })).toThrow(UnsupportedError);
});

test("parameters follow from the types", () => {
  const sizes = { M: 2, N: 16, K: 64, out: f32 } as const;
  expectTypeOf(linear({ ...sizes, weights: e4m3 }).params).toHaveProperty("wScale");
  expectTypeOf(linear({ ...sizes, weights: bf16 }).params).not.toHaveProperty("wScale");
  expectTypeOf(linear({ ...sizes, weights: f32 }).params.w.dtype.name).toEqualTypeOf<"f32">();
  expectTypeOf(linear({ ...sizes, weights: f32 }).params.x.dtype.name).toEqualTypeOf<"bf16">();
});

/** Each way of cutting once, for sizes that every device can do: ragged, and less than it was made for. */
const distinct = [...new Map(entries.map((entry) => [`${entry.dtype} ${entry.choice}`, entry])).values()];

describe.each(devices)("on $name", ({ name, missing, open }) => {
  let backend: Backend;
  beforeAll(async () => {
    if (!missing) backend = await open();
  });
  afterAll(async () => {
    if (!missing) await backend.dispose();
  });

  // Without a GPU each of these takes seconds: every eighth, another one of them on each device.
  const some = distinct.filter((_, i) => name === "cuda" || i % 8 === (name === "wgsl" ? 0 : 4));
  test.skipIf(missing).each(some)("$dtype $choice is exact", { timeout: 60_000 }, async (entry) => {
    const { M, choice, dtype } = entry;
    const [N, K] = name === "cuda" ? [entry.N, entry.K] : [37, 1040];
    const kernel = kernelOf(parseChoice(choice), { M, N, K, dtype: weightsOf(entry).name, out: f32 });
    const random = seededRandom(9);
    const [x, w] = [
      randomTensor(tokenOf(dtype), [M, K], "integers", random),
      randomTensor(weightsOf(entry), [N, K], "integers", random),
    ];
    const one = HostTensor.from(f32, [1], [1]);
    const given = {
      x,
      w,
      y: HostTensor.filled(f32, [M, N], 0),
      ...(dtype === "e4m3" ? { wScale: one, xScale: one } : {}),
    };
    const { y } = (await runGuarded(backend, kernel, given as never)) as unknown as { readonly y: HostTensor };
    expect(checkBits(y, gemmReference(x, w).y)).toMatchObject({ ok: true });
  });

  const router: readonly (readonly [number, number])[] = [[40, 256]];
  const real: typeof router = [
    [256, 7168],
    [4096, 2560],
    [2112, 7168],
  ];
  test.skipIf(missing).each(name === "cuda" ? real : router)(
    "a token has the same bits however many there are: %i x %i",
    { timeout: 60_000 },
    async (N, K) => {
      const random = seededRandom(3);
      const [all, w] = [randomTensor(bf16, [16, K], "normal", random), randomTensor(bf16, [N, K], "normal", random)];
      const bits = new Map<number, Uint8Array>();
      for (const M of [16, 13, 8, 3, 1]) {
        const x = new HostTensor(bf16, [M, K], all.bytes.slice(0, M * K * 2));
        const kernel = linear({ M, N, K, weights: bf16, out: f32, batchInvariant: true });
        const { y } = (await runGuarded(backend, kernel, {
          x,
          w,
          y: HostTensor.filled(f32, [M, N], 0),
        } as never)) as unknown as { readonly y: HostTensor };
        bits.set(M, y.bytes);
      }
      const most = bits.get(16) ?? new Uint8Array();
      for (const few of bits.values()) expect(few).toEqual(most.slice(0, few.length));
    },
  );
});

test("the search tries what the table has, and less once something is known", () => {
  const [shape, entry] = [
    shapesToTune().find(({ N }) => N === 2112),
    entries.find(({ N, M }) => N === 2112 && M === 16),
  ];
  if (!shape || !entry) throw new Error("2112 x 7168 is gone");
  const all = choicesToTry({ ...shape, M: 8 }, new Map(), undefined, undefined);
  const later = choicesToTry({ ...shape, M: 16 }, new Map([[8, all]]), entry, undefined);
  expect(later.length).toBeLessThan(all.length / 2);
  expect(later).toContain(entry.choice);
  expect(choicesToTry({ ...shape, M: 16 }, new Map(), { ...entry, choice: "dot warps=1" }, [])).toEqual([
    "dot warps=1",
  ]);
  const dots = choicesToTry({ ...shape, M: 16 }, new Map(), entry, ["dot"]);
  expect(dots.filter((choice) => !choice.startsWith("dot"))).toEqual([entry.choice]);
});

test("between the shapes of models others are tuned, so that none is further than an octave from its neighbour", () => {
  const shapes = shapesToTune();
  expect(new Set(shapes.map(({ dtype, out, N, K }) => [dtype, out, N, K].join())).size).toBe(shapes.length);
  for (const [N, K] of [
    [600, 700],
    [3000, 3000],
    [20000, 5000],
    [5000, 12000],
  ] as const) {
    const octaves = (a: number, b: number) => Math.abs(Math.log2(a / b));
    const nearest = Math.min(...shapes.map((shape) => octaves(shape.N, N) + octaves(shape.K, K)));
    expect(nearest, `${N} x ${K}`).toBeLessThan(1);
  }
});
