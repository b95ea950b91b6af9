/**
 * Measures our low-latency GEMMs beside cuBLASLt, on real models' shapes (bench/shapes.csv), one shape and number of tokens
 * after the other; bench/measure.ts says how.
 *
 *   npm run bench                                         # everything: about ten minutes on an H200
 *   npm run bench -- --group router,fp8 --tokens 1,8 --replays 50
 *   npm run bench -- --shapes 256x7168bf16,7168x12288e4m3
 *   npm run bench -- --shapes 24x2880bf16 --tokens 3,13    # any others, which may never have been tuned
 *   npm run bench -- --json playground/bench/h200.json    # also for tools, and a roofline beside it: h200.svg
 *   npm run bench -- --from playground/bench/h200.json --readme   # shows an earlier run; the README's table from it
 */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ArgumentError } from "../dsl/index.ts";
import { type Case, cases, type InName, tokenCounts } from "./bench/cases.ts";
import { Bench, type Cell } from "./bench/measure.ts";
import { readmeWith, type Run, summary, table } from "./bench/report.ts";
import { roofline } from "./bench/roofline.ts";
import { fail, progress, showHelp } from "./terminal.ts";

showHelp(import.meta.filename);
const { values: options } = parseArgs({
  options: {
    group: { type: "string" },
    shapes: { type: "string" },
    tokens: { type: "string", default: tokenCounts.join() },
    replays: { type: "string", default: "200" },
    json: { type: "string" },
    from: { type: "string" },
    readme: { type: "boolean", default: false },
  },
});

const { from } = options;
const run = from === undefined ? await measure().catch(fail) : (JSON.parse(readFileSync(from, "utf8")) as Run);
if (run.cells.length > 0) console.log(table(run));
console.log(summary(run));
const file = options.json ?? from;
if (file !== undefined && run.cells.length > 0) writeFileSync(file.replace(/(\.json)?$/, ".svg"), roofline(run));
if (options.readme) {
  const readme = join(import.meta.dirname, "..", "README.md");
  writeFileSync(readme, readmeWith(readFileSync(readme, "utf8"), run));
}
if (run.failures.length > 0) process.exitCode = 1;

/** What is done is written after every shape. */
async function measure(): Promise<Run> {
  const tokens = options.tokens.split(",").map((text) => wholeNumber("tokens", text, 16));
  const replays = wholeNumber("replays", options.replays, 10_000);
  const groups = options.group?.split(",");
  const unknown = groups?.find((name) => !cases().some(({ group }) => group === name));
  if (unknown !== undefined) throw new ArgumentError(`--group: no shape is of the group ${unknown}`);
  const asked = options.shapes?.split(",").flatMap(casesNamed) ?? cases();
  const shapes = asked.filter(({ group }) => groups?.includes(group) ?? true);

  await using bench = await Bench.open(replays);
  const limits = await bench.limits();
  const cells: Cell[] = [];
  const failures: string[] = [];
  const date = new Date().toISOString().slice(0, 10);
  const [device, cublasLt] = [bench.cuda.device, bench.lt.version];
  const all: Run = { date, device, cublasLt, revision: revision(), replays, limits, cells, failures };
  const failed = (error: unknown): void => void failures.push(error instanceof Error ? error.message : String(error));
  for (const [i, shape] of shapes.entries()) {
    try {
      using weights = await bench.weights(shape);
      for (const [j, M] of tokens.entries()) {
        const doing = `${M} x ${shape.N} x ${shape.K} ${shape.dtype}`;
        progress(doing, i * tokens.length + j, shapes.length * tokens.length);
        await weights.measure(M).then((cell) => cells.push(cell), failed);
      }
    } catch (error) {
      failed(error);
    }
    if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(all, undefined, 1)}\n`);
  }
  progress("", 1, 1);
  return all;
}

function wholeNumber(what: string, text: string, most: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= most) return value;
  throw new ArgumentError(`--${what}: a whole number from 1 to ${most}, not ${text}`);
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

/** A real model's shape, with each type of results that it has; or any other. */
function casesNamed(text: string): readonly Case[] {
  const known = cases().filter(({ N, K, dtype }) => `${N}x${K}${dtype}` === text);
  if (known.length > 0) return known;
  const [, N = "0", K = "0", dtype = ""] = /^(\d{1,6})x(\d{1,6})(bf16|e4m3|f32)$/.exec(text) ?? [];
  if (Number(N) < 1 || Number(K) < 1) throw new ArgumentError(`--shapes: "${text}" is not written as 256x7168bf16`);
  return [{ group: "other", where: "of no model", N: Number(N), K: Number(K), dtype: dtype as InName, out: "bf16" }];
}
