/** The last lines of a test run: counts in one plain line, and what the missing GPU cost. */
import type { Reporter, TestModule } from "vitest/node";
import { cudaAvailable, whyNoCuda } from "../backends/cuda/index.ts";

export default class SummaryReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const states = modules.flatMap((module) => [...module.children.allTests()].map((test) => test.result().state));
    const count = (state: string): number => states.filter((one) => one === state).length;
    const brokenFiles = modules.filter((module) => module.errors().length > 0).length;
    const gpuTests = modules
      .flatMap((module) => [...module.children.allTests()])
      .filter((test) => test.result().state === "skipped" && /\bcuda\b|\bGPU\b/i.test(test.fullName)).length;
    if (!cudaAvailable()) {
      console.log(`\nGPU tests skipped: ${gpuTests}. ${whyNoCuda()?.split("\n", 1).join("") ?? ""}`);
    }
    console.log(
      `tests: ${count("passed")} passed, ${count("failed") + brokenFiles} failed, ${count("skipped")} skipped`,
    );
  }
}
