/**
 * The compile cache under several processes at once, under kill -9, and on disks that are full or read-only. TEGULA_TEST_PROCESSES,
 * TEGULA_TEST_KEYS and TEGULA_TEST_KILLS set how much of it.
 */
import { fork, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate, setTimeout } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { decodeEntry } from "../backends/cuda/cache-entry.ts";
import { cubinOf, makeCompiler, source, type StandIn } from "./children/cache-support.ts";

const count = (name: string, ordinary: number): number => Number(process.env[`TEGULA_TEST_${name}`] ?? ordinary);
const processes = count("PROCESSES", 8);
const keys = count("KEYS", 10);
const kills = count("KILLS", 10);
const timeLimitMs = 60_000 + 2_000 * (kills + processes * keys);

let home: string;
let folder: string;
let nvcc: StandIn;

beforeEach(() => {
  home = fs.mkdtempSync(join(tmpdir(), "tegula-cache-"));
  folder = join(home, "cache/cubin");
  nvcc = makeCompiler(home);
});
// A compiler whose parent was killed may still be writing.
afterEach(() => {
  vi.unstubAllEnvs();
  fs.rmSync(home, { recursive: true, maxRetries: 10 });
});

/** Of children. */
const environment = (more: Readonly<Record<string, string>> = {}) => ({
  ...process.env,
  TEGULA_CACHE_DIR: join(home, "cache"),
  TEGULA_LIBNVRTC: "/nowhere/libnvrtc.so.13",
  TEGULA_NVCC: nvcc.path,
  TMPDIR: home,
  ...more,
});

const pathOf = (script: string) => join(import.meta.dirname, "children", `${script}.ts`);

/** A child that has said it is ready. */
async function start(script: string, args: readonly number[], env: Readonly<Record<string, string>> = {}) {
  const child = fork(pathOf(script), args.map(String), {
    env: environment(env),
    execArgv: ["--import", "tsx"],
    stdio: ["ignore", "pipe", "pipe", "ipc"],
    timeout: timeLimitMs,
    killSignal: "SIGKILL",
  });
  const output = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name]?.setEncoding("utf8").on("data", (text: string) => (output[name] += text));
  }
  const ended = new Promise<typeof output>((resolve) => child.once("close", () => resolve(output)));
  await Promise.race([new Promise((resolve) => child.once("message", resolve)), ended]);
  return { child, ended };
}

/** Processes that all begin to compile the same kernels at the same moment; how many each had from where. */
async function race(byteLength: number, env: Readonly<Record<string, string>> = {}) {
  const started = await Promise.all(
    Array.from({ length: processes }, () =>
      start("cache-compile", [keys, byteLength], { NODE_DEBUG: "tegula", ...env }),
    ),
  );
  for (const { child } of started) child.send("go");
  const outputs = await Promise.all(started.map(({ ended }) => ended));
  return outputs.map(({ stdout, stderr }) => {
    expect(stderr).not.toMatch(/is not (used|kept)/); // nobody saw half an entry
    return JSON.parse(stdout) as Readonly<Record<string, number>>;
  });
}

/** Entries of the cache, each of which must be whole, and what else lies there. */
function inspect(byteLength: number) {
  const names = fs.readdirSync(folder);
  const entries = names.filter((name) => /^[0-9a-f]{64}$/.test(name));
  for (const name of entries) {
    const { cubin } = decodeEntry(name, fs.readFileSync(join(folder, name)));
    const n = Number(/\/\/ kernel (\d+)/.exec(Buffer.from(cubin.subarray(0, 100)).toString())?.[1]);
    expect(Buffer.from(cubin).equals(cubinOf(source(n, byteLength)))).toBe(true);
  }
  return { entries: entries.length, others: names.filter((name) => !entries.includes(name)) };
}

