/** On what `npm run check` runs a kernel: boundary values of its sizes, and data whose sums are exact in every order. */
import { type DType, HostTensor, type Kernel, type Size } from "../../dsl/index.ts";
import { evaluate } from "../../dsl/size.ts";
import type { Given, Sizes } from "./subjects.ts";

/** What a simulation of one case may take: elements of all tensors, and threads of the grid. */
const mostElements = 2 ** 16;
const mostThreads = 2 ** 16;

/**
 * All sizes as small as they may be, all odd, and each one alone below, at and above a power of two, and as large as there
 * is time for.
 */
export function sizeCases({ ir }: Kernel): readonly Sizes[] {
  const valuesOf = (choose: (size: Size) => number): Sizes =>
    Object.fromEntries(ir.sizes.map((size) => [String(size), fit(size, choose(size))]));
  const alone = (one: Size, value: number): Sizes => valuesOf((size) => (size === one ? value : 3 * size.multipleOf));
  const workOf = (sizes: Sizes): number => {
    const values = new Map(Object.entries(sizes));
    const elements = ir.tensors.map(({ shape }) => shape.reduce<number>((all, dim) => all * evaluate(dim, values), 1));
    const blocks = ir.grid.reduce<number>((all, dim) => all * evaluate(dim, values), 1);
    return Math.max(elements.reduce((a, b) => a + b, 0) / mostElements, (blocks * ir.block) / mostThreads);
  };
  const largest = (one: Size): number => {
    let value = Math.min(one.max, 8192);
    while (value > one.min && workOf(alone(one, value)) > 1) value = Math.floor(value / 2);
    return value;
  };
  const cases = [
    valuesOf(({ multipleOf }) => multipleOf),
    valuesOf(({ multipleOf }) => 13 * multipleOf),
    ...ir.sizes.flatMap((one) => {
      const most = largest(one);
      const edge = Math.min(256, most);
      return [edge - one.multipleOf, edge, edge + one.multipleOf, most].map((value) => alone(one, value));
    }),
  ];
  const seen = new Map(cases.map((sizes) => [JSON.stringify(sizes), sizes]));
  return [...seen.values()].filter((sizes) => seen.size === 1 || workOf(sizes) <= 2);
}

/** The nearest value that was promised, of those not above if there is one. */
function fit({ min, max, multipleOf }: Size, value: number): number {
  const least = Math.ceil(Math.max(min, 1) / multipleOf) * multipleOf;
  return Math.max(least, Math.floor(Math.min(value, max) / multipleOf) * multipleOf);
}

/**
 * Arguments for a launch: what the author gives, small whole numbers for the rest, 1 for scalars. Integers are no larger than
 * any dimension allows as an index.
 */
export function argumentsFor({ ir, params }: Kernel, sizes: Sizes, random: () => number, given: Given) {
  const values = new Map(Object.entries(sizes));
  const shapes = ir.tensors.map(({ shape }) => shape.map((dim) => evaluate(dim, values)));
  const smallest = Math.min(4, ...shapes.flat());
  const args: Record<string, HostTensor | number> = Object.fromEntries(ir.scalars.map(({ name }) => [name, 1]));
  for (const [i, { name, role, dtype }] of ir.tensors.entries()) {
    const shape = shapes[i] ?? [];
    const length = shape.reduce((a, b) => a * b, 1);
    args[name] =
      role === "output"
        ? HostTensor.filled(dtype, shape, 0xff)
        : HostTensor.from(
            dtype,
            shape,
            Float64Array.from({ length }, () => draw(dtype, smallest, random)),
          );
  }
  const known = Object.entries(given(sizes)).filter(([name]) => name in params);
  return { ...args, ...Object.fromEntries(known) };
}

function draw({ kind, bytes }: DType, smallest: number, random: () => number): number {
  if (kind === "bool") return Number(random() < 0.5);
  if (kind !== "float") return Math.floor(random() * smallest);
  const most = bytes === 1 ? 1 : 4;
  return Math.floor(random() * (2 * most + 1)) - most;
}
