/**
 * Where conformance tests run: on all devices, in the simulator twice, the second time with its warps in a random order.
 * Where CUDA is not, every kernel is at least compiled for sm_90a, if there is an nvcc.
 */
import { basename } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import type { Backend } from "../../backends/backend.ts";
import { compileCuda, findCompiler } from "../../backends/cuda/compile.ts";
import { emitCuda } from "../../backends/cuda/emit.ts";
import { cudaAvailable } from "../../backends/cuda/index.ts";
import { type HostArguments, type HostResults, run } from "../../backends/run.ts";
import { openSimulator } from "../../backends/simulator/index.ts";
import type { Kernel, Params } from "../../dsl/index.ts";
import { devices } from "../harness.ts";
import { featuresOf, requiredOf } from "./coverage.ts";

export interface Target {
  readonly name: Backend["name"];
  /** Opened on first use, for the whole file. */
  backend(): Promise<Backend>;
  run<P extends Params>(kernel: Kernel<P>, args: HostArguments<P>): Promise<HostResults<P>>;
}

const seed = Date.now() % 1_000_000;
const shuffled = { name: "simulator", missing: false, open: () => openSimulator({ seed }) } as const;
const targets = [
  ...devices.map((device) => ({ ...device, title: device.name as string })),
  { ...shuffled, title: `simulator, schedule ${seed}` },
];

/** Time for a test that compiles a large kernel on a busy machine. */
const patience = { timeout: 60_000 };

/** Defines the same tests for each backend. `on` is vitest's `test`, skipping where the backend is not there. */
export function conformance(define: (target: Target, on: typeof test) => void): void {
  const ran = new Set<Kernel>();
  describe.each(targets)("$title", patience, ({ name, missing, open }) => {
    let backend: Promise<Backend> | undefined;
    const target: Target = {
      name,
      backend: () => (backend ??= open()),
      async run(kernel, args) {
        ran.add(kernel);
        return run(await target.backend(), kernel, args);
      },
    };
    afterAll(async () => (await backend)?.dispose());
    define(target, (missing ? test.skip : test) as typeof test);
  });
  test("the kernels above have all that they should of the IR", () => {
    const file = basename(expect.getState().testPath ?? "", ".test.ts");
    const had = new Set([...ran].flatMap(({ ir }) => [...featuresOf(ir)]));
    expect(requiredOf(file).filter((feature) => !had.has(feature))).toEqual([]);
  });
  test.skipIf(cudaAvailable() || !compilerAvailable())("every kernel above compiles for sm_90a", patience, () => {
    const sources = new Map([...ran].map(({ name, ir }) => [emitCuda(ir).source, name]));
    for (const [source, name] of sources) compileCuda(source, { arch: "sm_90a", name });
    expect(ran.size).toBeGreaterThan(0);
  });
}

export function compilerAvailable(): boolean {
  try {
    findCompiler();
    return true;
  } catch {
    return false;
  }
}
