/** Grids whose three extents differ: each reaches its own axis, on the way to the driver and in every executor. */
import { afterAll, beforeAll, describe, expect, it, test, vi } from "vitest";
import type { Backend } from "../backends/backend.ts";
import { openCuda } from "../backends/cuda/runtime.ts";
import { run } from "../backends/run.ts";
import { dims, HostTensor, i32, inout, kernel, size } from "../dsl/index.ts";
import { cCompiler } from "./fake-cuda/build.ts";
import { standInDriver } from "./fake-cuda/hooks.ts";
import { bound, fakeKernel } from "./fake-cuda/kernels.ts";
import { devices } from "./harness.ts";

vi.mock("../backends/cuda/emit.ts", async () => (await import("./fake-cuda/kernels.ts")).fakeEmitter());

describe.skipIf(!cCompiler)("on a stand-in driver", () => {
  const fake = standInDriver();

  it("are launched axis by axis", async () => {
    await using cuda = await openCuda();
    (await bound(cuda, fakeKernel("box", { grid: [2, 3, 5] }))).launch();
    expect(fake.log()).toContain("launch box grid 2 3 5 block 64 1 1 shared 0 attributes 1");
  });
});

/** How often each block ran, where it found itself by its coordinates. */
const [X, Y, Z] = [size("X"), size("Y"), size("Z")];
const visits = kernel(
  { name: "visits", grid: [dims.mul(X, 2), Y, Z], block: 32, cluster: 2, params: { seen: inout(i32, [Z, Y, X, 2]) } },
  (t) => {
    const { seen } = t.pdl.wait();
    const { x, y, z } = t.block;
    t.when(t.lane.eq(0), () => {
      seen.atomicAdd([z, y, x.div(2), x.rem(2)], t.cluster.rank.mul(100).add(1));
    });
  },
);

describe.each(devices.filter(({ name }) => name !== "cuda"))("on $name", ({ open }) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await open();
  });
  afterAll(() => backend.dispose());

  test.each([
    [1, 3, 5],
    [4, 1, 3],
    [3, 2, 1],
    [2, 5, 7],
  ])("%d x %d x %d clusters of 2 each run once", async (x, y, z) => {
    const count = 2 * x * y * z;
    const seen = HostTensor.filled(i32, [z, y, x, 2], 0);
    const result = await run(backend, visits, { seen });
    expect([...result.seen.values()]).toEqual(Array.from({ length: count }, (_, i) => 1 + 100 * (i % 2)));
  });
});
