/**
 * `npm run soak`: does much of everything that takes memory and gives it back, and shows by how much memory grew: not at all,
 * if all is well. Exit code 1 when one kind of work made one kind of memory grow by more than 16 MiB. soak/work.ts says what
 * the kinds of work are.
 *
 *   npm run soak                       # on a GPU, about six minutes
 *   npm run soak -- --launches 1000000 --uploads 100000 --programs 10000 --backends 1000
 *   npm run soak -- --device wgsl      # needs no GPU; a tenth as much
 */
import { parseArgs } from "node:util";
import { formatBytes } from "../backends/cuda/context.ts";
import { ArgumentError } from "../dsl/index.ts";
import { type Memory, soak, soakDevices, type SoakResult } from "./soak/rounds.ts";
import { fail, progress, showHelp } from "./terminal.ts";

const limitBytes = 16 * 2 ** 20;
const kinds: readonly (keyof Memory)[] = ["heap", "resident", "device"];

const usual = {
  cuda: { launches: 1_000_000, uploads: 100_000, programs: 10_000, backends: 1000 },
  wgsl: { launches: 100_000, uploads: 10_000, programs: 1000, backends: 100 },
} as const;

showHelp(import.meta.filename);
const { values: options } = parseArgs({
  options: {
    device: { type: "string", default: "cuda" },
    launches: { type: "string" },
    uploads: { type: "string" },
    programs: { type: "string" },
    backends: { type: "string" },
  },
});
const { device: wanted, ...counts } = options;
const device = (Object.keys(soakDevices) as (keyof typeof soakDevices)[]).find((name) => name === wanted);
if (!device) fail(new ArgumentError(`--device: ${Object.keys(soakDevices).join(" or ")}, not ${wanted}`));
const given = Object.entries(counts).map(([what, text]) => [what, wholeNumber(what, text)]);
const plan = { ...usual[device], ...Object.fromEntries(given) };
const results = await soak(plan, progress, device).catch(fail);
console.log(table(results));
const grown = results.flatMap(({ what, before, after }) =>
  kinds.filter((kind) => after[kind] - before[kind] > limitBytes).map((kind) => `${kind} by ${what}`),
);
if (grown.length > 0) {
  console.log(`Grew by more than ${formatBytes(limitBytes)}: ${grown.join(", ")}`);
  process.exitCode = 1;
}

function wholeNumber(what: string, text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  return fail(new ArgumentError(`--${what} is "${text}"; write a whole number, e.g. --${what} 1000`));
}

/** For people: of each kind of memory the start, the end and the growth. */
function table(results: readonly SoakResult[]): string {
  const mebibytes = (bytes: number): string => (bytes / 2 ** 20).toFixed(2);
  const head = ["", "rounds", "s", ...kinds.flatMap((kind) => [`${kind} MiB`, "end", "growth"])];
  const rows = results.map(({ what, rounds, seconds, before, after }) => [
    what,
    String(rounds),
    seconds.toFixed(1),
    ...kinds.flatMap((kind) => [before[kind], after[kind], after[kind] - before[kind]].map(mebibytes)),
  ]);
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => (row[column] ?? "").length)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join("  ");
  return [head, ...rows].map(line).join("\n");
}
