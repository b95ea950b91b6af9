/** `npm run check`: the verdicts on a kernel that is right and on planted mistakes, what it runs them on, and its exit codes. */
import { execFile } from "node:child_process";
import { beforeAll, describe, expect, test } from "vitest";
import { openSimulator, type SimulatorBackend } from "../backends/simulator/index.ts";
import { cudaAvailable } from "../backends/cuda/index.ts";
import {
  bf16,
  type DType,
  f32,
  HostTensor,
  i32,
  inout,
  input,
  type Kernel,
  kernel,
  output,
  size,
} from "../dsl/index.ts";
import { seededRandom } from "../kernels/index.ts";
import { argumentsFor, sizeCases } from "../playground/check/cases.ts";
import { differences } from "../playground/check/compare.ts";
import { check, type Device } from "../playground/check/verdicts.ts";

interface Ended {
  readonly code: unknown;
  readonly stdout: string;
  readonly stderr: string;
}

function script(...args: readonly string[]): Promise<Ended> {
  return new Promise((resolve) => {
    const command = ["--import", "tsx", "playground/check.ts", ...args];
    const child = execFile(process.execPath, command, { encoding: "utf8" }, (_error, stdout, stderr) =>
      resolve({ code: child.exitCode, stdout, stderr }),
    );
  });
}

const planted = "test/children/check-planted.ts";

describe("on a file of kernels", { timeout: 60_000 }, () => {
  let [code, stdout, stderr]: readonly [unknown, string, string] = [undefined, "", ""];
  beforeAll(async () => {
    ({ code, stdout, stderr } = await script(planted, "--seed", "5"));
  }, 60_000);
  /** What it says of one kernel: its verdict lines. */
  const sectionOf = (name: string): readonly string[] =>
    stdout
      .split("\n\n")
      .find((section) => new RegExp(`^${name}[:,]`).test(section))
      ?.split("\n") ?? [];
  const foundIn = (name: string): readonly string[] =>
    sectionOf(name).flatMap((line) => /^ {2}FOUND {4}(\S.*?)(?: {2,}|$)/.exec(line)?.[1] ?? []);

  test("what is right has no finding: one verdict for each hazard and device, and its counts", () => {
    const section = sectionOf("right");
    expect(section[0]).toMatch(/^right: row_sums, made at test\/children\/check-planted\.ts:\d+, 64 threads a block$/);
    const hazards = [
      ...["out-of-bounds access", "misaligned access", "uninitialised read", "race", "barrier divergence", "deadlock"],
      ...["input before the wait", "write before the wait", "copy or wgmma still under way"],
      ...["lifetime of other blocks", "arrivals at an mbarrier", "outputs all written", "any order of warps"],
    ];
    for (const hazard of hazards) expect(section, hazard).toContain(`  ok       ${hazard}`);
    expect(section.join("\n")).toMatch(/^ {2}ok {7}wgsl agrees {20}\S/m);
    if (!cudaAvailable()) expect(section.join("\n")).toMatch(/^ {2}skipped {2}cuda agrees {20}no GPU: skipped$/m);
    expect(section.join("\n")).toMatch(
      /counts by warps, at N = 3, K = 8192\n {4}global loads {10}192 {2}98304 bytes, 16\.0/,
    );
    expect(section.join("\n")).toMatch(/^ {4}mma +0\n {4}flops in all +[1-9]\d*$/m);
  });

  test.each([
    ["noBarrier", ["uninitialised read", "race"]],
    ["halfWritten", ["outputs all written"]],
    ["tooFar", ["out-of-bounds access"]],
    ["crooked", ["misaligned access"]],
    ["unfilled", ["uninitialised read"]],
    ["divergent", ["barrier divergence"]],
    ["stuck", ["deadlock"]],
    ["hurried", ["input before the wait", "write before the wait"]],
    ["impatient", ["copy or wgmma still under way"]],
  ])("%s: %s", (name, found) => {
    expect(foundIn(name)).toEqual(found);
    const section = sectionOf(name).join("\n");
    expect(section).toMatch(/ at test\/children\/check-planted\.ts:\d+:\d+|written by nobody/);
    expect(section).not.toContain("counts by warps");
  });

  test("hazards come before devices; what nobody wrote doesn't keep them from running", () => {
    const notRun = "  skipped  wgsl agrees                    not run: what the simulator found comes first";
    expect(sectionOf("tooFar")).toContain(notRun);
    expect(sectionOf("halfWritten").join("\n")).toMatch(/^ {2}ok {7}wgsl agrees/m);
  });

  test("`given` arguments are taken: indices that are inside, a function that isn't exact everywhere", () => {
    expect(foundIn("gather")).toEqual([]);
    expect(sectionOf("gather").join("\n")).toMatch(/ok {7}wgsl agrees +\S.*, within \d+ steps: .* exp alike/);
  });

  test("ends with the sum of it, and exit code 1", () => {
    expect(stdout).toMatch(/^11 kernels checked, 9 of them with something found; --seed 5$/m);
    expect(stderr).toBe("");
    expect(code).toBe(1);
  });
});

