/**
 * Measures our low-latency GEMMs beside cuBLASLt, on real models' shapes (bench/shapes.csv), one shape and number of tokens
 * after the other; bench/measure.ts says how.
 *
 *   npm run bench                          # everything: about ten minutes on an H200
 *   npm run bench -- --group router --replays 50
 *   npm run bench -- --save h200           # also writes bench/results/h200.json and .svg, and the README's table
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { cases, tokenCounts } from "./bench/cases.ts";
import { Bench, type Cell } from "./bench/measure.ts";
import { markdown, type Run, summary, table } from "./bench/report.ts";
import { roofline } from "./bench/roofline.ts";

const { values: options } = parseArgs({
  options: {
    group: { type: "string" },
    replays: { type: "string", default: "200" },
    tokens: { type: "string", default: tokenCounts.join() },
    save: { type: "string" },
  },
});
const tokens = options.tokens.split(",").map(Number);
const replays = Number(options.replays);
const shapes = cases().filter(({ group }) => options.group === undefined || group === options.group);

const bench = await Bench.open(replays);
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

const run: Run = {
  date: new Date().toISOString().slice(0, 10),
  device: bench.cuda.device,
  cublasLt: bench.lt.version,
  revision: revision(),
  ...{ replays, limits, cells, failures },
};
await bench[Symbol.asyncDispose]();
console.log(table(run));
console.log(summary(run));
if (options.save !== undefined) save(options.save, run);
if (failures.length > 0) process.exitCode = 1;

/** A bar, on a terminal only. */
function progress(done: number, all: number, doing: string): void {
  if (!process.stderr.isTTY) return;
  const filled = Math.round((30 * done) / all);
  process.stderr.write(`\r\x1b[K${"#".repeat(filled)}${".".repeat(30 - filled)} ${done}/${all} ${doing}`);
  if (done === all) process.stderr.write("\r\x1b[K");
}

/** As git says, or the file that a copy without git was given. */
function revision(): string {
  try {
    return execFileSync("git", ["describe", "--always", "--dirty"], { encoding: "utf8", stdio: "pipe" }).trim();
  } catch {
    return process.env["TEGULA_REVISION"] ?? "unknown";
  }
}

function save(name: string, finished: Run): void {
  const folder = join(import.meta.dirname, "bench", "results");
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `${name}.json`), `${JSON.stringify(finished, undefined, 1)}\n`);
  writeFileSync(join(folder, `${name}.svg`), roofline(finished));
  const readme = join(import.meta.dirname, "..", "README.md");
  const text = readFileSync(readme, "utf8");
  const begin = "<!-- made by npm run bench -->";
  const end = "<!-- end -->";
  const [before, rest] = text.split(begin);
  const after = rest?.split(end)[1];
  if (before === undefined || after === undefined) throw new Error(`README.md has no ${begin} ... ${end}`);
  writeFileSync(readme, `${before}${begin}\n\n${markdown(finished, "router")}\n\n${end}${after}`);
}
