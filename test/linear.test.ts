/** `linear`: what it takes for which sizes, that all it may take is right, and that few tokens give the bits of many. */
import { afterAll, beforeAll, describe, expect, expectTypeOf, test } from "vitest";
import type { Backend } from "../backends/backend.ts";
import { bf16, e4m3, f16, f32, HostTensor, size, UnsupportedError } from "../dsl/index.ts";
import {
  checkBits,
  chooseLinear,
  epilogue,
  gemmReference,
  linear,
  type LinearConfig,
  randomTensor,
  relu,
  seededRandom,
} from "../kernels/index.ts";
import { formatChoice, kernelOf, parseChoice } from "../kernels/linear-space.ts";
import { tableFor, type TunedEntry } from "../kernels/tuned.ts";
import { choicesToTry, shapesToTune } from "../playground/tune/search.ts";
import { devices, runGuarded } from "./harness.ts";

const dtypes = { bf16, e4m3, f32 } as const;
const tokenOf = (name: string) => (name === "e4m3" ? e4m3 : bf16);
const entries = tableFor();
const weightsOf = ({ dtype }: TunedEntry) => dtypes[dtype as keyof typeof dtypes];

test("every entry of the table is what linear takes for its sizes, and a kernel", () => {
  expect(entries.length).toBeGreaterThan(200);
  for (const entry of entries) {
    const { M, N, K, choice } = entry;
    const config = { M, N, K, weights: weightsOf(entry), out: bf16 };
    expect(chooseLinear(config)).toEqual({ choice, from: "tuned" });
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
  expect(chooseLinear({ M: 8, N: 256, K: 7168, weights: bf16, out: f32, device: "NVIDIA X1" })).toEqual(
    at(8, 256, 7168),
  );
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
])("%s: an error says so", (_, wrong, message) => {
  expect(() => linear({ M: 8, N: 256, K: 7168, weights: bf16, out: f32, ...wrong })).toThrow(message);
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
