/**
 * Binding: from what a caller passes to what a backend launches. Everything is checked here, before any device sees it:
 * names, dtypes, ranks, sizes and what was promised about them, alignment, frozenness, overlaps, ranges of scalars.
 */
import { describe, requireIR } from "../dsl/check.ts";
import { type DType, type DTypeName, i32 } from "../dsl/dtype.ts";
import { ArgumentError, DisposedError } from "../dsl/errors.ts";
import { isWritten, type Role } from "../dsl/ir.ts";
import type { Kernel } from "../dsl/kernel.ts";
import type { Params, ScalarSpec, TensorSpec } from "../dsl/params.ts";
import { evaluate, type Size } from "../dsl/size.ts";
import type { Backend } from "./backend.ts";
import { callerOfBackends } from "./caller.ts";
import { adoptInstead, DeviceTensor, type FrozenTensor, isStranger, requireWritable } from "./tensor.ts";

/** What `bind` takes: a tensor on the device or a number for each parameter, by name. */
export type Arguments<P extends Params> = {
  readonly [K in keyof P]: P[K] extends TensorSpec<infer R, infer N, infer _Rank>
    ? R extends "frozen"
      ? FrozenTensor<N>
      : DeviceTensor<N>
    : P[K] extends ScalarSpec
      ? number
      : never;
};

/** The numbers among the arguments. */
export type Scalars<P extends Params> = {
  readonly [K in keyof P as P[K] extends ScalarSpec ? K : never]: number;
};

/** A run-time scalar or size with the value it has in one launch. */
export interface BoundScalar {
  readonly name: string;
  readonly dtype: DType<"f32" | "i32" | "u32">;
  readonly value: number;
}

/** The checked arguments of a launch, in the order of the kernel's parameters: scalars first, then sizes. */
export interface BoundArguments {
  readonly grid: readonly [x: number, y: number, z: number];
  readonly tensors: readonly DeviceTensor[];
  readonly scalars: readonly BoundScalar[];
}

/** For backends: what `compile` takes. @throws ArgumentError */
export function requireKernel(kernel: Kernel): void {
  const given: unknown = kernel;
  if (typeof given !== "object" || given === null || typeof kernel.name !== "string") {
    throw new ArgumentError(`compile takes what kernel(...) returns, not ${describe(kernel)}`);
  }
  requireIR("compile", kernel.ir, callerOfBackends, ["grid"]);
}

type Fail = (what: string, hint?: string) => never;

function failing(kernel: Kernel): Fail {
  return (what, hint) => {
    throw new ArgumentError(`${kernel.name}: ${what}`, {
      related: [{ what: "the kernel was made", at: kernel.at }],
      hint,
    });
  };
}

/**
 * For backends. `place` is where in memory a tensor begins: two tensors overlap if they do so in the same space.
 * @throws ArgumentError, DisposedError
 */
export function checkArguments<P extends Params>(
  kernel: Kernel<P>,
  args: Arguments<P>,
  backend: Backend,
  place: (tensor: DeviceTensor) => { readonly space: unknown; readonly begin: bigint },
): BoundArguments {
  const { ir } = kernel;
  const fail = failing(kernel);
  if (typeof args !== "object" || args === null) fail(`bind takes one object with its arguments by name`);
  const given: Readonly<Record<string, unknown>> = args;
  for (const name of Object.keys(given)) {
    if (!Object.hasOwn(kernel.params, name))
      fail(`there is no parameter ${name}`, `It takes ${Object.keys(kernel.params).join(", ")}`);
  }

  const sizes = new Map<string, { readonly size: Size; readonly value: number; readonly from: string }>();
  const spans: Span[] = [];
  const tensors = ir.tensors.map((tensor): DeviceTensor<DTypeName> => {
    const { name, role, dtype, shape, alignBytes } = tensor;
    const argument = given[name];
    if (!(argument instanceof DeviceTensor)) {
      const make = role === "frozen" ? "frozenTensor(backend, hostTensor)" : "deviceTensor(backend, hostTensor)";
      if (argument === undefined) return fail(`${name} is missing`, make);
      const hint = isStranger(argument, ["storage", "dtype"]) ? adoptInstead : make;
      return fail(`${name} must be a tensor on the device, not ${describe(argument)}`, hint);
    }
    if (argument.storage.freed) throw new DisposedError(`${kernel.name}: the memory of ${name} was freed`);
    if (argument.storage.backend !== backend)
      fail(`${name} belongs to another backend (${argument.storage.backend.device})`);
    if (argument.dtype.name !== dtype.name) fail(`${name} must be ${dtype.name}, got ${argument}`);
    if (argument.shape.length !== shape.length) fail(`${name} must have shape [${shape.join(", ")}], got ${argument}`);
    if (role === "frozen" && !argument.frozen) {
      fail(
        `${name} is a frozen parameter, and may be read while earlier kernels still write; got a tensor that isn't frozen`,
        `frozenTensor(backend, hostTensor), or ${name}.freeze() after it was written for the last time`,
      );
    }
    requireWritableIn(kernel, name, role, argument);
    const { space, begin } = place(argument);
    const beyond = begin % BigInt(alignBytes);
    if (beyond !== 0n) {
      fail(
        `${name} is promised to be aligned to ${alignBytes} bytes; it begins ${beyond} bytes after a multiple of that`,
      );
    }
    for (const [axis, dim] of shape.entries()) {
      const actual = argument.shape[axis] ?? 0;
      if (typeof dim === "number") {
        if (actual !== dim) fail(`${name} must have shape [${shape.join(", ")}], got ${argument}`);
        continue;
      }
      const before = sizes.get(String(dim));
      if (before && before.value !== actual) {
        fail(`the size ${dim} is ${before.value} in ${before.from} and ${actual} in ${name}`);
      }
      if (!before) sizes.set(String(dim), { size: dim, value: actual, from: name });
    }
    spans.push({ name, space, begin, end: begin + BigInt(argument.byteLength), written: isWritten(role) });
    return argument;
  });
  checkOverlaps(spans, fail);
  for (const { size, value, from } of sizes.values()) {
    if (value < size.min || value > size.max || value % size.multipleOf !== 0) {
      fail(
        `the size ${size} is ${value} (from ${from}); promised were ${size.min} to ${size.max}` +
          (size.multipleOf > 1 ? ` and a multiple of ${size.multipleOf}` : ""),
      );
    }
  }

  const values = new Map([...sizes].map(([name, { value }]) => [name, value]));
  const sizeScalars = ir.sizes.map((size): BoundScalar => {
    const value = values.get(String(size));
    return { name: String(size), dtype: i32, value: value ?? fail(`the size ${size} has no value`) };
  });
  const [x, y, z] = ir.grid.map((dim) => evaluate(dim, values));
  const grid = [x ?? 1, y ?? 1, z ?? 1] as const;
  const limits = [2 ** 31 - 1, 65_535, 65_535];
  for (const [axis, count] of grid.entries()) {
    if (count < 1 || count > (limits[axis] ?? 1)) fail(`the grid has ${count} blocks along ${"xyz"[axis]}`);
  }
  const { cluster } = ir;
  if (grid[0] % cluster !== 0) fail(`a grid of ${grid[0]} blocks along x doesn't divide into clusters of ${cluster}`);
  return { grid, tensors, scalars: [...checkScalars(kernel, given), ...sizeScalars] };
}

