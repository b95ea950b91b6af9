/** Which shapes are tuned, and which configurations are tried for each number of tokens. */
import { choicesFor, formatChoice, parseChoice } from "../../kernels/linear-space.ts";
import type { TunedEntry } from "../../kernels/tuned.ts";
import { type Case, cases } from "../bench/cases.ts";

/** Counts of tokens, each of which builds on those before. */
export const order = [8, 16, 4, 1, 2] as const;

/** N x K between those of real models, so that any shape has a near neighbour in the table. */
const grid = [512, 1024, 2048, 4096, 8192, 16384, 32768].flatMap((N) =>
  [512, 1024, 2048, 4096, 8192, 16384].map((K) => [N, K] as const),
);

/** Shapes of the benchmark; then, in `between`, those that lie further than half an octave from all of them. */
export function shapesToTune(): readonly Case[] {
  const octaves = (a: number, b: number) => Math.abs(Math.log2(a / b));
  const isNew = (dtype: string, N: number, K: number) =>
    cases().every((shape) => shape.dtype !== dtype || octaves(shape.N, N) + octaves(shape.K, K) > 0.5);
  const between = (["bf16", "e4m3"] as const).flatMap((dtype) =>
    grid
      .filter(([N, K]) => N * K * (dtype === "bf16" ? 2 : 1) <= 270e6 && isNew(dtype, N, K))
      .map(([N, K]): Case => ({ group: "between", where: "no model", N, K, dtype, out: "bf16" })),
  );
  return [...cases(), ...between];
}

/** What was good for the counts of tokens before, fastest first. */
export type Known = ReadonlyMap<number, readonly string[]>;

/**
 * 8 tokens try everything. Others try what was good there, but all dot products: those depend on the tokens most. With
 * `families` only those; but what the table has is always measured beside.
 */
export function choicesToTry(
  product: Case & { readonly M: number },
  known: Known,
  before: TunedEntry | undefined,
  families: readonly string[] | undefined,
): readonly string[] {
  const { M } = product;
  const isAsked = (choice: string) => !families || families.includes(parseChoice(choice).family);
  const all = choicesFor(product).map(formatChoice);
  return [...new Set([...(before ? [before.choice] : []), ...all])].filter(
    (choice) => choice === before?.choice || (isAsked(choice) && isPromising(choice, M, known)),
  );
}

function isPromising(choice: string, M: number, known: Known): boolean {
  const of8 = known.get(8);
  if (M === 8 || !of8) return true;
  if (M === 16) return of8.slice(0, 10).some((good) => cutOf(good) === cutOf(choice));
  const [of1, of4] = [known.get(1), known.get(4)];
  if (M === 2 && of1 && of4) return [...of1.slice(0, 3), ...of4.slice(0, 3)].includes(choice);
  return choice.startsWith("dot") || of8.slice(0, 4).includes(choice);
}

/** What remains of a choice when its depth depends on the tokens. */
function cutOf(choice: string): string {
  return choice.replace(/ (pieces|early|parked|stages)=\d+/g, "");
}
