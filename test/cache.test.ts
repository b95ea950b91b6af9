/** The compile cache: what it finds again, what it keeps apart, and where it keeps nothing. A stand-in plays the compiler. */
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { format } from "node:util";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { CompileOptions } from "../backends/cuda/compile.ts";
import { noNvcc } from "./harness.ts";
import { cubinOf, makeCompiler, source, type StandIn } from "./children/cache-support.ts";

/** What NODE_DEBUG=tegula would print. */
const said = vi.hoisted(() => [] as string[]);
vi.mock("node:util", async (original) => ({
  ...(await original<typeof import("node:util")>()),
  debuglog:
    () =>
    (text: string, ...args: unknown[]) =>
      said.push(format(text, ...args)),
}));

let home: string;
let cache: string;
let nvcc: StandIn;

beforeEach(() => {
  home = fs.mkdtempSync(join(tmpdir(), "tegula-cache-"));
  cache = join(home, "cache");
  nvcc = makeCompiler(home);
  vi.stubEnv("TEGULA_CACHE_DIR", cache);
  vi.stubEnv("TEGULA_LIBNVRTC", "/nowhere/libnvrtc.so.13");
  vi.stubEnv("TEGULA_NVCC", nvcc.path);
  said.length = 0;
});

afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
  fs.rmSync(home, { recursive: true });
});

/** compileCuda and the like, remembering nothing: what a new process has. */
async function newProcess() {
  vi.resetModules();
  const { compileCuda, compileReport } = await import("../backends/cuda/compile.ts");
  const { diskCacheState } = await import("../backends/cuda/cache-disk.ts");
  const options: CompileOptions = { arch: "sm_90a", name: "k" };
  return {
    compile: (text: string, more: Partial<CompileOptions> = {}) => compileCuda(text, { ...options, ...more }),
    report: (text: string) => compileReport(text, options),
    state: diskCacheState,
  };
}

/** Where a new process has a kernel from. The cubin must be right in any case. */
async function originOf(text = source(0), more: Partial<CompileOptions> = {}) {
  const { cubin, from } = (await newProcess()).compile(text, more);
  expect(cubin).toEqual(cubinOf(text));
  return from;
}

const entries = () => (fs.existsSync(join(cache, "cubin")) ? fs.readdirSync(join(cache, "cubin")) : []);

describe("the cache", () => {
  it("compiles once, then finds it in memory, then on disk in the next process, with log and label", async () => {
    const { compile } = await newProcess();
    const cold = compile(source(0));
    const inMemory = compile(source(0));
    const warm = (await newProcess()).compile(source(0));
    expect([cold.from, inMemory.from, warm.from]).toEqual(["compiler", "memory", "disk"]);
    for (const { cubin, log, compiler } of [cold, inMemory, warm]) {
      expect(cubin).toEqual(cubinOf(source(0)));
      expect(cubin.byteOffset).toBe(0);
      expect(log).toBe("the compiler's remark\n");
      expect(compiler).toBe("nvcc 13.0");
    }
    expect(nvcc.calls()).toBe(1);
    expect(said).toEqual([]);
  });

  it("gives each caller bytes of its own", async () => {
    const { compile } = await newProcess();
    for (let i = 0; i < 3; i++) compile(source(0)).cubin.fill(0);
    expect(compile(source(0)).cubin).toEqual(cubinOf(source(0)));
    const { compile: another } = await newProcess();
    for (let i = 0; i < 3; i++) another(source(0)).cubin.fill(0);
    expect(await originOf()).toBe("disk");
  });

  it("makes a folder that is its user's alone, with one file per kernel, named by a hash", async () => {
    await originOf(source(0));
    await originOf(source(1));
    for (const folder of [cache, join(cache, "cubin")]) expect(fs.statSync(folder).mode & 0o777).toBe(0o700);
    expect(entries()).toHaveLength(2);
    for (const name of entries()) {
      expect(name).toMatch(/^[0-9a-f]{64}$/);
      expect(fs.statSync(join(cache, "cubin", name)).mode & 0o777).toBe(0o600);
    }
  });

  it.each([
    ["start nvcc", "TEGULA_NVCC", process.execPath], // a program, which wouldn't answer like nvcc
    ["load NVRTC", "TEGULA_LIBNVRTC", "package.json"], // which wouldn't load
  ])("doesn't %s when it finds the kernel", async (_, variable, path) => {
    vi.stubEnv(variable, resolve(path));
    vi.resetModules();
    const { nvccInstallation } = await import("../backends/cuda/nvcc.ts");
    const { nvrtcInstallation } = await import("../backends/cuda/nvrtc.ts");
    const { cacheKey, remember } = await import("../backends/cuda/cache.ts");
    const flags = ["--gpu-architecture=sm_90a", "--std=c++17", "--fmad=false", "--generate-line-info"];
    const installation = nvrtcInstallation() ?? nvccInstallation() ?? "";
    expect(installation).toContain(path);
    const key = cacheKey({ source: source(0), fileName: "k.cu", flags }, installation);
    remember(key, { cubin: new Uint8Array(cubinOf(source(0))), log: "", compiler: "any" });
    expect(await originOf()).toBe("disk");
    expect(nvcc.calls()).toBe(0);
  });

  it("keeps no failures", async () => {
    fs.writeFileSync(nvcc.path, "#!/bin/sh\n[ $1 = --version ] && echo release 13.0\nexit 1\n");
    const { compile } = await newProcess();
    expect(() => compile(source(0))).toThrow("nvcc 13.0 refused k for sm_90a");
    expect(entries()).toEqual([]);
  });
});

