/** Kernels that the stand-in for libcuda knows, and launches of them. */
import type { CudaModule } from "../../backends/cuda/emit.ts";
import type { CudaLaunch } from "../../backends/cuda/launch.ts";
import type { CudaBackend } from "../../backends/cuda/runtime.ts";
import { DeviceTensor, deviceTensor } from "../../backends/tensor.ts";
import { type DType, f32 } from "../../dsl/dtype.ts";
import { HostTensor } from "../../dsl/host.ts";
import type { KernelIR, Role, Scalar, Tensor } from "../../dsl/ir.ts";
import type { TensorMap } from "../../dsl/ir-tile.ts";
import type { Kernel } from "../../dsl/kernel.ts";
import { type Dim, Size, size } from "../../dsl/size.ts";

/** Instead of the real emitCuda: what fakeKernel() left in the IR. Use it as `vi.mock("../backends/cuda/emit.ts", ...)`. */
export function fakeEmitter() {
  return { emitCuda: (ir: { readonly module: CudaModule }) => ir.module };
}

const N = size("N");

export interface FakeKernelOptions {
  readonly tensors?: Readonly<Record<string, Role>>;
  /** Of every tensor: f32[N], unless something else is said. */
  readonly dtype?: DType;
  readonly shape?: readonly Dim[];
  readonly alignBytes?: number;
  readonly scalars?: Readonly<Record<string, Scalar["dtype"]>>;
  readonly grid?: readonly [Dim, Dim, Dim];
  readonly staticShared?: number;
  readonly dynamicShared?: number;
  readonly maxThreads?: number;
  readonly block?: number;
  readonly cluster?: number;
  /** Boxes of the first tensor; swizzled by 128 bytes. */
  readonly tensorMapBox?: readonly number[];
  readonly more?: string;
}

/** A kernel with all that binding and launching look at; its source only declares it to the stand-in. */
export function fakeKernel(name: string, options: FakeKernelOptions = {}): Kernel {
  const { dtype = f32, shape = [N], staticShared = 0, maxThreads = 1024, more = "" } = options;
  const { grid = [1, 1, 1], block = 64, cluster = 1, alignBytes = dtype.bytes } = options;
  const at = { file: `kernels/${name}.ts`, line: 7, column: 3 };
  const tensors = Object.entries(options.tensors ?? {}).map(([tensor, role]): Tensor => ({
    kind: "tensor",
    name: tensor,
    role,
    dtype,
    shape,
    alignBytes,
    at,
  }));
  const scalars = Object.entries(options.scalars ?? {}).map(([scalar, dtype]): Scalar => ({ name: scalar, dtype, at }));
  const sizes = tensors.length > 0 ? shape.filter((dim) => dim instanceof Size) : [];
  const box = options.tensorMapBox;
  const tensorMaps = (box ? tensors.slice(0, 1) : []).map((tensor): TensorMap => ({
    kind: "tensorMap",
    name: "map",
    tensor,
    box: box ?? [],
    swizzleBytes: 128,
    at,
  }));
  const counts = [tensors.length, scalars.length + sizes.length, staticShared, maxThreads, tensorMaps.length];
  const source = `//kernel ${name} ${counts.join(" ")}\n${more}`;
  const module: CudaModule = { source, entry: name, dynamicSharedBytes: options.dynamicShared ?? 0, tensorMaps };
  const ir = { module, name, grid, block, cluster, tensors, scalars, sizes, at };
  const params = Object.fromEntries([...tensors, ...scalars].map((param) => [param.name, param]));
  return { name, at, params, ir: ir as unknown as KernelIR } as unknown as Kernel;
}

/** y += a * x: what the stand-in computes. */
export const axpy = fakeKernel("axpy", {
  tensors: { x: "input", y: "inout" },
  scalars: { a: f32 },
  grid: [2, 1, 1],
});
export const trap = fakeKernel("trap");
export const idle = fakeKernel("idle");

/** Compiles and binds; of these kernels the types know no parameters. */
export async function bound(
  cuda: CudaBackend,
  kernel: Kernel,
  args: Readonly<Record<string, unknown>> = {},
): Promise<CudaLaunch> {
  return (await cuda.compile(kernel)).bind(args as never);
}

export function boundAxpy(cuda: CudaBackend, x: DeviceTensor, y: DeviceTensor, a: number): Promise<CudaLaunch> {
  return bound(cuda, axpy, { x, y, a });
}

export const bytesOf = (values: readonly number[]) => new Uint8Array(new Float32Array(values).buffer);
export const floatsOf = (bytes: Uint8Array<ArrayBuffer>) => [...new Float32Array(bytes.buffer)];
export const vector = (cuda: CudaBackend, values: readonly number[]): DeviceTensor<"f32"> =>
  deviceTensor(cuda, HostTensor.from(f32, [values.length], values));
export const valuesOf = async (tensor: DeviceTensor) => [...(await tensor.read()).values()];
