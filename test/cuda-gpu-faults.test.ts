/**
 * Faults on a real GPU, each made on purpose in a child process with a time limit: whatever it destroys, it destroys there.
 * The stand-in for libcuda only pretends to fail (cuda-faults.test.ts). Which test makes which fault is in
 * fault-table.test.ts. Skipped without a GPU.
 */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { cudaAvailable } from "../backends/cuda/index.ts";
import type { Step } from "./children/cuda-fault.ts";

const timeLimitMs = 60_000;
/** A call on a lost context asks nobody. */
const atOnceMs = 50;

/** What the steps of one scenario of children/cuda-fault.ts answered, by name. */
async function stepsOf(scenario: string): Promise<ReadonlyMap<string, Step>> {
  const script = join(import.meta.dirname, "children/cuda-fault.ts");
  const options = { timeout: timeLimitMs, killSignal: "SIGKILL", encoding: "utf8" } as const;
  const output = await new Promise<string>((resolve, reject) => {
    execFile(process.execPath, ["--import", "tsx", script, scenario], options, (error, stdout, stderr) =>
      error ? reject(new Error(`${error.message}\n${stderr}`)) : resolve(stdout),
    );
  });
  const steps = JSON.parse(output) as readonly Step[];
  return new Map(steps.map((step) => [step.doing, step]));
}

