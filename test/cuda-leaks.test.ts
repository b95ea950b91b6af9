/** Much work leaves nothing behind: host memory, and what the stand-in for libcuda handed out, stay flat. */
import { setImmediate } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, it, vi } from "vitest";
import { openCuda } from "../backends/cuda/runtime.ts";
import { f32 } from "../dsl/dtype.ts";
import { HostTensor } from "../dsl/host.ts";
import { cCompiler } from "./fake-cuda/build.ts";
import { standInDriver } from "./fake-cuda/hooks.ts";
import { boundAxpy, fakeKernel, valuesOf, vector } from "./fake-cuda/kernels.ts";

vi.mock("../backends/cuda/emit.ts", async () => (await import("./fake-cuda/kernels.ts")).fakeEmitter());

if (!cCompiler) console.warn("cuda-leaks.test.ts: SKIPPED, there is no C compiler to build the stand-in for libcuda");

setFlagsFromString("--expose-gc");
const collectGarbage: () => void = runInNewContext("gc");

const count = 20_000;
/** What a process may grow by for other reasons: 50 bytes for each of `count`. */
const flatBytes = 2 ** 20;

async function usedBytes(): Promise<number> {
  for (let i = 0; i < 3; i++) {
    await setImmediate();
    collectGarbage();
  }
  const { heapUsed, external, arrayBuffers } = process.memoryUsage();
  return heapUsed + external + arrayBuffers;
}

describe.skipIf(!cCompiler)("leaks on a stand-in driver", () => {
  const fake = standInDriver();

  /** Bytes that `count` rounds add, after a tenth as many; nothing that the driver hands out may be left. */
  async function growth(round: (i: number) => unknown, rounds = count): Promise<number> {
    for (let i = 0; i < rounds / 10; i++) await round(i);
    const [bytes, driver] = [await usedBytes(), fake.leaks()];
    for (let i = 0; i < rounds; i++) await round(i);
    expect(fake.leaks()).toBe(driver);
    return (await usedBytes()) - bytes;
  }

  it("none by launches", async () => {
    await using cuda = await openCuda();
    const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
    const launch = await boundAxpy(cuda, x, y, 1);
    const grown = await growth((i) => {
      launch.launch();
      return i % 500 === 0 ? cuda.synchronize() : undefined;
    });
    expect(grown).toBeLessThan(flatBytes);
    expect(await valuesOf(y)).toEqual([1.1 * count]);
  });

  it("none by uploads, synchronous and pinned", async () => {
    await using cuda = await openCuda();
    const x = vector(cuda, new Array<number>(256).fill(0));
    const data = HostTensor.from(f32, [256], new Array<number>(256).fill(1));
    const pinned = cuda.pinned(f32, [256]);
    const grown = await growth((i) => {
      x.write(data);
      cuda.stream.copy(pinned, x);
      return i % 500 === 0 ? cuda.synchronize() : undefined;
    });
    expect(grown).toBeLessThan(flatBytes);
  });

  it("none by tensors, pinned memory, streams, events, launches and graphs that come and go", async () => {
    await using cuda = await openCuda();
    const kernel = fakeKernel("axpy", { tensors: { x: "input", y: "inout" }, scalars: { a: f32 } });
    const executable = await cuda.compile(kernel);
    const grown = await growth(async () => {
      using x = vector(cuda, [1]);
      using y = vector(cuda, [0]);
      using pinned = cuda.pinned(f32, [1]);
      using stream = cuda.createStream();
      const launch = executable.bind({ x, y, a: 1 } as never);
      using graph = cuda.capture((on) => {
        launch.launch(on);
        on.copy(y, pinned);
      });
      graph.launch(stream);
      using event = stream.record();
      await event.synchronize();
      expect(pinned.values()[0]).toBe(1);
    }, count / 10);
    expect(grown).toBeLessThan(flatBytes);
  });

  it("none by backends that open, compile, fail and close", async () => {
    const grown = await growth(async (i) => {
      const cuda = await openCuda();
      const y = vector(cuda, [0]);
      (await boundAxpy(cuda, vector(cuda, [1]), y, 1)).launch();
      expect(() => cuda.allocate(2 ** 30)).toThrow("No room");
      if (i % 2) await y.read();
      await cuda.dispose();
      expect(fake.leaks()).toBe(0);
    }, count / 10);
    expect(grown).toBeLessThan(flatBytes);
  });
});
