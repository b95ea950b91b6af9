/** What every backend promises of memory, launches and their end, by the same tests on all of them. */
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../../backends/backend.ts";
import { prepare, run } from "../../backends/run.ts";
import { DeviceTensor, deviceTensor, frozenTensor } from "../../backends/tensor.ts";
import {
  ArgumentError,
  DisposedError,
  f32,
  frozen,
  HostTensor,
  inout,
  kernel,
  scalar,
  size,
  TegulaError,
} from "../../dsl/index.ts";
import { devices } from "../harness.ts";

const N = size("N", { max: 32 });
/** y[i] = y[i] * by[i] + plus. */
const scale = kernel(
  { name: "scale", grid: 1, block: 32, params: { by: frozen(f32, [N]), y: inout(f32, [N]), plus: scalar(f32) } },
  (t, { by, plus }) => {
    const { y } = t.pdl.wait();
    t.when(t.lane.lt(N), () => y.store([t.lane], y.load([t.lane]).fma(by.load([t.lane]), plus)));
  },
);
const host = (...values: readonly number[]) => HostTensor.from(f32, [values.length], values);

describe.each(devices)("$name", ({ name, missing, open }) => {
  const on = test.skipIf(missing);
  let backend: Backend;
  beforeAll(async () => {
    if (!missing) backend = await open();
  });
  afterAll(() => backend?.dispose());

  on("says its name and its device", () => {
    expect(backend.name).toBe(name);
    expect(backend.device).toMatch(/\w/);
  });

  on("keeps every byte of writes and reads at any offset and size", async () => {
    const write = fc.record({ offset: fc.nat(40), bytes: fc.uint8Array({ maxLength: 40 }) });
    const property = fc.asyncProperty(
      fc.integer({ min: 1, max: 80 }),
      fc.array(write, { maxLength: 8 }),
      async (size, writes) => {
        using storage = backend.allocate(size);
        expect([storage.byteLength, storage.backend, storage.freed]).toEqual([size, backend, false]);
        const expected = new Uint8Array(size).fill(0xa5);
        backend.write(storage, 0, expected);
        for (const { offset, bytes } of writes.filter(({ offset }) => offset <= size)) {
          const piece = bytes.subarray(0, size - offset);
          backend.write(storage, offset, piece);
          expected.set(piece, offset);
        }
        expect(await backend.read(storage, 0, size)).toEqual(expected);
        expect(await backend.read(storage, size >> 1, size - (size >> 1))).toEqual(expected.slice(size >> 1));
      },
    );
    await fc.assert(property, { numRuns: 30 });
  });

  on("launches come one after the other, with scalars as they were set", async () => {
    const y = deviceTensor(backend, host(1, 2, 3));
    const launch = (await backend.compile(scale)).bind({ by: frozenTensor(backend, host(2, 2, 2)), y, plus: 1 });
    expect(launch.kernel).toBe(scale);
    launch.launch();
    launch.launch();
    launch.set({ plus: 10 });
    launch.launch();
    expect([...(await y.read()).values()]).toEqual([24, 32, 40]);
    expect(() => launch.set({ plus: NaN })).toThrow(ArgumentError);
  });

  on("views of one storage are tensors of their own; what lies between them stays", async () => {
    const storage = backend.allocate(1024);
    const all = new DeviceTensor(storage, f32, [256]);
    all.write(HostTensor.from(f32, [256], new Array<number>(256).fill(7)));
    const executable = await backend.compile(scale);
    const by = frozenTensor(backend, host(0, 0));
    for (const [i, offset] of [0, 512].entries()) {
      executable.bind({ by, y: new DeviceTensor(storage, f32, [2], offset), plus: i }).launch();
    }
    const values = [...(await all.read()).values()];
    expect(values.flatMap((value, i) => (value === 7 ? [] : [[i, value]]))).toEqual([
      [0, 0],
      [1, 0],
      [128, 1],
      [129, 1],
    ]);
  });

  on("run and prepare work from host data", async () => {
    const { y } = await run(backend, scale, { by: host(2), y: host(5), plus: 0 });
    expect([...y.values()]).toEqual([10]);
    using prepared = await prepare(backend, scale, { by: host(2), y: host(5), plus: 0 });
    prepared.launch();
    prepared.launch();
    expect([...(await prepared.read()).y.values()]).toEqual([20]);
  });

  on("freed memory is refused, wherever it is used", async () => {
    const [by, y] = [frozenTensor(backend, host(1)), deviceTensor(backend, host(1))];
    const executable = await backend.compile(scale);
    const launch = executable.bind({ by, y, plus: 0 });
    y.free();
    y.free();
    expect(y.storage.freed).toBe(true);
    expect(() => launch.launch()).toThrow(DisposedError);
    expect(() => executable.bind({ by, y, plus: 0 })).toThrow(DisposedError);
    expect(() => y.write(host(1))).toThrow(DisposedError);
    expect(() => y.freeze()).toThrow(DisposedError);
    await expect(y.read()).rejects.toThrow(DisposedError);
  });

  on("frozen memory is never written again", async () => {
    const [by, y] = [frozenTensor(backend, host(1)), deviceTensor(backend, host(3))];
    const executable = await backend.compile(scale);
    const launch = executable.bind({ by, y, plus: 0 });
    y.freeze();
    for (const change of [
      () => y.write(host(1)),
      () => launch.launch(),
      () => executable.bind({ by, y, plus: 0 }),
      () => backend.write(y.storage, 0, Uint8Array.of(1)),
    ]) {
      expect(change).toThrow(ArgumentError);
      expect(change).toThrow(/frozen at test\/conformance\/backend\.test\.ts:\d+/);
    }
    expect([...(await y.read()).values()]).toEqual([3]);
    // @ts-expect-error A tensor that may still be written.
    expect(() => executable.bind({ by: deviceTensor(backend, host(1)), y, plus: 0 })).toThrow(/frozenTensor\(/);
  });

  on("what is out of range, or another backend's, is refused", async () => {
    const storage = backend.allocate(8);
    expect(() => backend.write(storage, 4, new Uint8Array(5))).toThrow(TegulaError);
    expect(() => backend.write(storage, -1, new Uint8Array(1))).toThrow(TegulaError);
    await expect((async () => backend.read(storage, 0.5, 1))()).rejects.toThrow(TegulaError);
    for (const bytes of [0, -1, 1.5, NaN]) expect(() => backend.allocate(bytes)).toThrow(TegulaError);

    const other = await open();
    const [foreign, by] = [deviceTensor(other, host(1)), frozenTensor(backend, host(1))];
    const executable = await backend.compile(scale);
    expect(() => executable.bind({ by, y: foreign, plus: 0 })).toThrow(/y belongs to another backend/);
    expect(() => backend.write(foreign.storage, 0, new Uint8Array(4))).toThrow(TegulaError);
    await other.dispose();
    expect(foreign.storage.freed).toBe(true);
  });

  on("after dispose, which may come twice, everything is refused", async () => {
    const other = await open();
    const [by, y] = [frozenTensor(other, host(1)), deviceTensor(other, host(1))];
    const executable = await other.compile(scale);
    const launch = executable.bind({ by, y, plus: 0 });
    await other.dispose();
    await other.dispose();
    expect(() => launch.launch()).toThrow(DisposedError);
    expect(() => executable.bind({ by, y, plus: 0 })).toThrow(DisposedError);
    expect(() => other.allocate(4)).toThrow(DisposedError);
    expect(() => other.write(y.storage, 0, new Uint8Array(4))).toThrow(DisposedError);
    await expect(y.read()).rejects.toThrow(DisposedError);
    await expect(other.synchronize()).rejects.toThrow(DisposedError);
    const never = kernel({ name: "never", grid: 1, block: 32, params: {} }, (t) => void t.pdl.wait());
    await expect(other.compile(never)).rejects.toThrow(DisposedError);
  });
});
