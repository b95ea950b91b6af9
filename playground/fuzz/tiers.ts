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
} as const;

const { lanes: l, exchanges: e, tiles: t, products: p } = tiers;
const turns = [l, e, l, t, e, l, e, l, t, e, l, e, l, t, e, p];

/** The generator of program `index`. */
export function tierOf(index: number): (c: Choices) => Program {
  return turns[index % turns.length] ?? l;
}

/** The choices of program `index` of a seed, the same on every machine, and the program. */
export function generate(seed: number, index: number): { readonly choices: Choices; readonly program: Program } {
  const choices = Choices.random(seed, index);
  return { choices, program: tierOf(index)(choices) };
}
