/** When memory and machine code go: after their owner has given them up, and every graph that uses them. */
import { thread } from "./context.ts";

export class Lifetime {
  readonly #end: () => void;
  #owned = true;
  #holders = 1;

  /** `end` gives it back. */
  constructor(end: () => void) {
    this.#end = end;
  }

  /** Whether the owner may still use it. */
  get owned(): boolean {
    return this.#owned;
  }

  /** The owner gives it up; a second time does nothing. */
  giveUp(): void {
    if (!this.#owned) return;
    this.#owned = false;
    thread.generation++;
    this.release();
  }

  retain(): void {
    this.#holders++;
  }

  release(): void {
    if (--this.#holders === 0) this.#end();
  }
}
