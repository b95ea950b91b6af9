/** The WGSL backend below the kernels: finding a device, memory, hand-written modules, errors, and processes that end. */
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { chmodSync, mkdirSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { DeviceTensor, deviceTensor } from "../backends/tensor.ts";
import { openDevice } from "../backends/wgsl/device.ts";
import { openWgsl, type WgslBackend } from "../backends/wgsl/runtime.ts";
import { unpackSwiftShader } from "../backends/wgsl/swiftshader.ts";
import { f32, u8 } from "../dsl/dtype.ts";
import {
  ArgumentError,
  CompileError,
  DeviceError,
  DisposedError,
  NotFoundError,
  UnsupportedError,
} from "../dsl/errors.ts";
import { compileModule, scaleBy, scaleModule, slowLaunch, slowModule } from "./children/wgsl-support.ts";

const childTimeLimitMs = 60_000;
const folders: string[] = [];

function emptyFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "tegula-test-"));
  folders.push(folder);
  return folder;
}

afterAll(() => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })));
afterEach(() => void vi.unstubAllEnvs());

interface Ended {
  readonly code: number | string | null | undefined;
  readonly signal: NodeJS.Signals | null | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs test/children/<script>.ts in a process of its own; past the time limit it is killed and `signal` says so. */
function child(script: string, args: readonly string[] = [], env: Readonly<Record<string, string>> = {}) {
  const file = fileURLToPath(new URL(`./children/${script}.ts`, import.meta.url));
  return new Promise<Ended>((resolve) => {
    const options = { env: { ...process.env, ...env }, timeout: childTimeLimitMs, killSignal: "SIGKILL" } as const;
    execFile(process.execPath, ["--import", "tsx", file, ...args], options, (error, stdout, stderr) =>
      resolve({ code: error ? error.code : 0, signal: error?.signal, stdout, stderr }),
    );
  });
}

const onLinux = process.platform === "linux" && process.arch === "x64";

describe.runIf(onLinux)("unpacking SwiftShader", () => {
  it("fills an empty cache, and finds it there the next time", () => {
    const cache = join(emptyFolder(), "a", "b");
    const first = unpackSwiftShader(undefined, cache);
    expect([first.loader, first.icd].every(existsSync)).toBe(true);
    expect(statSync(cache).mode & 0o777).toBe(0o700);
    expect(readdirSync(cache)).toEqual([basename(dirname(first.icd))]);

    const { mtimeMs } = statSync(first.loader);
    expect(unpackSwiftShader(undefined, cache)).toEqual(first);
    expect(statSync(first.loader).mtimeMs).toBe(mtimeMs);
  });

  it.each([
    ["truncated", (file: string) => truncateSync(file, 1000)],
    ["of the right size with a flipped bit", flipBit],
    ["missing", (file: string) => rmSync(file)],
  ])("doesn't trust a folder with a file %s", (_, damage) => {
    const cache = emptyFolder();
    const { loader } = unpackSwiftShader(undefined, cache);
    const whole = readFileSync(loader);
    damage(loader);
    expect(unpackSwiftShader(undefined, cache).loader).toBe(loader);
    expect(readFileSync(loader).equals(whole)).toBe(true);
  });

  it("goes to a temporary folder when the cache isn't a folder, or others may write to it", () => {
    const parent = emptyFolder();
    const file = join(parent, "file");
    writeFileSync(file, "");
    const shared = join(parent, "shared");
    mkdirSync(shared);
    chmodSync(shared, 0o777);
    for (const cache of [file, shared]) {
      const { icd } = unpackSwiftShader(undefined, cache);
      expect(icd.startsWith(cache)).toBe(false);
      expect(existsSync(icd)).toBe(true);
      folders.push(dirname(icd));
    }
    expect(readdirSync(shared)).toEqual([]);
  });

  it("works in processes that start at once on an empty cache", async () => {
    const env = { TEGULA_CACHE_DIR: emptyFolder(), TEGULA_WGSL_DEVICE: "swiftshader" };
    const ended = await Promise.all([1, 2, 3].map(() => child("wgsl-open", [], env)));
    expect(ended.map(({ stdout }) => stdout)).toEqual(Array(3).fill("swiftshader: SwiftShader (Dawn): 3 6 9 12\n"));
    expect(readdirSync(env.TEGULA_CACHE_DIR)).toHaveLength(1);
  }, 120_000);
});

function flipBit(file: string): void {
  const content = readFileSync(file);
  content.writeUInt8(content.readUInt8(5000) ^ 1, 5000);
  writeFileSync(file, content);
}

describe("finding a device", () => {
  it.runIf(onLinux)("says what was tried and what gives a device", async () => {
    vi.stubEnv("VK_DRIVER_FILES", "/nowhere/icd.json");
    const error = await openDevice({ roots: [] }).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(NotFoundError);
    expect(String(error)).toMatch(/gpu: no Vulkan driver for one in \/nowhere\/icd\.json/);
    expect(String(error)).toMatch(/lavapipe: no Vulkan driver/);
    expect(String(error)).toMatch(/swiftshader: the npm package @sparticuz\/chromium isn't installed/);
    expect(String(error)).toMatch(/npm install --save-dev @sparticuz\/chromium/);
  });

  it.runIf(onLinux)("accepts only the kind that TEGULA_WGSL_DEVICE names", async () => {
    const env = { TEGULA_WGSL_DEVICE: "lavapipe", VK_DRIVER_FILES: "/nowhere" };
    const { stdout, code } = await child("wgsl-open", [], env);
    expect(stdout).toMatch(/^NotFoundError: Found no WGSL device "lavapipe"/);
    expect(code).toBe(0);
  });

  it("refuses a kind that doesn't exist", async () => {
    vi.stubEnv("TEGULA_WGSL_DEVICE", "cpu");
    await expect(openDevice()).rejects.toThrow(ArgumentError);
  });

  it("gives several searches at once a device each, and leaves the environment as it was", async () => {
    const before = { ...process.env };
    const found = await Promise.all([openDevice(), openDevice(), openDevice()]);
    expect(new Set(found.map(({ device }) => device)).size).toBe(3);
    expect({ ...process.env }).toEqual(before);
    for (const { device } of found) device.destroy();
  });
});

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
    const tensors = [new DeviceTensor(x, f32, [2]), new DeviceTensor(y, f32, [2])];
    const scale = await compileModule(backend, "scale", scaleModule);
    backend.launch(scale, { grid: [1, 1, 1], tensors, scalars: scaleBy(1, 0) });
    backend.write(y, 1, Uint8Array.of(7));
    const expected = new Uint8Array(new Float32Array([1, 3]).buffer);
    expected[1] = 7;
    expect(await backend.read(y, 0, 8)).toEqual(expected);
  });

  it("runs a module with several scalars and workgroups, in order with other launches, and times it", async () => {
    const scale = await compileModule(backend, "scale", scaleModule);
    expect(scale.compileMs).toBeGreaterThan(0);
    expect(scale.source).toContain("fn scale");
    const n = 1000;
    const x = deviceTensor(backend, f32, [n]);
    const y = deviceTensor(backend, f32, [n]);
    backend.write(x.storage, 0, new Uint8Array(Float32Array.from({ length: n }, (_, i) => i % 7).buffer));
    const grid = [16, 1, 1] as const;
    backend.launch(scale, { grid, tensors: [x, y], scalars: scaleBy(2, 5) });
    backend.launch(scale, { grid, tensors: [y, x], scalars: scaleBy(-1, 0) });
    const result = new Float32Array((await backend.read(x.storage, 0, 4 * n)).buffer);
    expect([...result]).toEqual(Array.from({ length: n }, (_, i) => -(2 * (i % 7) + 5 + i) + i));

    expect(await backend.timeUs(scale, { grid, tensors: [x, y], scalars: scaleBy(1, 0) }, 10)).toBeGreaterThan(0);
    backend.launch(scale, { grid: [0, 1, 1], tensors: [x, y], scalars: scaleBy(1, 0) });
    await backend.synchronize();
  });

  it("refuses memory that is freed, foreign, out of range, misplaced or too large", async () => {
    const storage = backend.allocate(1024);
    const scale = await compileModule(backend, "scale", scaleModule);
    const tensor = (offset: number): DeviceTensor => new DeviceTensor(storage, f32, [4], offset);
    const launch = (x: DeviceTensor, y: DeviceTensor) => () =>
      backend.launch(scale, { grid: [1, 1, 1], tensors: [x, y], scalars: scaleBy(1, 0) });
    expect(launch(tensor(0), tensor(128))).toThrow(UnsupportedError);
    expect(launch(tensor(0), tensor(256))).toThrow(/"x" and "y" of kernel "scale" share memory, .* the other written/);
    expect(() => backend.write(storage, 1020, new Uint8Array(5))).toThrow(ArgumentError);
    await expect(backend.read(storage, -1, 4)).rejects.toThrow(ArgumentError);
    expect(() => backend.allocate(2 ** 28 + 1)).toThrow(/maxBufferSize/);
    expect(() => backend.allocate(2 ** 27 + 1)).toThrow(/maxStorageBufferBindingSize/);

    await using other = await openWgsl();
    expect(() => other.write(storage, 0, new Uint8Array(4))).toThrow(ArgumentError);

    const y = deviceTensor(backend, f32, [4]);
    const view = tensor(0);
    storage.free();
    storage.free();
    expect(launch(view, y)).toThrow(DisposedError);
    expect(() => backend.write(storage, 0, new Uint8Array(4))).toThrow(DisposedError);
    await expect(view.read()).rejects.toThrow(DisposedError);
  });

  it("lets two written parameters share a storage only without overlap", async () => {
    const source = `
      @group(0) @binding(0) var<storage, read_write> a: array<u32>;
      @group(0) @binding(1) var<storage, read_write> b: array<u32>;
      @compute @workgroup_size(1) fn both() { a[0] = 1u; b[0] = 2u; }`;
    const tensors = ["a", "b"].map((name) => ({ name, access: "read_write" }) as const);
    const both = await compileModule(backend, "both", {
      ...scaleModule,
      source,
      entry: "both",
      tensors,
      uniformWords: 3,
    });
    const storage = backend.allocate(512);
    const launch = (bytes: number): void => {
      const [a, b] = [new DeviceTensor(storage, u8, [bytes]), new DeviceTensor(storage, u8, [4], 256)];
      backend.launch(both, { grid: [1, 1, 1], tensors: [a, b], scalars: [] });
    };
    expect(() => launch(260)).toThrow(/"a" and "b" of kernel "both" share memory, and both are written/);
    launch(256);
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
    const wide = await compileModule(backend, "wide", { ...scaleModule, workgroupCount: () => [70_000, 1, 1] });
    const tensors = [deviceTensor(backend, f32, [4]), deviceTensor(backend, f32, [4])];
    backend.launch(wide, { grid: [70_000, 1, 1], tensors, scalars: scaleBy(1, 0) });
    const error = await backend.synchronize().catch((error: unknown) => error);
    expect(error).toBeInstanceOf(DeviceError);
    expect(String(error)).toMatch(/Launch of "wide" failed: .*70000/);
    await backend.synchronize();
  });
});