describe("exit codes", { timeout: 60_000 }, () => {
  test("0 for one kernel of the file that is right", async () => {
    const { code, stdout } = await script(planted, "--kernel", "right", "--schedules", "1");
    expect(stdout).toMatch(/^1 kernel checked, nothing found/m);
    expect(stdout).toContain("10 cases, 2 orders of warps each");
    expect(code).toBe(0);
  });

  test("0 for our own factories, called with sizes", async () => {
    const { code, stdout } = await script("kernels/rms-norm.ts");
    expect(stdout).toMatch(/^rmsNorm: rms_norm_mM_h2880, made by kernels\/rms-norm\.ts/m);
    expect(stdout).toMatch(/^1 kernel checked, nothing found/m);
    expect(code).toBe(0);
  });

  test("a factory that names who calls it is said to be in the file", async () => {
    const { stdout } = await script("kernels/ll-gemm-dot.ts", "--kernel", "llGemmDotBf16", "--schedules", "0");
    expect(stdout).toMatch(/^llGemmDotBf16: ll_gemm_dot_\w+, made by kernels\/ll-gemm-dot\.ts, /m);
  });

  test.each([
    [["nowhere.ts"], /Cannot find module/],
    [["kernels/oracle.ts"], /^kernels\/oracle\.ts has no kernel\n {2}Export what kernel\(\.\.\.\) returns/],
    [[planted, "--kernel", "other"], /^test\/children\/check-planted\.ts has no kernel other\n {2}It has crooked, /],
    [[], /^One file is checked\. npm run check -- FILE/],
    [[planted, "--schedules", "-1"], /--schedules|ambiguous/],
    [[planted, "--seed", "x"], /^--seed is "x"; write a whole number/],
    [[planted, "--kernels", "x"], /Unknown option '--kernels'/],
  ])("2 for %j", async (args, says) => {
    const { code, stderr, stdout } = await script(...args);
    expect(stderr.trim()).toMatch(says);
    expect(stderr).not.toMatch(/^ {4}at /m);
    expect(stdout).toBe("");
    expect(code).toBe(2);
  });
});

/** A device that runs another kernel than it is asked to. */
function deviceThatRuns(other: Kernel): Device {
  const open = async () => {
    const backend: SimulatorBackend = await openSimulator();
    const compile = backend.compile.bind(backend);
    return Object.assign(backend, { compile: () => compile(other) }) as SimulatorBackend;
  };
  return { name: "wgsl", missing: undefined, open };
}

const N = size("N");
const pointwise = (isExact: boolean, plus: number) =>
  kernel({ name: "pointwise", grid: N, block: 32, params: { x: input(f32, [N]), y: output(f32, [N]) } }, (t) => {
    const { x, y } = t.pdl.wait();
    const value = x.load([t.block.x]).add(8);
    t.when(t.lane.eq(0), () => y.store([t.block.x], (isExact ? value : value.exp().log()).add(plus)));
  });

describe("a device that computes something else", () => {
  const verdictOn = async (subject: Kernel, other: Kernel) => {
    const given = () => ({});
    const { verdicts } = await check(
      { name: "k", kernel: subject, given },
      [deviceThatRuns(other)],
      1,
      1,
      () => undefined,
    );
    return verdicts.find(({ what }) => what === "wgsl agrees");
  };

  test("is found, by the first element and the case", async () => {
    const verdict = await verdictOn(pointwise(true, 0), pointwise(true, 1));
    expect(verdict?.status).toBe("FOUND");
    expect(verdict?.details.join()).toMatch(/^y\[0\] is (\d+) in the simulator and \d+ by wgsl, at N = 1$/);
    expect(await verdictOn(pointwise(true, 0), pointwise(true, 0))).toMatchObject({ status: "ok" });
  });

  test("may be some steps away where functions are not exact everywhere, and only there", async () => {
    const little = 2 ** -19; // two steps of f32 from 8 on
    const near = await verdictOn(pointwise(false, 0), pointwise(false, little));
    expect(near).toMatchObject({
      status: "ok",
      details: [expect.stringMatching(/within \d+ steps: .* exp, log alike/)],
    });
    expect(await verdictOn(pointwise(true, 0), pointwise(true, little))).toMatchObject({ status: "FOUND" });
    expect(await verdictOn(pointwise(false, 0), pointwise(false, 1))).toMatchObject({ status: "FOUND" });
  });
});

