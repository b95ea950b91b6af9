/**
 * Recorded results of GPUs, replayed without one: the simulator must come to the recorded bits, WGSL to them where data is
 * exact and else to the interval around float64. And the machinery itself, on what the simulator recorded.
 */
import { execFile } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../backends/backend.ts";
import { openSimulator, SimulatorBackend } from "../backends/simulator/index.ts";
import { openWgsl } from "../backends/wgsl/index.ts";
import { bf16, decode, f32, HostTensor, kernel, mmaAtoms, output } from "../dsl/index.ts";
import { seededRandom } from "../kernels/index.ts";
import { dataKinds, operandsOf } from "../playground/record/data.ts";
import { instructions, matrixSpecimen } from "../playground/record/matrix.ts";
import {
  describeDifference,
  difference,
  differingElements,
  fileOf,
  formatRecording,
  inputsHash,
  readRecording,
  type Recording,
  RecordingError,
  recordedOutput,
  recordingsFolder,
  requireFresh,
  sourceHash,
} from "../playground/record/recording.ts";
import { replay } from "../playground/record/replay.ts";
import { take, type Taken, takeTiles } from "../playground/record/session.ts";
import { bitsOf, type Specimen, tensorOfBits } from "../playground/record/specimen.ts";
import { specimens } from "../playground/record/specimens.ts";

const all = specimens();
const files = existsSync(recordingsFolder)
  ? readdirSync(recordingsFolder).filter((file) => file.endsWith(".json"))
  : [];

let [simulator, wgsl] = [] as unknown as [Backend, Backend];
beforeAll(async () => {
  [simulator, wgsl] = [await openSimulator({ check: "values" }), await openWgsl()];
});
afterAll(async () => {
  await simulator.dispose();
  await wgsl.dispose();
});

describe("what a GPU made of each specimen", () => {
  if (files.length === 0) {
    test("there is no recording; on a machine with the GPU: npm run record", ({ skip }) => {
      skip("test/data/recordings is empty: nothing that a GPU computed is checked here");
    });
  }

  describe.each(files)("%s", (file) => {
    const recording = readRecording(join(recordingsFolder, file));

    test("has every specimen, and no other", () => {
      expect(Object.keys(recording.specimens).sort()).toEqual(all.map(({ name }) => name).sort());
      expect(fileOf(recording.device)).toBe(file);
    });

    test.each(all.map((specimen) => [specimen.name, specimen] as const))("%s in the simulator", async (_, specimen) => {
      expect(await replay(recording, specimen, simulator)).toEqual([]);
    });

    const onWgsl = all.filter((specimen) => specimen.wgsl !== "nothing");
    test.each(onWgsl.map((specimen) => [specimen.name, specimen] as const))("%s on WGSL", async (_, specimen) => {
      expect(await replay(recording, specimen, wgsl)).toEqual([]);
    });
  });
});