describe("the key", () => {
  it.each<[string, () => void | Partial<CompileOptions>]>([
    ["the architecture", () => ({ arch: "sm_100a" })],
    ["the name, which messages and debug information show", () => ({ name: "other" })],
    ["NVCC_APPEND_FLAGS", () => void vi.stubEnv("NVCC_APPEND_FLAGS", "-O1")],
    ["NVRTC_APPEND_FLAGS", () => void vi.stubEnv("NVRTC_APPEND_FLAGS", "-O1")],
    [
      "the working directory, from which #line counts",
      () => void vi.spyOn(process, "cwd").mockReturnValue("/elsewhere"),
    ],
    ["the time of the compiler's file", () => fs.utimesSync(nvcc.path, 1, 1)],
    ["the size of the compiler's file", () => fs.writeFileSync(nvcc.path, "# longer\n", { flag: "a" })],
    ["the assembler beside it", () => fs.writeFileSync(join(home, "ptxas"), "")],
  ])("contains %s", async (_, change) => {
    expect([await originOf(), await originOf()]).toEqual(["compiler", "disk"]);
    const more = change() ?? {};
    expect([await originOf(undefined, more), await originOf(undefined, more)]).toEqual(["compiler", "disk"]);
    expect(entries()).toHaveLength(2);
  });

  it("contains the source, to the last byte, and the flags", async () => {
    const { compile, report } = await newProcess();
    for (const text of ["a", "a ", "a\n", "b", ""]) expect(compile(text).from).toBe("compiler");
    report("a");
    expect(nvcc.calls()).toBe(6);
    expect(entries()).toHaveLength(6);
  });

  it("tells compilers apart that lie at two places, and a script whose compiler was exchanged behind it", async () => {
    const other = makeCompiler(home, { name: "nvcc-2", build: "2" });
    const { compile } = await newProcess();
    for (const [{ path }, build, from] of [
      [nvcc, "1", "compiler"],
      [other, "2", "compiler"],
      [nvcc, "1", "memory"],
      [other, "2", "memory"],
    ] as const) {
      vi.stubEnv("TEGULA_NVCC", path);
      expect(compile(source(0))).toMatchObject({ cubin: cubinOf(source(0), build), from });
    }

    const script = join(home, "script");
    fs.writeFileSync(script, `#!/bin/sh\nexec ${home}/link "$@"\n`, { mode: 0o755 });
    vi.stubEnv("TEGULA_NVCC", script);
    fs.symlinkSync(nvcc.path, join(home, "link"));
    expect((await newProcess()).compile(source(0)).cubin).toEqual(cubinOf(source(0), "1"));
    fs.rmSync(join(home, "link"));
    fs.symlinkSync(other.path, join(home, "link"));
    expect((await newProcess()).compile(source(0)).cubin).toEqual(cubinOf(source(0), "2"));
  });

  it("follows a link to the compiler, so that two ways to one are one", async () => {
    expect(await originOf()).toBe("compiler");
    fs.symlinkSync(nvcc.path, join(home, "link"));
    vi.stubEnv("TEGULA_NVCC", join(home, "link"));
    expect(await originOf()).toBe("disk");
  });

  it("is that of the compiler in use, where a better one is there but doesn't load", async () => {
    vi.stubEnv("TEGULA_LIBNVRTC", join(home, "libnvrtc.so.13"));
    fs.writeFileSync(join(home, "libnvrtc.so.13"), "no library");
    expect([await originOf(), await originOf()]).toEqual(["compiler", "disk"]);
    fs.rmSync(join(home, "libnvrtc.so.13"));
    expect(await originOf()).toBe("disk");
  });
});

