/** Indices that are certain to be out of bounds: in every launch, or for sizes that a launch may have. */
import { OutOfBoundsError } from "../errors.ts";
import type { KernelIR } from "../ir.ts";
import { evaluate, maxOf, minOf, type Size } from "../size.ts";
import type { Access } from "./access.ts";
import type { FactsAnalysis, SizeValues } from "./facts.ts";

/** @throws OutOfBoundsError where some thread certainly leaves the tensor */
export function checkBounds({ memory, index, type, certain, at }: Access, facts: FactsAnalysis): void {
  for (const [axis, value] of index.entries()) {
    const dim = memory.shape[axis];
    if (dim === undefined) continue;
    const extent = axis === index.length - 1 ? type.lanes : 1;
    const { min, max, attainedBy } = facts.of(value);
    const reaches = certain && attainedBy !== undefined;
    const highest = (reaches ? max : min) + extent - 1;
    const lowest = reaches ? min : max;
    if (highest < maxOf(facts.extent(dim)) && lowest >= 0) continue;
    const range = min === max ? `${min}` : `${min} to ${max}`;
    const span = extent > 1 ? ` (${extent} elements from there on)` : "";
    const where = facts.sizes ? ` for ${[...facts.sizes].map(([name, n]) => `${name} = ${n}`).join(", ")}` : "";
    const guard = "Guard it: t.when(i.lt(n), () => ...) or load(..., { guard: i.lt(n) })";
    throw new OutOfBoundsError(
      `Index ${axis} of ${memory.name} is ${range}${span}${where}; the dimension has ${dim} elements`,
      {
        at,
        related: [{ what: `${memory.name} was declared`, at: memory.at }],
        hint: where ? `${guard}; or promise what such sizes break: size("N", { min, multipleOf })` : guard,
      },
    );
  }
}

/** A few launches that the promises about sizes allow: the smallest values, the next, and such as fill no tile. */
export function legalSizes({ sizes, grid }: KernelIR): readonly SizeValues[] {
  if (sizes.length === 0) return [];
  const fits = (values: SizeValues): boolean =>
    grid.every((dim, axis) => {
      const blocks = evaluate(dim, values);
      return blocks >= 1 && blocks <= (axis === 0 ? 2 ** 31 - 1 : 65_535);
    });
  const tried = [0, 1, 1001].map((least) => new Map(sizes.map((size) => [String(size), legalValue(size, least)])));
  return tried.filter(fits);
}

/** The first legal value that is above the smallest by at least so much; the largest where there is none. */
function legalValue(size: Size, above: number): number {
  const { multipleOf } = size;
  const first = Math.ceil(minOf(size) / multipleOf);
  const last = Math.floor(maxOf(size) / multipleOf);
  return Math.min(first + Math.ceil(above / multipleOf), last) * multipleOf;
}
