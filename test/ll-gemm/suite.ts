/** A family of low-latency GEMMs on every device: bits on integers (O1), intervals on reals (O2), every kind of ragged shape. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../../backends/backend.ts";
import { bf16, type Dim, type DType, e4m3, f32, HostTensor, type Kernel, size } from "../../dsl/index.ts";
import {
  checkBits,
  checkInterval,
  type DataClass,
  dataClasses,
  gemmReference,
  llGemmDotBf16,
  llGemmDotE4m3,
  llGemmDotF32,
  llGemmMmaBf16,
  llGemmMmaE4m3,
  llGemmPipelineBf16,
  llGemmPipelineE4m3,
  llGemmStreamBf16,
  llGemmStreamE4m3,
  randomTensor,
  seededRandom,
} from "../../kernels/index.ts";
import { devices, runGuarded } from "../harness.ts";

/** Weights; tokens of f32 weights are bf16. */
type InName = "f32" | "bf16" | "e4m3";
type OutName = "f32" | "bf16" | "e4m3";
type Make = (config: Sizes & { readonly out: DType<OutName> }) => unknown;

type Family = "dot" | "mma" | "pipeline" | "stream";
const families: { readonly [F in Family]: { readonly [In in InName]?: Make } } = {
  dot: { bf16: llGemmDotBf16, e4m3: llGemmDotE4m3, f32: llGemmDotF32 },
  mma: { bf16: llGemmMmaBf16, e4m3: llGemmMmaE4m3 },
  pipeline: { bf16: llGemmPipelineBf16, e4m3: llGemmPipelineE4m3 },
  stream: { bf16: llGemmStreamBf16, e4m3: llGemmStreamE4m3 },
};

