/** Running a kernel on host data in one call: compile, upload, launch, download. For tests, scripts and first steps. */
import { describe } from "../dsl/check.ts";
import type { DTypeName } from "../dsl/dtype.ts";
import { ArgumentError } from "../dsl/errors.ts";
import { HostTensor } from "../dsl/host.ts";
import { isWritten, type Tensor } from "../dsl/ir.ts";
import type { Kernel } from "../dsl/kernel.ts";
import type { Params, ScalarSpec, TensorSpec } from "../dsl/params.ts";
import type { Backend, Executable, Launch } from "./backend.ts";
import { type Arguments, requireKernel } from "./bind.ts";
import { type DeviceTensor, deviceTensor, frozenTensor, isStranger, requireBackend } from "./tensor.ts";

type TensorData<S> =
  S extends TensorSpec<infer _R, infer N, infer _Rank> ? HostTensor<N> : S extends ScalarSpec ? number : never;
type IsOutput<S> = S extends TensorSpec<"output", DTypeName, number> ? true : false;

/**
 * A host tensor or a number for each parameter. An output needs one only where its shape has a Size that no other tensor
 * fixes; it gives the shape and the content before the run, which otherwise is 0xff in every byte: NaN.
 */
export type HostArguments<P extends Params> = {
  readonly [K in keyof P as IsOutput<P[K]> extends true ? never : K]: TensorData<P[K]>;
} & { readonly [K in keyof P as IsOutput<P[K]> extends true ? K : never]?: TensorData<P[K]> };

/** What came back: every output and inout tensor. */
export type HostResults<P extends Params> = {
  readonly [
    K in keyof P as P[K] extends TensorSpec<"output" | "inout", DTypeName, number> ? K : never
  ]: P[K] extends TensorSpec<infer _R, infer N, infer _Rank> ? HostTensor<N> : never;
};

/** A kernel with its arguments on the device, ready to be launched any number of times. `using` frees them. */
export class PreparedRun<P extends Params> implements Disposable {
  readonly executable: Executable<P>;
  private readonly bound: Launch<P>;
  private readonly tensors: ReadonlyMap<string, DeviceTensor>;

  constructor(executable: Executable<P>, tensors: ReadonlyMap<string, DeviceTensor>, bound: Launch<P>) {
    this.executable = executable;
    this.tensors = tensors;
    this.bound = bound;
  }

  /** Enqueues one launch. */
  launch(): void {
    this.bound.launch();
  }

  /** Every output and inout tensor, after all launches so far. @throws DeviceError */
  async read(): Promise<HostResults<P>> {
    const results: Record<string, HostTensor> = {};
    for (const { name, role } of this.executable.kernel.ir.tensors) {
      const tensor = this.tensors.get(name);
      if (tensor && isWritten(role)) results[name] = await tensor.read();
    }
    return results as HostResults<P>;
  }

  /** Mean time of one launch, in microseconds; see Launch.timeUs. */
  timeUs(launches: number): Promise<number> {
    return this.bound.timeUs(launches);
  }

  /** Frees its memory on the device, once; what was read stays. `using` does it at the end of a block. */
  free(): void {
    for (const tensor of this.tensors.values()) tensor.free();
  }

  [Symbol.dispose](): void {
    this.free();
  }
}

/**
 * Compiles (or takes the backend's earlier executable), uploads, freezes what the kernel takes as frozen, and binds.
 * @throws ArgumentError, CompileError, DeviceError
 */
export async function prepare<P extends Params>(
  backend: Backend,
  kernel: Kernel<P>,
  args: HostArguments<P>,
): Promise<PreparedRun<P>> {
  requireBackend(backend);
  requireKernel(kernel);
  const executable = await backend.compile(kernel);
  const { tensors, launch } = bindHost(executable, args);
  return new PreparedRun(executable, tensors, launch);
}

