/**
 * `npm run check -- FILE [--kernel NAME]`: what is wrong with your kernels, before any GPU sees them. Each kernel runs on
 * boundary values of its sizes: in the simulator, which finds races, deadlocks, early reads, ..., and names both lines; then
 * through WGSL, and CUDA where there is a GPU, which must compute the same.
 *
 * FILE is a TypeScript module that exports what kernel(...) returns:
 *
 *   export const scale = kernel({ name: "scale", ... }, (t) => { ... });
 *
 * Where it exports none, its functions are called with { M, N, K, H, out }, sizes and a dtype, as our own factories take
 * them: npm run check -- kernels/ll-gemm-dot.ts. Inputs are small whole numbers, so that sums are exact in every order;
 * scalars are 1. Parameters whose values mean something, as indices do, are given by one more export:
 *
 *   export const given = ({ N }: Record<"N", number>) => ({ index: HostTensor.from(i32, [N], ...), eps: 1e-6 });
 *
 * Exit code 0 when all is well, 1 when something was found, 2 when a kernel could not be checked.
 */
import { parseArgs } from "node:util";
import type { Backend } from "../backends/backend.ts";
import { cudaAvailable, openCuda } from "../backends/cuda/index.ts";
import { openWgsl } from "../backends/wgsl/index.ts";
import { ArgumentError, NotFoundError, TegulaError } from "../dsl/index.ts";
import { at, check, type Checked, type Device } from "./check/verdicts.ts";
import { subjectsIn } from "./check/subjects.ts";
import { progress, showHelp } from "./terminal.ts";

const usage = "npm run check -- FILE [--kernel NAME] [--schedules 2] [--seed 1]";

showHelp(import.meta.filename);
try {
  process.exitCode = await main();
} catch (error) {
  console.error(error instanceof TegulaError || isUsage(error) ? error.message : error);
  process.exitCode = 2;
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      kernel: { type: "string" },
      schedules: { type: "string", default: "2" },
      seed: { type: "string", default: String(Date.now() % 1_000_000) },
    },
  });
  const [file, ...others] = positionals;
  if (file === undefined || others.length > 0) throw new ArgumentError(`One file is checked. ${usage}`);
  const [schedules, seed] = [wholeNumber("schedules", values.schedules), wholeNumber("seed", values.seed)];
  const subjects = await subjectsIn(file, values.kernel);
  const devices = [await wgsl(), cuda()];
  let found = 0;
  try {
    for (const subject of subjects) {
      const { name, ir, at } = subject.kernel;
      const checked = await check(subject, devices, schedules, seed, (done, all) => progress(name, done, all));
      const title = subject.name === name ? name : `${subject.name}: ${name}`;
      // Our own factories name who calls them, which here is this script.
      const made = at.file.includes("playground/check/") ? `by ${file}` : `at ${at.file}:${at.line}`;
      console.log(`${title}, made ${made}, ${ir.block} threads a block`);
      found += show(checked, schedules);
    }
  } finally {
    for (const { close } of devices) await close();
  }
  const kernels = `${subjects.length} ${subjects.length === 1 ? "kernel" : "kernels"}`;
  console.log(
    `${kernels} checked, ${found === 0 ? "nothing" : `${found} of them with something`} found; --seed ${seed}`,
  );
  return found > 0 ? 1 : 0;
}

/** Prints the verdicts; 1 if there is something to mend. */
function show({ cases, verdicts, counts }: Checked, schedules: number): number {
  console.log(`  ${cases} ${cases === 1 ? "case" : "cases"}, ${schedules + 1} orders of warps each`);
  for (const { what, status, details } of verdicts) {
    const [first = "", ...rest] = details.flatMap((detail) => detail.split("\n"));
    console.log(`  ${status.padEnd(9)}${what.padEnd(31)}${first}`.trimEnd());
    for (const line of rest) console.log(`${" ".repeat(42)}${line}`);
  }
  const found = verdicts.some(({ status }) => status === "FOUND");
  if (counts && !found) showCounts(counts);
  console.log();
  return Number(found);
}

function showCounts({ of, sizes }: NonNullable<Checked["counts"]>): void {
  const rows = [
    [
      "global loads",
      of.globalLoads,
      `${of.globalLoadBytes} bytes, ${perRequest(of.globalLoadSectors, of.globalLoads)}`,
    ],
    [
      "global stores",
      of.globalStores,
      `${of.globalStoreBytes} bytes, ${perRequest(of.globalStoreSectors, of.globalStores)}`,
    ],
    ["shared requests", of.sharedRequests, `${of.sharedBytes} bytes, ${of.bankConflicts} bank conflicts`],
    ["shuffles", of.shuffles, ""],
    ["barrier waits", of.barriers, ""],
    ["atomics", of.atomics, ""],
    ["mma", of.mmas, ""],
    ["flops in all", of.flops, ""],
  ] as const;
  console.log(`  counts by warps${at(sizes)}`);
  for (const [what, count, more] of rows)
    console.log(`    ${what.padEnd(16)}${String(count).padStart(9)}  ${more}`.trimEnd());
}

function perRequest(sectors: number, requests: number): string {
  return requests === 0 ? "no sectors" : `${(sectors / requests).toFixed(1)} sectors of 32 bytes a request`;
}

type Opened = Device & { close(): Promise<void> };

/** Opened now: whether there is one is known only then. */
async function wgsl(): Promise<Opened> {
  const nothing = {
    name: "wgsl",
    open: () => Promise.reject(new Error("missing")),
    close: () => Promise.resolve(),
  } as const;
  try {
    const backend = await openWgsl();
    return { name: "wgsl", missing: undefined, open: () => Promise.resolve(backend), close: () => backend.dispose() };
  } catch (error) {
    if (error instanceof NotFoundError) return { ...nothing, missing: "no device" };
    throw error;
  }
}

function cuda(): Opened {
  let backend: Promise<Backend> | undefined;
  return {
    name: "cuda",
    missing: cudaAvailable() ? undefined : "no GPU",
    open: () => (backend ??= openCuda()),
    close: async () => (await backend)?.dispose(),
  };
}

function wholeNumber(what: string, text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new ArgumentError(`--${what} is "${text}"; write a whole number. ${usage}`);
}

/** Of parseArgs, and of a file that isn't there. */
function isUsage(error: unknown): error is Error {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  return code.startsWith("ERR_PARSE_ARGS") || code === "ERR_MODULE_NOT_FOUND";
}
