/** What JavaScript passes wrongly to the CUDA backend's run-time layer, and what it is told; on the stand-in for libcuda. */
import koffi from "koffi";
import { afterEach, describe, expect, it, vi } from "vitest";
import { compileCuda } from "../backends/cuda/compile.ts";
import type { CudaOptions, CudaQueue } from "../backends/cuda/index.ts";
import { openCuda } from "../backends/cuda/runtime.ts";
import { f32 } from "../dsl/dtype.ts";
import {
  ArgumentError,
  CaptureError,
  DisposedError,
  DTypeError,
  NoDeviceError,
  ShapeError,
  UnsupportedError,
} from "../dsl/errors.ts";
import { cCompiler } from "./fake-cuda/build.ts";
import { standInDriver } from "./fake-cuda/hooks.ts";
import { boundAxpy, fakeKernel, valuesOf, vector } from "./fake-cuda/kernels.ts";

vi.mock("../backends/cuda/emit.ts", async () => (await import("./fake-cuda/kernels.ts")).fakeEmitter());

if (!cCompiler)
  console.warn("cuda-arguments.test.ts: SKIPPED, there is no C compiler to build the stand-in for libcuda");

const nothing = { reads: [], writes: [] };

describe.skipIf(!cCompiler)("arguments on a stand-in driver", () => {
  const fake = standInDriver();
  afterEach(() => void vi.restoreAllMocks());

  describe("of foreign", () => {
    it("are what is done, the tensors it uses, and a function", async () => {
      await using cuda = await openCuda();
      const x = vector(cuda, [1]);
      const enqueue = vi.fn();
      const wrong: readonly (readonly unknown[])[] = [
        ["x", enqueue],
        ["x", undefined, enqueue],
        ["x", {}, enqueue],
        ["x", { reads: [x] }, enqueue],
        ["x", { writes: [x] }, enqueue],
        ["x", { reads: x, writes: [] }, enqueue],
        ["x", nothing],
        [enqueue, nothing, enqueue],
      ];
      const foreign = cuda.stream.foreign.bind(cuda.stream) as (...args: readonly unknown[]) => void;
      for (const args of wrong) {
        expect(() => foreign(...args)).toThrow(ArgumentError);
        expect(() => foreign(...args)).toThrow(
          /^foreign takes what is done, the tensors.*\n.*\{ reads: \[w, x\], writes/,
        );
      }
      const notDevice = () => foreign("x", { reads: [4], writes: [] }, enqueue);
      expect(notDevice).toThrow("This is no tensor on the device: 4");
      expect(enqueue).not.toHaveBeenCalled();
    });

    it("are no async function, eagerly or in a graph", async () => {
      await using cuda = await openCuda();
      const late = async () => {
        await Promise.resolve();
        throw new Error("late");
      };
      const message = /^x: the function can't be async, since the stream is good only until it returns/;
      const run = (on: CudaQueue) => on.foreign("x", nothing, late);
      expect(() => run(cuda.stream)).toThrow(ArgumentError);
      expect(() => cuda.capture(run)).toThrow(message);
    });

    it("must outlive the call", async () => {
      await using cuda = await openCuda({ debug: true });
      const [x, stream] = [vector(cuda, [1]), cuda.createStream()];
      expect(() => stream.foreign("x", nothing, () => stream.dispose())).toThrow(DisposedError);
      expect(fake.log().at(-1)).toBe("cuStreamDestroy_v2"); // nobody waits for a stream that is gone
      const uses = { reads: [x], writes: [] };
      expect(() => cuda.stream.foreign("x", uses, () => x.free())).toThrow(DisposedError);
      const other = await openCuda();
      expect(() => other.stream.foreign("x", nothing, () => void other.dispose())).toThrow(DisposedError);
    });
  });

  describe("of openCuda", () => {
    it("name a compute capability, and the first that has exactly it is taken", async () => {
      fake.device(0, 10, 0);
      fake.device(1, 9, 0);
      fake.device(2, 9, 0);
      fake.device(3, 8, 0);
      await using cuda = await openCuda({ capability: [9, 0] });
      expect(cuda.device).toMatch(/^Fake H1 \(sm_90a/);
      const missing = openCuda({ capability: [12, 0] });
      await expect(missing).rejects.toThrow(NoDeviceError);
      await expect(missing).rejects.toThrow(
        /^There is no CUDA device of compute capability 12\.0: Fake H0 has compute capability 10\.0, Fake H1 has compute.*\n.*npm run doctor/,
      );
      await expect(openCuda({ capability: [9, 0], ordinal: 0 })).rejects.toThrow(
        /9\.0: Fake H0 has compute capability/,
      );
      await expect(openCuda({ capability: [8, 0] })).rejects.toThrow(UnsupportedError);
    });

    it("are an object of the right types", async () => {
      const wrong: readonly unknown[] = [
        0,
        null,
        "cuda",
        { ordinal: "0" },
        { capability: 9 },
        { capability: [9] },
        { capability: ["9", "0"] },
      ];
      for (const options of wrong) {
        const opening = openCuda(options as CudaOptions);
        await expect(opening).rejects.toThrow(ArgumentError);
        await expect(opening).rejects.toThrow(
          /\n.*openCuda\(\{ ordinal: 1 \}\), openCuda\(\{ capability: \[9, 0\] \}\)$/,
        );
      }
      expect(fake.calls()).toBe(0);
    });
  });

  it("of everything else are checked, too", async () => {
    await using cuda = await openCuda();
    const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
    const launch = await boundAxpy(cuda, x, y, 1);
    expect(() => cuda.pinned(f32, 4 as never)).toThrow(ShapeError);
    for (const dtype of [undefined, [4], "f32"]) {
      expect(() => cuda.pinned(dtype as never, [4])).toThrow(DTypeError);
      const adopt = () => cuda.adoptTensor({ pointer: 4096n, dtype: dtype as never, shape: [1] });
      expect(adopt).toThrow(/^A dtype is needed here, e\.g\. f32, not /);
    }
    expect(() => cuda.adoptTensor({ pointer: 4096n, dtype: f32 } as never)).toThrow(ShapeError);
    expect(() => cuda.adoptTensor(undefined as never)).toThrow(/^adoptTensor takes an object, not undefined\n/);
    for (const scalars of [undefined, null, 1]) {
      expect(() => launch.set(scalars as never)).toThrow(/^axpy: set takes one object with scalars by name, not /);
    }
  });

  it("a copy elsewhere during a capture is told where to go", async () => {
    await using cuda = await openCuda();
    const [x, y] = [vector(cuda, [1]), vector(cuda, [0])];
    const copying = () => cuda.capture(() => cuda.stream.copy(x, y));
    expect(copying).toThrow(CaptureError);
    expect(copying).toThrow(/^Not copying f32\[1\] on a stream.*\n.*on\.copy\(from, to\)/);
  });

  it("events in the wrong order are an error, not a negative time", async () => {
    await using cuda = await openCuda();
    const first = cuda.stream.record();
    (await boundAxpy(cuda, vector(cuda, [1]), vector(cuda, [0]), 1)).launch();
    const last = cuda.stream.record();
    expect(await last.elapsedUs(first)).toBeGreaterThan(0);
    expect(await first.elapsedUs(first)).toBe(0);
    await expect(first.elapsedUs(last)).rejects.toThrow(ArgumentError);
    await expect(first.elapsedUs(last)).rejects.toThrow(/^The device came here [\d.]+ microseconds before the event/);
    await expect(first.elapsedUs(undefined as never)).rejects.toThrow(ArgumentError);
  });

  it("an update that fails for another reason than its form doesn't promise that the graph is as it was", async () => {
    await using cuda = await openCuda();
    const launch = await boundAxpy(cuda, vector(cuda, [1]), vector(cuda, [0]), 1);
    using graph = cuda.capture((on) => launch.launch(on));
    fake.fail("cuGraphExecUpdate_v2", 2);
    expect(() => graph.update((on) => launch.launch(on))).toThrow(/\(2: made up\)\n.*dispose it, and capture anew/);
  });

  it("a stream that its owner captures isn't adopted", async () => {
    await using cuda = await openCuda();
    const pointer = fake.foreignStream();
    const library = koffi.load(fake.path);
    const begin = library.func("int cuStreamBeginCapture_v2(int64_t stream, int mode)");
    const end = library.func("int cuStreamEndCapture(int64_t stream, void *graph)");
    const destroy = library.func("int cuGraphDestroy(uint64_t graph)");
    expect(begin(pointer, 1)).toBe(0);
    expect(() => cuda.adoptStream(pointer)).toThrow(CaptureError);
    expect(() => cuda.adoptStream(pointer)).toThrow(/^A graph is captured from the stream 0x\w+ by its owner\n/);
    const graph = new BigUint64Array(1);
    expect(end(pointer, graph)).toBe(0);
    expect(destroy(graph[0])).toBe(0);
    fake.fail("cuStreamIsCapturing", 906); // CUDA's legacy stream, while another one is captured
    expect(() => cuda.adoptStream(0n)).toThrow(/by its owner: CUDA_ERROR_FAKE \(906/);
    using stream = cuda.adoptStream(pointer);
    await stream.synchronize();
  });

  it("compiling needs no working directory; it only isn't cached", async () => {
    vi.spyOn(process, "cwd").mockImplementation(() => {
      throw Object.assign(new Error("ENOENT: no such file or directory, uv_cwd"), { code: "ENOENT" });
    });
    const options = { arch: "sm_90a", name: "gone" } as const;
    for (let i = 0; i < 2; i++) {
      expect(compileCuda("//kernel gone 0 0 0 1024 0\n", options).from).toBe("compiler");
    }
    await using cuda = await openCuda();
    const more = '//log kernels/bad.ts(40): error: expected a ";"\n#line 40 "kernels/bad.ts"\nint x = 1\n';
    await expect(cuda.compile(fakeKernel("bad", { more }))).rejects.toThrow('expected a ";"');
    vi.restoreAllMocks();
    expect(await valuesOf(vector(cuda, [1]))).toEqual([1]);
  });
});