describe("switches", () => {
  it("TEGULA_CACHE=off keeps nothing on disk", async () => {
    vi.stubEnv("TEGULA_CACHE", "off");
    const { compile } = await newProcess();
    expect([compile(source(0)).from, compile(source(0)).from]).toEqual(["compiler", "memory"]);
    expect(await originOf()).toBe("compiler");
    expect(fs.existsSync(cache)).toBe(false);
  });

  it("cache: false compiles each time, and keeps nothing at all", async () => {
    const { compile } = await newProcess();
    const bypass = () => compile(source(0), { cache: false }).from;
    expect([bypass(), bypass(), compile(source(0)).from, bypass()]).toEqual(Array(4).fill("compiler"));
    expect(entries()).toHaveLength(1);
  });

  it("refuses values that mean nothing", async () => {
    const { compile } = await newProcess();
    vi.stubEnv("TEGULA_CACHE", "of");
    expect(() => compile(source(0))).toThrow(
      'TEGULA_CACHE is "of"\n  Write TEGULA_CACHE=off to keep nothing on disk, or on.',
    );
    vi.stubEnv("TEGULA_CACHE", "on");
    for (const size of ["1 GB", "-1", "NaN", "1e3"]) {
      vi.stubEnv("TEGULA_CACHE_SIZE", size);
      expect(() => compile(source(0))).toThrow(`TEGULA_CACHE_SIZE is "${size}"\n  Write a number of MiB`);
    }
  });

  it("lies where XDG_CACHE_HOME or HOME say, and nowhere for a user without home", async () => {
    vi.stubEnv("TEGULA_CACHE_DIR", "");
    vi.stubEnv("XDG_CACHE_HOME", join(home, "xdg"));
    await originOf();
    expect(fs.readdirSync(join(home, "xdg/tegula/cubin"))).toHaveLength(1);
    for (const ignored of ["", "relative"]) {
      vi.stubEnv("XDG_CACHE_HOME", ignored);
      vi.stubEnv("HOME", join(home, `home${ignored}`));
      await originOf();
      expect(fs.readdirSync(join(home, `home${ignored}`, ".cache/tegula/cubin"))).toHaveLength(1);
    }
    vi.stubEnv("HOME", "relative");
    expect([await originOf(), await originOf()]).toEqual(["compiler", "compiler"]);
    expect(said.at(-1)).toMatch("this user has no home folder");
    expect(fs.existsSync("relative")).toBe(false);
  });
});

describe("a size limit", () => {
  const kernel = (n: number) => source(n, 10_000);
  it("evicts what was not used for the longest time", async () => {
    vi.stubEnv("TEGULA_CACHE_SIZE", String(45_000 / 2 ** 20)); // four entries
    for (const n of [0, 1, 2, 3]) {
      const before = entries();
      await originOf(kernel(n));
      for (const name of entries().filter((name) => !before.includes(name))) {
        fs.utimesSync(join(cache, "cubin", name), 1000 + n, 1000 + n);
      }
    }
    expect(entries()).toHaveLength(4);
    expect(await originOf(kernel(0))).toBe("disk"); // now used later than the others
    await originOf(kernel(4));
    const { state } = await newProcess();
    expect(state().entries).toBeLessThan(5);
    expect(state().bytes).toBeLessThanOrEqual(45_000);
    expect([await originOf(kernel(0)), await originOf(kernel(4))]).toEqual(["disk", "disk"]);
    expect(await originOf(kernel(1))).toBe("compiler");
    expect(said.join()).toMatch(/had over 45000 bytes, now it has [123]\d{4}/);
  });

  it("keeps no kernel that is larger, and compiles it all the same", async () => {
    vi.stubEnv("TEGULA_CACHE_SIZE", "0.005");
    expect([await originOf(kernel(0)), await originOf(kernel(0))]).toEqual(["compiler", "compiler"]);
    expect(entries()).toEqual([]);
  });

  it("removes what killed processes left, once it is old, and nothing that isn't its own", async () => {
    const folder = join(cache, "cubin");
    fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
    for (const name of ["new-abandoned", "new-written", "notes.txt"]) fs.writeFileSync(join(folder, name), name);
    for (const name of ["new-abandoned", "notes.txt"]) fs.utimesSync(join(folder, name), 1000, 1000);
    vi.stubEnv("TEGULA_CACHE_SIZE", "0");
    await originOf();
    expect(entries().sort()).toEqual(["new-written", "notes.txt"]);
  });

  it("holds in memory, too", async () => {
    vi.stubEnv("TEGULA_CACHE", "off");
    const { compile } = await newProcess();
    const large = (n: number) => compile(source(n, 6 * 2 ** 20)).from;
    expect([large(0), large(1), large(0), large(2)]).toEqual(["compiler", "compiler", "memory", "compiler"]);
    expect([large(0), large(1)]).toEqual(["memory", "compiler"]); // 1 had not been used for longest
  });
});

