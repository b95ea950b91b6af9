/** All mutants. */
import { cudaMutants } from "./cuda.ts";
import { kernelsMutants } from "./kernels.ts";
import { languageMutants } from "./language.ts";
import { loweringMutants } from "./lowering.ts";
import { simulatorMutants } from "./simulator.ts";
import { wgslMutants } from "./wgsl.ts";
import type { Mutant } from "./mutant.ts";

export const mutants: readonly Mutant[] = [
  ...cudaMutants,
  ...loweringMutants,
  ...wgslMutants,
  ...languageMutants,
  ...simulatorMutants,
  ...kernelsMutants,
];
