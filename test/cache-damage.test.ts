/**
 * Files in the compile cache that are not what was written: cut off, changed, someone else's. Each is a miss, and the next
 * compilation puts it right. TEGULA_TEST_CORRUPTIONS sets how many random ones.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { format } from "node:util";
import fc from "fast-check";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { cacheKey } from "../backends/cuda/cache.ts";
import { readEntry, writeEntry } from "../backends/cuda/cache-disk.ts";
import { type CachedCubin, decodeEntry, encodeEntry, entryFormat } from "../backends/cuda/cache-entry.ts";
import { cubinOf, makeCompiler, source } from "./children/cache-support.ts";

const corruptions = Number(process.env["TEGULA_TEST_CORRUPTIONS"] ?? 100);

/** What NODE_DEBUG=tegula would print. */
const said = vi.hoisted(() => [] as string[]);
vi.mock("node:util", async (original) => ({
  ...(await original<typeof import("node:util")>()),
  debuglog:
    () =>
    (text: string, ...args: unknown[]) =>
      said.push(format(text, ...args)),
}));

const entry: CachedCubin = {
  cubin: new Uint8Array(cubinOf(source(3, 500))),
  log: "a \u00e9 \n",
  compiler: "nvcc 13.0",
};
const key = cacheKey({ source: source(3, 500), fileName: "k.cu", flags: [] }, "here");
const whole = Buffer.from(encodeEntry(key, entry));

/** A file whose checksum is right, whatever it holds. */
const sealed = (body: Uint8Array) => Buffer.concat([body, createHash("sha256").update(body).digest()]);
const prefix = whole.subarray(0, 16);
const headerEnd = 16 + whole.readUInt32LE(12);
const withHeader = (header: unknown) => {
  const text = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const start = Buffer.from(prefix);
  start.writeUInt32LE(text.length, 12);
  return sealed(Buffer.concat([start, text, entry.cubin]));
};
const header: object = JSON.parse(whole.toString("utf8", 16, headerEnd)) as object;

describe("an entry", () => {
  it("reads as what was written", () => {
    expect(decodeEntry(key, whole)).toEqual(entry);
    expect(withHeader(header).equals(whole)).toBe(true);
  });

  it("is refused at every other length", () => {
    for (let length = 0; length < whole.length; length++) {
      expect(() => decodeEntry(key, whole.subarray(0, length)), `${length} bytes`).toThrow(/truncated/);
    }
    for (const added of [1, 32, 4096]) {
      expect(() => decodeEntry(key, Buffer.concat([whole, Buffer.alloc(added)]))).toThrow(/damaged/);
    }
  });

  it("is refused with any bit flipped", () => {
    const file = Buffer.from(whole);
    for (let bit = 0; bit < 8 * file.length; bit++) {
      const at = bit >> 3;
      const byte = file.readUInt8(at);
      file.writeUInt8(byte ^ (1 << (bit & 7)), at);
      expect(() => decodeEntry(key, file), `bit ${bit}`).toThrow();
      file.writeUInt8(byte, at);
    }
    expect(decodeEntry(key, file)).toEqual(entry);
  });

  const format2 = Buffer.from(whole.subarray(0, -32));
  format2.writeUInt32LE(entryFormat + 1, 8);
  const endless = Buffer.from(whole.subarray(0, -32));
  endless.writeUInt32LE(2 ** 32 - 1, 12);
  it.each([
    ["of another key", Buffer.from(encodeEntry("0".repeat(64), entry)), /another key/],
    ["of another format", sealed(format2), /its format is 2, not 1/],
    ["with a header that never ends", sealed(endless), /JSON/],
    ["with a header that is no JSON", withHeader("key"), /JSON/],
    ["with a header that is null", withHeader(null), /header is incomplete/],
    ["with a header that lacks the log", withHeader({ ...header, log: undefined }), /header is incomplete/],
    ["with a header that lacks the size", withHeader({ ...header, cubinBytes: undefined }), /length is wrong/],
    ["with a header of another size", withHeader({ ...header, cubinBytes: 12 }), /length is wrong/],
    ["that is a zip archive", Buffer.from("PK\x03\x04".repeat(100)), /no cache entry/],
    ["that is the cubin alone", Buffer.from(entry.cubin), /no cache entry/],
  ])("is refused %s, though its checksum may be right", (_, file, reason) => {
    expect(() => decodeEntry(key, file)).toThrow(reason);
  });

  it("is not made of what is no ELF file, and none is read", () => {
    const text = { ...entry, cubin: new Uint8Array(Buffer.from("// PTX")) };
    expect(() => encodeEntry(key, text)).toThrow("the cubin is no ELF file");
    const body = Buffer.concat([whole.subarray(0, headerEnd), Buffer.alloc(entry.cubin.length)]);
    expect(() => decodeEntry(key, sealed(body))).toThrow("the cubin is no ELF file");
  });
});

