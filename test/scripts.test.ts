/** What scripts say when they are asked how to call them, and when they can't work: a message, and no stack. */
import { execFile } from "node:child_process";
import { describe, expect, it } from "vitest";

interface Ended {
  readonly code: unknown;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a script where there is no driver. */
function script(name: string, ...args: readonly string[]): Promise<Ended> {
  return new Promise((resolve) => {
    const env = { ...process.env, TEGULA_LIBCUDA: "/nowhere/libcuda.so.1" };
    const child = execFile(
      process.execPath,
      ["--import", "tsx", `playground/${name}.ts`, ...args],
      { env, encoding: "utf8" },
      (_error, stdout, stderr) => resolve({ code: child.exitCode, stdout, stderr }),
    );
  });
}

const noDriver =
  /^The CUDA driver library was not found at TEGULA_LIBCUDA\..*\n.*no such file\n  Install NVIDIA's driver/;

it.each([
  ["bench", [], noDriver],
  ["bench", ["--tokens", "17"], /^--tokens: a whole number from 1 to 16, not 17$/],
  ["bench", ["--group", "none"], /^--group: no shape is of the group none$/],
  ["tune", [], noDriver],
  [
    "tune",
    ["--shapes", "1x2"],
    /^No such shapes\n  --group has router, .*between; --shapes is written as 256x7168bf16$/,
  ],
  ["tune", ["--tokens", "3"], /^--tokens: some of 8,16,4,1,2, not 3$/],
  ["soak", [], noDriver],
  ["soak", ["--launches", "1e6"], /^--launches is "1e6"; write a whole number, e\.g\. --launches 1000$/],
  ["cold-start", ["--repetitions", "0"], /^--repetitions is "0"; write a whole number, e\.g\. --repetitions 5$/],
] as const)("%s %j ends with one message and exit code 1", async (name, args, says) => {
  const { code, stdout, stderr } = await script(name, ...args);
  expect(stderr.trim()).toMatch(says);
  expect(stderr).not.toMatch(/^ {4}at /m);
  expect(stdout).toBe("");
  expect(code).toBe(1);
});

describe.each(["bench", "check", "fuzz", "mutants", "prove", "record", "soak", "tune"])("%s", (name) => {
  it.each(["--help", "-h"])("%s shows how to call it, and ends well", async (option) => {
    const { code, stdout, stderr } = await script(name, option);
    expect(stderr).toBe("");
    expect(stdout).toMatch(new RegExp(`^ *npm run ${name}\\b|\`npm run ${name} -- `, "m"));
    expect(stdout).not.toMatch(/\*\/|^ \*|^import /m);
    expect(code).toBe(0);
  });
});
