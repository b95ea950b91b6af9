/** What the WGSL backend alone says of tile kernels: deadlocks, and what it has no room for. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { run } from "../backends/run.ts";
import { emitWgsl, openWgsl, type WgslBackend } from "../backends/wgsl/index.ts";
import { i32, kernel, output } from "../dsl/index.ts";

let backend: WgslBackend;
beforeAll(async () => void (backend = await openWgsl()));
afterAll(() => backend.dispose());

const range = (count: number): readonly number[] => Array.from({ length: count }, (_, i) => i);

it("reports warps that wait for ever, naming the kernel", async () => {
  const forever = kernel({ name: "forever", grid: 2, block: 64, params: { y: output(i32, [1]) } }, (t) => {
    const { y } = t.pdl.wait();
    const never = t.mbarrier(1, 2);
    t.when(t.thread.eq(0), () => never.arrive(0));
    never.wait(0, 0);
    y.store([0], t.const(i32, 1));
  });
  await expect(run(backend, forever, {})).rejects.toThrow(/Deadlock in "forever"/);
  await backend.synchronize();
});

describe("what WGSL has no room for", () => {
  const withTensors = (count: number, words: number) => {
    const names = range(count).map((i) => `y${i}`);
    const params = Object.fromEntries(names.map((name) => [name, output(i32, [32])]));
    return kernel({ name: "crowded", grid: 1, block: 64, params }, (t) => {
      const tensors = t.pdl.wait();
      const s = t.shared(i32, [words]);
      s.store([t.lane], t.lane);
      t.namedBarrier(1, 64);
      for (const name of names) tensors[name]?.store([t.lane], s.load([t.lane]));
    });
  };

  it("scratch beside 8 tensors", async () => {
    expect(() => emitWgsl(withTensors(8, 5000).ir)).toThrow(
      /crowded needs 20000 bytes of shared memory in WGSL.*beside the kernel's 8 tensors, and WGSL binds at most 8/,
    );
    const { y7 } = await run(backend, withTensors(8, 32), {});
    expect([...(y7?.values() ?? [])]).toEqual(range(32));
  });

  it("a named barrier of two sizes", () => {
    const mixed = kernel({ name: "mixed", grid: 1, block: 128, params: {} }, (t) => {
      t.pdl.wait();
      t.namedBarrier(1, 128);
      t.when(t.warp.lt(2), () => t.namedBarrier(1, 64));
    });
    expect(() => emitWgsl(mixed.ir)).toThrow(
      /mixed: in WGSL the named barrier 1 has one number of threads, not 128 and 64/,
    );
  });
});