/** The kernel's scalars with their values. @throws ArgumentError for one that is missing or doesn't fit its dtype */
function checkScalars(kernel: Kernel, given: Readonly<Record<string, unknown>>): readonly BoundScalar[] {
  const fail = failing(kernel);
  return kernel.ir.scalars.map(({ name, dtype }): BoundScalar => {
    const value = given[name];
    const [low, high] = dtype.name === "i32" ? [-(2 ** 31), 2 ** 31 - 1] : [0, 2 ** 32 - 1];
    if (typeof value !== "number")
      return fail(`${name} must be a number, got ${value instanceof DeviceTensor ? value : describe(value)}`);
    if (dtype.name !== "f32" && !(Number.isInteger(value) && value >= low && value <= high)) {
      fail(`${name} must be a whole number from ${low} to ${high}, got ${value}`);
    }
    if (Number.isNaN(value)) fail(`${name} is NaN`);
    if (Number.isFinite(value) && !Number.isFinite(Math.fround(value))) {
      fail(`${name} is ${value}, beyond the range of ${dtype.name}`);
    }
    return { name, dtype, value };
  });
}

/** For backends: the scalars of a launch after some of them changed. @throws ArgumentError */
export function changeScalars(
  kernel: Kernel,
  scalars: readonly BoundScalar[],
  changes: Readonly<Record<string, unknown>>,
): readonly BoundScalar[] {
  const { scalars: declared } = kernel.ir;
  if (typeof changes !== "object" || changes === null) {
    failing(kernel)(`set takes one object with scalars by name, not ${describe(changes)}`, "launch.set({ eps: 1e-6 })");
  }
  for (const name of Object.keys(changes)) {
    if (declared.some((scalar) => scalar.name === name)) continue;
    failing(kernel)(
      Object.hasOwn(kernel.params, name)
        ? `${name} is a tensor, which set() can't change`
        : `there is no scalar ${name}`,
      "Tensors and sizes want a new executable.bind(...)",
    );
  }
  const before = Object.fromEntries(scalars.map(({ name, value }) => [name, value]));
  return [...checkScalars(kernel, { ...before, ...changes }), ...scalars.slice(declared.length)];
}

/** Nothing writes a frozen tensor, not even a launch that was bound before it was frozen. @throws ArgumentError */
export function requireWritableIn(kernel: Kernel, name: string, role: Role, { storage }: DeviceTensor): void {
  if (isWritten(role)) requireWritable(storage, `${kernel.name}: ${name} is ${role}, but the tensor given`);
}

interface Span {
  readonly name: string;
  readonly space: unknown;
  readonly begin: bigint;
  readonly end: bigint;
  readonly written: boolean;
}

/**
 * The kernel was verified as if its tensors were apart: what one thread stores to one, no other sees through another, and
 * loads of inputs may be moved. In-place updates are one `inout` tensor.
 */
function checkOverlaps(spans: readonly Span[], fail: Fail): void {
  for (const [i, a] of spans.entries()) {
    for (const b of spans.slice(0, i)) {
      const overlap = a.space === b.space && a.begin < b.end && b.begin < a.end;
      if (overlap && (a.written || b.written)) {
        fail(
          `${b.name} and ${a.name} share memory that the kernel writes`,
          "To update in place, declare one inout tensor",
        );
      }
    }
  }
}
