/** Streams, events, pinned memory and what other libraries lend, on the stand-in for libcuda (cuda-driver.test.ts). */
import { describe, expect, it, vi } from "vitest";
import { openCuda } from "../backends/cuda/runtime.ts";
import { bf16, f32 } from "../dsl/dtype.ts";
import { ArgumentError, DisposedError, OutOfMemoryError, ShapeError } from "../dsl/errors.ts";
import { HostTensor } from "../dsl/host.ts";
import { cCompiler } from "./fake-cuda/build.ts";
import { standInDriver } from "./fake-cuda/hooks.ts";
import { bound, boundAxpy, idle, trap, valuesOf, vector } from "./fake-cuda/kernels.ts";

vi.mock("../backends/cuda/emit.ts", async () => (await import("./fake-cuda/kernels.ts")).fakeEmitter());

if (!cCompiler) console.warn("cuda-streams.test.ts: SKIPPED, there is no C compiler to build the stand-in for libcuda");

/** What nothing but a pointer check can tell from an address. */
const notAddresses = [0n, -1n, 2n ** 57n, 2n ** 64n, 4096, NaN, 2 ** 53, undefined, "0x1000", null];

describe.skipIf(!cCompiler)("streams on a stand-in driver", () => {
  const fake = standInDriver();

  describe("streams and events", () => {
    it("run apart, and in the order that events give them", async () => {
      await using cuda = await openCuda();
      const [x, y, z] = [vector(cuda, [1]), vector(cuda, [0]), vector(cuda, [0])];
      const [first, second] = [cuda.createStream(), cuda.createStream()];
      const [xToY, yToZ] = [await boundAxpy(cuda, x, y, 1), await boundAxpy(cuda, y, z, 1)];
      yToZ.launch(second); // before y is ready
      await second.synchronize();
      xToY.launch(first);
      second.waitFor(first.record());
      yToZ.launch(second);
      await second.synchronize(); // the stand-in runs nothing on `first` but what this waits for
      expect(await valuesOf(z)).toEqual([1]);
    });

    it("are all waited for by whatever the backend does itself", async () => {
      await using cuda = await openCuda();
      const stream = cuda.createStream();
      const [x, y, z] = [vector(cuda, [1]), vector(cuda, [0]), vector(cuda, [0])];
      const launch = await boundAxpy(cuda, x, y, 1);
      launch.launch(stream);
      expect(await valuesOf(y)).toEqual([1]);
      launch.launch(stream);
      y.write(HostTensor.from(f32, [1], [10]));
      expect(await valuesOf(y)).toEqual([10]);
      const synchronized = () => fake.log().filter((line) => line === "cuStreamSynchronize").length;
      launch.launch(stream);
      const before = synchronized();
      z.free(); // the launch doesn't use it, but nobody keeps books on that
      expect(synchronized()).toBeGreaterThan(before);
      launch.launch(stream);
      await cuda.synchronize();
      const settled = synchronized();
      y.free();
      expect(synchronized()).toBe(settled); // nothing is under way any more
    });

    it("keep a read's promise when another stream writes", async () => {
      await using cuda = await openCuda();
      const stream = cuda.createStream();
      const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
      const launch = await boundAxpy(cuda, x, y, 1);
      launch.launch(stream);
      const reading = valuesOf(y);
      launch.launch(stream);
      const copied = valuesOf(y);
      stream.copy(x, y);
      expect(await reading).toEqual([1]);
      expect(await copied).toEqual([2]);
      expect(await valuesOf(y)).toEqual([1]);
    });

    it("measure device time between events", async () => {
      await using cuda = await openCuda();
      const launch = await bound(cuda, idle);
      using start = cuda.stream.record();
      for (let i = 0; i < 4; i++) launch.launch();
      using end = cuda.stream.record();
      expect(await end.elapsedUs(start)).toBeCloseTo(5 * 250, 3); // four launches and an event
    });

    it("are disposed of with `using`, once", async () => {
      await using cuda = await openCuda();
      const before = fake.leaks();
      let kept;
      {
        using stream = cuda.createStream();
        using event = stream.record();
        (await bound(cuda, idle)).launch(stream);
        await event.synchronize();
        kept = { stream, event };
      }
      kept.stream.dispose();
      kept.event.dispose();
      expect(fake.leaks() - before).toBe(1); // the module of `idle`
      const message = "A stream was used after dispose()";
      const launch = await bound(cuda, idle);
      expect(() => launch.launch(kept.stream)).toThrow(message);
      expect(() => kept.stream.record()).toThrow(message);
      expect(() => kept.stream.waitFor(kept.event)).toThrow(DisposedError);
      await expect(kept.event.synchronize()).rejects.toThrow("An event was used after dispose()");
      await expect(kept.stream.synchronize()).rejects.toThrow(message);
      expect(() => cuda.stream.dispose()).toThrow("cuda.stream can't be disposed by itself");
    });

    it("finish their work before they go", async () => {
      await using cuda = await openCuda();
      const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
      const stream = cuda.createStream();
      (await boundAxpy(cuda, x, y, 1)).launch(stream);
      stream.dispose();
      expect(await valuesOf(y)).toEqual([1]);
    });

    it("refuse what belongs to another device or is no event", async () => {
      fake.device(1, 9, 0);
      await using cuda = await openCuda();
      await using other = await openCuda({ ordinal: 1 });
      using event = other.stream.record();
      expect(() => cuda.stream.waitFor(event)).toThrow(`This event belongs to ${other.device}`);
      expect(() => cuda.stream.waitFor({} as never)).toThrow("waitFor takes a stream or an event of this thread");
    });

    it("name the kernels of every stream when the context is lost", async () => {
      await using cuda = await openCuda();
      const stream = cuda.createStream();
      const [first, fatal] = [await bound(cuda, idle), await bound(cuda, trap)];
      fatal.launch(stream);
      first.launch();
      await expect(stream.synchronize()).rejects.toThrow(/One of the kernels trap, idle \(launched last\) failed/);
    });
  });

  describe("pinned memory", () => {
    it("is copied while the host goes on, in a stream's order", async () => {
      await using cuda = await openCuda();
      using stream = cuda.createStream();
      const [up, down] = [cuda.pinned(f32, [2]), cuda.pinned(f32, [2])];
      up.bytes.set(HostTensor.from(f32, [2], [3, 4]).bytes);
      const [x, y] = [vector(cuda, [0, 0]), vector(cuda, [1, 1])];
      const launch = await boundAxpy(cuda, x, y, 10);
      const synchronized = () => fake.log().filter((line) => line === "cuStreamSynchronize").length;
      const before = synchronized();
      stream.copy(up, x);
      launch.launch(stream);
      stream.copy(y, down);
      expect(synchronized()).toBe(before);
      expect([...down.values()]).toEqual([0, 0]);
      await stream.synchronize();
      expect([...down.values()]).toEqual([31, 41]);
      expect(fake.log()).toContain("copy from pinned memory");
      expect(fake.log()).toContain("copy to pinned memory");
    });

    it("is a host tensor like any other, in pages of its own", async () => {
      await using cuda = await openCuda();
      const tensors = Array.from({ length: 20 }, () => cuda.pinned(bf16, [3, 5]));
      for (const [i, tensor] of tensors.entries()) tensor.bytes.fill(i);
      expect(tensors.every((tensor, i) => tensor.bytes.every((byte) => byte === i))).toBe(true);
      expect(tensors[0]).toBeInstanceOf(HostTensor);
      expect(String(tensors[0])).toBe("bf16[3, 5]");
      cuda.pinned(f32, [0]);
      const large = cuda.pinned(f32, [100_000]);
      const x = vector(cuda, new Array<number>(100_000).fill(0));
      large.bytes.fill(1);
      x.write(large); // like any host tensor
      expect((await x.read()).bytes).toEqual(large.bytes);
    });

    it("is unlocked after the copies that use it, and stays readable", async () => {
      const cuda = await openCuda();
      const x = vector(cuda, [5]);
      const down = cuda.pinned(f32, [1]);
      cuda.stream.copy(x, down);
      down.dispose();
      down.dispose();
      expect([...down.values()]).toEqual([5]);
      expect(fake.log().slice(-2)).toEqual(["cuStreamSynchronize", "cuMemHostUnregister"]);
      expect(() => cuda.stream.copy(x, down)).toThrow("f32[1] in pinned memory was used after dispose()");
      down.bytes.fill(7); // no memory of the driver's that could be gone
      {
        using up = cuda.pinned(f32, [1]);
        cuda.stream.copy(up, x);
      }
      cuda.pinned(f32, [1]);
      await cuda.dispose();
      expect(fake.leaks()).toBe(0);
    });

    it("can't be transferred to another thread while the device uses it", async () => {
      await using cuda = await openCuda();
      const pinned = cuda.pinned(f32, [4]);
      try {
        structuredClone(pinned.bytes.buffer, { transfer: [pinned.bytes.buffer] });
      } catch (error) {
        expect(String(error)).toMatch(/could not be cloned|not.*transfer/i); // Node 21 and later
      }
      expect(pinned.bytes.byteLength).toBe(16);
    });

    it("is what a queue copies, with tensors of the same shape and backend", async () => {
      await using cuda = await openCuda();
      await using other = await openCuda();
      const x = vector(cuda, [1, 2]);
      const { stream } = cuda;
      const calls = fake.calls();
      expect(() => stream.copy(HostTensor.from(f32, [2], [1, 2]) as never, x)).toThrow(
        /Only tensors on the device and pinned ones[^]*tensor\.write\(host\) and tensor\.read\(\) copy that, or make it by cuda\.pinned/,
      );
      expect(() => stream.copy(undefined as never, x)).toThrow(ArgumentError);
      expect(fake.calls()).toBe(calls);
      expect(() => stream.copy(cuda.pinned(f32, [3]), x)).toThrow("Can't copy f32[3] into f32[2]");
      expect(() => stream.copy(cuda.pinned(bf16, [2]) as never, x)).toThrow(ShapeError);
      expect(() => stream.copy(other.pinned(f32, [2]), x)).toThrow("f32[2] was pinned by another backend");
      expect(() => stream.copy(vector(other, [1, 2]), x)).toThrow(ArgumentError);
      const whole = vector(cuda, [1, 2, 3]);
      expect(() => stream.copy(whole.view([2]), whole.view([2], 1))).toThrow(
        "f32[2] and the f32[2] that it is copied to",
      );
      expect(() => stream.copy(x, x)).toThrow("overlap");
      stream.copy(whole.view([1]), whole.view([1], 1));
      expect(() => stream.copy(cuda.pinned(f32, [2]), cuda.pinned(f32, [2]))).toThrow("Both ends of this copy are on");
    });

    it("says how much there was no room for", async () => {
      await using cuda = await openCuda();
      expect(() => cuda.pinned(f32, [2 ** 46])).toThrow(
        /^No room for 256 TiB of locked host memory: [\d.]+ \w+ are free\n/,
      );
      fake.fail("cuMemHostRegister_v2", 2);
      expect(() => cuda.pinned(f32, [10_000])).toThrow(OutOfMemoryError);
      expect(cuda.pinned(f32, [10_000]).bytes.byteLength).toBe(40_000);
      for (const shape of [[-1], [NaN], [0.5]]) expect(() => cuda.pinned(f32, shape)).toThrow(ShapeError);
    });
  });

  describe("adopting", () => {
    it("uses another library's memory, and tells it when it is done", async () => {
      await using cuda = await openCuda();
      const pointer = fake.foreignMemory(64);
      const freed: number[] = [];
      const y = cuda.adoptTensor({
        pointer: pointer + 16n,
        dtype: f32,
        shape: [1, 2, 3],
        strides: [99, 3, 1],
        onFree: () => freed.push(fake.log().length),
      });
      y.write(HostTensor.from(f32, [1, 2, 3], [0, 1, 2, 3, 4, 5]));
      expect(cuda.pointerOf(y)).toBe(pointer + 16n);
      expect(cuda.pointerOf(y.view([1], 5))).toBe(pointer + 36n);
      (await boundAxpy(cuda, vector(cuda, [100]), y.view([1], 5), 1)).launch();
      y.free();
      y.free();
      expect(freed).toHaveLength(1);
      expect(fake.log().at(-1)).toBe("cuStreamSynchronize"); // first waited, and then gave nothing to CUDA
      expect(() => cuda.pointerOf(y)).toThrow(DisposedError);
      const again = cuda.adoptTensor({ pointer: pointer + 36n, dtype: f32, shape: [1] });
      expect(await valuesOf(again)).toEqual([105]);
    });

    it("gives memory back with the backend at the latest", async () => {
      const cuda = await openCuda();
      const onFree = vi.fn();
      const tensor = cuda.adoptTensor({ pointer: fake.foreignMemory(64), dtype: f32, shape: [16], onFree });
      const graph = cuda.capture((on) => on.copy(tensor.view([8]), tensor.view([8], 8)));
      tensor.free();
      expect(onFree).not.toHaveBeenCalled(); // the graph still uses it
      graph.launch();
      await cuda.dispose();
      expect(onFree).toHaveBeenCalledTimes(1);
      expect(fake.leaks()).toBe(0);
    });

    it("gives the rest back when onFree throws, which nobody else could catch", async () => {
      const cuda = await openCuda();
      const thrown: unknown[] = [];
      const microtasks = vi.spyOn(globalThis, "queueMicrotask").mockImplementation((task) => {
        try {
          task();
        } catch (error) {
          thrown.push(error);
        }
      });
      const error = new Error("on purpose");
      const onFree = () => {
        throw error;
      };
      cuda.adoptTensor({ pointer: fake.foreignMemory(4), dtype: f32, shape: [1], onFree });
      cuda.allocate(4);
      await cuda.dispose();
      microtasks.mockRestore();
      expect(thrown).toEqual([error]);
      expect(fake.leaks()).toBe(0);
    });

    it("refuses pointers that can't be such memory, before it asks CUDA where it can", async () => {
      fake.device(1, 9, 0);
      await using cuda = await openCuda();
      const calls = fake.calls();
      for (const pointer of notAddresses) {
        expect(() => cuda.adoptTensor({ pointer: pointer as bigint, dtype: f32, shape: [1] })).toThrow(
          /^A tensor's pointer must be an address as a bigint, got/,
        );
      }
      const pointer = fake.foreignMemory(64);
      const adopt = (change: object) => () => cuda.adoptTensor({ pointer, dtype: f32, shape: [4, 4], ...change });
      expect(adopt({ strides: [1, 4] })).toThrow(
        /^Only contiguous row-major tensors are adopted: \[4, 4\] has strides \[4, 1\], got \[1, 4\]\n.*contiguous\(\)/,
      );
      expect(adopt({ strides: [4] })).toThrow(ShapeError);
      expect(adopt({ shape: [4, NaN] })).toThrow(ShapeError);
      expect(adopt({ onFree: 1 })).toThrow("onFree must be a function");
      expect(adopt({ pointer: pointer + 2n })).toThrow(/is not a multiple of 4 bytes, the size of one f32/);
      expect(fake.calls()).toBe(calls);
      expect(adopt({ pointer: 4096n })).toThrow(
        /^0x1000 is no address that CUDA knows: CUDA_ERROR_FAKE \(1: made up\)/,
      );
      expect(adopt({ shape: [4, 5] })).toThrow(/^f32\[4, 5\] needs 80 bytes from 0x\w+ on; its allocation has 64/);
      expect(adopt({ pointer: pointer + 4n })).toThrow(/its allocation has 60/);
      expect(adopt({ pointer: fake.foreignMemory(64, 1) })).toThrow(
        /is on CUDA device 1, the backend on 0\n.*openCuda\(\{ ordinal: 1 \}\)/,
      );
      adopt({ strides: [4, 1] })();
    });

    it("launches on another library's stream, and leaves it its owner's", async () => {
      const cuda = await openCuda();
      const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
      const launch = await boundAxpy(cuda, x, y, 1);
      {
        using stream = cuda.adoptStream(fake.foreignStream());
        launch.launch(stream);
        using standard = cuda.adoptStream(0n);
        launch.launch(standard);
        expect(await valuesOf(y)).toEqual([2]);
        launch.launch(stream);
      }
      expect(await valuesOf(y)).toEqual([3]);
      await cuda.dispose();
      expect(fake.leaks()).toBe(0);
    });

    it("refuses streams that are none, or of another device", async () => {
      fake.device(1, 9, 0);
      await using cuda = await openCuda();
      for (const pointer of notAddresses.slice(1)) {
        expect(() => cuda.adoptStream(pointer as bigint)).toThrow(/^A stream must be an address as a bigint, got/);
      }
      expect(() => cuda.adoptStream(4096n)).toThrow(/^0x1000 is no stream: CUDA_ERROR_FAKE \(400/);
      expect(() => cuda.adoptStream(fake.foreignStream(1))).toThrow(/belongs to another device or context/);
    });
  });
});
