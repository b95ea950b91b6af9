/** Deals a campaign's cases out to worker processes, each of which ends after some: what a driver leaks doesn't add up. */
import { fork } from "node:child_process";
import { join } from "node:path";
import type { CampaignOptions } from "./campaign.ts";
import type { Message, Task } from "./worker.ts";

/** Longer than any case takes. */
const silenceMs = 300_000;
const mostProblems = 10;

interface Deal extends CampaignOptions {
  readonly from: number;
  readonly count: number;
  /** Cases of one process. */
  readonly each: number;
  /** Processes at a time. */
  readonly workers: number;
}

interface Problem {
  readonly index: number;
  readonly message: string;
}

export interface Dealt {
  readonly device: string;
  readonly judged: number;
  /** Where to go on: all before it were judged. */
  readonly next: number;
  /** Cases by class. */
  readonly classes: ReadonlyMap<string, number>;
  readonly problems: number;
  /** Why no case could be judged. */
  readonly refused: string | undefined;
}

/** What is told while cases are judged. */
interface Hearing {
  /** `what` the case was; how many were `judged`; where one would go on `next`. */
  readonly judged: (what: string, judged: number, next: number) => void;
  readonly problem: (problem: Problem) => void;
}

/** Deals all cases out, or those up to the tenth problem, or none where the device is missing. */
export async function deal(plan: Deal, hearing: Hearing): Promise<Dealt> {
  const { from, count, each, workers, ...options } = plan;
  const end = from + count;
  /** Those not judged yet, in order. */
  const open = new Set<number>(Array.from({ length: count }, (_, i) => from + i));
  const firstOpen = (): number => open.values().next().value ?? end;
  const classes = new Map<string, number>();
  let problems = 0;
  let [device, refused] = ["", undefined as string | undefined];

  const note = (problem: Problem): void => {
    problems++;
    hearing.problem(problem);
  };
  const hear = (message: Message): void => {
    if (message.kind === "opened") device = message.device;
    if (message.kind === "refused") refused = message.message;
    if (message.kind !== "judged") return;
    const { index, what, problem } = message;
    open.delete(index);
    for (const name of message.classes) classes.set(name, (classes.get(name) ?? 0) + 1);
    if (problem !== undefined) note({ index, message: [what, problem].filter((line) => line !== "").join("\n  ") });
    hearing.judged(what, count - open.size, firstOpen());
  };

  let next = from;
  const isOn = (): boolean => refused === undefined && problems < mostProblems;
  /** One process after the other. */
  const row = async (): Promise<void> => {
    while (next < end && isOn()) {
      // Ranges end where groups do.
      let at = next;
      const to = Math.min(end, (Math.floor(at / each) + 1) * each);
      next = to;
      while (at < to && isOn()) {
        const { died, ...ended } = await runWorker({ ...options, from: at, to }, hear);
        at = ended.next;
        if (!died) continue;
        open.delete(died.index);
        note(died);
      }
    }
  };
  await Promise.all(Array.from({ length: workers }, row));
  return {
    device,
    judged: count - open.size,
    next: firstOpen(),
    classes,
    problems,
    refused,
  };
}

/** Has a process do a task; tells where the next one goes on, and at what this one died, if it did. */
function runWorker(
  task: Task,
  hear: (message: Message) => void,
): Promise<{ readonly next: number; readonly died?: Problem }> {
  // Kernels that are never compiled again need no place on the disk.
  const env = { ...process.env, TEGULA_CACHE: "off" };
  const child = fork(join(import.meta.dirname, "worker.ts"), [], { env, execArgv: ["--import", "tsx"] });
  let [next, isSilent] = [task.from, false];
  let underWay: number | undefined = task.from;
  let alarm: NodeJS.Timeout;
  const listen = (): void => {
    clearTimeout(alarm);
    alarm = setTimeout(() => {
      isSilent = true;
      child.kill("SIGKILL");
    }, silenceMs);
  };
  listen();
  child.on("message", (message: Message) => {
    listen();
    if (message.kind === "started") underWay = message.index;
    if (message.kind === "judged" || message.kind === "refused") underWay = undefined;
    if (message.kind === "judged") next = message.index + 1;
    hear(message);
  });
  child.send(task);
  return new Promise((resolve) =>
    child.once("exit", (code, signal) => {
      clearTimeout(alarm);
      if (underWay === undefined && code === 0) return resolve({ next });
      // Without a case under way it ended badly after the last.
      const index = underWay ?? next - 1;
      const how = isSilent ? `was silent for ${silenceMs / 1000} s` : `ended with ${signal ?? `exit code ${code}`}`;
      resolve({ next: index + 1, died: { index, message: `the process that ran it ${how}` } });
    }),
  );
}
