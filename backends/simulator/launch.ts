/** From host data to what a simulation starts with: checked tensors, sizes, scalars, the grid. */
import { ArgumentError } from "../../dsl/errors.ts";
import { HostTensor } from "../../dsl/host.ts";
import { type KernelIR, type Tensor, walk } from "../../dsl/ir.ts";
import { evaluate } from "../../dsl/size.ts";
import type { Location } from "../../dsl/source.ts";

export interface Launch {
  readonly grid: readonly [x: number, y: number, z: number];
  readonly sizes: ReadonlyMap<string, number>;
  readonly scalars: ReadonlyMap<string, number>;
  readonly contents: ReadonlyMap<Tensor, Uint8Array>;
  /** The first wait for the kernel before. */
  readonly waitAt: Location | undefined;
}

/** @throws ArgumentError for data that doesn't fit the kernel's parameters */
export function launchOf(ir: KernelIR, given: Readonly<Record<string, unknown>>): Launch {
  const fail = (what: string): never => {
    throw new ArgumentError(`${ir.name}: ${what}`, { related: [{ what: "the kernel was made", at: ir.at }] });
  };
  const known = [...ir.tensors, ...ir.scalars].map(({ name }) => name);
  const unknown = Object.keys(given).find((name) => !known.includes(name));
  if (unknown !== undefined) fail(`there is no parameter ${unknown}; it takes ${known.join(", ")}`);

  const [sizes, contents] = [new Map<string, number>(), new Map<Tensor, Uint8Array>()];
  for (const tensor of ir.tensors) {
    const { name, dtype, shape } = tensor;
    const host = hostTensor(tensor, given[name]) ?? fail(`${name} must be a HostTensor`);
    const fits = host.dtype.name === dtype.name && host.shape.length === shape.length;
    if (!fits) fail(`${name} must be ${dtype.name}[${shape.join(", ")}], got ${host}`);
    for (const [axis, dim] of shape.entries()) {
      const actual = host.shape[axis] ?? 0;
      const expected = typeof dim === "number" ? dim : (sizes.get(String(dim)) ?? actual);
      if (actual !== expected) fail(`dimension ${axis} of ${name} is ${dim}, ${expected}; got ${host}`);
      if (typeof dim === "number") continue;
      sizes.set(String(dim), actual);
      if (actual < dim.min || actual > dim.max || actual % dim.multipleOf !== 0) {
        fail(`the size ${dim} is ${actual}; promised were ${dim.min} to ${dim.max}, a multiple of ${dim.multipleOf}`);
      }
    }
    contents.set(tensor, host.bytes);
  }
  const scalars = new Map<string, number>();
  for (const { name, dtype } of ir.scalars) {
    const value = given[name];
    const low = dtype.name === "i32" ? -(2 ** 31) : 0;
    const isNumber = typeof value === "number" && !Number.isNaN(value);
    const fits =
      dtype.name === "f32" || (Number.isInteger(value) && low <= Number(value) && Number(value) < low + 2 ** 32);
    if (!isNumber || !fits) fail(`${name} must be a number of ${dtype.name}, got ${String(value)}`);
    scalars.set(name, Number(value));
  }
  const [x = 1, y = 1, z = 1] = ir.grid.map((dim) => evaluate(dim, sizes));
  if (Math.min(x, y, z) < 1 || x % ir.cluster !== 0) {
    fail(`a grid of ${x} x ${y} x ${z} blocks, in clusters of ${ir.cluster}`);
  }
  let waitAt: Location | undefined;
  walk(ir.body, (stmt) => {
    if (stmt.kind === "pdlWait") waitAt ??= stmt.at;
  });
  return { grid: [x, y, z], sizes, scalars, contents, waitAt };
}

/** An output of known shape needs none: it begins as NaN. */
function hostTensor({ role, dtype, shape }: Tensor, value: unknown): HostTensor | undefined {
  if (value instanceof HostTensor) return value;
  const numbers = shape.filter((dim) => typeof dim === "number");
  const isKnown = value === undefined && role === "output" && numbers.length === shape.length;
  return isKnown ? HostTensor.filled(dtype, numbers, 0xff) : undefined;
}
