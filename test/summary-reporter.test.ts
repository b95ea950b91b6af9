/** The reporter of test runs fails them when tests are gone or skipped: in runs of its own, and rule by rule. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { cudaAvailable } from "../backends/cuda/index.ts";
import { expected, type Missing, shortfalls } from "./expected.ts";

const folder = fileURLToPath(new URL("children/summary/", import.meta.url));
const vitest = fileURLToPath(new URL("../node_modules/vitest/vitest.mjs", import.meta.url));

/** Runs two tests and skips one. */
function run(expected: string, ...args: readonly string[]) {
  const child = spawnSync(process.execPath, [vitest, "run", "--config", `${folder}vitest.config.ts`, ...args], {
    cwd: folder,
    env: { ...process.env, EXPECTED: expected },
    encoding: "utf8",
    timeout: 50_000,
  });
  return { code: child.status, output: child.stdout };
}

describe("a run", () => {
  test("says its counts in one line, and succeeds when it has what is expected", () => {
    const { code, output } = run("2,1");
    expect(output).toMatch(/^tests: 2 passed, 0 failed, 1 skipped$/m);
    if (!cudaAvailable()) expect(output).toMatch(/^GPU tests skipped: 1\. /m);
    expect(output).not.toContain("expected.ts");
    expect(code).toBe(0);
  });

  test("fails when fewer tests ran", () => {
    const { code, output } = run("3,1");
    expect(output).toContain("Only 2 tests ran, 3 are expected; see test/expected.ts");
    expect(code).toBe(1);
  });

  test("fails when more were skipped", () => {
    const { code, output } = run("2,0");
    expect(output).toMatch(/1 tests were skipped, 0 may be.*; see test\/expected\.ts/);
    expect(code).toBe(1);
  });

  test.each([
    ["one file of two", "one.child.ts"],
    ["tests by their name", "-t", "adds"],
  ])("of %s is not counted", (_, ...args) => {
    const { code, output } = run("3,0", ...args);
    expect(output).toMatch(/^tests: 1 passed, 0 failed, \d skipped$/m);
    expect(code).toBe(0);
  });
});

test("what is missing may be skipped, and no more", () => {
  const counts = { ran: 100, skipped: { GPU: 30, nvcc: 4, nothing: 2 } };
  const complaints = (ran: number, skipped: number, ...missing: readonly Missing[]) =>
    shortfalls({ ran, skipped }, counts, missing).length;
  expect(complaints(100, 32, "GPU")).toBe(0);
  expect(complaints(100, 33, "GPU")).toBe(1);
  expect(complaints(100, 3)).toBe(1);
  expect(complaints(96, 36, "GPU", "nvcc")).toBe(0);
  expect(complaints(95, 37, "GPU", "nvcc")).toBe(2);
});

test("the project expects what it is worth", () => {
  expect(expected.ran).toBeGreaterThan(1000);
  expect(expected.skipped.nothing).toBeLessThan(expected.ran / 10);
});
