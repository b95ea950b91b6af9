/**
 * `npm run fuzz`: random kernels, free of undefined behaviour, on every executor that is here: the simulator, SwiftShader,
 * lavapipe, CUDA. Each result is compared with plain TypeScript or with the simulator's. A kernel on which they differ is made
 * small and written to .out/fuzz as a file that runs by itself. The same seed and index make the same kernel everywhere.
 *
 *   npm run fuzz                                          # 1,000 kernels of a new seed
 *   npm run fuzz -- --seed 7 --from 2000 --kernels 500
 *   npm run fuzz -- --devices simulator,cuda              # the first is what the others are compared with
 *
 * Exit code 0 when all agree, 1 when something differs, 101 when it could not run.
 */
import { fork } from "node:child_process";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { commandOf, type Message, type Task } from "./fuzz/worker.ts";
import { progress } from "./terminal.ts";

const cannotRun = 101;
/** Of one process, so that what a driver leaks doesn't add up. */
const kernelsPerWorker = 2000;
const kernelsAtATime = 8;
/** Longer than shrinking takes. */
const silenceMs = 180_000;
const mostFailures = 10;

function refuse(message: string): never {
  console.error(message);
  process.exit(cannotRun);
}

function readOptions(): Task {
  const read = () =>
    parseArgs({
      options: {
        seed: { type: "string", default: String(Date.now() % 1_000_000) },
        from: { type: "string", default: "0" },
        kernels: { type: "string", default: "1000" },
        devices: { type: "string" },
      },
    }).values;
  let values: ReturnType<typeof read>;
  try {
    values = read();
  } catch (error) {
    return refuse(error instanceof Error ? error.message : String(error));
  }
  const whole = (name: "seed" | "from" | "kernels"): number => {
    if (/^\d{1,9}$/.test(values[name])) return Number(values[name]);
    return refuse(`--${name} is "${values[name]}"; write a whole number, e.g. --${name} 1000`);
  };
  const [seed, from, kernels] = [whole("seed"), whole("from"), whole("kernels")];
  return { seed, from, kernels, width: kernelsAtATime, devices: values.devices?.split(",") };
}

/** Has a worker do a task. What is under way when it ends was left, because it died or fell silent. */
function run(task: Task): Promise<readonly number[]> {
  underWay.clear();
  // Sources that are never the same again need no place on the disk.
  const env = { ...process.env, TEGULA_CACHE: "off" };
  const child = fork(join(import.meta.dirname, "fuzz", "worker.ts"), [], { env, execArgv: ["--import", "tsx"] });
  let alarm: NodeJS.Timeout;
  const listen = (): void => {
    clearTimeout(alarm);
    alarm = setTimeout(() => child.kill("SIGKILL"), silenceMs);
  };
  listen();
  child.on("message", (message: Message) => {
    listen();
    if (message.kind === "started") underWay.add(message.index);
    if (message.kind === "agreed" || message.kind === "differs") underWay.delete(message.index);
    hear(message);
    if (failures === mostFailures) child.kill();
  });
  child.send(task);
  return new Promise((resolve) =>
    child.once("exit", () => {
      clearTimeout(alarm);
      resolve([...underWay]);
    }),
  );
}

const options = readOptions();
const { seed, from, kernels } = options;
const start = performance.now();
let [next, agreed, failures] = [from, 0, 0];
let devices: readonly string[] | undefined;
const underWay = new Set<number>();

function hear(message: Message): void {
  if (message.kind === "refused") refuse(message.message);
  if (message.kind === "opened") devices ??= message.devices;
  if (message.kind === "started") next = Math.max(next, message.index + 1);
  if (message.kind === "agreed") agreed++;
  if (message.kind === "differs") fail(message.index, `${message.message}\n  ${message.file}`);
  progress("kernels agree", agreed, kernels);
}

function fail(index: number, message: string): void {
  failures++;
  console.log(`kernel ${index}: ${message}\n  ${commandOf(options, index)}`);
}

function goOn(): string {
  return `Go on with: npm run fuzz -- --seed ${seed} --from ${Math.min(next, ...underWay)}`;
}

process.once("SIGINT", () => {
  console.log(`\n${agreed} kernels agreed. ${goOn()}`);
  process.exit(failures > 0 ? 1 : 130);
});
while (next < from + kernels && failures < mostFailures) {
  const unfinished = await run({ ...options, from: next, kernels: Math.min(kernelsPerWorker, from + kernels - next) });
  if (devices === undefined) refuse("The process that runs kernels ended before it began");
  // Where a process died, each kernel alone shows which of them did it.
  for (const index of unfinished) {
    if (failures === mostFailures) break;
    const alone = await run({ ...options, from: index, kernels: 1, width: 1 });
    if (alone.length > 0) fail(index, "the process that ran it died, or was silent for three minutes");
  }
  underWay.clear();
  if (next < from + kernels) console.log(`${agreed} kernels agree so far, last index ${next - 1}`);
}
const rate = ((agreed * 1000) / (performance.now() - start)).toFixed(1);
console.log(`${agreed} of ${agreed + failures} kernels agree on ${devices?.join(", ")}; ${rate} kernels/s`);
console.log(`Seed ${seed}, last index ${next - 1}. ${goOn()}`);
process.exitCode = failures > 0 ? 1 : 0;
