/**
 * What the CUDA backend gives back, and when: never while work may use it, also where nobody can wait for that work; on the
 * stand-in for libcuda (cuda-driver.test.ts).
 */
import { describe, expect, it, vi } from "vitest";
import { openCuda } from "../backends/cuda/runtime.ts";
import { f32 } from "../dsl/dtype.ts";
import { ArgumentError, ContextLostError, DeviceError, DisposedError } from "../dsl/errors.ts";
import { HostTensor } from "../dsl/host.ts";
import { cCompiler } from "./fake-cuda/build.ts";
import { standInDriver } from "./fake-cuda/hooks.ts";
import { axpy, bound, boundAxpy, idle, trap, valuesOf, vector } from "./fake-cuda/kernels.ts";

vi.mock("../backends/cuda/emit.ts", async () => (await import("./fake-cuda/kernels.ts")).fakeEmitter());

if (!cCompiler)
  console.warn("cuda-lifetimes.test.ts: SKIPPED, there is no C compiler to build the stand-in for libcuda");

describe.skipIf(!cCompiler)("lifetimes on a stand-in driver", () => {
  const fake = standInDriver();

  const times = (call: string) => fake.log().filter((line) => line === call).length;

  it("a graph that is disposed by its own update is gone, and what another one holds stays", async () => {
    const cuda = await openCuda();
    const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
    const launch = await boundAxpy(cuda, x, y, 1);
    const graph = cuda.capture((on) => launch.launch(on));
    const other = cuda.capture((on) => launch.launch(on));
    const disposing = () =>
      graph.update((on) => {
        launch.launch(on);
        graph.dispose();
      });
    expect(disposing).toThrow(DisposedError);
    expect(times("cuGraphExecUpdate_v2")).toBe(0);
    x.free();
    y.free();
    expect(times("cuMemFree_v2")).toBe(0);
    other.launch();
    other.dispose();
    expect(times("cuMemFree_v2")).toBe(2);
    await cuda.dispose();
    expect(fake.leaks()).toBe(0);
  });

  describe("of what an adopted stream uses that can't be waited for", () => {
    it.each([900, 400])("wait for the next time, after CUresult %i", async (result) => {
      const cuda = await openCuda();
      const stream = cuda.adoptStream(fake.foreignStream());
      const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
      (await boundAxpy(cuda, x, y, 1)).launch(stream);
      await cuda.stream.synchronize();
      fake.fail("cuStreamSynchronize", result);
      x.free();
      expect(x.storage.freed).toBe(true);
      expect(times("cuMemFree_v2")).toBe(0);
      y.free(); // waits for the stream, and gives both back
      expect(times("cuMemFree_v2")).toBe(2);
      await cuda.dispose();
      expect(fake.leaks()).toBe(0);
    });

    it("end with the backend, if nothing else is freed before", async () => {
      const cuda = await openCuda();
      const stream = cuda.adoptStream(fake.foreignStream());
      const x = vector(cuda, [1]);
      (await bound(cuda, idle)).launch(stream);
      (await cuda.compile(idle)).dispose();
      fake.fail("cuStreamSynchronize", 900);
      x.free();
      expect(times("cuMemFree_v2")).toBe(0);
      await cuda.dispose();
      expect(fake.leaks()).toBe(0);
    });

    it("writing and reading throw instead of going on", async () => {
      await using cuda = await openCuda();
      const stream = cuda.adoptStream(fake.foreignStream());
      const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
      (await boundAxpy(cuda, x, y, 1)).launch(stream);
      const copies = () => fake.log().filter((line) => /^cuMemcpy/.test(line)).length;
      const before = copies();
      fake.fail("cuStreamSynchronize", 900);
      expect(() => x.write(HostTensor.from(f32, [1], [7]))).toThrow(
        /^CUDA failed, waiting for launches: CUDA_ERROR_FAKE \(900/,
      );
      fake.fail("cuStreamSynchronize", 900);
      await expect(y.read()).rejects.toThrow(DeviceError);
      expect(copies()).toBe(before);
      expect(await valuesOf(y)).toEqual([1]);
    });

    it("are left to the driver when the stream's owner destroyed it, and dispose() says so", async () => {
      const cuda = await openCuda();
      const pointer = fake.foreignStream();
      const stream = cuda.adoptStream(pointer);
      const onFree = vi.fn();
      const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
      const lent = cuda.adoptTensor({ pointer: fake.foreignMemory(4), dtype: f32, shape: [1], onFree });
      (await boundAxpy(cuda, x, y, 1)).launch(stream);
      (await boundAxpy(cuda, x, lent, 1)).launch(stream);
      fake.destroyForeignStream(pointer);
      lent.free();
      stream.dispose();
      expect(() => stream.record()).toThrow(DisposedError);
      x.free();
      const disposing = cuda.dispose();
      await expect(disposing).rejects.toThrow(DeviceError);
      await expect(disposing).rejects.toThrow(/^Not all memory was given back: the work of an adopted stream/);
      expect(onFree).not.toHaveBeenCalled();
      expect(times("cuMemFree_v2") + times("cuModuleUnload")).toBe(0);
      await cuda.dispose();
    });

    it("end when the stream's work has, also after it was disposed", async () => {
      const cuda = await openCuda();
      const stream = cuda.adoptStream(fake.foreignStream());
      const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
      (await boundAxpy(cuda, x, y, 1)).launch(stream);
      fake.fail("cuStreamSynchronize", 900);
      stream.dispose();
      await cuda.synchronize();
      expect(await valuesOf(y)).toEqual([1]);
      x.free();
      expect(times("cuMemFree_v2")).toBe(1);
      await cuda.dispose();
      expect(fake.leaks()).toBe(0);
    });
  });

  it("memory of this library isn't adopted again: it would be writable for ever", async () => {
    await using cuda = await openCuda();
    await using neighbour = await openCuda(); // shares the context
    const x = vector(cuda, [1, 2]).freeze();
    const pointer = cuda.pointerOf(x);
    for (const backend of [cuda, neighbour]) {
      const adopt = (offset: bigint) => () =>
        backend.adoptTensor({ pointer: pointer + offset, dtype: f32, shape: [1] });
      for (const offset of [0n, 4n]) expect(adopt(offset)).toThrow(ArgumentError);
      expect(adopt(4n)).toThrow(/^0x\w+ lies in memory of a tensor of this library.*\n.*tensor\.view\(/);
    }
    const target = vector(cuda, [0]);
    using graph = cuda.capture((on) => on.copy(x.view([1]), target));
    x.free(); // but the graph has it
    expect(() => cuda.adoptTensor({ pointer, dtype: f32, shape: [1] })).toThrow(ArgumentError);
    graph.dispose();
    expect(() => cuda.adoptTensor({ pointer, dtype: f32, shape: [1] })).toThrow("is no address that CUDA knows");
  });

  it("waiting for a stream leaves no event behind", async () => {
    fake.device(1, 9, 0);
    await using cuda = await openCuda();
    await using elsewhere = await openCuda({ ordinal: 1 });
    const [a, b] = [cuda.createStream(), cuda.createStream()];
    const [x, y, z] = [vector(cuda, [1]), vector(cuda, [0]), vector(cuda, [0])];
    const [xToY, yToZ] = [await boundAxpy(cuda, x, y, 1), await boundAxpy(cuda, y, z, 1)];
    const before = fake.leaks();
    xToY.launch(a);
    for (let i = 0; i < 1000; i++) b.waitFor(a);
    expect(fake.leaks()).toBe(before);
    yToZ.launch(b);
    await b.synchronize();
    expect(await valuesOf(z)).toEqual([1]);
    expect(() => b.waitFor(elsewhere.stream)).toThrow(ArgumentError);
    a.dispose();
    expect(() => b.waitFor(a)).toThrow(DisposedError);
  });

  describe("of machine code", () => {
    it("ends by dispose(), after its launches; compiling makes another", async () => {
      await using cuda = await openCuda();
      const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
      const executable = await cuda.compile(axpy);
      const launch = executable.bind({ x, y, a: 1 } as never);
      launch.launch();
      executable.dispose();
      executable.dispose();
      expect(fake.log().slice(-2)).toEqual(["cuStreamSynchronize", "cuModuleUnload"]);
      const calls = fake.log().length;
      expect(() => launch.launch()).toThrow("axpy was launched after its executable was disposed");
      expect(() => cuda.capture((on) => launch.launch(on))).toThrow(DisposedError);
      expect(() => executable.bind({ x, y, a: 1 } as never)).toThrow(DisposedError);
      expect(fake.log().slice(calls)).not.toContain("cuLaunchKernelEx");
      using another = await cuda.compile(axpy);
      expect(another).not.toBe(executable);
      another.bind({ x, y, a: 10 } as never).launch();
      expect(await valuesOf(y)).toEqual([11]);
    });

    it("ends with the last graph that has it", async () => {
      const cuda = await openCuda();
      const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
      const executable = await cuda.compile(axpy);
      const launch = executable.bind({ x, y, a: 1 } as never);
      const graph = cuda.capture((on) => launch.launch(on));
      executable.dispose();
      graph.launch();
      expect(await valuesOf(y)).toEqual([1]);
      expect(times("cuModuleUnload")).toBe(0);
      graph.dispose();
      expect(times("cuModuleUnload")).toBe(1);
      await cuda.compile(axpy);
      await cuda.dispose();
      expect(fake.leaks()).toBe(0);
    });
  });

  it("a fault that nobody waited for is not lost at the end of `await using`", async () => {
    const scope = async () => {
      await using cuda = await openCuda();
      (await bound(cuda, idle)).launch();
      (await bound(cuda, trap)).launch();
    };
    const leaving = scope();
    await expect(leaving).rejects.toThrow(ContextLostError);
    await expect(leaving).rejects.toThrow(/^One of the kernels idle, trap \(launched last\) failed with/);
    fake.reset();
    const known = await openCuda();
    (await bound(known, trap)).launch();
    await expect(known.synchronize()).rejects.toThrow(ContextLostError);
    await known.dispose(); // says it once
  });
});