interface Problem {
  readonly family: Family;
  readonly dtype: InName;
  readonly out: OutName;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** Runs one GEMM, with sizes as constants or as `dims`, and judges it. */
async function verdictOf(
  backend: Backend,
  { family, dtype, out, M, N, K }: Problem,
  data: DataClass,
  seed: number,
  kernel = makeKernel(family, dtype, out, { M, N, K }),
) {
  const random = seededRandom(seed);
  const x = randomTensor(dtype === "e4m3" ? e4m3 : bf16, [M, K], data, random);
  const w = randomTensor({ f32, bf16, e4m3 }[dtype], [N, K], data, random);
  const [scaleX, scaleW] = data === "integers" ? [1, 1] : [0.25, 3];
  const scales = { xScale: HostTensor.from(f32, [1], [scaleX]), wScale: HostTensor.from(f32, [1], [scaleW]) };
  const y = HostTensor.filled({ f32, bf16, e4m3 }[out], [M, N], 0);
  const args: Readonly<Record<string, HostTensor>> = { x, w, y, ...(dtype === "e4m3" ? scales : {}) };
  const { y: result } = (await runGuarded(backend, kernel, args as never)) as { readonly y: HostTensor };
  const reference = gemmReference(x, w, dtype === "e4m3" ? scaleX * scaleW : 1);
  if (data === "integers") return checkBits(result, reference.y);
  const model = { terms: K, partials: kernel.ir.block, device: backend.name };
  return checkInterval(result, reference.y, reference.magnitudes, model);
}

interface Sizes {
  readonly M: Dim;
  readonly N: Dim;
  readonly K: Dim;
}

export function makeKernel(family: Family, dtype: InName, out: OutName, sizes: Sizes, options: object = {}): Kernel {
  const { M, N, K } = sizes;
  const make = families[family][dtype];
  if (!make) throw new Error(`${family} has no ${dtype}`);
  return make({ M, N, K, ...options, out: { f32, bf16, e4m3 }[out] }) as Kernel;
}

const awkwardK = [1, 2, 7, 8, 31, 32, 33, 255, 256, 257, 2047, 2048, 2049, 2880, 4095, 4096, 4097, 7168];

/** Of each option something else than its default. */
const ways: { readonly [F in Family]: readonly Readonly<Record<string, number>>[] } = {
  dot: [
    { warps: 3, rows: 2, prefetch: 1 },
    { warps: 2, rows: 4, prefetch: 2 },
  ],
  mma: [
    { rows: 16, cluster: 1, warps: 2, pieces: 1, early: 1, parked: 2 },
    { rows: 64, cluster: 4, warps: 2, pieces: 1, early: 1, parked: 1 },
    { rows: 32, cluster: 2, warps: 2, pieces: 2, early: 2, parked: 3 },
  ],
  pipeline: [{ cluster: 2, stages: 2 }],
  stream: [
    { rows: 16, cluster: 1, boxes: 4, stages: 2, groups: 4 },
    { rows: 32, cluster: 2, boxes: 4, stages: 2, groups: 2 },
    { rows: 16, cluster: 2, boxes: 8, stages: 3, groups: 8 },
  ],
};

/** The tests of a family, all of them. */
export function testFamily(family: Family): void {
  describe.each(devices)(`${family} on $name`, ({ name, missing, open }) => {
    // Software devices take seconds to compile kernels with many unrolled instructions; the simulator takes them to run.
    const few = name !== "cuda";
    const small = name === "wgsl" ? { mma: { pieces: 1 }, stream: { stages: 2 }, dot: {}, pipeline: {} }[family] : {};
    /** Of TMA: rows of whole 16 bytes, of both types. */
    const multipleOf = family === "stream" ? 16 : 1;
    const legal = (K: number): number => Math.ceil(K / multipleOf) * multipleOf;
    let backend: Backend;
    beforeAll(async () => {
      if (!missing) backend = await open();
    });
    afterAll(() => backend?.dispose());

    describe.each(Object.keys(families[family]) as InName[])("%s", (dtype) => {
      test.skipIf(missing)("run-time sizes: one kernel is exact for every M and every awkward K", async () => {
        const dims = { M: size("M", { max: 16 }), N: size("N"), K: size("K", { max: 16384, multipleOf }) };
        const kernel = makeKernel(family, dtype, "f32", dims, small);
        for (const [i, K] of [...new Set(awkwardK.map(legal))].entries()) {
          const problem = { family, dtype, out: "f32", M: (i % 16) + 1, N: [1, 3, 24, 129][i % 4] ?? 1, K } as const;
          expect(await verdictOf(backend, problem, "integers", K, kernel), JSON.stringify(problem)).toMatchObject({
            ok: true,
          });
        }
      });

      // Of streams it always is.
      test.skipIf(missing || family === "stream")(
        "K promised to be a multiple of 16 takes 16-byte loads, and is exact",
        async () => {
          const K = size("K", { max: 16384, multipleOf: 16 });
          const kernel = makeKernel(family, dtype, "f32", { M: 5, N: size("N"), K }, small);
          for (const k of [16, 2880, 4096, 4112, 12288]) {
            const problem = { family, dtype, out: "f32", M: 5, N: 7, K: k } as const;
            expect(await verdictOf(backend, problem, "integers", k, kernel), JSON.stringify(problem)).toMatchObject({
              ok: true,
            });
          }
        },
      );

      test.skipIf(missing).each(
        [
          { M: 1, N: 1, K: 1 },
          { M: 16, N: 5, K: 7 },
          { M: 8, N: 24, K: 2880 },
          { M: 3, N: 33, K: 4097 },
          { M: 13, N: 40, K: 7168 },
          { M: 4, N: 6, K: 14400 },
        ]
          .filter(({ K }) => !few || K === 1 || K === 2880)
          .map((shape) => ({ ...shape, K: legal(shape.K) })),
      )("sizes as numbers are exact: $M x $N x $K", async (shape) => {
        const problem = { family, dtype, out: "f32", ...shape } as const;
        expect(await verdictOf(backend, problem, "integers", 7)).toMatchObject({ ok: true });
        if (few) return;
        expect(await verdictOf(backend, { ...problem, out: "bf16" }, "integers", 8)).toMatchObject({ ok: true });
      });

      test.skipIf(missing).each(ways[family])("%o is exact", async (options) => {
        for (const M of name === "wgsl" ? [5] : [5, 16]) {
          const problem = { family, dtype, out: "f32", M, N: 70, K: 1088 } as const;
          const kernel = makeKernel(family, dtype, "f32", problem, options);
          expect(await verdictOf(backend, problem, "integers", M, kernel), `M ${M}`).toMatchObject({ ok: true });
        }
      });

      test.skipIf(missing)("every class of data stays within the float64 interval", async () => {
        const seed = Date.now() % 1_000_000;
        for (const out of few ? (["bf16"] as const) : (["f32", "bf16", "e4m3"] as const)) {
          const problem = { family, dtype, out, M: 5, N: 9, K: 2880 };
          const kernel = makeKernel(family, dtype, out, problem, small);
          for (const data of dataClasses) {
            const verdict = await verdictOf(backend, problem, data, seed, kernel);
            expect(verdict, `${JSON.stringify(problem)} ${data} seed ${seed}`).toMatchObject({ ok: true });
          }
        }
      });
    });

    test.skipIf(missing)("the router of 8 tokens, within 60 s even on a CPU", { timeout: 60_000 }, async () => {
      const problem = { family, dtype: "bf16", out: "f32", M: 8, N: 256, K: 7168 } as const;
      expect(await verdictOf(backend, problem, "integers", 9)).toMatchObject({ ok: true });
    });
  });
}