describe("recordings", () => {
  const named = (...names: readonly string[]): readonly Specimen[] => {
    const found = all.filter(({ name }) => names.includes(name));
    expect(found).toHaveLength(names.length);
    return found;
  };
  const few = named(
    "f32 to floats, 4 lanes",
    "u32 arithmetic",
    "exchanges of whole numbers",
    "mma_m16n8k16_bf16 integers",
    "mma_m16n8k32_e4m3 cancellation",
    "mma_m16n8k8_tf32 normal",
    "wgmma_m64n8k32_e5m2_e4m3 special",
    "ll_gemm_dot_e4m3_m2_n24_k528 normal",
  );

  /** What the simulator makes of a few specimens, as if it were a GPU. */
  async function fake(of: readonly Specimen[] = few): Promise<Recording> {
    const recorded: Record<string, Recording["specimens"][string]> = {};
    for (const specimen of of) {
      const taken = await take(simulator, simulator, specimen);
      expect(taken).toMatchObject({ wrong: 0, problem: undefined, evidence: [] });
      if (taken.recorded) recorded[taken.name] = taken.recorded;
    }
    return { device: "Stand-in (sm_90)", driver: "1.2", compiler: "none", date: "2026-11-23", specimens: recorded };
  }

  const folder = mkdtempSync(join(tmpdir(), "tegula-recordings-"));
  afterAll(() => rmSync(folder, { recursive: true }));

  /** Writes a file, changes its text, and reads it. */
  function reread(recording: Recording, change: (text: string) => string = (text) => text): Recording {
    const file = join(folder, fileOf(recording.device));
    writeFileSync(file, formatRecording(recording));
    writeFileSync(file, change(readFileSync(file, "utf8")));
    return readRecording(file);
  }

  test("every specimen has a name of its own, data that is the same twice, and something to say", () => {
    expect(new Set(all.map(({ name }) => name)).size).toBe(all.length);
    const told = new Set<string>();
    for (const specimen of all) {
      const [once, again] = [inputsHash(specimen, specimen.args()), inputsHash(specimen, specimen.args())];
      expect(again, specimen.name).toBe(once);
      told.add(`${sourceHash(specimen.kernel)} ${once}`);
      if (specimen.wgsl === "interval") expect(specimen.exact, specimen.name).toBeDefined();
    }
    expect(told.size).toBe(all.length);
  });

  test("what was recorded is replayed: written, read, the same in the simulator and on WGSL", async () => {
    const recording = reread(await fake());
    expect(recording).toMatchObject({ device: "Stand-in (sm_90)", driver: "1.2", date: "2026-11-23" });
    for (const specimen of few) {
      expect(await replay(recording, specimen, simulator), specimen.name).toEqual([]);
      expect(await replay(recording, specimen, wgsl), specimen.name).toEqual([]);
    }
  });

  test("a kernel that does something else is stale, and so are other data and a specimen that is missing", async () => {
    const [specimen] = named("u32 arithmetic");
    if (!specimen) return;
    const recording = await fake([specimen]);
    const stale = (changed: Specimen): string => {
      try {
        requireFresh(recording, changed);
      } catch (error) {
        if (error instanceof RecordingError) return error.message;
        throw error;
      }
      return "fresh";
    };
    expect(stale(specimen)).toBe("fresh");
    // What a comment moves is no change: lines' numbers, and where the kernel stands.
    const { kernel: traced } = specimen;
    expect(
      stale({ ...specimen, kernel: { ...traced, ir: { ...traced.ir, at: { file: "x", line: 1, column: 1 } } } }),
    ).toBe("fresh");
    const other = kernel({ name: "u32_arithmetic", grid: 1, block: 32, params: { out: output(f32, [32]) } }, (t) => {
      t.pdl.wait().out.store([t.lane], 1);
    });
    const begin = "The recording of u32 arithmetic on Stand-in (sm_90), 2026-11-23, is stale: ";
    const hint = "\n  On a machine with the GPU: npm run record";
    expect(stale({ ...specimen, kernel: other as never })).toBe(`${begin}its kernel does something else today${hint}`);
    const { ir } = traced;
    expect(stale({ ...specimen, kernel: { ...traced, ir: { ...ir, grid: [2, 1, 1] } } })).toContain("something else");
    const args = specimen.args();
    const x = tensorOfBits(f32, [1], [1]);
    expect(stale({ ...specimen, args: () => ({ ...args, x }) })).toBe(`${begin}its data is another today${hint}`);
    expect(stale({ ...specimen, name: "another" })).toContain(
      "another on Stand-in (sm_90), 2026-11-23, is stale: it has none",
    );
    await expect(replay(recording, { ...specimen, args: () => ({ ...args, x }) }, wgsl)).rejects.toThrow(
      RecordingError,
    );
  });

  test("a file that is truncated or damaged anywhere is none, and says what to run", async () => {
    const recording = await fake(named("exchanges of whole numbers"));
    const { length } = formatRecording(recording);
    const hint = "\n  On a machine with the GPU: npm run record";
    for (const end of [0, 1, 10, length >> 1, length - 3]) {
      expect(() => reread(recording, (text) => text.slice(0, end))).toThrow(
        `stand-in.json is no recording: it is truncated or damaged${hint}`,
      );
    }
    expect(() => reread(recording, (text) => text.replace('"format":1', '"format":2'))).toThrow(
      "its format is 2, not 1",
    );
    const changes = [
      (text: string) => text.replace('"driver":"1.2"', '"driver":"1.3"'),
      (text: string) => text.replace(/"pieces":"./, '"pieces":"_'),
      (text: string) => text.replace(/"inputs":"./, '"inputs":"_'),
      (text: string) => text.replace('{\n"', '{\n"no '),
    ];
    for (const change of changes) {
      expect(() => reread(recording, change)).toThrow(`its content is not what was written${hint}`);
    }
    expect(() => reread(recording, () => "null")).toThrow("its format is undefined");
  });

  test("another result is found, small or large, and where", async () => {
    const x = HostTensor.from(
      f32,
      [2, 64],
      Array.from({ length: 128 }, (_, i) => i),
    );
    const small = recordedOutput(x);
    expect(small.bits).toBeDefined();
    expect(difference("y", small, x)).toBeUndefined();
    const changed = HostTensor.from(
      f32,
      [2, 64],
      Array.from({ length: 128 }, (_, i) => (i === 70 ? -i : i)),
    );
    expect(difference("y", small, changed)).toBe(
      "1 elements of y, f32[2, 64], differ; first element 70: 0xc28c0000 (-70), recorded was 0x428c0000 (70)",
    );
    const large = HostTensor.filled(bf16, [1000, 65], 7);
    const digests = recordedOutput(large);
    expect(digests.bits).toBeUndefined();
    expect(Buffer.from(digests.pieces ?? "", "base64")).toHaveLength(64 * 6);
    expect(difference("y", digests, large)).toBeUndefined();
    const bits = [...bitsOf(large)];
    bits[64_999] = 0;
    expect(difference("y", digests, tensorOfBits(bf16, [1000, 65], bits))).toBe(
      "1 of 64 pieces of y, bf16[1000, 65], differ; first elements 64008 to 65023",
    );
    expect(difference("y", digests, x)).toBe("y is f32[2, 64], recorded was bf16[1000, 65]");
    expect(difference("y", undefined, x)).toBe("y is f32[2, 64], recorded was none");
    expect(describeDifference("y", x, x)).toBeUndefined();
  });

  test("which NaN of f32 it is doesn't count; of narrow types, and of zeros, every bit does", () => {
    const of = (...bits: readonly number[]) => tensorOfBits(f32, [2], bits);
    expect(differingElements(of(0x7fc00000, 1), of(0xffffffff, 1))).toEqual([]);
    expect(difference("y", recordedOutput(of(0x7f800001, 1)), of(0x7fffffff, 1))).toBeUndefined();
    expect(differingElements(of(0x7f800000, 0), of(0x7f800001, 0x80000000))).toEqual([0, 1]);
    expect(differingElements(tensorOfBits(bf16, [1], [0x7fff]), tensorOfBits(bf16, [1], [0x7fc0]))).toEqual([0]);
  });

  test("a device that computes something else is recorded all the same, with evidence", async () => {
    const [specimen] = named("mma_m16n8k16_bf16 integers");
    if (!specimen) return;
    class OffByOne extends SimulatorBackend {
      override async read(...of: Parameters<Backend["read"]>): ReturnType<Backend["read"]> {
        const bytes = await super.read(...of);
        const words = new Float32Array(bytes.buffer);
        words[5] = (words[5] ?? 0) + 1;
        return bytes;
      }
    }
    const taken = await take(new OffByOne({ check: "values" }), simulator, specimen);
    expect(taken).toMatchObject({ results: 64 * 128, wrong: 1 });
    expect(taken.recorded).toBeDefined();
    expect(taken.problem).toMatch(/^1 elements of d, f32\[64, 128\], differ; first element 5: /);
    const [evidence] = taken.evidence;
    expect(evidence).toMatchObject({ specimen: specimen.name, output: "d", element: 5 });
    // Row 0 of a and row 3 of b, column by column of k, and c: together they are the simulator's result.
    const [, a = "", b = "", c = ""] = /^a (.*); b (.*); c (.*)$/.exec(evidence?.terms ?? "") ?? [];
    const values = (text: string): readonly number[] => text.split(" ").map((word) => decode(bf16, parseInt(word, 16)));
    const [row, column] = [values(a), values(b)];
    expect([row.length, column.length]).toEqual([16, 16]);
    const sum = row.reduce((total, x, k) => total + x * (column[k] ?? NaN), decode(f32, parseInt(c, 16)));
    expect(decode(f32, parseInt(evidence?.simulator ?? "", 16))).toBe(sum);
    // The simulator is not what that device was, nor is WGSL.
    if (!taken.recorded) return;
    const recording = { ...(await fake([])), specimens: { [specimen.name]: taken.recorded } };
    for (const backend of [simulator, wgsl]) {
      expect(await replay(recording, specimen, backend)).toEqual([
        "1 of 64 pieces of d, f32[64, 128], differ; first elements 0 to 127",
      ]);
    }
  });

  test("without a GPU the script says what is missing, and writes nothing", async () => {
    const env = { ...process.env, TEGULA_LIBCUDA: "/nowhere/libcuda.so.1" };
    const script = ["--import", "tsx", "playground/record.ts", "--folder", join(folder, "none")];
    const child = execFile(process.execPath, script, { env });
    let said = "";
    child.stderr?.on("data", (text: string) => (said += text));
    const [code] = await once(child, "close");
    expect(said).toMatch(/^The CUDA driver library was not found at TEGULA_LIBCUDA/);
    expect(code).toBe(1);
    expect(existsSync(join(folder, "none"))).toBe(false);
  });

  test("an error of one specimen is its problem, and not the session's", async () => {
    const [specimen] = few;
    if (!specimen) return;
    const broken = { ...specimen, args: () => ({}) };
    expect(await take(simulator, simulator, broken)).toMatchObject({
      recorded: undefined,
      problem: expect.stringContaining("is missing"),
    });
  });

  test("more tiles than are recorded are compared in batches, with data of their own", async () => {
    const [instruction] = instructions().filter(({ atom }) => atom.name === "mma_m16n8k16_f16");
    if (!instruction) throw new Error("no such instruction");
    const taken: Taken[] = [];
    for await (const one of takeTiles(simulator, simulator, instruction, 2100)) taken.push(one);
    expect(taken.map(({ results }) => results)).toEqual([2048 * 128, 52 * 128]);
    expect(new Set(taken.map(({ name }) => name)).size).toBe(2);
    const sets = [1, 2].map((seed) => matrixSpecimen(instruction, "wide", 4, seed));
    const [one, two] = sets.map((specimen) => inputsHash(specimen, specimen.args()));
    expect(one).not.toBe(two);
  });

  test.each(dataKinds)("operands are what %s says", (kind) => {
    for (const [atom, random] of Object.values(mmaAtoms.m16n8k32).map((atom) => [atom, seededRandom(1)] as const)) {
      const { a, c } = operandsOf(atom, kind, random);
      if (atom.a.kind === "signed") continue;
      const [as, cs] = [a.map((bits) => decode(atom.a, bits)), c.map((bits) => decode(f32, bits))];
      const special = [...as, ...cs].filter((x) => !Number.isFinite(x)).length;
      if (kind === "special") expect(special).toBeGreaterThan(0);
      else expect(special).toBe(0);
      if (kind === "integers") expect([...as, ...cs].every(Number.isInteger)).toBe(true);
      if (kind === "subnormal") {
        const smallest = 2 ** (2 - 2 ** (atom.a.exponentBits - 1));
        expect(as.filter((x) => x !== 0 && Math.abs(x) < smallest).length).toBeGreaterThan(as.length / 8);
      }
    }
  });
});
