/**
 * Choices, and the record of them. A generator asks a `Choices` whenever something may be one way or another; what it
 * answered is a list of whole numbers from which the same program can be made again, on every machine. 0 always stands for
 * the simplest answer, so the shrinker works on that list and knows nothing of programs: whatever list it tries makes a
 * program that is valid by construction.
 */
import { seededRandom } from "../../kernels/oracle.ts";

/** Choices that belong together: one expression, one statement, the data of one tensor. */
export interface Span {
  /** Spans of one label may stand for each other. */
  readonly label: string;
  readonly start: number;
  readonly end: number;
}

export class Choices {
  readonly taken: number[] = [];
  readonly spans: Span[] = [];
  readonly #answer: (position: number, count: number) => number;

  private constructor(answer: (position: number, count: number) => number) {
    this.#answer = answer;
  }

  /** Those of program `index` of a seed. */
  static random(seed: number, index: number): Choices {
    const random = seededRandom(Math.imul(seed, 0x85ebca6b) ^ Math.imul(index + 1, 0x9e3779b1));
    return new Choices((_, count) => Math.floor(random() * count));
  }

  /** The same answers again, as far as they are possible; 0 after the last of them. */
  static replay(answers: readonly number[]): Choices {
    return new Choices((position, count) => Math.min(answers[position] ?? 0, count - 1));
  }

  /** A whole number from 0 to `count` - 1. */
  below(count: number): number {
    const answer = this.#answer(this.taken.length, count);
    this.taken.push(answer);
    return answer;
  }

  /** One of a list, the simplest first. */
  pick<T>(list: readonly [T, ...T[]]): T;
  pick<T>(list: readonly T[]): T | undefined;
  pick<T>(list: readonly T[]): T | undefined {
    return list[this.below(Math.max(1, list.length))];
  }

  /** True once in so many times. */
  once(times: number): boolean {
    return this.below(times) === times - 1;
  }

  span<T>(label: string, make: () => T): T {
    const start = this.taken.length;
    const made = make();
    this.spans.push({ label, start, end: this.taken.length });
    return made;
  }

  /** Up to `most` times; each time it goes on with a chance of 1 - 1 / `stop`. */
  repeat(label: string, most: number, stop: number, make: (i: number) => void): void {
    const again = (i: number) => (): boolean => {
      // Asked at the end too: leaving out one time must not change what later choices are for.
      const goesOn = this.below(stop) > 0 && i < most;
      if (goesOn) make(i);
      return goesOn;
    };
    for (let i = 0; this.span(label, again(i)); i++);
  }
}
