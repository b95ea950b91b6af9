/** The fuzzer: programs that are the same again, valid, and rich; faults that are found, made small, and told of. */
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { openSimulator, SimulatorBackend, type SimulatorExecutable } from "../backends/simulator/index.ts";
import type { Kernel, Params } from "../dsl/index.ts";
import { Choices } from "../playground/fuzz/choices.ts";
import { type Executor, openExecutors } from "../playground/fuzz/executors.ts";
import { type Failure, firstDifference, judge } from "../playground/fuzz/judge.ts";
import { build, type Case, hostTensor, type Program } from "../playground/fuzz/program.ts";
import { reproduction } from "../playground/fuzz/reproduction.ts";
import { shrink } from "../playground/fuzz/shrink.ts";
import { generate, tiers } from "../playground/fuzz/tiers.ts";
import { featuresOf } from "./conformance/coverage.ts";
import { unsigned } from "./fuzz/plant.ts";

const names = Object.keys(tiers) as (keyof typeof tiers)[];
const simulator: Executor = {
  name: "simulator",
  module: "tegula/simulator",
  open: "openSimulator()",
  backend: await openSimulator(),
};

mkdirSync(".out", { recursive: true });
const folder = mkdtempSync(join(".out", "fuzz-test-"));
afterAll(() => rmSync(folder, { recursive: true }));

interface Ended {
  readonly code: number | null;
  readonly output: string;
}

function run(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ended> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      ["--import", "tsx", ...args],
      { env: { ...process.env, ...env }, encoding: "utf8" },
      (_error, stdout, stderr) => resolve({ code: child.exitCode, output: stdout + stderr }),
    );
  });
}

const fuzz = (...args: readonly string[]) => run(["playground/fuzz.ts", ...args]);
const plain = (program: Program) => JSON.stringify([program.source, program.cases, program.tolerances]);

describe("programs", () => {
  it("are the same for the same seed and index, and for the same choices; others for others", () => {
    const texts = [];
    for (let index = 0; index < 32; index++) {
      const { choices, program } = generate(5, index);
      expect(plain(generate(5, index).program)).toBe(plain(program));
      texts.push(plain(program));
      expect(plain(generate(6, index).program)).not.toBe(plain(program));
      expect(choices.taken.every((x) => Number.isInteger(x) && x >= 0)).toBe(true);
    }
    expect(new Set(texts).size).toBe(32);
  });

  it.each(names)("of the tier %s trace, and verify, from any choices", (tier) => {
    for (let i = 0; i < 40; i++) {
      const choices = Choices.random(11, i);
      build(tiers[tier](choices));
      // As the shrinker leaves them: something missing, something 0.
      const fewer = choices.taken.toSpliced((7 * i) % choices.taken.length, 1 + (i % 9));
      build(tiers[tier](Choices.replay(fewer.map((x, k) => (k % 5 === i % 5 ? 0 : x)))));
    }
    build(tiers[tier](Choices.replay([])));
  });

  it("have most of what the IR has", () => {
    const had = new Set<string>();
    for (let i = 0; i < 250; i++) for (const feature of featuresOf(build(generate(2, i).program).ir)) had.add(feature);
    expect(had.size).toBeGreaterThan(360);
  });
});

describe("the judge", () => {
  it("takes -0 for 0 and any NaN for NaN, and else no bit that no bound allows", () => {
    const tensor = (values: readonly number[]) => hostTensor({ dtype: "f32", shape: [4], values }, 0);
    const differs = (values: readonly number[], bounds: readonly number[] = []) =>
      firstDifference({ y: { tensor: tensor([0, 1, NaN, 2]), bounds } }, { y: tensor(values) });
    const next = 1 + 2 ** -23;
    expect(differs([-0, 1, NaN, 2])).toBeUndefined();
    expect(differs([0, next, NaN, 2])).toMatch(/^element 1 of y, f32\[4\], is 1\.0000001/);
    expect(differs([0, next, NaN, 2], [0, 2 ** -23, 0, 0])).toBeUndefined();
    expect(differs([0, 1, 5, 2], [9, 9, 9, 9])).toMatch(/^element 2 /);
    expect(firstDifference({ y: { tensor: tensor([0, 0, 0, 0]), bounds: [] } }, {})).toBe("y is missing");
  });

  it("sees an element that nobody wrote, and a hazard", async () => {
    const source = (body: string) => `const program = kernel(
      { name: "program", grid: 1, block: 32, params: { y: output(i32, [64]) } }, (t) => { const { y } = t.pdl.wait(); ${body} });`;
    const cases: readonly Case[] = [{ y: { dtype: "i32", shape: [64], values: undefined } }];
    const program = (body: string): Program => ({ source: source(body), cases, tolerances: {}, expected: undefined });
    const twice = [simulator, { ...simulator, name: "again" }];
    const half = await judge(program("y.store([t.lane], 1);"), twice);
    expect(half).toMatchObject({ kind: "differs", executor: { name: "again" }, authority: "simulator" });
    const race = await judge(program("y.store([0], t.lane);"), twice);
    expect(race).toMatchObject({ kind: "HazardError", executor: { name: "simulator" } });
    expect((await judge(program("y.load([0]);"), twice))?.kind).toBe("RoleError");
  });
});

/** Takes abs for neg. */
class Faulty extends SimulatorBackend {
  override compile<P extends Params>(kernel: Kernel<P>): Promise<SimulatorExecutable<P>> {
    return super.compile(unsigned(kernel));
  }
}

