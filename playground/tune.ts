/**
 * Finds the fastest configuration of our low-latency GEMMs for each shape and number of tokens on the GPU at hand, and
 * writes the table from which `linear` chooses. A configuration with a wrong result gets no time. What the table has
 * already is kept: an interrupted run goes on where it was.
 *
 *   npm run tune                                     # all of bench/shapes.csv: about ten minutes on an H200
 *   npm run tune -- --shapes 256x7168bf16,3072x1536bf16 --tokens 8,16 --again
 *   npm run tune -- --families stream --again        # only these, beside what the table has
 *   npm run tune -- --table mine.json --trials all.jsonl    # elsewhere; also what every configuration takes
 */
import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { bf16, f32 } from "../dsl/index.ts";
import { choicesFor, formatChoice, kernelOf, parseChoice } from "../kernels/linear-space.ts";
import { type Case, cases, tokenCounts } from "./bench/cases.ts";
import { Bench } from "./bench/measure.ts";
import { progress } from "./terminal.ts";
import { Compilers } from "./tune/compilers.ts";

const { values: options } = parseArgs({
  options: {
    group: { type: "string" },
    shapes: { type: "string" },
    tokens: { type: "string", default: tokenCounts.join() },
    replays: { type: "string", default: "8" },
    table: { type: "string", default: join(import.meta.dirname, "..", "kernels", "tuned", "h200.json") },
    trials: { type: "string" },
    families: { type: "string" },
    again: { type: "boolean", default: false },
  },
});

interface Entry {
  readonly dtype: string;
  readonly N: number;
  readonly K: number;
  readonly M: number;
  readonly choice: string;
  readonly us: number;
}

const groups = options.group?.split(",");
const families = options.families?.split(",");
const only = options.shapes?.split(",");
const shapes = cases().filter(
  ({ group, N, K, dtype }) => (groups?.includes(group) ?? true) && (only?.includes(`${N}x${K}${dtype}`) ?? true),
);
const counts = options.tokens.split(",").map(Number);
/** Each builds on those before. */
const order = [8, 16, 4, 1, 2];

await using bench = await Bench.open(1);
const compilers = new Compilers();
const entries: Entry[] = existsSync(options.table)
  ? (JSON.parse(readFileSync(options.table, "utf8")) as { entries: Entry[] }).entries
  : [];
let errors = 0;
for (const [i, shape] of shapes.entries()) {
  const { N, K, dtype } = shape;
  const isSame = (entry: Entry, M: number) => entry.dtype === dtype && entry.N === N && entry.K === K && entry.M === M;
  const missing = counts.filter((M) => options.again || !entries.some((entry) => isSame(entry, M)));
  if (missing.length === 0) continue;
  using weights = await bench.weights(shape);
  const known = new Map<number, readonly string[]>();
  for (const M of missing.toSorted((a, b) => order.indexOf(a) - order.indexOf(b))) {
    progress(`${M} x ${N} x ${K} ${dtype}`, i * counts.length + missing.indexOf(M), shapes.length * counts.length);
    const tried = choicesFor({ M, N, K, dtype })
      .map(formatChoice)
      .filter(
        (choice) =>
          isPromising(choice, M, known) &&
          isAsked(
            choice,
            entries.find((entry) => isSame(entry, M)),
          ),
      );
    const times = await trial(weights, shape, M, tried);
    const [first] = times;
    if (!first) throw new Error(`nothing serves ${M} x ${N} x ${K}`);
    known.set(
      M,
      times.map(([choice]) => choice),
    );
    const before = entries.findIndex((entry) => isSame(entry, M));
    if (before >= 0) entries.splice(before, 1);
    entries.push({ dtype, N, K, M, choice: first[0], us: Number(first[1].toFixed(3)) });
    writeFileSync(
      options.table,
      `${JSON.stringify({ device: bench.cuda.device, date: today(), entries }, undefined, 1)}\n`,
    );
  }
}
progress("", 1, 1);
compilers[Symbol.dispose]();
if (errors > 0) console.log(`${errors} configurations could not be measured`);

/** Fastest first. */
async function trial(weights: Awaited<ReturnType<Bench["weights"]>>, shape: Case, M: number, tried: readonly string[]) {
  const { N, K, dtype, out } = shape;
  await compilers.compile({ arch: "sm_90a", M, N, K, dtype, out, choices: tried });
  const candidates = tried.flatMap((name) => {
    try {
      return [{ name, kernel: kernelOf(parseChoice(name), { M, N, K, dtype, out: out === "f32" ? f32 : bf16 }) }];
    } catch (error) {
      errors++;
      console.error(`${name}: ${String(error)}`);
      return [];
    }
  });
  const times = await weights.trial(M, candidates, Number(options.replays));
  const found: [string, number][] = [];
  for (const [i, { name }] of candidates.entries()) {
    const time = times[i];
    if (typeof time === "number") found.push([name, time]);
    else if (time) {
      errors++;
      console.error(`${M} x ${N} x ${K} ${dtype}, ${name}: ${time.message}`);
    }
  }
  found.sort(([, a], [, b]) => a - b);
  if (options.trials !== undefined) {
    appendFileSync(
      options.trials,
      `${JSON.stringify({ dtype, N, K, M, seconds: performance.now() / 1000, times: Object.fromEntries(found) })}\n`,
    );
  }
  return found;
}

/** 8 tokens try everything. Others try what was good there, but all dot products: those depend on the tokens most. */
function isPromising(choice: string, M: number, known: ReadonlyMap<number, readonly string[]>): boolean {
  const of8 = known.get(8);
  if (M === 8 || !of8) return true;
  const alike = (few: readonly string[]) => few.some((good) => likeness(good) === likeness(choice));
  if (M === 16) return alike(of8.slice(0, 10));
  const [of1, of4] = [known.get(1), known.get(4)];
  if (M === 2 && of1 && of4) return [...of1.slice(0, 3), ...of4.slice(0, 3)].includes(choice);
  return choice.startsWith("dot") || of8.slice(0, 4).includes(choice);
}

/** Whether its family is to be tried; what the table has is measured beside it. */
function isAsked(choice: string, before: Entry | undefined): boolean {
  return !families || families.includes(parseChoice(choice).family) || choice === before?.choice;
}

/** What remains of a choice when its depth depends on the tokens. */
function likeness(choice: string): string {
  return choice.replace(/ (pieces|early|stages)=\d+/g, "");
}

function today(): string {
  return new Date().toISOString().slice(0, 10);
}