describe(`${processes} processes at once`, () => {
  it("agree on an empty cache", { timeout: timeLimitMs }, async () => {
    const outcomes = await race(1000);
    for (const outcome of outcomes) {
      expect(Object.keys(outcome).filter((from) => from !== "compiler" && from !== "disk")).toEqual([]);
      expect((outcome["compiler"] ?? 0) + (outcome["disk"] ?? 0)).toBe(keys);
    }
    expect(inspect(1000)).toEqual({ entries: keys, others: [] });
    const compiled = nvcc.calls();
    expect(compiled).toBeGreaterThanOrEqual(keys);
    expect(await race(1000)).toEqual(Array(processes).fill({ disk: keys }));
    expect(nvcc.calls()).toBe(compiled);
  });

  it("agree while they evict each other's entries", { timeout: timeLimitMs }, async () => {
    const [first, second] = [
      await race(20_000, { TEGULA_CACHE_SIZE: "0.1" }),
      await race(20_000, { TEGULA_CACHE_SIZE: "0.1" }),
    ];
    for (const outcome of [...first, ...second]) expect(outcome["wrong"]).toBeUndefined();
    const { entries, others } = inspect(20_000);
    expect(others).toEqual([]);
    expect(entries).toBeLessThanOrEqual(5 + processes); // each may have added one after its last look
  });
});

it(
  "kill -9 at any moment leaves whole entries, and the next process has every kernel right",
  { timeout: timeLimitMs },
  async () => {
    const byteLength = 2 ** 20;
    const env = { TEGULA_CACHE_SIZE: "20" };
    for (const [name, value] of Object.entries(environment(env))) vi.stubEnv(name, value);
    for (let kill = 0; kill < kills; kill++) {
      const { child, ended } = await start("cache-endless", [1000 * kill, byteLength], env);
      expect(child.exitCode).toBeNull();
      // Half of them while a file is being written, the others anywhere.
      if (kill % 2 === 0) await newFile();
      else await setTimeout(Math.random() * 50);
      child.kill("SIGKILL");
      await ended;
      expect(inspect(byteLength).entries).toBeGreaterThan(0);
      vi.resetModules(); // this process remembers nothing, either
      const { compileNth } = await import("./children/cache-support.ts");
      for (const n of [0, 1, 2, 3]) expect(compileNth(1000 * kill + n, byteLength).from).toMatch(/^(disk|compiler)$/);
    }
    const { others } = inspect(byteLength);
    for (const name of others) {
      expect(name).toMatch(/^new-/);
      fs.utimesSync(join(folder, name), 1000, 1000); // left long ago
    }
    vi.resetModules();
    const { compileNth } = await import("./children/cache-support.ts");
    expect(compileNth(999, byteLength).from).toBe("compiler");
    expect(inspect(byteLength).others).toEqual([]);
  },
);

/** Resolves as soon as one begins to be written. */
async function newFile(): Promise<void> {
  const before = new Set(fs.readdirSync(folder));
  while (fs.readdirSync(folder).every((name) => before.has(name))) await setImmediate();
}

/** Mounts as only root can make them, seen by the child alone. */
const canMount = spawnSync("unshare", ["-m", "mount", "-t", "tmpfs", "none", "/mnt"]).status === 0;

describe.skipIf(!canMount)("on a disk of its own", () => {
  /** Runs shell commands that mount, then compiles `n` kernels. */
  function compileOn(mount: string, n: number, byteLength: number) {
    const command = `${mount} && exec "$0" --import tsx ${pathOf("cache-compile")} ${n} ${byteLength}; ls -A cubin >&2`;
    const cache = join(home, "cache");
    fs.mkdirSync(cache, { recursive: true, mode: 0o700 });
    const { stdout, stderr } = spawnSync(
      "unshare",
      ["-m", "sh", "-c", command.replaceAll("DISK", cache), process.execPath],
      {
        env: environment({ NODE_DEBUG: "tegula" }),
        encoding: "utf8",
      },
    );
    return { counts: JSON.parse(stdout) as unknown, stderr };
  }

  it("that is full, everything is compiled, and what fits is kept", () => {
    const { counts, stderr } = compileOn("mount -t tmpfs -o size=300k,mode=700 none DISK", 4, 200_000);
    expect(counts).toEqual({ compiler: 4 });
    expect(stderr.match(/cache entry .* is not kept: ENOSPC/g)).toHaveLength(3);
  });

  it("that is read-only, what is there is used, and the rest compiled", () => {
    expect(compileOn("true", 2, 0).counts).toEqual({ compiler: 2 });
    const { counts, stderr } = compileOn("mount -o bind,ro DISK DISK", 3, 0);
    expect(counts).toEqual({ disk: 2, compiler: 1 });
    expect(stderr.match(/cache entry .* is not kept: EROFS/g)).toHaveLength(1);
    expect(inspect(0)).toEqual({ entries: 2, others: [] });
  });
});
