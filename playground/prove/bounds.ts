/**
 * O2: GEMMs on every class of real numbers must lie within what any order of f32 summation may give, and nothing wider. A
 * kernel whose sizes are known at launch serves a group of cases, each with sizes, a class and data of its own.
 */
import { size } from "../../dsl/index.ts";
import { checkInterval, type DataClass, dataClasses, gemmBf16, llGemmPipelineBf16, llGemmPipelineE4m3 } from "../../kernels/index.ts"; // prettier-ignore
import { type Family, kernelOf, type KernelOptions } from "../../kernels/linear-space.ts";
import type { InName } from "../../kernels/ll-gemm.ts";
import type { Campaign } from "./campaign.ts";
import { type DeviceName, openDevice } from "./devices.ts";
import { classesOf, drawSizes, pick, randomOf, sizeClasses } from "./draw.ts";
import {
  describeDifference,
  dtypes,
  type Maker,
  operandsOf,
  outputOf,
  type Problem,
  referenceOf,
  runGuarded,
} from "./gemm.ts";

/** Cases that share a kernel: software devices compile slowly. */
const groupOf: Readonly<Record<DeviceName, number>> = { wgsl: 128, simulator: 32, cuda: 32 };

const classes: readonly DataClass[] = dataClasses.filter((kind) => kind !== "integers");
/** M * N * K at most. */
const products: Readonly<Record<DeviceName, number>> = { wgsl: 1e6, simulator: 0.5e6, cuda: 20e6 };

interface Entry {
  readonly family: Family | "pipeline" | "gemm";
  readonly dtype: InName;
  readonly make: Maker;
}

const ofSpace = (family: Family, dtype: InName): Entry => ({
  family,
  dtype,
  make: (sizes) => kernelOf({ family, options: {} }, { ...sizes, dtype } as KernelOptions),
});
const families: readonly Entry[] = [
  ...(["bf16", "e4m3", "f32"] as const).flatMap((dtype) => [ofSpace("dot", dtype), ofSpace("mma", dtype)]),
  ...(["bf16", "e4m3"] as const).map((dtype) => ofSpace("stream", dtype)),
  { family: "pipeline", dtype: "bf16", make: llGemmPipelineBf16 as unknown as Maker },
  { family: "pipeline", dtype: "e4m3", make: llGemmPipelineE4m3 as unknown as Maker },
  { family: "gemm", dtype: "bf16", make: gemmBf16 as unknown as Maker },
];

export const boundsClasses: readonly string[] = [
  ...classes,
  ...families.map(({ family, dtype }) => `${family} ${dtype}`),
  ...["to f32", "to bf16", "to e4m3", ...sizeClasses, "M > 16"],
];

export async function openBounds(device: DeviceName, seed: number): Promise<Campaign> {
  const backend = await openDevice(device);
  let last: { readonly group: number; readonly of: ReturnType<typeof kernelFor> } | undefined;
  return {
    device: backend.device,
    judge: async (index) => {
      const group = Math.floor(index / groupOf[device]);
      if (last?.group !== group) last = { group, of: kernelFor(device, seed, group) };
      const { kernel, family, dtype, out, multipleOf, tokens } = last.of;
      const random = randomOf(seed, index, 2);
      const sizes = drawSizes({ tokens, multipleOf, tile: [1, 1], products: products[device] }, random);
      const problem: Problem = { ...sizes, dtype, out };
      const kind = pick(classes, random);
      const operands = operandsOf(problem, kind, index);
      const { y: exact, magnitudes } = referenceOf(operands);
      const output = outputOf(problem);
      const { y = output } = await runGuarded(backend, kernel, { ...operands, y: output });
      const { block, cluster } = kernel.ir;
      const model = { terms: sizes.K, partials: (block / 32) * cluster, device };
      const { first, wrong } = checkInterval(y, exact, magnitudes, model);
      const { M, N, K } = sizes;
      return {
        classes: [kind, `${family} ${dtype}`, `to ${out}`, ...classesOf(sizes)],
        what: `${M} x ${N} x ${K}, ${dtype} to ${out}, ${family}, K a multiple of ${multipleOf}, ${kind}`,
        problem: first && describeDifference(wrong, first),
      };
    },
    close: () => backend.dispose(),
  };
}

/** Of each family in turn, to some type. */
function kernelFor(device: DeviceName, seed: number, group: number) {
  const random = randomOf(seed, group, 1);
  const entry = families[group % families.length];
  if (!entry) throw new RangeError("there are no families");
  const { family, dtype, make } = entry;
  const out = pick(["f32", "bf16", "e4m3"] as const, random);
  // TMA takes rows of whole 16 bytes.
  const multipleOf = family === "stream" ? 16 : pick([1, 2, 8, 16], random);
  // SwiftShader crashes while it compiles f32 weights on tensor cores for more tokens.
  const few = device === "wgsl" && family === "mma" && dtype === "f32" ? 8 : 16;
  const tokens = family === "gemm" ? ("many" as const) : few;
  const M = size("M", { max: tokens === "many" ? 256 : tokens });
  const sizes = { M, N: size("N"), K: size("K", { max: 16384, multipleOf }), out: dtypes[out] };
  return { kernel: make(sizes), family, dtype, out, multipleOf, tokens };
}
