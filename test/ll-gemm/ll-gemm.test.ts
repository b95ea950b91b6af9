/** What all low-latency GEMMs have in common: what they refuse, what they take of registers; and f32 weights. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../../backends/backend.ts";
import { bf16, f32, HostTensor, ShapeError, size } from "../../dsl/index.ts";
import {
  checkBits,
  gemmReference,
  llGemmDotBf16,
  llGemmDotConfigurations,
  llGemmDotF32,
  llGemmMmaBf16,
  llGemmStreamBf16,
  llGemmStreamE4m3,
  seededRandom,
} from "../../kernels/index.ts";
import { devices, noNvcc, nvccResources, runGuarded } from "../harness.ts";
import { makeKernel } from "./suite.ts";

describe.each(devices)("f32 weights on $name", ({ missing, open }) => {
  let backend: Backend;
  beforeAll(async () => {
    if (!missing) backend = await open();
  });
  afterAll(() => backend?.dispose());

  test.skipIf(missing)("keep every bit", async () => {
    const [M, N, K] = [2, 5, 3072];
    const kernel = llGemmDotF32({ M, N, K, out: f32 });
    const random = seededRandom(5);
    const signs = Array.from({ length: M * K }, () => (random() < 0.5 ? -1 : 1));
    const x = HostTensor.from(bf16, [M, K], signs);
    // One weight of each row is not zero, and has more bits than bf16 or TF32 hold.
    const weights = Array.from({ length: N * K }, (_, i) => (i % (K + 1) === 0 ? 2 ** 24 - 1 - i : 0));
    const w = HostTensor.from(f32, [N, K], weights);
    const { y } = await runGuarded(backend, kernel, { w, x, y: HostTensor.filled(f32, [M, N], 0) });
    expect(checkBits(y, gemmReference(x, w).y)).toMatchObject({ ok: true });
  });
});

test("more than 16 tokens are refused", () => {
  expect(() => llGemmDotBf16({ M: 17, N: 8, K: 64, out: f32 })).toThrow(ShapeError);
  expect(() => llGemmDotBf16({ M: size("M"), N: 8, K: 64, out: f32 })).toThrow(/size\("M", \{ max: 16 \}\)/);
});

test("rows that cp.async can't take 16 bytes at a time are refused", () => {
  expect(() => llGemmMmaBf16({ M: 8, N: 64, K: 4100, out: f32, parked: 1 })).toThrow(
    /parked.*whole 16 bytes, not of 4100 bf16/,
  );
});

test("rows that TMA can't take are refused", () => {
  expect(() => llGemmStreamBf16({ M: 8, N: 64, K: 4100, out: f32 })).toThrow(
    /whole 16 bytes, not of 4100 bf16[^]*multiple of 8/,
  );
  expect(() => llGemmStreamE4m3({ M: 8, N: 64, K: size("K"), out: f32 })).toThrow(/multiple of 16, promised/);
  expect(() => llGemmStreamE4m3({ M: 8, N: 64, K: 64, out: f32, groups: 2, boxes: 3 })).toThrow(
    /boxes \/ groups.*not 1\.5/,
  );
});

test.skipIf(noNvcc)("the shipped configurations compile for sm_90a without a spill", () => {
  for (const { dtype, out, N, K } of llGemmDotConfigurations) {
    for (const M of [1, 8, 16]) {
      const { spillStoreBytes, spillLoadBytes, stackBytes } = nvccResources(makeKernel("dot", dtype, out, { M, N, K }));
      expect({ N, K, M, spillStoreBytes, spillLoadBytes, stackBytes }).toEqual({
        ...{ N, K, M },
        ...{ spillStoreBytes: 0, spillLoadBytes: 0, stackBytes: 0 },
      });
    }
  }
});

test.skipIf(noNvcc).each(["sm_90a", "sm_100a", "sm_120a"] as const)("run-time sizes compile for %s", (arch) => {
  const dims = { M: size("M", { max: 16 }), N: size("N"), K: size("K") };
  for (const dtype of ["bf16", "e4m3", "f32"] as const) {
    expect(nvccResources(makeKernel("dot", dtype, "bf16", dims), arch).registers).toBeLessThanOrEqual(128);
  }
});
