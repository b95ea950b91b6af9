/**
 * `npm run prove`: cases are the same wherever they are drawn, what is wrong is noticed, and the script says so. And every
 * PDL kernel behind a producer that is late, TEGULA_TEST_REPLAYS times on a GPU, where a missing wait would show.
 */
import { execFile } from "node:child_process";
import { describe, expect, test } from "vitest";
import type { Backend } from "../backends/backend.ts";
import { openSimulator } from "../backends/simulator/index.ts";
import type { DeviceTensor } from "../backends/tensor.ts";
import { f32, type HostTensor, type Kernel, printKernel } from "../dsl/index.ts";
import { epilogue, llGemmDotBf16 } from "../kernels/index.ts";
import type { DeviceCodes } from "../playground/prove/conversions.ts";
import { classesOf, drawSizes, randomOf, sizeClasses } from "../playground/prove/draw.ts";
import { exactCases, exactGroup, judgeExact } from "../playground/prove/exact.ts";
import { runGuarded } from "../playground/prove/gemm.ts";
import { lateRounds, withoutWaits } from "../playground/prove/late.ts";
import { lateSubjects } from "../playground/prove/late-subjects.ts";
import { codesOf, conversions, mismatchesOf } from "../playground/verify-conversions.ts";
import { devices } from "./harness.ts";

const replays = Number(process.env["TEGULA_TEST_REPLAYS"] ?? 20);

describe("cases", () => {
  test.each(["wgsl", "simulator", "cuda"] as const)("for %s are the same, drawn in order or alone", (device) => {
    const inOrder = exactCases(device, 7);
    const drawn = Array.from({ length: 3 * exactGroup }, (_, i) => inOrder(i));
    for (const i of [20, 3, 13]) {
      const { kernel, M, N, K, blueprint } = exactCases(device, 7)(i);
      expect(drawn[i]).toMatchObject({ M, N, K });
      expect(drawn[i]?.blueprint.options).toBe(blueprint.options);
      expect(printKernel(drawn[i]?.kernel.ir ?? kernel.ir)).toBe(printKernel(kernel.ir));
    }
    const others = exactCases(device, 8);
    expect(drawn.some(({ N, K }, i) => N !== others(i).N || K !== others(i).K)).toBe(true);
  });

  test("have sizes of every class, and keep to their rules", () => {
    const classes = new Set<string>();
    for (let i = 0; i < 4000; i++) {
      const [products, multipleOf] = [20e6, i % 2 === 0 ? 1 : 16];
      const tokens = i % 5 === 0 ? ("many" as const) : 16;
      const sizes = drawSizes({ tokens, multipleOf, tile: [8, 16], products }, randomOf(1, i, 2));
      const { M, N, K } = sizes;
      expect(K % multipleOf).toBe(0);
      expect(M > 16).toBe(tokens === "many");
      expect(Math.ceil(M / 8) * 8 * Math.ceil(N / 16) * 16 * K).toBeLessThanOrEqual(products);
      for (const name of classesOf(sizes)) classes.add(name);
    }
    expect([...classes].sort()).toEqual([...sizeClasses, "M > 16"].sort());
  });
});

describe("what is wrong is noticed", () => {
  test("one that is added to every sum, by the place and the numbers", async () => {
    await using simulator = await openSimulator({ check: "values" });
    const caseOf = exactCases("simulator", 3);
    const drawn = Array.from({ length: 40 }, (_, i) => caseOf(i * exactGroup)).find(
      ({ blueprint, M, N, K }) =>
        blueprint.dtype === "bf16" && !blueprint.hasEpilogue && blueprint.known === "all" && M <= 16 && M * N * K < 1e5,
    );
    if (!drawn) throw new Error("no such case was drawn");
    expect(await judgeExact(simulator, drawn, 0)).toMatchObject({ problem: undefined });
    const { M, N, K } = drawn;
    const wrong = llGemmDotBf16({ M, N, K, out: f32, epilogue: epilogue({}, (sum) => sum.add(1)) });
    const { problem, what } = await judgeExact(
      simulator,
      { ...drawn, out: "f32", kernel: wrong as unknown as Kernel },
      0,
    );
    expect(problem).toMatch(new RegExp(`^${M * N} elements are wrong, the first y\\[0, 0\\] is -?\\d+, not -?\\d+$`));
    expect(what).toContain(`${M} x ${N} x ${K}, bf16 to f32`);
  });

  test("a code of a device, by the input's bits, of single numbers and of vectors", () => {
    const chunk = 0x3f;
    const codes = conversions
      .filter(({ name }) => name === "e4m3fn_satfinite" || name === "bf16_rne")
      .map((conversion): DeviceCodes => {
        const right = codesOf(conversion, chunk);
        return { name: conversion.name, single: right, vector: right.slice() };
      });
    expect(mismatchesOf(codes, chunk)).toEqual([]);
    const [ofE4m3, ofBf16] = codes;
    if (!ofE4m3 || !ofBf16) throw new Error("the conversions are gone");
    ofE4m3.vector[0x123456] = 0x80;
    ofBf16.single[2 * 0x800000 + 1] = 0x41;
    expect(mismatchesOf(codes, chunk)).toEqual([
      "e4m3fn_satfinite, vector: f32 bits 0x3f123456 become 0x80, not 0x31",
      "bf16_rne, single: f32 bits 0x3f800000 become 0x4180, not 0x3f80",
    ]);
  });
});

