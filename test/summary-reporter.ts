/**
 * The last lines of a test run: counts in one plain line, and what the missing GPU cost. A complete run fails where it has
 * fewer tests, or more that were skipped, than test/expected.ts says.
 */
import type { Reporter, TestModule, Vitest } from "vitest/node";
import { cudaAvailable, whyNoCuda } from "../backends/cuda/index.ts";
import { openNvcc } from "../backends/cuda/nvcc.ts";
import { expected, type Expected, type Missing, shortfalls } from "./expected.ts";

export default class SummaryReporter implements Reporter {
  private readonly expected: Expected;
  private vitest: Pick<Vitest, "config" | "globTestSpecifications"> | undefined;

  /** `counts`: others than the project's own. */
  constructor({ counts = expected }: { readonly counts?: Expected } = {}) {
    this.expected = counts;
  }

  onInit(vitest: Pick<Vitest, "config" | "globTestSpecifications">): void {
    this.vitest = vitest;
  }

  async onTestRunEnd(modules: readonly TestModule[]): Promise<void> {
    const tests = modules.flatMap((module) => [...module.children.allTests()]);
    const count = (state: string): number => tests.filter((test) => test.result().state === state).length;
    const brokenFiles = modules.filter((module) => module.errors().length > 0).length;
    const gpuTests = tests.filter(
      (test) => test.result().state === "skipped" && /\bcuda\b|\bGPU\b/i.test(test.fullName),
    ).length;
    if (!cudaAvailable()) {
      console.log(`\nGPU tests skipped: ${gpuTests}. ${whyNoCuda()?.split("\n", 1).join("") ?? ""}`);
    }
    const [passed, failed, skipped] = [count("passed"), count("failed"), count("skipped")];
    console.log(`tests: ${passed} passed, ${failed + brokenFiles} failed, ${skipped} skipped`);

    if (!(await this.isComplete(modules))) return;
    const complaints = shortfalls({ ran: passed + failed, skipped }, this.expected, missingHere());
    for (const complaint of complaints) console.log(complaint);
    if (complaints.length > 0) process.exitCode = 1;
  }

  /** Whether nothing was left out on purpose, by a name of a file or a test. */
  private async isComplete(modules: readonly TestModule[]): Promise<boolean> {
    if (!this.vitest || this.vitest.config.testNamePattern) return false;
    const all = await this.vitest.globTestSpecifications();
    return modules.length >= all.length;
  }
}

function missingHere(): readonly Missing[] {
  const missing: Missing[] = cudaAvailable() ? [] : ["GPU"];
  try {
    openNvcc();
  } catch {
    missing.push("nvcc");
  }
  return missing;
}
