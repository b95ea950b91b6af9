/**
 * Garbage into every public operation: each call does its work or throws an error of a class of ours, no other error, crash or
 * hang; nothing wrong reaches the driver or Dawn, and afterwards everything still works.
 * TEGULA_TEST_CALLS sets how many calls each part makes, TEGULA_TEST_SEED repeats a run.
 */
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { Backend } from "../backends/backend.ts";
import { openSimulator, simulate } from "../backends/simulator/index.ts";
import { emitWgsl, openWgsl } from "../backends/wgsl/index.ts";
import { publicNames } from "./cuda-api.ts";
import { buildFakeCuda, cCompiler, type FakeCuda } from "./fake-cuda/build.ts";
import { authoringWorld, leftOut, withoutWork } from "./hostile/authoring.ts";
import { type Call, callsOf, make, type Targets, timeLimitMs as callLimitMs, type World } from "./hostile/calls.ts";
import { cudaWorld } from "./hostile/cuda.ts";
import { type Guard, guardDriver } from "./hostile/guard.ts";
import { membersOf, portableWorld, scaled } from "./hostile/portable.ts";
import { Watchdog } from "./hostile/watchdog.ts";

// Kernels of the stand-in bring their own source.
vi.mock("../backends/cuda/emit.ts", async (original) => {
  const { emitCuda } = await original<typeof import("../backends/cuda/emit.ts")>();
  const emit: typeof emitCuda = (ir, options) =>
    (ir as { readonly module?: ReturnType<typeof emitCuda> } | undefined)?.module ?? emitCuda(ir, options);
  return { emitCuda: emit };
});

const { TEGULA_TEST_CALLS: wanted, TEGULA_TEST_SEED: seed } = process.env;
const timeLimitMs = 60_000 + 50 * Number(wanted ?? 0);

let watchdog: Watchdog;
beforeAll(() => void (watchdog = new Watchdog(callLimitMs)));
afterAll(() => watchdog[Symbol.asyncDispose]());

interface Attack {
  readonly open: () => Promise<World>;
  /** How many calls where nothing else is wanted. */
  readonly usual: number;
}

/** Makes about so many calls, a few in each world. */
async function attack({ open, usual }: Attack): Promise<void> {
  const first = await open();
  await first.end();
  const about = Number(wanted ?? usual);
  let made = 0;
  const property = fc.asyncProperty(callsOf(first), async (calls: readonly Call[]) => {
    const world = await open();
    const pending: Promise<void>[] = [];
    const failures: unknown[] = [];
    const note = (error: unknown): void => void failures.push(error);
    for (const call of calls) await make(call, world, watchdog, pending).catch(note);
    for (const outcome of pending) await outcome.catch(note);
    await world.end().catch(note);
    if (failures.length > 0) throw failures[0];
    made += calls.length;
  });
  await fc.assert(property, { numRuns: Math.ceil(about / 12), ...(seed ? { seed: Number(seed) } : {}) });
  console.log(`${made} hostile calls of ${first.targets.size} operations`);
  expect(made).toBeGreaterThan(about / 2);
}

if (!cCompiler) console.warn("hostile.test.ts: CUDA SKIPPED, there is no C compiler to build the stand-in for libcuda");

describe.skipIf(!cCompiler)("tegula/cuda", () => {
  let fake: FakeCuda;
  let guard: Guard;
  beforeAll(() => {
    fake = buildFakeCuda();
    guard = guardDriver();
    vi.stubEnv("TEGULA_NVCC", "/nowhere/nvcc");
  });
  afterAll(() => {
    guard.remove();
    fake.remove();
    vi.unstubAllEnvs();
  });
  const open = () => cudaWorld(fake, guard, scaled);

  it("is attacked in every public operation", async () => {
    const world = await open();
    await world.end();
    expect(publicNames().operations.filter((name) => !world.targets.has(name))).toEqual([]);
  });

  it("refuses garbage before the driver sees it", { timeout: timeLimitMs }, () => attack({ open, usual: 1200 }));
});

/** Members for the other files of a backend alone. */
const internal = ["executableFromModule", "enqueue", "slices", "content", "checkLive"].map((name) => `Backend.${name}`);

describe.each([
  {
    name: "tegula/wgsl",
    usual: 150,
    openBackend: (): Promise<Backend> => openWgsl(),
    functions: (targets: Targets) => {
      targets.free("openWgsl", openWgsl, () => [{ device: "swiftshader", roots: [import.meta.url] }]);
      targets.free("emitWgsl", emitWgsl, () => [scaled.ir]);
    },
  },
  {
    name: "tegula/simulator",
    usual: 600,
    openBackend: (): Promise<Backend> => openSimulator(),
    functions: (targets: Targets) => {
      targets.free("openSimulator", openSimulator, () => [{ check: "all", seed: 1 }]);
      targets.free("simulate", simulate, () => [scaled, {}, { check: "all", seed: 1 }]);
    },
  },
])("$name", ({ openBackend, functions, usual }) => {
  let backends: readonly [backend: Backend, other: Backend, gone: Backend];
  beforeAll(async () => {
    backends = [await openBackend(), await openBackend(), await openBackend()];
    await backends[2].dispose();
  });
  afterAll(() => Promise.all(backends.map((backend) => backend.dispose())));
  const open = () => portableWorld(...backends, functions);

  it("is attacked in every public operation", async () => {
    const { targets, things, end } = await open();
    const made = ["backend", "executable", "launch", "storage"].map((name) => things.get(name)?.());
    await end();
    const members = membersOf(...(made as Parameters<typeof membersOf>));
    expect(members.length).toBeGreaterThan(20);
    expect(members.filter((name) => !targets.has(name) && !internal.includes(name))).toEqual([]);
  });

  it("refuses garbage before the device sees it", { timeout: timeLimitMs }, () => attack({ open, usual }));
});

describe("tegula, and linear()", () => {
  it("are attacked in every function, and in every method of what they give", () => {
    expect(leftOut(authoringWorld())).toEqual([]);
  });

  it("do their work with the arguments that garbage then replaces", () => {
    expect(withoutWork(authoringWorld())).toEqual(["pdl.wait"]); // a kernel waits once, and that has
  });

  it("refuse garbage while they trace", { timeout: timeLimitMs }, () =>
    attack({ open: () => Promise.resolve(authoringWorld()), usual: 1000 }),
  );
});