/** For backends: uploads, freezes what the kernel takes as frozen, and binds. @throws ArgumentError, DeviceError */
export function bindHost<P extends Params, L>(
  executable: Pick<Executable<P>, "kernel" | "backend"> & { bind(args: Arguments<P>): L },
  args: HostArguments<P>,
): { readonly tensors: ReadonlyMap<string, DeviceTensor>; readonly launch: L } {
  const { kernel, backend } = executable;
  if (typeof args !== "object" || args === null) {
    throw new ArgumentError(`${kernel.name}: its arguments are one object, by name, not ${describe(args)}`);
  }
  const tensors = new Map<string, DeviceTensor>();
  try {
    const sizes = sizesOf(kernel, args);
    for (const tensor of kernel.ir.tensors) {
      const data = hostData(kernel, tensor, (args as Given)[tensor.name], sizes);
      tensors.set(tensor.name, tensor.role === "frozen" ? frozenTensor(backend, data) : deviceTensor(backend, data));
    }
    const onDevice: Record<string, unknown> = { ...args, ...Object.fromEntries(tensors) };
    return { tensors, launch: executable.bind(onDevice as Arguments<P>) };
  } catch (error) {
    for (const tensor of tensors.values()) tensor.free();
    throw error;
  }
}

/**
 * Compiles, uploads, launches once, and reads the outputs back.
 * @throws ArgumentError, CompileError, DeviceError
 */
export async function run<P extends Params>(
  backend: Backend,
  kernel: Kernel<P>,
  args: HostArguments<P>,
): Promise<HostResults<P>> {
  // No `using`: not every browser knows it.
  const prepared = await prepare(backend, kernel, args);
  try {
    prepared.launch();
    return await prepared.read();
  } finally {
    prepared.free();
  }
}

type Given = Readonly<Record<string, unknown>>;

/** What the given tensors fix; that they agree is checked by `bind`. */
function sizesOf({ ir }: Kernel, args: Given): ReadonlyMap<string, number> {
  const sizes = new Map<string, number>();
  for (const { name, shape } of ir.tensors) {
    const data = args[name];
    if (!(data instanceof HostTensor)) continue;
    for (const [axis, dim] of shape.entries()) {
      const length = data.shape[axis];
      if (typeof dim !== "number" && length !== undefined) sizes.set(String(dim), length);
    }
  }
  return sizes;
}

/** @throws ArgumentError */
function hostData(kernel: Kernel, tensor: Tensor, value: unknown, sizes: ReadonlyMap<string, number>): HostTensor {
  if (value instanceof HostTensor) return value;
  const { name, role, dtype, shape } = tensor;
  if (value === undefined && role === "output") return blank(kernel, tensor, sizes);
  const problem = value === undefined ? `${name} is missing` : `${name} must be a HostTensor`;
  const lost = isStranger(value, ["bytes", "dtype"]);
  throw new ArgumentError(`${kernel.name}: ${problem}`, {
    hint: lost
      ? `What comes from another thread is no HostTensor any more: new HostTensor(${dtype.name}, shape, bytes)`
      : `HostTensor.from(${dtype.name}, [${shape.join(", ")}], values)`,
  });
}

/** An output that nobody passed. @throws ArgumentError */
function blank(kernel: Kernel, { name, dtype, shape }: Tensor, sizes: ReadonlyMap<string, number>): HostTensor {
  const lengths = shape.map((dim) => (typeof dim === "number" ? dim : sizes.get(String(dim))));
  const known = lengths.filter((length) => length !== undefined);
  if (known.length === shape.length) return HostTensor.filled(dtype, known, 0xff);
  const open = new Set(shape.filter((_, axis) => lengths[axis] === undefined).map(String));
  const text = lengths.map((length, axis) => length ?? String(shape[axis]).toLowerCase()).join(", ");
  throw new ArgumentError(
    `${kernel.name}: ${name} is an output whose shape [${shape.join(", ")}] is known only at launch, ` +
      `and no other argument fixes ${[...open].join(" and ")}`,
    { hint: `Pass ${name}: HostTensor.filled(${dtype.name}, [${text}], 0xff)` },
  );
}
