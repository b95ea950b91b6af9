/** Indices that are certain to be out of bounds: in every launch, or for sizes that a launch may have. */
import { OutOfBoundsError } from "../errors.ts";
import type { KernelIR } from "../ir.ts";
import { evaluate, maxOf, minOf, type Size } from "../size.ts";
import type { Access } from "./access.ts";
import type { FactsAnalysis, SizeValues } from "./facts.ts";

/** @throws OutOfBoundsError where some thread certainly leaves the tensor */
export function checkBounds(access: Access, facts: FactsAnalysis): void {
  const { memory, index, type, certain, at } = access;
  if (access.span !== undefined && index.length > 1) return checkSpan(access, access.span, facts);
  for (const [axis, value] of index.entries()) {
    const dim = memory.shape[axis];
    if (dim === undefined) continue;
    const extent = axis === index.length - 1 ? (access.span ?? type.lanes) : 1;
    const { min, max, attainedBy } = facts.of(value);
    const reaches = certain && attainedBy !== undefined;
    const highest = (reaches ? max : min) + extent - 1;
    const lowest = reaches ? min : max;
    if (highest < maxOf(facts.extent(dim)) && lowest >= 0) continue;
    const range = min === max ? `${min}` : `${min} to ${max}`;
    const span = extent > 1 ? ` (${extent} elements from there on)` : "";
    const where = facts.sizes ? ` for ${[...facts.sizes].map(([name, n]) => `${name} = ${n}`).join(", ")}` : "";
    throw new OutOfBoundsError(
      `Index ${axis} of ${memory.name} is ${range}${span}${where}; the dimension has ${dim} elements`,
      {
        at,
        related: [{ what: `${memory.name} was declared`, at: memory.at }],
        hint: where
          ? `${guardFor(access)}; or promise what such sizes break: size("N", { min, multipleOf })`
          : (whyNoGuard({ min, max, last: maxOf(facts.extent(dim)) - extent, extent }) ?? guardFor(access)),
      },
    );
  }
}

function guardFor({ takesGuard }: Access): string {
  return `Guard it: t.when(i.lt(n), () => ...)${takesGuard ? " or load(..., { guard: i.lt(n) })" : ""}`;
}

/** Where no thread's index is inside. `last`: the last that is. */
function whyNoGuard({ min, max, last, extent }: Readonly<Record<"min" | "max" | "last" | "extent", number>>) {
  if (last < 0) return `No guard helps: there are no ${extent} elements`;
  if (min > last) return `No guard helps: the last index is ${last}`;
  return max < 0 ? "No guard helps: the first index is 0" : undefined;
}

/** Elements one after the other may go on in the next row: what counts is where the last one lies in the whole tensor. */
function checkSpan({ memory, index, certain, at }: Access, span: number, facts: FactsAnalysis): void {
  const extents = memory.shape.map((dim) => maxOf(facts.extent(dim)));
  const count = extents.reduce((product, extent) => product * extent, 1);
  const strides = extents.map((_, axis) => extents.slice(axis + 1).reduce((product, extent) => product * extent, 1));
  const places = index.map((value) => facts.of(value));
  const flat = (side: "min" | "max"): number =>
    places.reduce((sum, place, axis) => sum + place[side] * (strides[axis] ?? 1), 0);
  const leaves = places.flatMap(({ attainedBy }) => [...(attainedBy ?? [])]);
  const together = places.every(({ attainedBy }) => attainedBy) && new Set(leaves).size === leaves.length;
  const first = flat(certain && together ? "max" : "min");
  if (first + span <= count) return;
  throw new OutOfBoundsError(
    `${span} elements from number ${first} on go beyond ${memory.name}, which has [${memory.shape.join(", ")}]`,
    { at, related: [{ what: `${memory.name} was declared`, at: memory.at }], hint: "Copy less, or begin earlier" },
  );
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