describe("a failure", () => {
  it("is made as small as can be", async () => {
    const executors = [simulator, { ...simulator, name: "faulty", backend: new Faulty() }];
    const fails = async (program: Program) => (await judge(program, executors))?.kind === "differs";
    const sizes: number[] = [];
    for (let index = 0; sizes.length < 3; index++) {
      const choices = Choices.random(4, index);
      if (!(await fails(tiers.lanes(choices)))) continue;
      const small = await shrink(choices.taken, tiers.lanes, fails, performance.now() + 20_000);
      const program = tiers.lanes(Choices.replay(small));
      expect(await fails(program)).toBe(true);
      expect(program.source).toContain(".neg()");
      sizes.push(program.source.split("\n").length);
    }
    expect(Math.max(...sizes)).toBeLessThan(20);
  });

  it("becomes a file that fails as long as it is there, and types check", async () => {
    const files: string[] = [];
    const write = (name: string, program: Program, failure: Failure): string => {
      const file = join(folder, `${name}.ts`);
      writeFileSync(file, reproduction(program, failure, "npm run fuzz"));
      files.push(file);
      return file;
    };
    const authority = "plain TypeScript";
    const told = { executor: simulator, kind: "differs", message: "element 0 */ is", authority };
    for (let i = 0; i < 48; i++) {
      const { program } = generate(8, i);
      const [launch = {}] = program.cases;
      const y = { tensor: hostTensor({ dtype: "bf16", shape: [1], values: [1] }, 0), bounds: [0] };
      const output = Object.keys(launch).find((name) => /^[yz]/.test(name)) ?? "y";
      write(`program${i}`, program, { ...told, launch, expected: { [output]: y } });
    }
    const { program } = generate(8, 3);
    const [launch = {}] = program.cases;
    const values = program.expected?.(launch)["y"]?.values;
    const y = launch["y"];
    if (typeof y !== "object" || !values) throw new Error("program 3 is one of tiles");
    const right = (changed: readonly number[]) => ({
      y: { tensor: hostTensor({ ...y, values: changed }, 0), bounds: [] },
    });
    const expected = right(values);
    const wrong = right(values.with(0, Number(values[0] === 0)));
    const good = await run([write("good", program, { ...told, launch, expected })]);
    expect(good).toEqual({ code: 0, output: "" });
    const bad = await run([write("bad", program, { ...told, launch, expected: wrong })]);
    expect(bad.output).toMatch(/^y: element 0 is /);
    expect(bad.code).toBe(1);
    const config = {
      extends: "../../tsconfig.json",
      compilerOptions: { noUnusedLocals: false, noUnusedParameters: false },
      include: ["*.ts"],
    };
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(config));
    const checked = await run(["node_modules/typescript/bin/tsc", "--project", folder]);
    expect(checked).toEqual({ code: 0, output: "" });
  });

  it.each(readdirSync(join(import.meta.dirname, "fuzz")).filter((name) => name !== "plant.ts"))(
    "that was once found does not come back: %s",
    async (name) => {
      expect(await run([join("test", "fuzz", name)])).toEqual({ code: 0, output: "" });
    },
  );
});

describe("npm run fuzz", () => {
  it.each([
    [["--devices", "simulator,abacus"], /^There is no device "abacus"/],
    [["--kernels", "many"], /^--kernels is "many"; write a whole number, e\.g\. --kernels 1000/],
    [["--kernel", "1"], /^Unknown option '--kernel'/],
  ])("%j: ends with 101 and says why, when it can't run", async (args, says) => {
    const { code, output } = await fuzz(...args);
    expect(output).toMatch(says);
    expect(code).toBe(101);
  });

  it("ends with 0 when all agree", async () => {
    const { code, output } = await fuzz("--seed", "1", "--kernels", "40", "--devices", "simulator,swiftshader");
    expect(output).toMatch(
      /^40 of 40 kernels agree on simulator \(.*\), swiftshader \(.*\); .* kernels\/s\nLast index 39\. Go on with: npm run fuzz -- --seed 1 --devices simulator,swiftshader --from 40/,
    );
    expect(code).toBe(0);
  });

  const planted = (plant: string, kernels: number) => {
    const env = { NODE_OPTIONS: "--import tsx --import ./test/fuzz/plant.ts", TEGULA_PLANT: plant };
    const args = ["--seed", "1", "--kernels", String(kernels), "--devices", "simulator"];
    return run(["playground/fuzz.ts", ...args], env);
  };

  it("ends with 1 when something differs, and leaves a file that shows it", async () => {
    const { code, output } = await planted("wrong", 48);
    const [, file = ""] = /^kernel \d+: simulator: element \d+ of y, .*\n {2}(\S+\.ts)$/m.exec(output) ?? [];
    expect(readFileSync(file, "utf8")).toContain(".neg()");
    expect(code).toBe(1);
    // Where the fault is not planted.
    expect(await run([file])).toEqual({ code: 0, output: "" });
  });

  it("goes on past a kernel that ends the process, and says which it was", async () => {
    const { code, output } = await planted("die", 6);
    expect(output).toMatch(/^kernel \d: the process that ran it died/m);
    expect(output).toMatch(/^Last index 5\./m);
    expect(code).toBe(1);
  });
});

it("the executors that are here open", async () => {
  const executors = await openExecutors(undefined, 1);
  expect(executors.map(({ name }) => name)).toEqual(expect.arrayContaining(["simulator", "swiftshader"]));
  for (const { backend } of executors) await backend.dispose();
});
