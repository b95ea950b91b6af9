/**
 * Runs every shipped kernel once on the GPU, on whole and ragged shapes, and checks the results. Short on purpose: made to
 * be run under NVIDIA's tools, e.g. `compute-sanitizer --tool racecheck node --import tsx playground/exercise.ts`.
 */
import { bf16, e4m3, f32, HostTensor, size } from "tegula";
import { openCuda, run } from "tegula/cuda";
import {
  checkInterval,
  gemmBf16,
  gemmReference,
  llGemmDotBf16,
  llGemmDotE4m3,
  llGemmMmaBf16,
  llGemmMmaE4m3,
  llGemmPipelineBf16,
  llGemmPipelineE4m3,
  llGemmStreamBf16,
  llGemmStreamE4m3,
  randomTensor,
  rmsNorm,
  rmsNormReference,
  checkWithin,
  seededRandom,
  type Verdict,
} from "tegula/kernels";

const random = seededRandom(1);
const gpu = await openCuda();
const shapes = [
  [8, 16, 7168],
  [3, 5, 4097],
  [16, 7, 2880],
  [1, 3, 7],
] as const;

const report = (name: string, { ok, first }: Verdict): void => {
  console.log(`${ok ? "ok   " : "WRONG"} ${name}`, first ?? "");
  if (!ok) process.exitCode = 1;
};

const families = [
  { name: "dot", bf16: llGemmDotBf16, e4m3: llGemmDotE4m3 },
  { name: "mma", bf16: llGemmMmaBf16, e4m3: llGemmMmaE4m3 },
  { name: "pipeline", bf16: llGemmPipelineBf16, e4m3: llGemmPipelineE4m3 },
  { name: "stream", bf16: llGemmStreamBf16, e4m3: llGemmStreamE4m3, multipleOf: 16 },
] as const;
const anySize = { M: size("M", { max: 16 }), N: size("N"), out: bf16 } as const;

for (const [M, N, K] of shapes) {
  const model = { terms: K, partials: 256, device: "cuda" } as const;
  const [x, w] = [randomTensor(bf16, [M, K], "normal", random), randomTensor(bf16, [N, K], "normal", random)];
  const reference = gemmReference(x, w);
  const [x8, w8] = [randomTensor(e4m3, [M, K], "normal", random), randomTensor(e4m3, [N, K], "normal", random)];
  const reference8 = gemmReference(x8, w8, 0.25);
  const scale = HostTensor.from(f32, [1], [0.5]);
  const scaled = { x: x8, w: w8, xScale: scale, wScale: scale };
  for (const { name, bf16: makeBf16, e4m3: makeE4m3, ...family } of families) {
    const multipleOf = "multipleOf" in family ? family.multipleOf : 1;
    if (K % multipleOf !== 0) continue;
    const fixed = await run(gpu, makeBf16({ M, N, K, out: f32 }), { x, w });
    report(`${name} bf16 ${M}x${N}x${K}`, checkInterval(fixed.y, reference.y, reference.magnitudes, model));
    const late = await run(gpu, makeBf16({ ...anySize, K: size("K", { multipleOf }) }), {
      x,
      w,
      y: HostTensor.filled(bf16, [M, N], 0xff),
    });
    report(`${name} bf16 ${M}x${N}x${K}, at launch`, checkInterval(late.y, reference.y, reference.magnitudes, model));
    const narrow = await run(gpu, makeE4m3({ M, N, K, out: bf16 }), scaled);
    report(`${name} e4m3 ${M}x${N}x${K}`, checkInterval(narrow.y, reference8.y, reference8.magnitudes, model));
  }

  const [a, r] = [randomTensor(bf16, [M, K], "normal", random), randomTensor(bf16, [M, K], "normal", random)];
  const weight = randomTensor(bf16, [K], "normal", random);
  const y = HostTensor.filled(bf16, [M, K], 0xff);
  const normed = await run(gpu, rmsNorm({ M, H: K }), { x: a, residual: r, weight, eps: 1e-5, y });
  const expected = rmsNormReference(a, r, weight, 1e-5);
  const relative = (K / 2 + 8) * 2 ** -24;
  report(
    `rmsNorm ${M}x${K}`,
    checkWithin(normed.y, expected.y, (i) => Math.abs(expected.y[i] ?? 0) * relative),
  );
}
for (const [M, N, K] of [
  [70, 72, 136],
  [200, 264, 200],
  [33, 40, 77],
] as const) {
  const [x, w] = [randomTensor(bf16, [M, K], "normal", random), randomTensor(bf16, [N, K], "normal", random)];
  const reference = gemmReference(x, w);
  const model = { terms: K, partials: 1, device: "cuda" } as const;
  const { y } = await run(gpu, gemmBf16({ M, N, K, out: f32 }), { x, w });
  report(`gemm ${M}x${N}x${K}`, checkInterval(y, reference.y, reference.magnitudes, model));
}
await gpu.dispose();
