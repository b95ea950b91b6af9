/**
 * Finds the fastest configuration of our low-latency GEMMs for each shape and number of tokens on the GPU at hand, and
 * writes the table from which `linear` chooses. A configuration with a wrong result gets no time, and is an error. What the
 * table has already is kept: an interrupted run goes on where it was.
 *
 *   npm run tune                                     # real models' shapes and some between: 15 minutes on an H200
 *   npm run tune -- --group router,a --tokens 8,16
 *   npm run tune -- --shapes 256x7168bf16 --again
 *   npm run tune -- --families stream --again        # only these, beside what the table has
 *   npm run tune -- --table mine.json --trials all.jsonl    # elsewhere; also what every configuration takes
 */
import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ArgumentError, bf16, f32 } from "../dsl/index.ts";
import { kernelOf, parseChoice } from "../kernels/linear-space.ts";
import type { TunedEntry, TunedTable } from "../kernels/tuned.ts";
import type { Case } from "./bench/cases.ts";
import { Bench, type Weights } from "./bench/measure.ts";
import { fail, progress, showHelp } from "./terminal.ts";
import { Compilers } from "./tune/compilers.ts";
import { choicesToTry, order, shapesToTune } from "./tune/search.ts";

showHelp(import.meta.filename);
const { values: options } = parseArgs({
  options: {
    group: { type: "string" },
    shapes: { type: "string" },
    tokens: { type: "string", default: order.join() },
    families: { type: "string" },
    again: { type: "boolean", default: false },
    replays: { type: "string", default: "8" },
    table: { type: "string", default: join(import.meta.dirname, "..", "kernels", "tuned", "h200.json") },
    trials: { type: "string" },
  },
});

await tune().catch(fail);

async function tune(): Promise<void> {
  const shapes = chosenShapes();
  const counts = order.filter((M) => options.tokens.split(",").includes(String(M)));
  if (counts.length !== options.tokens.split(",").length) {
    throw new ArgumentError(`--tokens: some of ${order.join()}, not ${options.tokens}`);
  }
  const families = options.families?.split(",");
  const replays = Number(options.replays);
  if (!Number.isInteger(replays) || replays < 1)
    throw new ArgumentError(`--replays: 1 or more, not ${options.replays}`);

  await using bench = await Bench.open(1);
  using compilers = new Compilers();
  const before = existsSync(options.table)
    ? (JSON.parse(readFileSync(options.table, "utf8")) as TunedTable).entries
    : [];
  const entries = new Map(before.map((entry) => [keyOf(entry), entry]));
  let failures = 0;
  for (const [i, shape] of shapes.entries()) {
    const missing = counts.filter((M) => options.again || !entries.has(keyOf({ ...shape, M })));
    if (missing.length === 0) continue;
    using weights = await bench.weights(shape);
    const known = new Map<number, readonly string[]>();
    for (const M of missing) {
      const { dtype, N, K } = shape;
      progress(`${M} x ${N} x ${K} ${dtype}`, i * counts.length + missing.indexOf(M), shapes.length * counts.length);
      const key = keyOf({ ...shape, M });
      const tried = choicesToTry({ ...shape, M }, known, entries.get(key), families);
      const { times, errors } = await measured({ weights, compilers, replays }, shape, M, tried);
      for (const error of errors) console.error(error);
      failures += errors.length;
      if (options.trials !== undefined) {
        appendFileSync(options.trials, `${JSON.stringify({ dtype, N, K, M, times: Object.fromEntries(times) })}\n`);
      }
      known.set(
        M,
        times.map(([choice]) => choice),
      );
      const [fastest] = times;
      if (!fastest) continue;
      entries.set(key, { dtype, N, K, M, choice: fastest[0], us: Number(fastest[1].toFixed(3)) });
      const date = new Date().toISOString().slice(0, 10);
      const table: TunedTable = { device: bench.cuda.device, date, entries: [...entries.values()] };
      writeFileSync(options.table, `${JSON.stringify(table, undefined, 1)}\n`);
    }
  }
  progress("", 1, 1);
  if (failures === 0) return;
  console.error(`${failures} configurations could not be measured`);
  process.exitCode = 1;
}

function keyOf({ dtype, N, K, M }: Pick<TunedEntry, "dtype" | "N" | "K" | "M">): string {
  return [dtype, N, K, M].join();
}

function chosenShapes(): readonly Case[] {
  const all = shapesToTune();
  const groups = options.group?.split(",");
  const only = options.shapes?.split(",");
  const chosen = all.filter(
    ({ group, N, K, dtype }) => (groups?.includes(group) ?? true) && (only?.includes(`${N}x${K}${dtype}`) ?? true),
  );
  if (chosen.length > 0) return chosen;
  const named = [...new Set(all.map(({ group }) => group))].join(", ");
  throw new ArgumentError("No such shapes", { hint: `--group has ${named}; --shapes is written as 256x7168bf16` });
}

interface Measuring {
  readonly weights: Weights;
  readonly compilers: Compilers;
  readonly replays: number;
}

/** Times in microseconds, fastest first; and what could not be built, did not run or gave wrong results. */
async function measured({ weights, compilers, replays }: Measuring, shape: Case, M: number, tried: readonly string[]) {
  const { N, K, dtype, out } = shape;
  await compilers.compile({ arch: "sm_90a", M, N, K, dtype, out, choices: tried });
  const errors: string[] = [];
  const explain = (choice: string, error: unknown) =>
    errors.push(`${M} x ${N} x ${K} ${dtype}, ${choice}: ${String(error)}`);
  const candidates = tried.flatMap((name) => {
    try {
      return [{ name, kernel: kernelOf(parseChoice(name), { M, N, K, dtype, out: out === "f32" ? f32 : bf16 }) }];
    } catch (error) {
      explain(name, error);
      return [];
    }
  });
  const results = await weights.trial(M, candidates, replays);
  const times = candidates.flatMap(({ name }, i): [string, number][] => {
    const result = results[i];
    if (typeof result === "number") return [[name, result]];
    explain(name, result);
    return [];
  });
  return { times: times.toSorted(([, a], [, b]) => a - b), errors };
}
