/** `tegula/kernels`: the shipped kernels, their references, and the oracles that judge them. */
export {
  gemmReference,
  llGemmDotBf16,
  type LlGemmDotConfig,
  llGemmDotConfigurations,
  llGemmDotE4m3,
  llGemmDotF32,
} from "./ll-gemm-dot.ts";
export { type Epilogue, epilogue, geluTanh, type Place, relu, silu, type WithEpilogue } from "./epilogue.ts";
export { chooseLinear, linear, type LinearChoice, type LinearConfig, type LinearKernel } from "./linear.ts";
export * from "./oracle.ts";
export { gemmBf16, gemmConfigurations } from "./gemm.ts";
export type { GemmConfig } from "./gemm-plan.ts";
export { rmsNorm, type RmsNormConfig, rmsNormConfigurations, rmsNormReference } from "./rms-norm.ts";
export { llGemmMmaBf16, type LlGemmMmaConfig, llGemmMmaE4m3, llGemmMmaF32 } from "./ll-gemm-mma.ts";
export { llGemmPipelineBf16, type LlGemmPipelineConfig, llGemmPipelineE4m3 } from "./ll-gemm-pipeline.ts";
export { llGemmStreamBf16, type LlGemmStreamConfig, llGemmStreamE4m3 } from "./ll-gemm-stream.ts";
