/** Which kind of program each index has. Compiling products takes longest, so there are the fewest of them. */
import { Choices } from "./choices.ts";
import { exchangesProgram } from "./exchanges.ts";
import { lanesProgram } from "./lanes.ts";
import { productsProgram } from "./products.ts";
import type { Program } from "./program.ts";
import { tilesProgram } from "./tiles.ts";

export const tiers = {
  lanes: lanesProgram,
  exchanges: exchangesProgram,
  tiles: tilesProgram,
  products: productsProgram,
} as const satisfies Readonly<Record<string, (c: Choices) => Program>>;

const turns = "leltelelteleltep";

/** The generator of program `index`. */
export function tierOf(index: number): (c: Choices) => Program {
  const letter = turns[index % turns.length] ?? "l";
  return { l: tiers.lanes, e: tiers.exchanges, t: tiers.tiles, p: tiers.products }[letter] ?? tiers.lanes;
}

/** The choices of program `index` of a seed, the same on every machine, and the program. */
export function generate(seed: number, index: number): { readonly choices: Choices; readonly program: Program } {
  const choices = Choices.random(seed, index);
  return { choices, program: tierOf(index)(choices) };
}
