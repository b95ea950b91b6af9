/**
 * The part of the fuzzer that may crash: makes programs, runs several at a time (while a device compiles one, others are
 * made and simulated), and makes each failure small. A process of its own, which tells its parent of each step.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { TegulaError } from "../../dsl/index.ts";
import { Choices } from "./choices.ts";
import { openExecutors } from "./executors.ts";
import { type Failure, judge } from "./judge.ts";
import type { Program } from "./program.ts";
import { reproduction } from "./reproduction.ts";
import { shrink } from "./shrink.ts";
import { generate, tierOf } from "./tiers.ts";

export interface Task {
  readonly seed: number;
  readonly from: number;
  readonly kernels: number;
  readonly devices: readonly string[] | undefined;
}

export type Message =
  | { readonly kind: "opened"; readonly devices: readonly string[] }
  | { readonly kind: "refused"; readonly message: string }
  | { readonly kind: "started" | "agreed"; readonly index: number }
  | { readonly kind: "differs"; readonly index: number; readonly message: string; readonly file: string };

const folder = ".out/fuzz";
const shrinkMs = 60_000;
const kernelsAtATime = 8;

/** How a kernel is found again. */
export const commandOf = ({ seed, devices }: Task, index: number): string =>
  `npm run fuzz -- --seed ${seed}${devices ? ` --devices ${devices.join()}` : ""} --from ${index}`;

/** Does a task, telling of each step. */
export async function work(task: Task, tell: (message: Message) => void): Promise<void> {
  const { seed, from, kernels, devices } = task;
  const executors = await openExecutors(devices, seed).catch((error: unknown) => {
    if (!(error instanceof TegulaError)) throw error;
    tell({ kind: "refused", message: error.message });
    return [];
  });
  if (executors.length === 0) return;
  tell({ kind: "opened", devices: executors.map(({ name, backend }) => `${name} (${backend.device})`) });

  const examine = async (index: number): Promise<Message> => {
    const { choices, program } = generate(seed, index);
    const failure = await judge(program, executors);
    if (!failure) return { kind: "agreed", index };
    const [first] = executors;
    const concerned = executors.filter((each) => each === first || each === failure.executor);
    const isSame = (other: Failure | undefined): boolean =>
      other?.executor === failure.executor && other?.kind === failure.kind;
    const fails = async (candidate: Program): Promise<boolean> => isSame(await judge(candidate, concerned));
    const small = await shrink(choices.taken, tierOf(index), fails, performance.now() + shrinkMs);
    const shrunk = tierOf(index)(Choices.replay(small));
    // What depends on chance may not show again: then the program as it was.
    const again = await judge(shrunk, concerned);
    const [shown, why] = isSame(again) && again ? [shrunk, again] : [program, failure];
    mkdirSync(folder, { recursive: true });
    const file = `${folder}/seed${seed}-${index}.ts`;
    writeFileSync(file, reproduction(shown, why, `${commandOf(task, index)} --kernels 1`));
    return { kind: "differs", index, message: `${why.executor?.name ?? "tegula"}: ${why.message}`, file };
  };

  let next = from;
  const row = async (): Promise<void> => {
    while (next < from + kernels) {
      const index = next++;
      tell({ kind: "started", index });
      tell(await examine(index));
    }
  };
  await Promise.all(Array.from({ length: kernelsAtATime }, row));
  for (const { backend } of executors) await backend.dispose();
}

// The fuzzer starts this file; tests import it.
if (process.send && process.argv[1] === import.meta.filename) {
  const send = (message: Message): void => void (process.connected && process.send?.(message));
  process.once("disconnect", () => process.exit()); // it is done, or its parent is gone
  process.once("message", (task: Task) => void work(task, send).then(() => process.disconnect()));
}