describe("on disk", () => {
  let home: string;
  let path: string;

  beforeAll(() => {
    home = fs.mkdtempSync(join(tmpdir(), "tegula-cache-"));
    path = join(home, "cache/cubin", key);
  });
  afterAll(() => fs.rmSync(home, { recursive: true }));
  beforeEach(() => {
    vi.stubEnv("TEGULA_CACHE_DIR", join(home, "cache"));
    fs.rmSync(path, { recursive: true, force: true });
    said.length = 0;
  });
  afterEach(() => void vi.unstubAllEnvs());

  /** The entry is a miss, which is said, and the next one written in its place is whole. */
  function expectRepair(reason = ""): void {
    said.length = 0;
    expect(readEntry(key) === undefined).toBe(true);
    expect(said).toEqual([expect.stringMatching(`^cache entry ${path} is not used, it is made anew: .*${reason}`)]);
    writeEntry(key, entry);
    expect(readEntry(key)).toEqual(entry);
    expect(said).toHaveLength(1);
  }

  it("random damage is a miss, and is repaired", () => {
    const position = fc
      .double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
      .map((x) => Math.floor(x * whole.length));
    const overwritten = fc.tuple(position, fc.uint8Array({ minLength: 1, maxLength: 100 })).map(([at, bytes]) => {
      const file = Buffer.from(whole);
      file.set(bytes.subarray(0, file.length - at), at);
      return file;
    });
    const damaged = fc
      .oneof(
        overwritten,
        position.map((length) => whole.subarray(0, length)),
        position.map((at) => Buffer.concat([whole.subarray(0, at), whole])),
        position.map((from) => Buffer.concat([whole.subarray(0, from), Buffer.alloc(whole.length - from)])),
        fc.uint8Array({ maxLength: 1000 }).map((bytes) => Buffer.from(bytes)),
      )
      .filter((file) => !file.equals(whole));
    const property = fc.property(damaged, (file) => {
      fs.writeFileSync(path, file, { mode: 0o600 });
      expectRepair();
    });
    writeEntry(key, entry);
    fc.assert(property, { numRuns: corruptions });
  });

  it.each<[string, string, () => void]>([
    [
      "a link, even to a good entry",
      "ELOOP",
      () => (fs.renameSync(path, `${path}.good`), fs.symlinkSync(`${path}.good`, path)),
    ],
    [
      "a pipe that nobody writes into",
      "no plain file",
      () => (fs.rmSync(path), execFileSync("mkfifo", ["-m", "600", path])),
    ],
    ["a file that others can write to", "others can have written it", () => fs.chmodSync(path, 0o666)],
    ["a file larger than the whole cache", "larger than the cache", () => fs.truncateSync(path, 2 ** 29)],
    [
      "a file of zeros, which a crashed machine may leave",
      "no cache entry",
      () => fs.writeFileSync(path, Buffer.alloc(whole.length)),
    ],
  ])("%s is a miss, and is replaced", (_, reason, damage) => {
    writeEntry(key, entry);
    damage();
    expectRepair(reason);
    expect(fs.lstatSync(path).isFile()).toBe(true);
    expect(fs.statSync(path).mode & 0o777).toBe(0o600);
  });

  it("a folder in an entry's place is a miss, and stays", () => {
    fs.mkdirSync(path);
    expect(readEntry(key)).toBeUndefined();
    writeEntry(key, entry);
    expect(said).toEqual([
      expect.stringMatching(/is not used/),
      expect.stringMatching(/is not kept: .*EISDIR|ENOTEMPTY/),
    ]);
    expect(fs.readdirSync(join(home, "cache/cubin")).filter((name) => name.startsWith("new-"))).toEqual([]);
  });

  it("a failing compiler's output is not kept", () => {
    writeEntry(key, { ...entry, cubin: new Uint8Array(0) });
    expect(said).toEqual([expect.stringMatching(/is not kept: the cubin is no ELF file$/)]);
    expect(fs.existsSync(path)).toBe(false);
  });

  it("compileCuda compiles again, gives the right cubin and leaves a good entry", async () => {
    vi.stubEnv("TEGULA_LIBNVRTC", "/nowhere/libnvrtc.so.13");
    const nvcc = makeCompiler(home);
    vi.stubEnv("TEGULA_NVCC", nvcc.path);
    vi.stubEnv("TEGULA_CACHE_DIR", join(home, "another"));
    const compile = async () => {
      vi.resetModules();
      const { compileCuda } = await import("../backends/cuda/compile.ts");
      const { cubin, from } = compileCuda(source(0), { arch: "sm_90a", name: "k" });
      expect(cubin).toEqual(cubinOf(source(0)));
      return from;
    };
    await compile();
    const [file = ""] = fs.readdirSync(join(home, "another/cubin")).map((name) => join(home, "another/cubin", name));
    const good = fs.readFileSync(file);
    for (const length of [0, 1, 15, 16, 47, 48, 100, good.length - 33, good.length - 32, good.length - 1]) {
      fs.truncateSync(file, length);
      expect([await compile(), await compile()]).toEqual(["compiler", "disk"]);
      expect(fs.readFileSync(file).equals(good)).toBe(true);
    }
    expect(nvcc.calls()).toBe(11);
  });
});