/** Far from every tensor may lie the window through which generic addresses reach shared memory. */
const outside = /CUDA_ERROR_(ILLEGAL_ADDRESS|INVALID_ADDRESS_SPACE) \((700|717): /;
const itsLine = "test/children/cuda-support\\.ts:\\d+:\\d+";

describe.skipIf(!cudaAvailable())("faults on a GPU", { timeout: 2 * timeLimitMs }, () => {
  it.each([
    ["illegal address", "lost", /CUDA_ERROR_ILLEGAL_ADDRESS \(700: /, itsLine],
    ["outside a tensor", "far", outside, itsLine],
    ["misaligned address", "misaligned", /CUDA_ERROR_MISALIGNED_ADDRESS \(716: /, "tile\\.ts:1:1"],
    ["shared memory outside", "far_shared", /CUDA_ERROR_ILLEGAL_\w+ \((700|715): /, itsLine], // 715 was seen
    ["trap", "trapped", /CUDA_ERROR_(ILLEGAL_INSTRUCTION|LAUNCH_FAILED) \((715|719): /, itsLine],
  ])("%s: the context is lost, and every later call says so at once", async (fault, name, why, at) => {
    const steps = await stepsOf(fault);
    expect(steps.get("before")).toMatchObject({ value: 2 });
    expect(steps.get("launch")?.error).toBeUndefined(); // a launch is only enqueued
    const seen = steps.get("fault");
    expect(seen?.error).toBe("ContextLostError");
    expect(seen?.message).toMatch(why);
    expect(seen?.message).toMatch(
      new RegExp(`^Kernel ${name} failed with .*, seen waiting for launches;.*\\n  at ${at}\\n`),
    );
    expect(seen?.message).toMatch(/\n {2}Only a new process can use the device again/);
    console.log(`${fault}: ${seen?.message?.split("\n", 1).join("")}`);

    const later = [...steps.values()].filter(({ doing }) => doing.startsWith("later: "));
    expect(later).toHaveLength(12);
    for (const { doing, error, message, tookMs } of later) {
      expect(error, doing).toBe("ContextLostError");
      expect(message).toMatch(new RegExp(`^Not .*, because of an earlier failure\\. Kernel ${name} failed with`));
      expect(tookMs, doing).toBeLessThan(atOnceMs);
    }
    for (const doing of ["free", "dispose a graph", "dispose"]) expect(steps.get(doing)?.error, doing).toBeUndefined();
    expect(steps.get("reopen")?.error).toBe("ContextLostError");
    expect(steps.get("reopen")?.message).toMatch(/^Not opening NVIDIA .*, because of an earlier failure\. Kernel /);
  });

  it("an error that is seen late names all that it may come from, with their lines", async () => {
    const { error, message } = (await stepsOf("seen late")).get("fault") ?? {};
    expect(error).toBe("ContextLostError");
    expect(message).toMatch(/^One of the kernels count, far \(launched last\) failed with CUDA_ERROR_\w*ADDRESS/);
    expect(message).toMatch(
      new RegExp(`\\n  count at ${itsLine}\\n  far at ${itsLine}\\n  openCuda\\({ debug: true }\\)`),
    );
  });

  it("an error in a graph names the graph's kernels", async () => {
    const { error, message } = (await stepsOf("in a graph")).get("fault") ?? {};
    expect(error).toBe("ContextLostError");
    expect(message).toMatch(/^One of the kernels count, far \(launched last\) failed with CUDA_ERROR_\w*ADDRESS/);
  });

  it("in debug mode the launch itself throws, and names the one", async () => {
    const steps = await stepsOf("debug");
    expect(steps.get("launch before")?.error).toBeUndefined();
    expect(steps.get("fault")?.error).toBe("ContextLostError");
    expect(steps.get("fault")?.message).toMatch(/^Kernel far failed with CUDA_ERROR_\w*ADDRESS/);
    expect(steps.get("launch after")?.message).toMatch(/^Not launching count, because of an earlier failure/);
  });

  it("out of memory: says what is free, and the next allocation works", async () => {
    const steps = await stepsOf("out of memory");
    for (const [doing, asked] of [
      ["too much", "1 PiB"],
      ["all there is", "[\\d.]+ GiB"],
    ] as const) {
      const { error, message } = steps.get(doing) ?? {};
      expect(error).toBe("OutOfMemoryError");
      expect(message).toMatch(
        new RegExp(`^No room on NVIDIA .*, allocating ${asked}: [\\d.]+ \\w+ of [\\d.]+ GiB are free\n  Free tensors`),
      );
    }
    expect(steps.get("launch")?.error).toBeUndefined();
    expect(steps.get("less")).toMatchObject({ value: 2 ** 20 });
    expect(steps.get("result")).toMatchObject({ value: 3 });
  });

  it("launch refused: says which limit, and goes on", async () => {
    const steps = await stepsOf("launch refused");
    const refusal = (doing: string) => [steps.get(doing)?.error, steps.get(doing)?.message];
    const refused = (message: RegExp) => ["LaunchRefusedError", expect.stringMatching(message)];
    expect(refusal("shared memory")).toEqual(
      refused(
        /^wide needs 228 KiB of shared memory per block, NVIDIA .* has 227 KiB\n {2}at .*\n {2}Use smaller tiles/,
      ),
    );
    expect(refusal("registers")).toEqual(
      refused(
        /^heavy has 1024 threads per block, but with \d{3} registers each only \d{3} fit\n {2}at .*\n {2}Use fewer/,
      ),
    );
    expect(refusal("cluster")).toEqual(
      refused(
        /^NVIDIA .* has no room for crowd's clusters of 16 blocks with 32 threads .*\n {2}at .*\n {2}Use smaller/,
      ),
    );
    expect(refusal("architecture")).toEqual([
      "UnsupportedError",
      expect.stringMatching(/^NVIDIA .* can't run other, made by .* for sm_100a: CUDA_ERROR_\w+ \(\d+: .*\n {2}at /),
    ]);
    expect(steps.get("goes on")).toMatchObject({ value: 3 });
  });

  it("a compiler's error names the TypeScript line", async () => {
    const { error, message } = (await stepsOf("compiler")).get("compile") ?? {};
    expect(error).toBe("CompileError");
    expect(message).toMatch(
      new RegExp(
        `^(NVRTC|nvcc) [\\d.]+ refused count for sm_\\d+a: identifier "wrong" is undefined\\n  at ${itsLine}\\n`,
      ),
    );
    expect(message).toMatch(/ {2}generated line `y\[lane\] = y\[lane\] \+ wrong;` at count\.cu:\d+:1\n/);
  });

  it("a capture that another library leaves unjoined is no graph, and the next one is", async () => {
    const steps = await stepsOf("unjoined stream");
    expect(steps.get("capture")?.error).toBe("CaptureError");
    expect(steps.get("capture")?.message).toMatch(
      /^CUDA makes no graph of what was captured: CUDA_ERROR_STREAM_CAPTURE_UNJOINED \(904/,
    );
    expect(steps.get("capture again")).toMatchObject({ value: 1 });
    expect(steps.get("result")).toMatchObject({ value: 3 });
  });

  it("another thread can't use a tensor, but adopts its memory", async () => {
    const steps = await stepsOf("another thread");
    expect(steps.get("stranger")?.error).toBe("ArgumentError");
    expect(steps.get("stranger")?.message).toMatch(/comes from another thread.*cuda\.adoptTensor/);
    expect(steps.get("result")).toMatchObject({ value: 3 });
  });
});
