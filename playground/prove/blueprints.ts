/**
 * What kernels `exact` draws: all that `linear` may pick, and beside that each family with other options. A blueprint is a
 * family with options, and makes kernels for sizes. Software devices compile for seconds: so most kernels there serve a whole
 * group of cases, with all sizes known at launch, or the tokens alone. Others have numbers as sizes, and serve one case.
 */
import {
  AlignmentError,
  bf16,
  type Dim,
  type DType,
  f32,
  frozen,
  input,
  type Kernel,
  ShapeError,
  size,
} from "../../dsl/index.ts";
import {
  chooseLinear,
  epilogue,
  gemmBf16,
  linear,
  llGemmPipelineBf16,
  llGemmPipelineE4m3,
  relu,
} from "../../kernels/index.ts";
import { type Choice, choicesFor, formatChoice, kernelOf } from "../../kernels/linear-space.ts";
import type { InName, OutName } from "../../kernels/ll-gemm.ts";
import { tableFor } from "../../kernels/tuned.ts";
import { chance, pick, type Random } from "./draw.ts";
import { dtypes, type Maker } from "./gemm.ts";

export interface Sizes {
  readonly M: Dim;
  readonly N: Dim;
  readonly K: Dim;
}

/** Which sizes are numbers while tracing. */
type Known = "all" | "N and K" | "none";

export interface Blueprint {
  readonly family: "dot" | "mma" | "stream" | "pipeline" | "gemm" | "linear";
  /** As text that begins with the family. */
  readonly options: string;
  readonly dtype: InName;
  readonly out: OutName;
  readonly hasEpilogue: boolean;
  readonly known: Known;
  /** Tokens that its kernels take: "many" is up to 256. */
  readonly tokens: "many" | number;
  /** Of K. */
  readonly multipleOf: number;
  /** Rows and columns of y that are computed together, about. */
  readonly tile: readonly [M: number, N: number];
  readonly make: (sizes: Sizes) => Kernel;
}

/** Shares of blueprints by which sizes they know; the rest knows none. */
export type Shares = Readonly<Record<"all" | "N and K", number>>;

/** max(sum + bias[n], 0) + residual[m,n], exact on small whole numbers. */
const biasReluResidual = ({ M, N }: Sizes) =>
  epilogue({ bias: frozen(bf16, [N]), residual: input(bf16, [M, N]) }, (sum, { m, n, bias, residual }) =>
    relu(sum.add(bias.load([n]).to(f32))).add(residual.load([m, n]).to(f32)),
  );

type Common = Pick<Blueprint, "out" | "known" | "multipleOf" | "hasEpilogue">;

export function drawBlueprint(shares: Shares, random: Random): Blueprint {
  const draw = random();
  const common: Common = {
    out: pick(["f32", "bf16", "e4m3"] as const, random),
    known: draw < shares.all ? "all" : draw < shares.all + shares["N and K"] ? "N and K" : "none",
    multipleOf: pick([1, 1, 1, 2, 8, 16], random),
    hasEpilogue: chance(0.25, random),
  };
  const kind = random();
  if (kind < 0.5) return ofTable(common, random);
  if (kind < 0.68) return byLinear(common, random);
  if (kind < 0.77) return byDefault(common, random);
  if (kind < 0.88) return ofPipeline(common, random);
  return ofGemm(common, random);
}

/** One of the choices for a product that was tuned; it must serve any other sizes too, ragged and small. */
function ofTable(common: Common, random: Random): Blueprint {
  const { N, K, dtype } = pick(tableFor(), random);
  const tokens = pick([1, 2, 3, 4, 8, 16], random);
  const choices = choicesFor({ M: tokens, N, K, dtype: dtype as InName });
  const family = pick([...new Set(choices.map((choice) => choice.family))], random);
  const those = choices.filter((choice) => choice.family === family);
  return ofChoice(pick(those, random), { ...common, dtype: dtype as InName, tokens });
}

/** A family with the options that it derives from the sizes. */
function byDefault(common: Common, random: Random): Blueprint {
  const family = pick(["dot", "mma", "stream"] as const, random);
  const all = ["bf16", "e4m3", "f32"] as const;
  const dtype = pick(family === "stream" ? all.slice(0, 2) : all, random);
  return ofChoice({ family, options: {} }, { ...common, dtype, tokens: 16 });
}

