/**
 * `npm run record`: what this machine's GPU makes of a set of kernels, bit by bit, into test/data/recordings, where `npm test`
 * replays it in the simulator and on WGSL without a GPU. Compares with the simulator at once. Less than a minute.
 *
 *   npm run record
 *   npm run record -- --tiles 100000    # besides, so many tiles of each mma, of wgmma a 16th; not kept; about five minutes
 *   npm run record -- --tiles 100000 --instruction mma_m16n8k16_bf16    # only these, in one of several processes
 *   npm run record -- --folder out --evidence out/differences.jsonl    # elsewhere; elements that differ, with their operands
 *
 * Exit code 0 when all was recorded and the simulator agrees, 1 when not; the file is written in either case.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { openCuda } from "../backends/cuda/index.ts";
import { openSimulator } from "../backends/simulator/index.ts";
import { ArgumentError } from "../dsl/index.ts";
import { instructions } from "./record/matrix.ts";
import { fileOf, formatRecording, type Recorded, recordingsFolder } from "./record/recording.ts";
import { type Evidence, type Taken, take, takeTiles } from "./record/session.ts";
import { specimens } from "./record/specimens.ts";
import { fail, progress, showHelp } from "./terminal.ts";

showHelp(import.meta.filename);
const { values: options } = parseArgs({
  options: {
    tiles: { type: "string", default: "0" },
    instruction: { type: "string" },
    folder: { type: "string", default: recordingsFolder },
    evidence: { type: "string" },
  },
});
if (!/^\d{1,9}$/.test(options.tiles)) {
  fail(new ArgumentError(`--tiles is "${options.tiles}"; write a whole number, e.g. --tiles 100000`));
}
const chosen = instructions().filter(({ atom }) => atom.name === (options.instruction ?? atom.name));
if (chosen.length === 0) {
  const hint = `One of ${instructions()
    .map(({ atom }) => atom.name)
    .join(", ")}`;
  fail(new ArgumentError(`--instruction: there is no ${options.instruction}`, { hint }));
}
const start = performance.now();
await using cuda = await openCuda().catch(fail);
await using simulator = await openSimulator({ check: "values" });
const evidence: Evidence[] = [];
let [problems, results] = [0, 0];

if (options.instruction === undefined) await record();

const wanted = Number(options.tiles);
for (const instruction of wanted > 0 ? chosen : []) {
  const { name } = instruction.atom;
  let [tiles, wrong] = [0, 0];
  const most = instruction.atom.kind === "mma" ? wanted : Math.ceil(wanted / 16);
  for await (const taken of takeTiles(cuda, simulator, instruction, most)) {
    note(taken, taken.name);
    tiles += taken.results / (instruction.atom.M * instruction.atom.N);
    wrong += taken.wrong;
    progress(name, tiles, most);
  }
  console.log(`${name.padEnd(32)}${tiles} tiles, ${wrong} results differ`);
}

if (options.evidence !== undefined && evidence.length > 0) {
  mkdirSync(dirname(options.evidence), { recursive: true });
  writeFileSync(options.evidence, evidence.map((one) => JSON.stringify(one)).join("\n"));
}
const seconds = ((performance.now() - start) / 1000).toFixed(0);
console.log(
  `${results} results compared with the simulator, ${problems === 0 ? "all the same bits" : `${problems} differences or errors`}; ${seconds} s`,
);
process.exitCode = problems > 0 ? 1 : 0;

async function record(): Promise<void> {
  const all = specimens();
  const recorded: Record<string, Recorded> = {};
  let compiler = "";
  for (const [i, specimen] of all.entries()) {
    progress(specimen.name, i, all.length);
    const taken = await take(cuda, simulator, specimen);
    if (taken.recorded) recorded[taken.name] = taken.recorded;
    if (taken.recorded && compiler === "") compiler = (await cuda.compile(specimen.kernel)).compiler;
    note(taken, taken.name);
  }
  progress("", 1, 1);

  const recording = { device: cuda.device, driver: driverVersion(), compiler, date: today(), specimens: recorded };
  const text = formatRecording(recording);
  const file = join(options.folder, fileOf(recording.device));
  mkdirSync(options.folder, { recursive: true });
  writeFileSync(file, text);
  console.log(`${recording.device}, driver ${recording.driver || "unknown"}, ${compiler}`);
  console.log(
    `${Object.keys(recorded).length} of ${all.length} specimens in ${file}, ${Math.ceil(text.length / 1024)} KiB`,
  );
}

/** Counts, and shows what is wrong. */
function note(taken: Taken, name: string): void {
  results += taken.results;
  evidence.push(...taken.evidence);
  if (taken.problem === undefined) return;
  problems++;
  console.log(`${name}: ${taken.problem}`);
  for (const { terms } of taken.evidence.slice(0, 1)) if (terms !== undefined) console.log(`  ${terms}`);
}

/** Of the driver's part in the Linux kernel, e.g. "580.65.06". */
function driverVersion(): string {
  try {
    return readFileSync("/sys/module/nvidia/version", "utf8").trim();
  } catch {
    return "";
  }
}

function today(): string {
  return new Date().toISOString().slice(0, 10);
}
