/** Clusters and tensor maps against the stand-in for libcuda: what crosses the FFI, and what is refused before. */
import { describe, expect, it, vi } from "vitest";
import { openCuda } from "../backends/cuda/runtime.ts";
import { DeviceTensor } from "../backends/tensor.ts";
import { bf16 } from "../dsl/dtype.ts";
import { size } from "../dsl/size.ts";
import { ArgumentError, LaunchRefusedError } from "../dsl/errors.ts";
import { cCompiler } from "./fake-cuda/build.ts";
import { standInDriver } from "./fake-cuda/hooks.ts";
import { bound, fakeKernel } from "./fake-cuda/kernels.ts";

vi.mock("../backends/cuda/emit.ts", async () => (await import("./fake-cuda/kernels.ts")).fakeEmitter());

const [rows, columns] = [size("rows"), size("columns")];
const anySize = { tensors: { x: "input" }, dtype: bf16, shape: [rows, columns] } as const;
const loads = fakeKernel("loads", { ...anySize, tensorMapBox: [32, 64] });

describe.skipIf(!cCompiler)("tiles on a stand-in driver", () => {
  const fake = standInDriver();

  const encodings = () => fake.log().filter((line) => line.startsWith("tensor map"));

  it("passes a tensor map by value, aligned", async () => {
    await using cuda = await openCuda();
    const x = new DeviceTensor(cuda.allocate(4096), bf16, [16, 128]);
    (await bound(cuda, loads, { x })).launch();
    expect(encodings()).toEqual(["tensor map type 9 rank 2 size 128 box 64 swizzle 3 promotion 3"]);
    expect(fake.log()).toContain("argument a tensor map aligned 0");
  });

  it("encodes it once, when the arguments are bound", async () => {
    await using cuda = await openCuda();
    const storage = cuda.allocate(8192);
    const launches = await Promise.all(
      [0, 256].map((offset) => bound(cuda, loads, { x: new DeviceTensor(storage, bf16, [16, 128], offset) })),
    );
    expect(encodings()).toHaveLength(2);
    for (let i = 0; i < 3; i++) for (const launch of launches) launch.launch();
    expect(encodings()).toHaveLength(2);
  });

  it("refuses tensors that TMA can't read, and says what to do", async () => {
    await using cuda = await openCuda();
    const storage = cuda.allocate(4096);
    const binding = (shape: readonly number[], offset = 0, kernel = loads) =>
      expect(bound(cuda, kernel, { x: new DeviceTensor(storage, bf16, shape, offset) })).rejects;
    await binding([16, 100]).toThrow(ArgumentError);
    await binding([16, 100]).toThrow(
      /^loads: TMA can't read x: a row of 100 bf16 has 200 bytes, not a multiple of 16[^]*Pad the last dimension of x to a multiple of 8/,
    );
    await binding([16, 64], 8).toThrow(/begins at an address that is not a multiple of 16 bytes/);
    const wide = fakeKernel("wide", { ...anySize, tensorMapBox: [32, 512] });
    await binding([2, 512], 0, wide).toThrow(
      /boxes of \[32, 512\] and a swizzle of 128 bytes the driver answers CUDA_ERROR_FAKE \(1/,
    );
  });

  it("divides grids into clusters", async () => {
    await using cuda = await openCuda();
    const pairs = (x: number) => fakeKernel("pairs", { cluster: 2, grid: [x, 1, 1] });
    (await bound(cuda, pairs(4))).launch();
    expect(fake.log()).toContain("launch pairs grid 4 1 1 block 64 1 1 shared 0 attributes 1");
    await expect(bound(cuda, pairs(3))).rejects.toThrow(
      "pairs: a grid of 3 blocks along x doesn't divide into clusters of 2",
    );
  });

  it("refuses clusters that don't fit", async () => {
    await using cuda = await openCuda();
    const compile = () => cuda.compile(fakeKernel("eights", { cluster: 8, dynamicShared: 200 * 1024 }));
    await expect(compile).rejects.toThrow(LaunchRefusedError);
    await expect(compile).rejects.toThrow(
      "Fake H0 has no room for eights's clusters of 8 blocks with 64 threads and 200 KiB of shared memory each",
    );
  });
});