test("a kernel that computes something else than it should behind a producer is stale", async () => {
  await using simulator = await openSimulator({ check: "values" });
  const [first] = lateSubjects();
  if (!first) throw new Error("there are no kernels");
  const other = llGemmDotBf16({ M: 8, N: 72, K: 1040, out: f32, epilogue: epilogue({}, (sum) => sum.mul(2)) });
  expect(await lateRounds(simulator, first, 4, other as unknown as Kernel)).toEqual({ stale: 4, early: 0 });
});

test.each(["y", "x"])("a kernel that is right, but also writes behind %s, is not let pass", async (name) => {
  await using simulator = await openSimulator();
  const [subject] = lateSubjects();
  if (!subject) throw new Error("there are no kernels");
  const data = subject.args(1) as Readonly<Record<string, HostTensor>>;
  expect(await runGuarded(simulator, subject.kernel, data)).toHaveProperty("y");
  const compile = async (kernel: Kernel) => {
    const executable = await simulator.compile(kernel);
    const bind = (tensors: Readonly<Record<string, DeviceTensor>>) => ({
      launch: () => {
        executable.bind(tensors as never).launch();
        const { storage, offsetBytes = 0, byteLength = 0 } = tensors[name] ?? {};
        if (storage) simulator.write(storage, offsetBytes + byteLength, Uint8Array.of(1));
      },
    });
    return { bind };
  };
  const careless = {
    compile,
    allocate: (byteLength: number) => simulator.allocate(byteLength),
    write: (...of: Parameters<Backend["write"]>) => simulator.write(...of),
    read: (...of: Parameters<Backend["read"]>) => simulator.read(...of),
  } as unknown as Backend;
  await expect(runGuarded(careless, subject.kernel, data)).rejects.toThrow(
    `${subject.kernel.name} wrote outside of ${name}`,
  );
});

// WGSL starts no kernel before the one ahead has ended, and takes seconds to compile each.
const ordered = devices.filter(({ name }) => name !== "wgsl");
describe.each(ordered)("behind a late producer on $name", ({ name, missing, open }) => {
  const subjects = lateSubjects().map((subject) => [subject.kernel.name, subject] as const);
  const rounds = name === "cuda" ? replays : 2;
  test.skipIf(missing).each(subjects)("%s is right every time", { timeout: 120_000 }, async (_, subject) => {
    await using backend = await open();
    expect(await lateRounds(backend, subject, rounds)).toEqual({ stale: 0, early: 0 });
    if (name !== "cuda") return;
    // On a GPU the test can tell.
    const hurried = await lateRounds(backend, subject, 20, withoutWaits(subject.kernel));
    expect(hurried.stale).toBeGreaterThan(0);
    expect(hurried.early).toBeGreaterThan(0);
  });
});

describe("the script", () => {
  const script = (...args: readonly string[]) =>
    new Promise<{ readonly code: unknown; readonly stdout: string; readonly stderr: string }>((resolve) => {
      const child = execFile(
        process.execPath,
        ["--import", "tsx", "playground/prove.ts", ...args],
        { env: { ...process.env, TEGULA_LIBCUDA: "/nowhere/libcuda.so.1" }, encoding: "utf8" },
        (_error, stdout, stderr) => resolve({ code: child.exitCode, stdout, stderr }),
      );
    });

  test("runs the cases that it is asked for", { timeout: 60_000 }, async () => {
    const ended = await script("exact", "--devices", "simulator", "--seed", "3", "--from", "4", "--count", "6");
    expect(ended).toMatchObject({ code: 0, stderr: "" });
    expect(ended.stdout).toMatch(/^exact on simulator: 6 of 6 cases, 0 wrong, [\d.]+ s$/m);
  });

  test("a case that can't be run is a problem, with the line that runs it alone", { timeout: 60_000 }, async () => {
    const { code, stdout } = await script("late", "--devices", "simulator", "--from", "99", "--count", "1");
    expect(stdout).toMatch(/^case 99: RangeError: there is no kernel 99: there are \d+\n/);
    expect(stdout).toContain("\n  npm run prove -- late --devices simulator --seed 1 --from 99 --count 1\n");
    expect(stdout).toMatch(/^late on simulator: 1 of 1 cases, 1 wrong, [\d.]+ s$/m);
    expect(code).toBe(1);
  });

  test.each([
    [["bounds", "--devices", "cuda", "--count", "1"], /^The CUDA driver library was not found at TEGULA_LIBCUDA/],
    [["exact", "--devices", "gpu"], /^There is no device "gpu"\n {2}Choose among wgsl, simulator, cuda$/],
    [["late", "--replays", "1e3"], /^--replays is "1e3"; write a whole number from 1 on, e\.g\. --replays 100$/],
    [["exact", "--count", "0"], /^--count is "0"; write a whole number from 1 on, e\.g\. --count 100$/],
    [["late", "--from", "13"], /^There are 13 cases on wgsl where --count doesn't ask for more$/],
    [["schedules", "--devices", "wgsl"], /^schedules are of the simulator alone; leave --devices out$/],
    [["everything"], /^everything is no campaign\. npm run prove -- exact\|bounds\|late\|schedules/],
  ])("%j ends with one message and exit code 101", { timeout: 60_000 }, async (args, says) => {
    const { code, stdout, stderr } = await script(...args);
    expect(stderr.trim()).toMatch(says);
    expect({ code, stdout }).toEqual({ code: 101, stdout: "" });
  });
});
