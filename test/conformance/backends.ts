/**
 * Where conformance tests run. WGSL always: without a device its tests fail. CUDA where there is a GPU: elsewhere its tests
 * count as skipped, and every kernel that ran on WGSL is at least compiled for sm_90a, if there is an nvcc.
 */
import { afterAll, describe, expect, test } from "vitest";
import type { Backend } from "../../backends/backend.ts";
import { compileCuda, findCompiler } from "../../backends/cuda/compile.ts";
import { emitCuda } from "../../backends/cuda/emit.ts";
import { cudaAvailable, openCuda } from "../../backends/cuda/index.ts";
import { type HostArguments, type HostResults, run } from "../../backends/run.ts";
import { openWgsl } from "../../backends/wgsl/index.ts";
import type { Kernel, Params } from "../../dsl/index.ts";

export interface Target {
  readonly name: Backend["name"];
  /** Opened on first use, for the whole file. */
  backend(): Promise<Backend>;
  run<P extends Params>(kernel: Kernel<P>, args: HostArguments<P>): Promise<HostResults<P>>;
}

const targets = [
  { name: "wgsl", available: true, open: openWgsl },
  { name: "cuda", available: cudaAvailable(), open: openCuda },
] as const;

/** Time for a test that compiles a large kernel on a busy machine. */
const patience = { timeout: 60_000 };

/** Defines the same tests for each backend. `on` is vitest's `test`, skipping where the backend is not there. */
export function conformance(define: (target: Target, on: typeof test) => void): void {
  const ran = new Set<Kernel>();
  describe.each(targets)("$name", patience, ({ name, available, open }) => {
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
    define(target, (available ? test : test.skip) as typeof test);
  });
  test.skipIf(cudaAvailable() || !compilerAvailable())("every kernel above compiles for sm_90a", patience, () => {
    for (const { name, ir } of ran) compileCuda(emitCuda(ir).source, { arch: "sm_90a", name });
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
