/** `tegula/cuda`: runs kernels on an NVIDIA GPU, and shows the CUDA C that it runs. */
export { deviceTensor, DeviceTensor } from "../tensor.ts";
export { type HostArguments, type HostResults, prepare, PreparedRun, run } from "../run.ts";
export { type Arguments, bind } from "../bind.ts";
export type { Backend, Executable } from "../backend.ts";
export { compileCuda, compileReport } from "./compile.ts";
export type { CompiledCuda, CompileOptions, CompilerKind, CudaArch } from "./compile.ts";
export type { KernelResources } from "./diagnostics.ts";
export { emitCuda } from "./emit.ts";
export type { CudaModule } from "./emit.ts";
export { cudaAvailable, CudaBackend, openCuda, whyNoCuda } from "./runtime.ts";
export type { CudaOptions } from "./runtime.ts";
