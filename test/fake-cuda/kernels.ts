/** Kernels that the stand-in for libcuda knows, and launches of them. */
import type { BoundLaunch, BoundScalar } from "../../backends/backend.ts";
import type { CudaModule } from "../../backends/cuda/emit.ts";
import type { CudaBackend } from "../../backends/cuda/runtime.ts";
import { DeviceTensor } from "../../backends/tensor.ts";
import { bf16, f32, u32 } from "../../dsl/dtype.ts";
import type { Role, Tensor } from "../../dsl/ir.ts";
import type { TensorMap } from "../../dsl/ir-tile.ts";
import type { Kernel } from "../../dsl/kernel.ts";

/** Instead of the real emitCuda: what fakeKernel() left in the IR. Use it as `vi.mock("../backends/cuda/emit.ts", ...)`. */
export function fakeEmitter() {
  return { emitCuda: (ir: { readonly module: CudaModule }) => ir.module };
}

export interface FakeKernelOptions {
  readonly tensors?: readonly Role[];
  readonly scalars?: number;
  readonly staticShared?: number;
  readonly dynamicShared?: number;
  readonly maxThreads?: number;
  readonly block?: number;
  readonly cluster?: number;
  /** Boxes of tensor 0, which is bf16; swizzled by 128 bytes. */
  readonly tensorMapBox?: readonly number[];
  readonly more?: string;
}

export function fakeKernel(name: string, options: FakeKernelOptions = {}): Kernel {
  const { tensors = [], scalars = 0, staticShared = 0, maxThreads = 1024, more = "" } = options;
  const source = `//kernel ${name} ${tensors.length} ${scalars} ${staticShared} ${maxThreads} ${options.tensorMapBox ? 1 : 0}\n${more}`;
  const at = { file: `kernels/${name}.ts`, line: 7, column: 3 };
  const objects = tensors.map((role, i) => ({ role, name: `tensor${i}`, dtype: bf16 }) as Tensor);
  const box = options.tensorMapBox;
  const tensorMaps = (box ? objects.slice(0, 1) : []).map((tensor): TensorMap => ({
    kind: "tensorMap",
    name: "map",
    tensor,
    box: box ?? [],
    swizzleBytes: 128,
    at,
  }));
  const module: CudaModule = { source, entry: name, dynamicSharedBytes: options.dynamicShared ?? 0, tensorMaps };
  return {
    name,
    at,
    ir: { module, block: options.block ?? 64, cluster: options.cluster ?? 1, tensors: objects },
  } as unknown as Kernel;
}

export const axpy = fakeKernel("axpy", { tensors: ["input", "inout"], scalars: 2 });
export const trap = fakeKernel("trap");
/** A launch of one block. */
export function one(kernel: Kernel, ...tensors: readonly DeviceTensor[]): BoundLaunch {
  return { kernel, grid: [1, 1, 1], tensors, scalars: [] };
}

export const scalar = (name: string, dtype: BoundScalar["dtype"], value: number): BoundScalar => ({
  name,
  dtype,
  value,
});
export const bytesOf = (values: readonly number[]) => new Uint8Array(new Float32Array(values).buffer);
export const floatsOf = (bytes: Uint8Array<ArrayBuffer>) => [...new Float32Array(bytes.buffer)];

export function vector(cuda: CudaBackend, values: readonly number[]): DeviceTensor {
  const tensor = new DeviceTensor(cuda.allocate(4 * values.length), f32, [values.length]);
  cuda.write(tensor.storage, 0, bytesOf(values));
  return tensor;
}

export function axpyLaunch(x: DeviceTensor, y: DeviceTensor, a: number): BoundLaunch {
  const n = x.shape[0] ?? 0;
  return { kernel: axpy, grid: [2, 1, 1], tensors: [x, y], scalars: [scalar("a", f32, a), scalar("n", u32, n)] };
}
