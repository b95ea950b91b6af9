/** Finding a device for the WGSL backend, and processes that end. Memory and launches are in wgsl-runtime.test.ts. */
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

describe("a process", () => {
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