describe("the end", () => {
  it("refuses everything after dispose, which may come twice and with work under way", async () => {
    const backend = await openWgsl();
    const slow = await compileModule(backend, "slow", slowModule);
    const launch = slowLaunch(backend, 1000);
    const tensor = launch.tensors[0];
    backend.launch(slow, launch);
    const reading = expect(tensor?.read()).rejects.toThrow(DisposedError);
    const compiling = expect(compileModule(backend, "slow", slowModule)).rejects.toThrow(DisposedError);
    await Promise.all([backend.dispose(), backend.dispose(), reading, compiling]);
    expect(tensor?.storage.freed).toBe(true);
    tensor?.free();
    expect(() => backend.allocate(4)).toThrow(DisposedError);
    expect(() => backend.launch(slow, launch)).toThrow(DisposedError);
    await expect(backend.synchronize()).rejects.toThrow(DisposedError);
    await expect(backend.timeUs(slow, launch, 1)).rejects.toThrow(DisposedError);
  });

  it("reports a lost device, naming the last kernel", async () => {
    const found = await openDevice();
    const { WgslBackend } = await import("../backends/wgsl/runtime.ts");
    const backend = new WgslBackend(found);
    const slow = await compileModule(backend, "slow", slowModule);
    backend.launch(slow, slowLaunch(backend, 10));
    found.device.destroy();
    await expect(backend.synchronize()).rejects.toThrow(/The device was lost after a launch of "slow"/);
    expect(() => backend.allocate(4)).toThrow(DeviceError);
    await backend.dispose();
  });

  it.each([
    ["idle", 0],
    ["dispose", 0],
    ["dispose while pending", 0],
    ["dispose while reading", 0],
    ["pending", 0],
    ["reading", 0],
    ["throw", 1],
    ["throw later", 1],
    ["exit", 3],
    ["exit while compiling", 3],
  ])(
    "lets the process end by itself: %s",
    async (style, code) => {
      const ended = await child("wgsl-exit", [style]);
      expect(ended).toMatchObject({ code, stdout: expect.stringMatching(/^started\n/) });
      if (code === 1) expect(ended.stderr).toContain("on purpose");
    },
    childTimeLimitMs + 10_000,
  );
});
