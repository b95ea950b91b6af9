/**
 * Binding: from what a caller passes to what a backend launches. Everything is checked here, before any device sees it:
 * names, dtypes, ranks, sizes and what was promised about them, alignment, ranges of scalars.
 */
import { type DTypeName, i32 } from "../dsl/dtype.ts";
import { ArgumentError, DisposedError } from "../dsl/errors.ts";
import { isWritten, type KernelIR } from "../dsl/ir.ts";
import type { Kernel } from "../dsl/kernel.ts";
import type { Params, ScalarSpec, TensorSpec } from "../dsl/params.ts";
import { evaluate, type Size } from "../dsl/size.ts";
import type { Backend, BoundLaunch, BoundScalar, Executable } from "./backend.ts";
import { DeviceTensor } from "./tensor.ts";

/** What a launch takes: a device tensor or a number for each parameter, by name. */
export type Arguments<P extends Params> = {
  readonly [K in keyof P]: P[K] extends TensorSpec<infer _R, infer N, infer _Rank>
    ? DeviceTensor<N>
    : P[K] extends ScalarSpec
      ? number
      : never;
};

/** @throws ArgumentError, DisposedError */
export function bind<P extends Params>(kernel: Kernel<P>, args: Arguments<P>, backend: Backend): BoundLaunch {
  const { ir } = kernel;
  const given: Readonly<Record<string, unknown>> = args;
  const fail = (what: string, hint?: string): never => {
    throw new ArgumentError(`${kernel.name}: ${what}`, {
      related: [{ what: "the kernel was made", at: kernel.at }],
      hint,
    });
  };
  for (const name of Object.keys(given)) {
    if (!Object.hasOwn(kernel.params, name))
      fail(`there is no parameter ${name}`, `It takes ${Object.keys(kernel.params).join(", ")}`);
  }

  const sizes = new Map<string, { readonly size: Size; readonly value: number; readonly from: string }>();
  const tensors = ir.tensors.map((tensor): DeviceTensor<DTypeName> => {
    const { name, dtype, shape, alignBytes } = tensor;
    const argument = given[name];
    if (!(argument instanceof DeviceTensor))
      return fail(`${name} must be a tensor on the device`, "deviceTensor(backend, hostTensor)");
    if (argument.storage.freed) throw new DisposedError(`${kernel.name}: the memory of ${name} was freed`);
    if (argument.storage.backend !== backend)
      fail(`${name} belongs to another backend (${argument.storage.backend.device})`);
    if (argument.dtype.name !== dtype.name) fail(`${name} must be ${dtype.name}, got ${argument}`);
    if (argument.shape.length !== shape.length) fail(`${name} must have shape [${shape.join(", ")}], got ${argument}`);
    if (argument.offsetBytes % alignBytes !== 0) {
      fail(
        `${name} is promised to be aligned to ${alignBytes} bytes; it begins at byte ${argument.offsetBytes} of its storage`,
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
    return argument;
  });
  checkOverlaps(ir, tensors, fail);
  for (const { size, value, from } of sizes.values()) {
    if (value < size.min || value > size.max || value % size.multipleOf !== 0) {
      fail(
        `the size ${size} is ${value} (from ${from}); promised were ${size.min} to ${size.max}` +
          (size.multipleOf > 1 ? ` and a multiple of ${size.multipleOf}` : ""),
      );
    }
  }

  const scalars = ir.scalars.map(({ name, dtype }): BoundScalar => {
    const value = given[name];
    const [low, high] = dtype.name === "i32" ? [-(2 ** 31), 2 ** 31 - 1] : [0, 2 ** 32 - 1];
    if (typeof value !== "number") return fail(`${name} must be a number, got ${String(value)}`);
    if (dtype.name !== "f32" && !(Number.isInteger(value) && value >= low && value <= high)) {
      fail(`${name} must be a whole number from ${low} to ${high}, got ${value}`);
    }
    if (Number.isNaN(value)) fail(`${name} is NaN`);
    if (Number.isFinite(value) && !Number.isFinite(Math.fround(value))) {
      fail(`${name} is ${value}, beyond the range of ${dtype.name}`);
    }
    return { name, dtype, value };
  });

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
  return { kernel, grid, tensors, scalars: [...scalars, ...sizeScalars] };
}

/** For backends: arguments fit only the kernel that they were bound for. @throws ArgumentError */
export function requireOwnArguments({ kernel }: Executable, launch: BoundLaunch): void {
  if (launch.kernel === kernel) return;
  throw new ArgumentError(
    `The arguments were bound for kernel ${launch.kernel.name}, the executable is of kernel ${kernel.name}`,
    {
      related: [
        { what: `${launch.kernel.name} was made`, at: launch.kernel.at },
        { what: `${kernel.name} was made`, at: kernel.at },
      ],
    },
  );
}

/**
 * The kernel was verified as if its tensors were apart: what one thread stores to one, no other sees through another, and
 * loads of inputs may be moved. In-place updates are one `inout` tensor.
 */
function checkOverlaps(
  ir: KernelIR,
  tensors: readonly DeviceTensor[],
  fail: (what: string, hint?: string) => never,
): void {
  const ranges = tensors.map(({ storage, offsetBytes, byteLength }, i) => {
    const { name = "", role } = ir.tensors[i] ?? {};
    return {
      storage,
      begin: offsetBytes,
      end: offsetBytes + byteLength,
      name,
      written: role !== undefined && isWritten(role),
    };
  });
  for (const [i, a] of ranges.entries()) {
    for (const b of ranges.slice(0, i)) {
      const overlap = a.storage === b.storage && a.begin < b.end && b.begin < a.end;
      if (overlap && (a.written || b.written)) {
        fail(
          `${b.name} and ${a.name} share memory that the kernel writes`,
          "To update in place, declare one inout tensor",
        );
      }
    }
  }
}
