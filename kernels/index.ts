/** `tegula/kernels`: the shipped kernels, their references, and the oracles that judge them. */
export {
  gemmReference,
  llGemmDotBf16,
  type LlGemmDotConfig,
  llGemmDotConfigurations,
  llGemmDotE4m3,
} from "./ll-gemm-dot.ts";
export * from "./oracle.ts";
export { rmsNorm, type RmsNormConfig, rmsNormConfigurations, rmsNormReference } from "./rms-norm.ts";
