/** The general GEMM on every device: bits on integers, intervals on reals, ragged in every direction, by TMA and by threads. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../backends/backend.ts";
import { bf16, type Dim, f32, HostTensor, ShapeError, size } from "../dsl/index.ts";
import {
  checkBits,
  checkInterval,
  type DataClass,
  dataClasses,
  gemmBf16,
  type GemmConfig,
  gemmConfigurations,
  gemmReference,
  randomTensor,
  seededRandom,
} from "../kernels/index.ts";
import { devices, noNvcc, nvccResources, runGuarded } from "./harness.ts";

interface Problem {
  readonly M: number;
  readonly N: number;
  readonly K: number;
  readonly out?: "f32" | "bf16";
}

const make = (dims: { readonly M: Dim; readonly N: Dim; readonly K: Dim }, out: "f32" | "bf16", tiles = {}) =>
  gemmBf16<"f32" | "bf16">({ ...dims, out: out === "f32" ? f32 : bf16, ...tiles });

async function verdictOf(
  backend: Backend,
  { M, N, K, out = "f32" }: Problem,
  tiles: Pick<GemmConfig, "tileM" | "tileN" | "stages"> = {},
  kernel = make({ M, N, K }, out, tiles),
  data: DataClass = "integers",
) {
  const random = seededRandom(M + 7 * N + 31 * K);
  const x = randomTensor(bf16, [M, K], data, random);
  const w = randomTensor(bf16, [N, K], data, random);
  const y = HostTensor.filled(out === "f32" ? f32 : bf16, [M, N], 0);
  const { y: result } = (await runGuarded(backend, kernel, { x, w, y })) as { readonly y: HostTensor };
  const reference = gemmReference(x, w);
  if (data === "integers") return checkBits(result, reference.y);
  // Tensor cores truncate each sum: twice the error of rounding, which `partials: K` allows for.
  return checkInterval(result, reference.y, reference.magnitudes, { terms: K, partials: K, device: backend.name });
}

/** Tiles that a software device is not busy with for long. */
const small = { tileM: 64, tileN: 32, stages: 2 } as const;

describe.each(devices)("gemm on $name", ({ name, missing, open }) => {
  let backend: Backend;
  beforeAll(async () => {
    if (!missing) backend = await open();
  });
  afterAll(() => backend?.dispose());

  test.skipIf(missing).each([
    { M: 70, N: 72, K: 136 },
    { M: 17, N: 33, K: 200, out: "bf16" },
    { M: 3, N: 34, K: 77 },
  ] as const)("sizes as numbers are exact, by TMA and by threads: $M x $N x $K", async (problem) => {
    expect(await verdictOf(backend, problem, small)).toMatchObject({ ok: true });
  });

  test.skipIf(missing)("two warpgroups multiply; the ring goes round; one kernel serves many sizes", async () => {
    const kernel = make({ M: size("M"), N: size("N"), K: size("K", { multipleOf: 8 }) }, "f32", {
      ...small,
      tileM: 128,
    });
    for (const problem of [
      { M: 130, N: 40, K: 328 },
      { M: 1, N: 1, K: 8 },
    ]) {
      const verdict = await verdictOf(backend, problem, {}, kernel);
      expect(verdict, JSON.stringify(problem)).toMatchObject({ ok: true });
    }
  });

  // What follows is too much for software.
  const heavy = missing || name !== "cuda";

  test.skipIf(heavy).each([1, 17, 64, 100, 128, 300])("M = %i with its own tiles is exact", async (M) => {
    for (const [N, K] of [
      [1, 8],
      [255, 72],
      [520, 2880],
      [264, 77],
      [33, 130],
      [1000, 1025],
    ] as const) {
      for (const out of ["f32", "bf16"] as const) {
        const problem = { M, N, K, out };
        expect(await verdictOf(backend, problem), JSON.stringify(problem)).toMatchObject({ ok: true });
      }
    }
  });

  test.skipIf(heavy).each([8, 1])("run-time sizes, K a multiple of %i, are exact", async (multipleOf) => {
    for (const tileN of [64, 128, ...(multipleOf === 8 ? [256] : [])] as const) {
      const dims = { M: size("M"), N: size("N"), K: size("K", { multipleOf }) };
      const kernel = make(dims, "bf16", { tileN });
      for (const [i, M] of [1, 17, 64, 100, 128, 300, 1153].entries()) {
        const problem = { M, N: [1, 96, 257, 700][i % 4] ?? 1, K: 64 * i + 8 - (multipleOf % 8), out: "bf16" } as const;
        expect(await verdictOf(backend, problem, {}, kernel), `${tileN} ${JSON.stringify(problem)}`).toMatchObject({
          ok: true,
        });
      }
    }
  });

  test.skipIf(heavy)("every class of data stays within the float64 interval", async () => {
    for (const data of dataClasses) {
      const problem = { M: 150, N: 264, K: 2880, out: "f32" } as const;
      for (const tileN of [64, 256] as const) {
        const kernel = make(problem, "f32", { tileM: 128, tileN });
        expect(await verdictOf(backend, problem, {}, kernel, data), data).toMatchObject({ ok: true });
      }
    }
  });
});

test("a ring of one stage is refused", () => {
  expect(() => make({ M: 64, N: 64, K: 64 }, "f32", { stages: 1 })).toThrow(ShapeError);
});

test.skipIf(noNvcc)("the shipped configurations compile for sm_90a without a spill", () => {
  for (const { out, N, K } of gemmConfigurations) {
    for (const M of [64, 512, 4096]) {
      const { spillStoreBytes, spillLoadBytes, stackBytes } = nvccResources(make({ M, N, K }, out));
      expect({ N, K, M, spillStoreBytes, spillLoadBytes, stackBytes }).toEqual({
        ...{ N, K, M },
        ...{ spillStoreBytes: 0, spillLoadBytes: 0, stackBytes: 0 },
      });
    }
  }
});
