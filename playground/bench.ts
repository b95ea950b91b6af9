/**
 * Measures our low-latency GEMMs beside cuBLASLt, on real models' shapes (bench/shapes.csv), one shape and number of tokens
 * after the other; bench/measure.ts says how.
 *
 *   npm run bench                                         # everything: about ten minutes on an H200
 *   npm run bench -- --group router --tokens 1,8 --replays 50
 *   npm run bench -- --json playground/bench/h200.json    # also for tools, and a roofline beside it: h200.svg
 *   npm run bench -- --from playground/bench/h200.json --readme   # shows an earlier run; the README's table from it
 */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { cases, tokenCounts } from "./bench/cases.ts";
import { Bench, type Cell } from "./bench/measure.ts";
import { readmeWith, type Run, summary, table } from "./bench/report.ts";
import { roofline } from "./bench/roofline.ts";

const { values: options } = parseArgs({
  options: {
    group: { type: "string" },
    tokens: { type: "string", default: tokenCounts.join() },
    replays: { type: "string", default: "200" },
    json: { type: "string" },
    from: { type: "string" },
    readme: { type: "boolean", default: false },
  },
});

const run = options.from === undefined ? await measure() : (JSON.parse(readFileSync(options.from, "utf8")) as Run);
console.log(table(run));
console.log(summary(run));
const file = options.json ?? options.from;
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(run, undefined, 1)}\n`);
if (file !== undefined) writeFileSync(file.replace(/(\.json)?$/, ".svg"), roofline(run));
if (options.readme) {
  const readme = join(import.meta.dirname, "..", "README.md");
  writeFileSync(readme, readmeWith(readFileSync(readme, "utf8"), run));
}
if (run.failures.length > 0) process.exitCode = 1;

async function measure(): Promise<Run> {
  const tokens = options.tokens.split(",").map(Number);
  const replays = Number(options.replays);
  const shapes = cases().filter(({ group }) => options.group === undefined || group === options.group);
  await using bench = await Bench.open(replays);
  const limits = await bench.limits();
  const cells: Cell[] = [];
  const failures: string[] = [];
  for (const [i, shape] of shapes.entries()) {
    using weights = await bench.weights(shape);
    for (const [j, M] of tokens.entries()) {
      progress(i * tokens.length + j, shapes.length * tokens.length, `${M} x ${shape.N} x ${shape.K} ${shape.dtype}`);
      try {
        cells.push(await weights.measure(M));
      } catch (error) {
        failures.push(error instanceof Error ? error.message : String(error));
      }
    }
  }
  progress(1, 1, "");
  const date = new Date().toISOString().slice(0, 10);
  const [device, cublasLt] = [bench.cuda.device, bench.lt.version];
  return { date, device, cublasLt, revision: revision(), replays, limits, cells, failures };
}

/** A bar, on a terminal only. */
function progress(done: number, all: number, doing: string): void {
  if (!process.stderr.isTTY) return;
  const filled = Math.round((30 * done) / all);
  process.stderr.write(`\r\x1b[K${"#".repeat(filled)}${".".repeat(30 - filled)} ${done}/${all} ${doing}`);
  if (done === all) process.stderr.write("\r\x1b[K");
}

/** As git says; a copy without git is told by TEGULA_REVISION. */
function revision(): string {
  const told = process.env["TEGULA_REVISION"];
  if (told !== undefined) return told;
  try {
    return execFileSync("git", ["describe", "--always", "--dirty"], { encoding: "utf8", stdio: "pipe" }).trim();
  } catch {
    return "unknown";
  }
}