describe("without a folder that can be trusted or written to, compiling goes on and says so once:", () => {
  it.each<[string, () => void, RegExp]>([
    ["a file in its place", () => fs.writeFileSync(cache, ""), /EEXIST|ENOTDIR/],
    ["a path below a file", () => vi.stubEnv("TEGULA_CACHE_DIR", "/dev/null/cache"), /ENOTDIR/],
    ["a folder that takes no files", () => vi.stubEnv("TEGULA_CACHE_DIR", "/proc/tegula"), /ENOENT/],
    ["a folder that others can write to", () => poison(0o777), /can be written to by others/],
    ["a folder that the group can write to", () => poison(0o770), /can be written to by others/],
    ["a subfolder that others can write to", () => poison(0o700, 0o777), /cubin can be written to by others/],
    ["a link in its place", linkElsewhere, /is not a folder/],
    ["someone else's folder", () => (poison(0o700), vi.spyOn(process, "getuid").mockReturnValue(4711)), /someone else/],
  ])("%s", async (_, prepare, reason) => {
    prepare();
    const { compile } = await newProcess();
    for (const n of [0, 1]) expect(compile(source(n))).toMatchObject({ cubin: cubinOf(source(n)), from: "compiler" });
    expect(await originOf()).toBe("compiler");
    const messages = said.filter((text) => reason.test(text));
    expect(messages).toHaveLength(2); // once in each of two processes
    for (const message of messages) expect(message).toMatch(/^compiled kernels are not kept on disk: /);
    vi.restoreAllMocks();
    for (const folder of [cache, join(cache, "cubin")]) {
      if (fs.existsSync(folder) && fs.statSync(folder).isDirectory()) {
        expect(fs.readdirSync(folder).filter((name) => name !== "cubin")).toEqual([]);
      }
    }
  });

  /** Folders as an attacker may have prepared them. */
  function poison(mode: number, ofSubfolder = 0o700): void {
    fs.mkdirSync(join(cache, "cubin"), { recursive: true });
    fs.chmodSync(cache, mode);
    fs.chmodSync(join(cache, "cubin"), ofSubfolder);
  }

  function linkElsewhere(): void {
    fs.mkdirSync(join(home, "elsewhere"), { mode: 0o700 });
    fs.symlinkSync(join(home, "elsewhere"), cache);
  }
});

describe.skipIf(noNvcc !== undefined)("with the nvcc of this machine", () => {
  const text = 'extern "C" __global__ void k(float* y) { y[threadIdx.x] = 1.0f; }\n';

  it("finds the very bytes again", async () => {
    vi.stubEnv("TEGULA_NVCC", "");
    const cold = (await newProcess()).compile(text, { compiler: "nvcc" });
    const warm = (await newProcess()).compile(text, { compiler: "nvcc" });
    expect([cold.from, warm.from]).toEqual(["compiler", "disk"]);
    expect(warm.cubin).toEqual(cold.cubin);
    expect(warm.compiler).toBe(cold.compiler);
  });

  it("keeps the report of registers with it", async () => {
    vi.stubEnv("TEGULA_NVCC", "");
    vi.stubEnv("TEGULA_LIBNVRTC", "/nowhere/libnvrtc.so.13");
    const cold = (await newProcess()).report(text);
    expect(cold).toMatchObject([{ entry: "k" }]);
    expect((await newProcess()).report(text)).toEqual(cold);
  });
});
