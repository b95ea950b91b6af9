/** Graphs: captured, launched, updated, and everything that can't be captured; on the stand-in for libcuda. */
import koffi from "koffi";
import { describe, expect, it, vi } from "vitest";
import type { CudaQueue } from "../backends/cuda/index.ts";
import { openCuda } from "../backends/cuda/index.ts";
import type { CudaBackend } from "../backends/cuda/runtime.ts";
import { f32 } from "../dsl/dtype.ts";
import { ArgumentError, CaptureError, DeviceError, DisposedError } from "../dsl/errors.ts";
import { HostTensor } from "../dsl/host.ts";
import { cCompiler } from "./fake-cuda/build.ts";
import { standInDriver } from "./fake-cuda/hooks.ts";
import { bound, boundAxpy, fakeKernel, idle, trap, valuesOf, vector } from "./fake-cuda/kernels.ts";

vi.mock("../backends/cuda/emit.ts", async () => (await import("./fake-cuda/kernels.ts")).fakeEmitter());

if (!cCompiler) console.warn("cuda-graphs.test.ts: SKIPPED, there is no C compiler to build the stand-in for libcuda");

/** A chain x -> y -> z, to be run eagerly or captured. */
async function chainOf(cuda: CudaBackend) {
  const [x, y, z] = [vector(cuda, [1, 2]), vector(cuda, [0, 0]), vector(cuda, [0, 0])];
  const [first, second] = [await boundAxpy(cuda, x, y, 2), await boundAxpy(cuda, y, z, 10)];
  const chain = (on: CudaQueue): void => {
    first.launch(on);
    second.launch(on);
  };
  return { x, y, z, first, second, chain };
}

