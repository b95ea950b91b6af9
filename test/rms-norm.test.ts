/** RMSNorm with residual add on every device. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../backends/backend.ts";
import { bf16, HostTensor, size } from "../dsl/index.ts";
import {
  checkBits,
  checkWithin,
  randomTensor,
  rmsNorm,
  rmsNormConfigurations,
  rmsNormReference,
  seededRandom,
} from "../kernels/index.ts";
import { devices, noNvcc, nvccResources, runGuarded } from "./harness.ts";

const eps = 1e-5;

describe.each(devices)("rmsNorm on $name", ({ missing, open }) => {
  let backend: Backend;
  beforeAll(async () => {
    if (!missing) backend = await open();
  });
  afterAll(() => backend?.dispose());

  test.skipIf(missing).each([1, 2, 7, 32, 255, 264, 2880, 4097, 7168])("rows of %i", async (H) => {
    const kernel = rmsNorm({ M: size("M"), H });
    for (const M of [1, 3, 8]) {
      const random = seededRandom(H + M);
      const x = randomTensor(bf16, [M, H], "normal", random);
      const residual = randomTensor(bf16, [M, H], "normal", random);
      const weight = randomTensor(bf16, [H], "normal", random);
      const y = HostTensor.filled(bf16, [M, H], 0);
      const result = await runGuarded(backend, kernel, { x, residual, weight, eps, y });
      const expected = rmsNormReference(x, residual, weight, eps);
      // The sum of two bf16 is rounded to f32 and then to bf16; f32 holds it to one part in 2^24.
      expect(
        checkWithin(result.residual, expected.residual, (i) => Math.abs(expected.residual[i] ?? 0) * 2 ** -23),
      ).toMatchObject({ ok: true });
      // Mean of H squares, rsqrt (2 ulp), two products: relative error below (H / 2 + 8) * 2^-24.
      const relative = (H / 2 + 8) * 2 ** -24;
      expect(checkWithin(result.y, expected.y, (i) => Math.abs(expected.y[i] ?? 0) * relative)).toMatchObject({
        ok: true,
      });
    }
  });

  test.skipIf(missing)("a row of equal values is exact: each becomes its weight", async () => {
    const H = 2880;
    const ones = HostTensor.from(bf16, [1, H], new Array<number>(H).fill(1));
    const weight = randomTensor(bf16, [H], "integers", seededRandom(1));
    const y = HostTensor.filled(bf16, [1, H], 0);
    const result = await runGuarded(backend, rmsNorm({ M: 1, H }), { x: ones, residual: ones, weight, eps: 0, y });
    expect(checkBits(result.residual, new Float64Array(H).fill(2))).toMatchObject({ ok: true });
    expect(checkBits(result.y, weight.values())).toMatchObject({ ok: true });
  });
});

test.skipIf(noNvcc)("the shipped configurations compile for sm_90a without a spill", () => {
  for (const { H } of rmsNormConfigurations) {
    expect(nvccResources(rmsNorm({ M: size("M"), H }))).toMatchObject({
      spillStoreBytes: 0,
      spillLoadBytes: 0,
      stackBytes: 0,
    });
  }
});
