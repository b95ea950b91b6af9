/** Mutants: our own sources with one seeded fault each, of the kinds that kernel compilers have. A good suite fails on all of them. */
import { TegulaError } from "../../dsl/index.ts";

/** Where kernel compilers fail. */
export const faultClasses = [
  "types and operators",
  "memory",
  "IR",
  "tiling and launch",
  "control flow",
  "PDL",
  "numerics",
] as const;
export type FaultClass = (typeof faultClasses)[number];

export interface Mutant {
  /** Unique, for --only. */
  readonly name: string;
  readonly class: FaultClass;
  /** What an author of the fault might say, and what comes of it. */
  readonly why: string;
  readonly file: string;
  /** Occurs exactly once in the file. */
  readonly find: string;
  readonly replace: string;
  /** Test files of which one must fail. */
  readonly tests: readonly string[];
  /** Only tests whose names match, as `vitest -t` takes it: for files that take long. */
  readonly named?: string;
}

/** A mutant whose text is not, or not once, in its file any more. */
export class StaleMutantError extends TegulaError {}

/** The file's text with the fault. @throws StaleMutantError */
export function mutated({ name, file, find, replace }: Mutant, text: string): string {
  const at = text.indexOf(find);
  if (at < 0 || text.indexOf(find, at + 1) >= 0) {
    throw new StaleMutantError(
      `The mutant ${name} is stale: its text occurs ${at < 0 ? "nowhere" : "twice"} in ${file}`,
      {
        hint: `Let \`find\` be what stands there now, and only once: ${JSON.stringify(find)}`,
      },
    );
  }
  return text.slice(0, at) + replace + text.slice(at + find.length);
}