describe.skipIf(!cCompiler)("graphs on a stand-in driver", () => {
  const fake = standInDriver();

  it("do what the chain does eagerly", async () => {
    await using cuda = await openCuda();
    const eager = await chainOf(cuda);
    const replayed = await chainOf(cuda);
    using graph = cuda.capture(replayed.chain);
    expect(await valuesOf(replayed.y)).toEqual([0, 0]); // capturing runs nothing
    for (let i = 0; i < 3; i++) {
      eager.chain(cuda.stream);
      graph.launch();
    }
    expect(await valuesOf(replayed.z)).toEqual(await valuesOf(eager.z));
    expect(await valuesOf(eager.z)).toEqual([120, 240]);
    expect(graph.nodeCount).toBe(2);
  });

  it("are launched by one call of the driver, on any stream", async () => {
    await using cuda = await openCuda();
    const { chain, z } = await chainOf(cuda);
    using graph = cuda.capture(chain);
    using stream = cuda.createStream();
    for (const launch of [() => graph.launch(), () => graph.launch(stream), () => graph.launch(stream)]) {
      const before = fake.calls();
      launch();
      expect(fake.calls() - before).toBe(1);
    }
    await cuda.synchronize();
    expect((await valuesOf(z))[0]).toBeGreaterThan(0);
  });

  it("keep the programmatic edges between kernels, and only those", async () => {
    const count = async (pdl: boolean) => {
      await using cuda = await openCuda({ pdl });
      const { chain, x, y } = await chainOf(cuda);
      using graph = cuda.capture((on) => {
        chain(on);
        on.copy(y, x);
        chain(on);
        chain(on);
      });
      return [graph.nodeCount, graph.programmaticEdges];
    };
    expect(await count(true)).toEqual([7, 4]);
    expect(await count(false)).toEqual([7, 0]);
  });

  it("copy pinned memory anew in every launch", async () => {
    await using cuda = await openCuda();
    const { chain, x, z } = await chainOf(cuda);
    const [up, down] = [cuda.pinned(f32, [2]), cuda.pinned(f32, [2])];
    using graph = cuda.capture((on) => {
      on.copy(up, x);
      chain(on);
      on.copy(z, down);
    });
    const results = [];
    for (const value of [1, 100]) {
      up.bytes.set(HostTensor.from(f32, [2], [value, value]).bytes);
      graph.launch();
      await cuda.stream.synchronize();
      results.push([...down.values()]);
    }
    expect(results).toEqual([
      [20, 20],
      [2040, 2040],
    ]);
  });

  it("own what they captured: memory that was freed meanwhile stays until they go", async () => {
    const cuda = await openCuda();
    const { chain, x, y, z } = await chainOf(cuda);
    const pinned = cuda.pinned(f32, [2]);
    const graph = cuda.capture((on) => {
      chain(on);
      on.copy(z, pinned);
    });
    const gone = () => fake.log().filter((line) => /cuMemFree|Unregister/.test(line)).length;
    const reading = expect(z.read()).rejects.toThrow("Device memory was used after it was freed");
    for (const tensor of [x, y, z]) tensor.free();
    pinned.dispose();
    expect(gone()).toBe(0);
    graph.launch(); // writes what is being read, but was freed
    await reading;
    graph.launch();
    await cuda.synchronize();
    expect([...pinned.values()]).toEqual([60, 120]);
    expect(() => chain(cuda.stream)).toThrow(DisposedError); // for anything else they are gone
    graph.launch();
    graph.dispose();
    expect(gone()).toBe(4);
    expect([...pinned.values()]).toEqual([120, 240]); // which the last launch came to write
    graph.dispose();
    expect(() => graph.launch()).toThrow("A graph was used after dispose()");
    expect(() => graph.update(chain)).toThrow(DisposedError);
    await cuda.dispose();
    expect(fake.leaks()).toBe(0);
  });

  it("share memory: the last owner gives it back", async () => {
    await using cuda = await openCuda();
    const { chain, x, y, z } = await chainOf(cuda);
    const graphs = [cuda.capture(chain), cuda.capture(chain)];
    const freed = () => fake.log().filter((line) => line === "cuMemFree_v2").length;
    graphs[0]?.dispose();
    for (const tensor of [x, y]) tensor.free();
    expect(freed()).toBe(0);
    graphs[1]?.dispose();
    expect(freed()).toBe(2);
    z.free();
    expect(freed()).toBe(3);
  });

  it("take other tensors, scalars and kernels by update", async () => {
    await using cuda = await openCuda();
    const a = await chainOf(cuda);
    const b = await chainOf(cuda);
    using graph = cuda.capture(a.chain);
    graph.launch();
    for (const tensor of [a.x, a.y, a.z]) tensor.view([2]);
    graph.update(b.chain);
    graph.launch();
    expect([await valuesOf(a.z), await valuesOf(b.z)]).toEqual([
      [20, 40],
      [20, 40],
    ]);
    b.second.set({ a: 1000 } as never);
    graph.launch(); // what was captured stays
    expect(await valuesOf(b.z)).toEqual([60, 120]);
    graph.update(b.chain);
    graph.launch();
    expect(await valuesOf(b.z)).toEqual([6060, 12120]);
    // What the graph no longer uses can go, what it uses now stays.
    const freed = () => fake.log().filter((line) => line === "cuMemFree_v2").length;
    const before = freed();
    a.y.free();
    expect(freed()).toBe(before + 1);
    b.y.free();
    expect(freed()).toBe(before + 1);
  });

  it("stay as they were when an update has another form", async () => {
    await using cuda = await openCuda();
    const { chain, first, x, y, z } = await chainOf(cuda);
    using graph = cuda.capture(chain);
    const longer = (on: CudaQueue) => {
      chain(on);
      first.launch(on);
    };
    expect(() => graph.update(longer)).toThrow(CaptureError);
    expect(() => graph.update(longer)).toThrow(
      /^This graph can't become what was captured now: it has 2 launches and copies, the new one 3\n.*as it was/,
    );
    const other = (on: CudaQueue) => {
      first.launch(on);
      on.copy(x, y);
    };
    expect(() => graph.update(other)).toThrow(/a kernel became a copy, or a copy a kernel/);
    const wrong = () => {
      throw new Error("on purpose");
    };
    expect(() => graph.update(wrong)).toThrow("on purpose");
    fake.fail("cuGraphExecUpdate_v2", 1);
    expect(() => graph.update(chain)).toThrow(/CUDA_ERROR_FAKE \(1: made up\)/);
    graph.launch();
    expect(await valuesOf(z)).toEqual([20, 40]);
  });

  it("are timed by the device", async () => {
    await using cuda = await openCuda();
    const { chain } = await chainOf(cuda);
    using graph = cuda.capture(chain);
    expect(await graph.timeUs(9)).toBeCloseTo((19 * 250) / 9, 3); // nine graphs of two, and an event
    await expect(graph.timeUs(0)).rejects.toThrow(ArgumentError);
  });

  it("keep a read's promise, and name their kernels when the context is lost", async () => {
    await using cuda = await openCuda();
    const { chain, z } = await chainOf(cuda);
    using graph = cuda.capture(chain);
    graph.launch();
    const reading = valuesOf(z);
    graph.launch();
    expect(await reading).toEqual([20, 40]);
    const fatal = await bound(cuda, trap);
    using doomed = cuda.capture((on) => {
      chain(on);
      fatal.launch(on);
    });
    doomed.launch();
    await expect(cuda.synchronize()).rejects.toThrow(/One of the kernels axpy, trap \(launched last\) failed/);
    expect(() => graph.launch()).toThrow(/^Not launching a graph, because of an earlier failure/);
  });

  it("take what another library enqueues, with the tensors that it uses", async () => {
    await using cuda = await openCuda();
    const { first, x, y, z } = await chainOf(cuda);
    const copy = koffi
      .load(fake.path)
      .func("int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t n, void *stream)");
    const [from, to] = [cuda.pointerOf(y), cuda.pointerOf(z)];
    const chain = (on: CudaQueue) => {
      first.launch(on);
      on.foreign("copying by hand", { reads: [y], writes: [z] }, (stream) => expect(copy(to, from, 8, stream)).toBe(0));
    };
    fake.steal();
    chain(cuda.stream);
    expect(await valuesOf(z)).toEqual([2, 4]);
    using graph = cuda.capture(chain);
    y.free();
    graph.launch();
    const reading = valuesOf(z);
    graph.launch();
    expect(await reading).toEqual([4, 8]);
    expect(() => chain(cuda.stream)).toThrow(DisposedError);
    const error = new Error("on purpose");
    const throwing = () => {
      throw error;
    };
    expect(() => cuda.stream.foreign("failing", { reads: [], writes: [] }, throwing)).toThrow(error);
    const message = /^f32\[2\] is frozen: nothing writes it any more/;
    expect(() => cuda.stream.foreign("writing", { reads: [], writes: [x.freeze()] }, throwing)).toThrow(message);
    (await bound(cuda, trap)).launch();
    cuda.stream.foreign("copying by hand", { reads: [], writes: [] }, () => undefined);
    await expect(cuda.synchronize()).rejects.toThrow(/One of the kernels .*trap, copying by hand \(launched last\)/);
  });

  it("go on their own backend's streams, not into another graph", async () => {
    await using cuda = await openCuda();
    await using other = await openCuda();
    const { chain } = await chainOf(cuda);
    using graph = cuda.capture(chain);
    expect(() => graph.launch(other.stream)).toThrow("A graph is launched on a stream of its own backend");
    expect(() => cuda.capture((on) => graph.launch(on as never))).toThrow(/a graph can't be captured into another/);
  });

  it("say which kernel CUDA refused", async () => {
    await using cuda = await openCuda();
    const { chain } = await chainOf(cuda);
    fake.fail("cuLaunchKernelEx", 701);
    expect(() => cuda.capture(chain)).toThrow(/^CUDA refuses launching axpy: CUDA_ERROR_FAKE \(701[^]*axpy\.ts:7:3/);
    fake.fail("cuGraphInstantiateWithFlags", 2);
    expect(() => cuda.capture(chain)).toThrow(/^No room on Fake H0, making a graph executable: \d+ KiB of 1 MiB/);
    fake.fail("cuGraphGetNodes", 999);
    expect(() => cuda.capture(chain)).toThrow(DeviceError);
    cuda.capture(chain).launch();
    await cuda.dispose();
    expect(fake.leaks()).toBe(0);
  });

  describe("while one is captured", () => {
    it("everything that can't be part of it is refused before CUDA hears of it", async () => {
      fake.device(1, 9, 0);
      await using cuda = await openCuda();
      const { chain, first, x, z } = await chainOf(cuda);
      using stream = cuda.createStream();
      using event = stream.record();
      using graph = cuda.capture(chain);
      const other = await openCuda({ ordinal: 1 });
      const elsewhere = await bound(other, idle);
      const unknown = fakeKernel("unknown");
      const refused: readonly (readonly [string, () => unknown])[] = [
        ["allocating 16 bytes", () => cuda.allocate(16)],
        ["page-locking 4 KiB", () => cuda.pinned(f32, [1])],
        ["writing 8 bytes", () => x.write(HostTensor.from(f32, [2], [0, 0]))],
        ["waiting for launches", () => x.freeze()],
        ["launching axpy on a stream", () => first.launch()],
        ["launching axpy on a stream", () => first.launch(stream)],
        ["launching idle on a stream", () => elsewhere.launch()],
        ["launching a graph on a stream", () => graph.launch()],
        ["copying f32[2] on a stream", () => stream.copy(x, z)],
        ["making an event", () => stream.record()],
        ["waiting for an event", () => stream.waitFor(event)],
        ["making a stream", () => cuda.createStream()],
        ["asking about a stream", () => cuda.adoptStream(0n)],
        ["asking about a pointer", () => cuda.adoptTensor({ pointer: cuda.pointerOf(x), dtype: f32, shape: [2] })],
        ["beginning a capture", () => cuda.capture(chain)],
      ];
      for (const [doing, action] of refused) {
        const capture = () =>
          cuda.capture((on) => {
            chain(on);
            const calls = fake.calls();
            try {
              action();
            } finally {
              expect(fake.calls()).toBe(calls);
            }
          });
        expect(capture).toThrow(CaptureError);
        expect(capture).toThrow(`Not ${doing} while a graph is captured: it can't be part of the graph`);
        chain(cuda.stream); // nothing is captured any more
      }
      const late: (readonly [string, () => Promise<unknown>])[] = [
        ["compiling unknown", () => cuda.compile(unknown)],
        ["making an event", () => x.read()],
        ["making an event", () => cuda.synchronize()],
        ["making an event", () => stream.synchronize()],
        ["making an event", () => first.timeUs(1)],
        ["waiting for launches", () => event.synchronize()],
        ["opening Fake H1", () => openCuda({ ordinal: 1 })],
        ["disposing the backend", () => cuda.dispose()],
      ];
      const promises: Promise<unknown>[] = [];
      const calls = { before: 0, after: 0 };
      using whole = cuda.capture((on) => {
        chain(on);
        calls.before = fake.log().filter((line) => !/cuDevice/.test(line)).length;
        for (const [doing, action] of late) {
          promises.push(expect(action()).rejects.toThrow(`Not ${doing} while a graph is captured`));
        }
        calls.after = fake.log().filter((line) => !/cuDevice/.test(line)).length;
      });
      await Promise.all(promises);
      expect(calls.after).toBe(calls.before);
      expect(whole.nodeCount).toBe(2);
      await other.dispose();
    });

    it("arguments may be bound", async () => {
      await using cuda = await openCuda();
      const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
      const executable = await cuda.compile((await boundAxpy(cuda, x, y, 1)).kernel);
      using graph = cuda.capture((on) => executable.bind({ x, y, a: 3 } as never).launch(on));
      graph.launch();
      expect(await valuesOf(y)).toEqual([3]);
    });

    it("what is freed or disposed waits for its end", async () => {
      await using cuda = await openCuda();
      const { chain, x, z } = await chainOf(cuda);
      const [unrelated, event, stream] = [vector(cuda, [1]), cuda.stream.record(), cuda.createStream()];
      const pinned = cuda.pinned(f32, [2]);
      const old = cuda.capture(chain);
      let inside = 0;
      using graph = cuda.capture((on) => {
        chain(on);
        const calls = fake.calls();
        for (const thing of [unrelated, event, stream, pinned, old, x]) thing[Symbol.dispose]();
        inside = fake.calls() - calls;
      });
      expect(inside).toBe(0);
      const after = fake.log();
      const end = after.lastIndexOf("cuStreamEndCapture");
      const given = ["cuMemFree_v2", "cuEventDestroy_v2", "cuStreamDestroy_v2", "cuMemHostUnregister"];
      for (const call of [...given, "cuGraphExecDestroy"]) expect(after.indexOf(call)).toBeGreaterThan(end);
      graph.launch();
      expect(await valuesOf(z)).toEqual([20, 40]);
    });

    it("an exception of the author's function ends it", async () => {
      const cuda = await openCuda();
      const { chain, x, z } = await chainOf(cuda);
      const error = new Error("on purpose");
      const throwing = () =>
        cuda.capture((on) => {
          chain(on);
          throw error;
        });
      expect(throwing).toThrow(error);
      x.free(); // nobody holds it
      expect(fake.log().filter((line) => line === "cuMemFree_v2")).toHaveLength(1);
      cuda.allocate(4);
      expect(await valuesOf(z)).toEqual([0, 0]);
      await cuda.dispose();
      expect(fake.leaks()).toBe(0);
    });

    it("async functions, generators, and what is no function are refused", async () => {
      await using cuda = await openCuda();
      const { chain } = await chainOf(cuda);
      const async = async (on: CudaQueue) => {
        chain(on);
        await Promise.reject(new Error("late"));
      };
      expect(() => cuda.capture(async)).toThrow(CaptureError);
      expect(() => cuda.capture(async)).toThrow("A captured function can't be async: what follows its first await");
      function* generator(on: CudaQueue) {
        chain(on);
        yield 1;
      }
      expect(() => cuda.capture(generator as never)).toThrow("A captured function can't be a generator");
      expect(() => cuda.capture(undefined as never)).toThrow("What is captured is a function");
      expect(() => cuda.capture(() => undefined)).toThrow("The captured function enqueued nothing");
      using graph = cuda.capture(chain);
      expect(graph.nodeCount).toBe(2);
    });

    it("its queue is good until it ends", async () => {
      await using cuda = await openCuda();
      const { chain, first, x, y } = await chainOf(cuda);
      let kept: CudaQueue | undefined;
      using graph = cuda.capture((on) => {
        kept = on;
        chain(on);
      });
      const message = /: the capture that this queue belongs to has ended/;
      expect(() => kept && first.launch(kept)).toThrow(message);
      expect(() => kept?.copy(x, y)).toThrow(message);
      expect(() => cuda.capture(() => kept && first.launch(kept))).toThrow(message);
      expect(graph.nodeCount).toBe(2);
    });

    it("another library that waits or allocates spoils it, and that is said", async () => {
      await using cuda = await openCuda();
      const { chain } = await chainOf(cuda);
      const spoiled = () =>
        cuda.capture((on) => {
          chain(on);
          fake.interfere();
        });
      expect(spoiled).toThrow(CaptureError);
      expect(spoiled).toThrow(
        /^The capture became invalid while it went on: CUDA_ERROR_FAKE \(901: made up\)\n.*Another library of this thread/,
      );
      const before = () =>
        cuda.capture((on) => {
          fake.interfere();
          chain(on);
        });
      expect(before).toThrow(/^CUDA failed, launching axpy: CUDA_ERROR_FAKE \(901/);
      const unjoined = () =>
        cuda.capture((on) => {
          chain(on);
          fake.interfere(904);
        });
      expect(unjoined).toThrow(CaptureError);
      expect(unjoined).toThrow(
        /^CUDA makes no graph of what was captured: CUDA_ERROR_FAKE \(904.*\n.*captured stream wait/,
      );
      using graph = cuda.capture(chain);
      expect(graph.nodeCount).toBe(2);
    });
  });
});
