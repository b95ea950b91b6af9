/** O1: GEMMs on small whole numbers, whose sums are exact in every order, must be right to the last bit. */
import type { Backend } from "../../backends/backend.ts";
import { emitWgsl } from "../../backends/wgsl/emit.ts";
import { bf16, type Kernel } from "../../dsl/index.ts";
import { checkBits, randomTensor, seededRandom } from "../../kernels/index.ts";
import { type Blueprint, dimsOf, drawBlueprint, kernelFor, type Shares, takenByLinear } from "./blueprints.ts";
import type { Campaign, Outcome } from "./campaign.ts";
import { type DeviceName, openDevice } from "./devices.ts";
import { classesOf, drawSizes, type Random, randomOf, sizeClasses, type SizeRules } from "./draw.ts";
import { describeDifference, operandsOf, outputOf, type Problem, referenceOf, runGuarded } from "./gemm.ts";

/** Cases that may share a kernel. */
export const exactGroup = 8;

/** What devices can bear: products of a case, and kernels. */
const limits: Readonly<Record<DeviceName, { readonly products: number; readonly shares: Shares }>> = {
  wgsl: { products: 20e6, shares: { all: 0.08, "N and K": 0.46 } },
  simulator: { products: 4e6, shares: { all: 0.5, "N and K": 0.25 } },
  cuda: { products: 300e6, shares: { all: 0.7, "N and K": 0.15 } },
};

export const exactClasses: readonly string[] = [
  ...["dot", "mma", "stream", "pipeline", "gemm", "linear", "epilogue", "no epilogue"],
  ...["bf16 weights", "e4m3 weights", "f32 weights", "to f32", "to bf16", "to e4m3"],
  ...["sizes as numbers", "M at launch", "M, N and K at launch", ...sizeClasses, "M > 16"],
];

interface ExactCase extends Problem {
  readonly blueprint: Blueprint;
  readonly kernel: Kernel;
}

/** What the cases of a group have in common: a kernel and those sizes that it knows, or a blueprint alone. */
interface Shared {
  readonly blueprint: Blueprint;
  readonly kernel?: Kernel;
  readonly sizes?: { readonly N?: number; readonly K?: number };
}

export async function openExact(device: DeviceName, seed: number): Promise<Campaign> {
  const backend = await openDevice(device);
  const caseOf = exactCases(device, seed);
  return {
    device: backend.device,
    judge: (index) => judgeExact(backend, caseOf(index), index),
    close: () => backend.dispose(),
  };
}

/** Cases by index, whatever was asked for before. What the last group shares is kept. */
export function exactCases(
  device: DeviceName,
  seed: number,
  { products, shares } = limits[device],
): (index: number) => ExactCase {
  const rulesOf = ({ tokens, multipleOf, family, tile }: Blueprint): SizeRules => {
    // General GEMMs have few but large tiles, which cost less by the product.
    return { tokens, multipleOf, tile, products: family === "gemm" ? 4 * products : products };
  };

  /** A case with a kernel of its own. A rule may refuse sizes: then the next are drawn. */
  const alone = (blueprint: Blueprint, random: Random): ExactCase | undefined => {
    for (let tries = 0; tries < 50; tries++) {
      const sizes = drawSizes(rulesOf(blueprint), random);
      const kernel = kernelFor(blueprint, sizes);
      if (!kernel || isTooMuch(device, blueprint, sizes.M, kernel)) continue;
      return { ...sizes, dtype: blueprint.dtype, out: blueprint.out, blueprint, kernel };
    }
    return undefined;
  };
  const shared = (random: Random): Shared | undefined => {
    const blueprint = drawBlueprint(shares, random);
    if (blueprint.known === "all") return { blueprint };
    const { N, K } = drawSizes(rulesOf(blueprint), random);
    const M = blueprint.tokens === "many" ? 256 : blueprint.tokens;
    const kernel = kernelFor(blueprint, dimsOf(blueprint, { N, K }));
    if (!kernel || isTooMuch(device, blueprint, M, kernel)) return undefined;
    return { blueprint, kernel, sizes: blueprint.known === "N and K" ? { N, K } : {} };
  };
  /** What a group shares, and in its place, for a case that finds no sizes for that, what is drawn next. */
  const sharedBy = (group: number): ((turn: number) => Shared) => {
    const random = randomOf(seed, group, 1);
    const drawn: Shared[] = [];
    return (turn) => {
      for (;;) {
        const one = drawn[turn];
        if (one) return one;
        const next = shared(random);
        if (next) drawn.push(next);
      }
    };
  };

  let last: { readonly group: number; readonly of: (turn: number) => Shared } | undefined;
  return (index) => {
    const group = Math.floor(index / exactGroup);
    if (last?.group !== group) last = { group, of: sharedBy(group) };
    const random = randomOf(seed, index, 2);
    for (let turn = 0; ; turn++) {
      const { blueprint, kernel, sizes } = last.of(turn);
      const { dtype, out } = blueprint;
      if (kernel) return { ...drawSizes(rulesOf(blueprint), random), ...sizes, dtype, out, blueprint, kernel };
      const found = alone(blueprint, random);
      if (found) return found;
    }
  };
}

/** Characters of WGSL that SwiftShader compiles in seconds. */
const mostCharacters = 60_000;

/**
 * SwiftShader takes minutes to compile what is longer, and crashes while it compiles f32 weights on tensor cores for more
 * than 8 tokens: limits of that device, not of kernels.
 */
function isTooMuch(device: DeviceName, { family, dtype }: Blueprint, tokens: number, { ir }: Kernel): boolean {
  if (device !== "wgsl") return false;
  return (dtype === "f32" && family !== "dot" && tokens > 8) || emitWgsl(ir).source.length > mostCharacters;
}

/** Runs a case. @throws as runGuarded() */
export async function judgeExact(
  backend: Backend,
  { blueprint, kernel, ...problem }: ExactCase,
  index: number,
): Promise<Outcome> {
  const { M, N, K, dtype, out } = problem;
  const { family, options, hasEpilogue, known } = blueprint;
  const operands = operandsOf(problem, "integers", index);
  const { y: sums } = referenceOf(operands);
  const random = seededRandom(index);
  const bias = randomTensor(bf16, [N], "integers", random);
  const residual = randomTensor(bf16, [M, N], "integers", random);
  const [b, r] = [bias.values(), residual.values()];
  const expected = hasEpilogue ? sums.map((sum, i) => Math.max(sum + (b[i % N] ?? 0), 0) + (r[i] ?? 0)) : sums;
  const output = outputOf(problem);
  const { y = output } = await runGuarded(backend, kernel, {
    ...operands,
    ...(hasEpilogue && { bias, residual }),
    y: output,
  });
  const { first, wrong } = checkBits(y, expected);
  const sizesKnown = { all: "sizes as numbers", "N and K": "M at launch", none: "M, N and K at launch" }[known];
  const end = hasEpilogue ? "epilogue" : "no epilogue";
  const taken = family === "linear" && known === "all" ? [`linear takes ${takenByLinear(blueprint, { M, N, K })}`] : [];
  return {
    classes: [family, ...taken, end, `${dtype} weights`, `to ${out}`, sizesKnown, ...classesOf(problem)],
    what: `${M} x ${N} x ${K}, ${dtype} to ${out}, ${options}, ${end}, ${sizesKnown}`,
    problem: first && describeDifference(wrong, first),
  };
}