function ofChoice(choice: Choice, common: Common & Pick<Blueprint, "dtype" | "tokens">): Blueprint {
  const { dtype, out, multipleOf } = common;
  return {
    ...common,
    family: choice.family,
    options: formatChoice(choice),
    // TMA takes rows of whole 16 bytes.
    multipleOf: choice.family === "stream" ? 16 : multipleOf,
    tile: choice.family === "dot" ? [1, 1] : [8, choice.family === "stream" ? 64 : (choice.options["rows"] ?? 16)],
    make: (sizes) => kernelOf(choice, { ...sizes, dtype, out: dtypes[out], ...endOf(common, sizes) }),
  };
}

/** What `linear` picks for the sizes. */
function byLinear(common: Common, random: Random): Blueprint {
  const dtype = pick(["bf16", "e4m3", "f32"] as const, random);
  const make = (sizes: Sizes): Kernel =>
    (linear as unknown as Maker)({
      ...sizes,
      weights: dtypes[dtype],
      out: dtypes[common.out],
      ...endOf(common, sizes),
    });
  return { ...common, family: "linear", options: "linear", dtype, tokens: 16, tile: [8, 16], make };
}

function ofPipeline(common: Common, random: Random): Blueprint {
  const dtype = pick(["bf16", "e4m3"] as const, random);
  const options = { cluster: pick([1, 2, 4, 8], random), stages: pick([2, 3, 4], random) };
  const maker = (dtype === "bf16" ? llGemmPipelineBf16 : llGemmPipelineE4m3) as unknown as Maker;
  const make = (sizes: Sizes) => maker({ ...sizes, out: dtypes[common.out], ...options, ...endOf(common, sizes) });
  return {
    ...common,
    family: "pipeline",
    options: written("pipeline", options),
    dtype,
    tokens: 16,
    tile: [16, 16],
    make,
  };
}

/** More than 16 tokens: as linear cuts them, or otherwise. */
function ofGemm(common: Common, random: Random): Blueprint {
  const tiles = { tileM: pick([64, 128], random), tileN: pick([32, 64, 128, 256], random) };
  const options = chance(0.5, random) ? {} : tiles;
  const make = (sizes: Sizes) => (gemmBf16 as unknown as Maker)({ ...sizes, out: dtypes[common.out], ...options });
  const text = written("gemm", options);
  const tile = options === tiles ? ([tiles.tileM, tiles.tileN] as const) : ([64, 64] as const);
  return { ...common, hasEpilogue: false, family: "gemm", options: text, dtype: "bf16", tokens: "many", tile, make };
}

const endOf = ({ hasEpilogue }: Common, sizes: Sizes): object =>
  hasEpilogue ? { epilogue: biasReluResidual(sizes) } : {};

const written = (family: string, options: Readonly<Record<string, number>>): string =>
  [family, ...Object.entries(options).map(([name, value]) => `${name}=${value}`)].join(" ");

/** The dims of a kernel that serves a group, of which this is one case. */
export function dimsOf(
  { known, tokens, multipleOf }: Blueprint,
  { N, K }: { readonly N: number; readonly K: number },
): Sizes {
  const M = size("M", { max: tokens === "many" ? 256 : tokens });
  return known === "N and K" ? { M, N, K } : { M, N: size("N"), K: size("K", { max: 16384, multipleOf }) };
}

/**
 * The kernel of numbers, or undefined where its family refuses them by a rule, as rows that TMA can't take.
 * @throws what `linear` throws, which serves them all
 */
export function kernelFor(blueprint: Blueprint, sizes: Sizes): Kernel | undefined {
  try {
    return blueprint.make(sizes);
  } catch (error) {
    const byRule = error instanceof ShapeError || error instanceof AlignmentError;
    if (byRule && blueprint.family !== "linear") return undefined;
    throw error;
  }
}

/** The family that `linear` takes for sizes. */
export function takenByLinear({ dtype, out }: Blueprint, sizes: Sizes): string {
  const weights = dtypes[dtype] as DType<InName>;
  return chooseLinear({ ...sizes, weights, out: dtypes[out] as DType<OutName> }).choice.split(" ")[0] ?? "";
}
