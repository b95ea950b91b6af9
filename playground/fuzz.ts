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
import { progress, showHelp } from "./terminal.ts";

/** Of one process, so that what a driver leaks doesn't add up. */
const kernelsPerWorker = 2000;
/** Longer than shrinking takes. */
const silenceMs = 180_000;
const mostFailures = 10;

function refuse(message: string): never {
  console.error(message);
  process.exit(101);
}

function readOptions(): Task {
  try {
    const { values } = parseArgs({
      options: {
        seed: { type: "string", default: String(Date.now() % 1_000_000) },
        from: { type: "string", default: "0" },
        kernels: { type: "string", default: "1000" },
        devices: { type: "string" },
      },
    });
    const whole = (name: "seed" | "from" | "kernels"): number => {
      if (/^\d{1,9}$/.test(values[name])) return Number(values[name]);
      return refuse(`--${name} is "${values[name]}"; write a whole number, e.g. --${name} 1000`);
    };
    const [seed, from, kernels] = [whole("seed"), whole("from"), whole("kernels")];
    return { seed, from, kernels, devices: values.devices?.split(",") };
  } catch (error) {
    return refuse(error instanceof Error ? error.message : String(error));
  }
}

showHelp(import.meta.filename);
const options = readOptions();
const { from, kernels } = options;
const start = performance.now();
let [next, agreed, failures] = [from, 0, 0];
let devices: readonly string[] | undefined;
const underWay = new Set<number>();

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
    hear(message);
  });
  child.send(task);
  return new Promise((resolve) =>
    child.once("exit", () => {
      clearTimeout(alarm);
      resolve([...underWay]);
    }),
  );
}

function hear(message: Message): void {
  switch (message.kind) {
    case "refused":
      return refuse(message.message);
    case "opened":
      devices ??= message.devices;
      return;
    case "started":
      underWay.add(message.index);
      next = Math.max(next, message.index + 1);
      return;
    case "agreed":
      underWay.delete(message.index);
      agreed++;
      return progress("kernels agree", agreed, kernels);
    case "differs":
      underWay.delete(message.index);
      return fail(message.index, `${message.message}\n  ${message.file}`);
  }
}

function fail(index: number, message: string): void {
  console.log(`kernel ${index}: ${message}\n  ${commandOf(options, index)} --kernels 1`);
  if (++failures === mostFailures) end();
}

/** Says how it went, and how to go on. */
function end(code = 0): never {
  const rate = ((agreed * 1000) / (performance.now() - start)).toFixed(1);
  console.log(`${agreed} of ${agreed + failures} kernels agree on ${devices?.join(", ")}; ${rate} kernels/s`);
  console.log(`Last index ${next - 1}. Go on with: ${commandOf(options, Math.min(next, ...underWay))}`);
  process.exit(failures > 0 ? 1 : code);
}

process.once("SIGINT", () => end(130));
while (next < from + kernels) {
  const unfinished = await run({ ...options, from: next, kernels: Math.min(kernelsPerWorker, from + kernels - next) });
  if (devices === undefined) refuse("The process that runs kernels ended before it began");
  // Where a process died, each kernel alone shows which of them did it.
  for (const index of unfinished) {
    const alone = await run({ ...options, from: index, kernels: 1 });
    if (alone.length > 0) fail(index, "the process that ran it died, or was silent for three minutes");
  }
  underWay.clear();
  if (next < from + kernels) console.log(`${agreed} kernels agree so far, last index ${next - 1}`);
}
end();
