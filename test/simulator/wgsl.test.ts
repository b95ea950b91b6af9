/** The simulator and WGSL, bit for bit, on reals of every class: wherever the IR leaves nothing open. */
import { afterAll, expect, test } from "vitest";
import { run } from "../../backends/run.ts";
import { simulate } from "../../backends/simulator/index.ts";
import { openWgsl } from "../../backends/wgsl/index.ts";
import { bf16, f32, HostTensor } from "../../dsl/index.ts";
import { dataClasses, llGemmDotBf16, llGemmMmaBf16, randomTensor, seededRandom } from "../../kernels/index.ts";

const backend = openWgsl();
afterAll(async () => (await backend).dispose());

const seed = Date.now() % 1_000_000;
const [M, N, K] = [5, 9, 520];

/** Outputs of both, every NaN as one. */
async function both(kernel: ReturnType<typeof llGemmDotBf16<"f32">>, data: (typeof dataClasses)[number]) {
  const random = seededRandom(seed);
  const args = { x: randomTensor(bf16, [M, K], data, random), w: randomTensor(bf16, [N, K], data, random) };
  const valuesOf = ({ y }: { readonly y: HostTensor }) => [...y.values()];
  return { ours: valuesOf(simulate(kernel, args).outputs), theirs: valuesOf(await run(await backend, kernel, args)) };
}

// Products of bf16 are exact in f32, so that it doesn't matter whether the device fuses. It may flush subnormals.
const classes = dataClasses.filter((data) => data !== "subnormal");
test.each(classes)(`dot products of %s data, seed ${seed}`, async (data) => {
  const { ours, theirs } = await both(llGemmDotBf16({ M, N, K, out: f32 }), data);
  expect(ours).toEqual(theirs);
});

test(`tensor cores cut off where WGSL rounds: a little below it in magnitude, seed ${seed}`, async () => {
  const { ours, theirs } = await both(llGemmMmaBf16({ M, N, K, out: f32, pieces: 1, cluster: 2 }), "uniform");
  const off = ours.map((value, i) => (value - (theirs[i] ?? NaN)) / value);
  expect(Math.max(...off.map(Math.abs))).toBeLessThan(K * 2 ** -24);
  expect(off.reduce((a, b) => a + b, 0)).toBeLessThan(0);
});