test("results that depend on the order of warps are a note, and are not compared", async () => {
  const tickets = kernel(
    { name: "tickets", grid: 8, block: 64, params: { n: inout(i32, [1]), y: output(i32, [16]) } },
    (t) => {
      const { n, y } = t.pdl.wait();
      t.when(t.lane.eq(0), () => y.store([t.block.x.mul(2).add(t.warp)], n.atomicAdd([0], 1)));
    },
  );
  const subject = { name: "tickets", kernel: tickets as unknown as Kernel, given: () => ({}) };
  const { verdicts } = await check(subject, [deviceThatRuns(subject.kernel)], 3, 1, () => undefined);
  expect(verdicts.filter(({ status }) => status !== "ok")).toMatchObject([
    {
      what: "any order of warps",
      status: "note",
      details: [expect.stringMatching(/^y\[\d+\] is \d+ usually and \d+ in another/)],
    },
    { what: "wgsl agrees", status: "skipped", details: ["not run: results depend on the order of warps"] },
  ]);
});

describe("cases", () => {
  const shaped = (facts: Parameters<typeof size>[1], other: Parameters<typeof size>[1]) => {
    const [A, B] = [size("A", facts), size("B", other)];
    return kernel(
      { name: "shaped", grid: A, block: 32, params: { x: input(bf16, [A, B]), y: output(f32, [A]) } },
      (t) => void t.pdl.wait(),
    ) as unknown as Kernel;
  };

  test("are within what was promised, with edges and extremes of each size", () => {
    const cases = sizeCases(shaped({ max: 16 }, { min: 24, multipleOf: 8, max: 4096 }));
    for (const { A = 0, B = 0 } of cases) {
      expect([A >= 1, A <= 16, B >= 24, B <= 4096, B % 8]).toEqual([true, true, true, true, 0]);
    }
    const values = (name: string) => new Set(cases.map((sizes) => sizes[name]));
    for (const A of [1, 13, 15, 16]) expect(values("A")).toContain(A);
    for (const B of [24, 104, 248, 256, 264, 4096]) expect(values("B")).toContain(B);
  });

  test("are small enough to be simulated; kernels without sizes have one", () => {
    for (const sizes of sizeCases(shaped({}, {}))) {
      expect((sizes["A"] ?? 0) * (sizes["B"] ?? 0)).toBeLessThanOrEqual(2 ** 17);
    }
    const fixed = kernel({ name: "fixed", grid: 1, block: 32, params: {} }, (t) => void t.pdl.wait());
    expect(sizeCases(fixed)).toEqual([{}]);
  });

  test("have small whole numbers for data, none beyond any dimension, and what is given", () => {
    const one = kernel(
      { name: "one", grid: 1, block: 32, params: { x: input(bf16, [N, 64]), i: input(i32, [3]), y: output(f32, [N]) } },
      (t) => void t.pdl.wait(),
    );
    const given = () => ({ i: HostTensor.from(i32, [3], [7, 8, 9]), unknown: 1 });
    const drawn = (asGiven: Parameters<typeof argumentsFor>[3]) => {
      const args: Readonly<Record<string, HostTensor | number>> = argumentsFor(
        one as unknown as Kernel,
        { N: 5 },
        seededRandom(1),
        asGiven,
      );
      expect(Object.keys(args)).toEqual(["x", "i", "y"]);
      return Object.values(args).map((arg) => (typeof arg === "number" ? [arg] : [...arg.values()]));
    };
    const [x = [], i] = drawn(given);
    expect(x).toHaveLength(5 * 64);
    expect(x.every((value) => Number.isInteger(value) && Math.abs(value) <= 4)).toBe(true);
    expect(i).toEqual([7, 8, 9]);
    const [, indices = []] = drawn(() => ({}));
    expect(indices.every((index) => index >= 0 && index < 3)).toBe(true);
  });
});

test("differences are counted in steps of the dtype; any NaN equals any other", () => {
  const of = <N extends "f32" | "bf16" | "i32">(dtype: DType<N>, ...values: readonly number[]) =>
    HostTensor.from(dtype, [values.length], values);
  expect(differences({ y: of(f32, 1, NaN, -0) }, { y: of(f32, 1, NaN, 0) })).toEqual([]);
  expect(differences({ y: of(f32, 1, 2) }, { y: of(f32, 1, 2 + 2 ** -22) })).toEqual([
    { tensor: "y", index: [1], values: [2, 2 + 2 ** -22], count: 1, steps: 1 },
  ]);
  expect(differences({ y: of(bf16, -(2 ** -133), 1) }, { y: of(bf16, 2 ** -133, 1) })[0]?.steps).toBe(2);
  expect(differences({ y: of(i32, -1, 5) }, { y: of(i32, 1, 4) })[0]).toMatchObject({ count: 2, steps: 2, index: [0] });
  expect(differences({ y: of(f32, 1) }, { y: of(f32, NaN) })[0]?.steps).toBe(Infinity);
});
