/**
 * Finding a device for the WGSL backend, losing it, and processes that end: TEGULA_TEST_COLD_STARTS more of them. Memory and
 * launches are in wgsl-runtime.test.ts.
 */
import { execFile } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, describe, expect, it, vi } from "vitest";
import { openDevice } from "../backends/wgsl/device.ts";
import { unpackSwiftShader } from "../backends/wgsl/swiftshader.ts";
import { ArgumentError, NotFoundError } from "../dsl/errors.ts";

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

/** No shader that Mesa, or SwiftShader, compiled before. */
const coldCache = () => ({ MESA_SHADER_CACHE_DISABLE: "true", XDG_CACHE_HOME: emptyFolder() });

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

  it.runIf(onLinux)("says that a driver gives no adapter", async () => {
    const broken = join(emptyFolder(), "lvp_icd.json");
    const ICD = { library_path: "/nowhere/libvulkan_lvp.so", api_version: "1.3.0" };
    writeFileSync(broken, JSON.stringify({ file_format_version: "1.0.0", ICD }));
    const env = { TEGULA_WGSL_DEVICE: "lavapipe", VK_DRIVER_FILES: broken };
    const { stdout, code } = await child("wgsl-open", [], env);
    expect(stdout).toContain(`lavapipe: Dawn finds no usable adapter through ${broken}\n`);
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

describe("a device that goes away", () => {
  it("ends everything under way and after it, naming the last kernel", async () => {
    const { stdout, code } = await child("wgsl-lost");
    const steps = JSON.parse(stdout) as readonly (readonly [doing: string, error: string, message: string])[];
    const names = ["a read under way", "synchronize", "compile", "allocate", "write", "read", "launch", "timeUs"];
    expect(steps.map(([doing]) => doing)).toEqual(names);
    for (const [doing, error, message] of steps) {
      expect(error, doing).toBe("DeviceError");
      expect(message, doing).toMatch(/^The device was lost after a launch of "slow" \(/);
    }
    expect(code).toBe(0);
  });
});

const coldStarts = Number(process.env["TEGULA_TEST_COLD_STARTS"] ?? 0);

describe("a process", () => {
  it.skipIf(coldStarts === 0)(
    `ends by itself ${coldStarts} of ${coldStarts} times, though no shader is cached`,
    async () => {
      const styles = ["idle", "dispose", "dispose while pending", "pending", "reading", "exit while compiling"];
      const bad: string[] = [];
      for (let i = 0; i < coldStarts; i++) {
        const style = styles[i % styles.length] ?? "idle";
        const { code, signal, stderr } = await child("wgsl-exit", [style, "200000"], coldCache());
        const expected = style === "exit while compiling" ? 3 : 0;
        if (code !== expected) bad.push(`${style}: code ${code}, signal ${signal}: ${stderr}`);
      }
      expect(bad).toEqual([]);
    },
    coldStarts * childTimeLimitMs,
  );

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
    "ends by itself: %s",
    async (style, code) => {
      const ended = await child("wgsl-exit", [style]);
      expect(ended).toMatchObject({ code, stdout: expect.stringMatching(/^started\n/) });
      if (code === 1) expect(ended.stderr).toContain("on purpose");
    },
    childTimeLimitMs + 10_000,
  );
});
