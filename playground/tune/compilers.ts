/** Processes that compile beside the one that measures. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import type { Job } from "./compiler.ts";

export class Compilers implements Disposable {
  readonly #children: readonly ChildProcess[] = Array.from({ length: Math.max(1, availableParallelism() - 2) }, () =>
    fork(join(import.meta.dirname, "compiler.ts")),
  );

  /** Returns when all of it is in the cache, or can't be compiled. One call at a time. */
  async compile(job: Job): Promise<void> {
    const parts = this.#children.map((child, i) => ({
      child,
      choices: job.choices.filter((_, j) => j % this.#children.length === i),
    }));
    await Promise.all(
      parts.map(async ({ child, choices }) => {
        if (choices.length === 0) return;
        const done = once(child, "message");
        child.send({ ...job, choices } satisfies Job);
        await done;
      }),
    );
  }

  [Symbol.dispose](): void {
    for (const child of this.#children) {
      child.disconnect();
      child.kill("SIGKILL"); // one under tsx, which takes the other signals for itself, would run on for ever
    }
  }
}
