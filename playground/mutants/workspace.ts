/**
 * A copy of the repository in a temporary folder, in which one mutant at a time is tested: the working tree stays as it is. The
 * copy has a cache of compiled kernels of its own, since a fault may lie in the cache, too.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TegulaError } from "../../dsl/index.ts";
import { type Mutant, mutated } from "./mutant.ts";

export interface Outcome {
  readonly verdict: "killed" | "survived";
  /** The test that failed, or why there was none to fail. */
  readonly by: string;
  readonly seconds: number;
}

/** Longer than any run of a few test files takes; a mutant may well go round for ever. */
const timeLimitMs = 240_000;

export class Workspace implements Disposable {
  readonly folder: string;
  private child: ChildProcess | undefined;

  /** Copies all files of the repository at `root` that git doesn't ignore. */
  constructor(root: string) {
    this.folder = mkdtempSync(join(tmpdir(), "tegula-mutants-"));
    const list = execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], { cwd: root });
    for (const file of new Set(list.toString().split("\0").filter(Boolean))) {
      // What is deleted but not committed is still listed.
      if (existsSync(join(root, file))) cpSync(join(root, file), join(this.folder, file));
    }
    symlinkSync(join(root, "node_modules"), join(this.folder, "node_modules"));
  }

  /** Tests a mutant. @throws StaleMutantError */
  async test(mutant: Mutant): Promise<Outcome> {
    const file = join(this.folder, mutant.file);
    const text = readFileSync(file, "utf8");
    writeFileSync(file, mutated(mutant, text));
    try {
      return await this.run(mutant);
    } finally {
      writeFileSync(file, text);
    }
  }

  /** Runs a mutant's tests on what is in the copy now, up to the first that fails. @throws TegulaError when there are none */
  run({ tests, named }: Pick<Mutant, "tests" | "named">): Promise<Outcome> {
    const report = join(this.folder, "mutants-report.json");
    rmSync(report, { force: true });
    const start = performance.now();
    const options = ["--config", "test/vitest.config.ts", "--bail", "1", "--reporter", "json", "--outputFile", report];
    const child = spawn(
      process.execPath,
      [join("node_modules", "vitest", "vitest.mjs"), "run", ...options, ...(named ? ["-t", named] : []), ...tests],
      // A group of its own: workers of a run that has to be ended go with it.
      { cwd: this.folder, stdio: ["ignore", "ignore", "pipe"], detached: true, env: this.environment() },
    );
    this.child = child;
    let said = "";
    child.stderr.on("data", (text: Buffer) => (said += text.toString()));
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      this.end();
    }, timeLimitMs);
    return new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, signal) => {
        clearTimeout(timer);
        this.child = undefined;
        const seconds = (performance.now() - start) / 1000;
        if (isLate) return resolve({ verdict: "killed", by: `no end after ${timeLimitMs / 1000} s`, seconds });
        const { failed, passed, files } = readReport(report);
        if (failed !== undefined) return resolve({ verdict: "killed", by: failed, seconds });
        if (code === 0 && passed > 0) return resolve({ verdict: "survived", by: "", seconds });
        if (code === 0 || files === 0) {
          return reject(new TegulaError(`Of ${tests.join(", ")}${named ? `, named ${named},` : ""} no test ran`));
        }
        const by = `the run ended with ${signal ?? `exit code ${code}`}: ${said.trim().slice(-300)}`;
        resolve({ verdict: "killed", by, seconds });
      });
    });
  }

  private environment(): NodeJS.ProcessEnv {
    return { ...process.env, TEGULA_CACHE_DIR: join(this.folder, ".cache"), NO_COLOR: "1" };
  }

  /** Ends what runs, with all processes that it started. */
  private end(): void {
    if (this.child?.pid !== undefined) process.kill(-this.child.pid, "SIGKILL");
  }

  [Symbol.dispose](): void {
    this.end();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

interface Report {
  readonly numPassedTests: number;
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly message: string;
    readonly assertionResults: readonly { readonly status: string; readonly fullName: string }[];
  }[];
}

/** The name of the first test that failed, or what keeps a test file from being loaded; and how many tests passed, of how many files. */
function readReport(report: string): {
  readonly failed?: string | undefined;
  readonly passed: number;
  readonly files?: number;
} {
  if (!existsSync(report)) return { passed: 0 };
  const { testResults, numPassedTests: passed }: Report = JSON.parse(readFileSync(report, "utf8"));
  const files = testResults.length;
  const tests = testResults.flatMap(({ assertionResults }) => assertionResults);
  const failed = tests.find(({ status }) => status === "failed");
  if (failed) return { failed: failed.fullName, passed, files };
  const broken = testResults.find(({ status }) => status === "failed");
  return {
    failed: broken && `${broken.name.split("/").at(-1)}: ${broken.message.split("\n", 1).join("")}`,
    passed,
    files,
  };
}
