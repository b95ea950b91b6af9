/** `tegula`: everything that a kernel author needs. */
export { bf16, bool, type DType, type DTypeName, dtypes, e4m3, e5m2, f16, f32, i32, i8, u32, u8 } from "./dtype.ts";
export * from "./errors.ts";
export { Expr, type Index, type Operand } from "./expr.ts";
export { HostTensor } from "./host.ts";
export type { CacheHint, KernelIR, LaneCount, Role } from "./ir.ts";
export { type Kernel, kernel, type KernelConfig } from "./kernel.ts";
export { decode, encode, type Saturation } from "./numerics.ts";
export {
  type Dependent,
  type Early,
  frozen,
  inout,
  input,
  output,
  type Params,
  scalar,
  type ScalarSpec,
  type TensorSpec,
} from "./params.ts";
export { printKernel, type PrintOptions } from "./print.ts";
export { Reg, RegArray } from "./register.ts";
export { ceilDiv, type Dim, dims, floorDiv, powerOfTwoDivisor, Size, size } from "./size.ts";
export type { Location } from "./source.ts";
export { type Indices, Tensor } from "./tensor.ts";
export { mmaAtoms, type MmaAtom, wgmmaAtom } from "./atoms/mma.ts";
export type { Axes, RangeOptions } from "./thread.ts";
export * from "./tile/index.ts";
