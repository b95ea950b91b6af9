/** The WGSL backend below the kernels: memory, launches of hand-written modules, errors, and disposal. */
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DeviceTensor, deviceTensor } from "../backends/tensor.ts";
import { openDevice } from "../backends/wgsl/device.ts";
import { openWgsl, WgslBackend } from "../backends/wgsl/runtime.ts";
import { f32, u32, u8 } from "../dsl/dtype.ts";
import { ArgumentError, CompileError, DeviceError, DisposedError, UnsupportedError } from "../dsl/errors.ts";
import { bind, compileModule, compileScale, scaleModule, slowLaunch, slowModule } from "./children/wgsl-support.ts";

describe("memory and launches", () => {
  let backend: WgslBackend;
  beforeAll(async () => void (backend = await openWgsl()));
  afterAll(() => backend.dispose());

  it("keeps every byte of writes and reads at any offset and size", async () => {
    const write = fc.record({ offset: fc.nat(40), bytes: fc.uint8Array({ maxLength: 40 }) });
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 80 }), fc.array(write, { maxLength: 8 }), async (size, writes) => {
        const storage = backend.allocate(size);
        const expected = new Uint8Array(size).fill(0xa5);
        backend.write(storage, 0, expected);
        for (const { offset, bytes } of writes) {
          const piece = bytes.subarray(0, Math.max(0, size - offset));
          if (offset > size) continue;
          backend.write(storage, offset, piece);
          expected.set(piece, offset);
        }
        const start = Math.min(writes[0]?.offset ?? 0, size);
        expect(await backend.read(storage, start, size - start)).toEqual(expected.slice(start));
        expect(await backend.read(storage, 0, size)).toEqual(expected);
        storage.free();
      }),
      { numRuns: 60 },
    );
  });

  it("keeps what a kernel wrote beside the bytes of a ragged write", async () => {
    const x = backend.allocate(8);
    const y = backend.allocate(8);
    backend.write(x, 0, new Uint8Array(new Float32Array([1, 2]).buffer));
    const tensors = { x: new DeviceTensor(x, f32, [2]), y: new DeviceTensor(y, f32, [2]) };
    bind(await compileScale(backend), { ...tensors, scale: 1, bias: 0 }).launch();
    backend.write(y, 1, Uint8Array.of(7));
    const expected = new Uint8Array(new Float32Array([1, 3]).buffer);
    expected[1] = 7;
    expect(await backend.read(y, 0, 8)).toEqual(expected);
  });

  it("runs a module with several scalars and workgroups, in order with other launches, and times it", async () => {
    const scale = await compileScale(backend, 16);
    expect(scale.compileMs).toBeGreaterThan(0);
    expect(scale.source).toContain("fn scale");
    const n = 1000;
    const x = deviceTensor(backend, f32, [n]);
    const y = deviceTensor(backend, f32, [n]);
    backend.write(x.storage, 0, new Uint8Array(Float32Array.from({ length: n }, (_, i) => i % 7).buffer));
    const there = bind(scale, { x, y, scale: 2, bias: 5 });
    there.launch();
    bind(scale, { x: y, y: x, scale: -1, bias: 0 }).launch();
    const result = new Float32Array((await backend.read(x.storage, 0, 4 * n)).buffer);
    expect([...result]).toEqual(Array.from({ length: n }, (_, i) => -(2 * (i % 7) + 5 + i) + i));

    expect(await there.timeUs(10)).toBeGreaterThan(0);
    for (const bad of [0, NaN, 0.5]) await expect(there.timeUs(bad)).rejects.toThrow(ArgumentError);
  });

  it("refuses memory that is freed, foreign, out of range, misplaced or too large", async () => {
    const storage = backend.allocate(1024);
    const scale = await compileScale(backend);
    const tensor = (offset: number): DeviceTensor => new DeviceTensor(storage, f32, [4], offset);
    const binding = (x: DeviceTensor, y: DeviceTensor) => () => bind(scale, { x, y, scale: 1, bias: 0 });
    expect(binding(tensor(0), tensor(128))).toThrow(UnsupportedError);
    expect(binding(tensor(0), tensor(256))).toThrow(/"x" and "y" of kernel "scale" share memory, .* the other written/);
    expect(() => backend.write(storage, 1020, new Uint8Array(5))).toThrow(ArgumentError);
    await expect(backend.read(storage, -1, 4)).rejects.toThrow(ArgumentError);
    expect(() => backend.allocate(2 ** 28 + 1)).toThrow(/maxBufferSize/);
    expect(() => backend.allocate(2 ** 27 + 1)).toThrow(/maxStorageBufferBindingSize/);

    await using other = await openWgsl();
    expect(() => other.write(storage, 0, new Uint8Array(4))).toThrow(ArgumentError);

    const y = deviceTensor(backend, f32, [4]);
    const view = tensor(0);
    const bound = binding(view, y)();
    storage.free();
    storage.free();
    expect(() => bound.launch()).toThrow(DisposedError);
    expect(binding(view, y)).toThrow(DisposedError);
    expect(() => backend.write(storage, 0, new Uint8Array(4))).toThrow(DisposedError);
    await expect(view.read()).rejects.toThrow(DisposedError);
  });

  it("lets two written parameters share a storage only without overlap", async () => {
    const source = `
      @group(0) @binding(0) var<storage, read_write> a: array<u32>;
      @group(0) @binding(1) var<storage, read_write> b: array<u32>;
      @compute @workgroup_size(1) fn both() { a[0] = 1u; b[0] = 2u; }`;
    const tensors = ["a", "b"].map((name) => ({ name, access: "read_write" }) as const);
    const module = { ...scaleModule, source, entry: "both", tensors, uniformWords: 3 };
    const both = await compileModule(backend, "both", module, { dtype: u8 });
    const storage = backend.allocate(512);
    const binding = (offset: number) => {
      const [a, b] = [new DeviceTensor(storage, u8, [255]), new DeviceTensor(storage, u8, [255], offset)];
      return bind(both, { a, b });
    };
    expect(() => binding(128)).toThrow("both: a and b share memory that the kernel writes");
    binding(256).launch();
    expect((await backend.read(storage, 256, 1))[0]).toBe(2);
  });

  it("gives the message and the line when the WGSL is broken, or the pipeline impossible", async () => {
    const broken = { ...scaleModule, source: scaleModule.source.replace("launch.scale", "launch.scalar") };
    const error = await compileModule(backend, "scale", broken).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(CompileError);
    expect(String(error)).toMatch(/kernel "scale"[^]*scalar[^]*WGSL line 8: y\[id\.x\] = .*@scale\.ts:7/);

    const huge = { ...scaleModule, source: scaleModule.source.replace("size(64)", "size(512)") };
    await expect(compileModule(backend, "scale", huge)).rejects.toThrow(CompileError);
    const tensors = Array.from({ length: 9 }, (_, i) => ({ name: `t${i}`, access: "read" }) as const);
    const many = compileModule(backend, "many", { ...scaleModule, tensors });
    await expect(many).rejects.toThrow(/9 tensors.*room for 8/);
    await backend.synchronize();
  });

  it("names the kernel of an invalid launch at the next synchronize, once", async () => {
    const module = { ...scaleModule, workgroupCount: () => [70_000, 1, 1] as const };
    const scalars = { scale: f32, bias: u32 };
    const wide = await compileModule(backend, "wide", module, { scalars, grid: [70_000, 1, 1] });
    const [x, y] = [deviceTensor(backend, f32, [4]), deviceTensor(backend, f32, [4])];
    bind(wide, { x, y, scale: 1, bias: 0 }).launch();
    const error = await backend.synchronize().catch((error: unknown) => error);
    expect(error).toBeInstanceOf(DeviceError);
    expect(String(error)).toMatch(/Launch of "wide" failed: .*70000/);
    await backend.synchronize();
  });
});

describe("the end", () => {
  it("refuses everything after dispose, which may come twice and with work under way", async () => {
    const backend = await openWgsl();
    const { launch, y } = await slowLaunch(backend, 1000);
    launch.launch();
    const reading = expect(y.read()).rejects.toThrow(DisposedError);
    const compiling = expect(compileModule(backend, "slow", slowModule)).rejects.toThrow(DisposedError);
    await Promise.all([backend.dispose(), backend.dispose(), reading, compiling]);
    expect(y.storage.freed).toBe(true);
    y.free();
    expect(() => backend.allocate(4)).toThrow(DisposedError);
    expect(() => launch.launch()).toThrow(DisposedError);
    await expect(backend.synchronize()).rejects.toThrow(DisposedError);
    await expect(launch.timeUs(1)).rejects.toThrow(DisposedError);
  });

  it("reports a lost device, naming the last kernel", async () => {
    const found = await openDevice();
    const backend = WgslBackend.on(found);
    (await slowLaunch(backend, 10)).launch.launch();
    found.device.destroy();
    await expect(backend.synchronize()).rejects.toThrow(/The device was lost after a launch of "slow"/);
    expect(() => backend.allocate(4)).toThrow(DeviceError);
    await backend.dispose();
  });
});
