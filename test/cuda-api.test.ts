/** Every public operation of `tegula/cuda` succeeds once, on the stand-in for libcuda; cuda-gpu.test.ts does so on a GPU. */
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import * as cudaApi from "../backends/cuda/index.ts";
import { f32 } from "../dsl/dtype.ts";
import { type axpy, neverDone, publicNames, recorded, tour } from "./cuda-api.ts";
import { buildFakeCuda, cCompiler, type FakeCuda } from "./fake-cuda/build.ts";
import { fakeKernel } from "./fake-cuda/kernels.ts";

vi.mock("../backends/cuda/emit.ts", async () => (await import("./fake-cuda/kernels.ts")).fakeEmitter());

if (!cCompiler) console.warn("cuda-api.test.ts: SKIPPED, there is no C compiler to build the stand-in for libcuda");

const params = { tensors: { x: "input", y: "inout" }, scalars: { a: f32 } } as const;

describe.skipIf(!cCompiler)("the API on a stand-in driver", () => {
  let fake: FakeCuda;
  beforeAll(() => {
    fake = buildFakeCuda();
  });
  afterAll(() => fake.remove());

  it("succeeds once in every operation", async () => {
    const done = new Set<string>();
    const { api, restore } = recorded(cudaApi, done);
    await tour(api, fakeKernel("axpy", params) as unknown as typeof axpy);
    restore();
    expect(fake.violations()).toBe(0);
    expect(neverDone(done)).toEqual([]);
  });

  it("an operation that nothing calls, or that throws, is noticed", () => {
    const done = new Set<string>();
    const { api, restore } = recorded(cudaApi, done);
    expect(() => api.deviceTensor(undefined as never, f32, [-1])).toThrow();
    restore();
    expect([...done]).toEqual([]);
    expect(neverDone(done)).toEqual(publicNames().operations);
    expect(publicNames().operations.length).toBeGreaterThan(60);
    expect(publicNames().operations).toContain("deviceTensor");
    expect(publicNames().operations).toContain("CudaGraph.[Symbol.dispose]");
    expect(publicNames().operations).not.toContain("CudaStream.admit"); // internal
  });
});
