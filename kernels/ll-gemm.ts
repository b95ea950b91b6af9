/**
 * What the low-latency GEMMs have in common: y[m,n] = sum over k of x[m,k] * w[n,k], for 1 to 16 tokens m. The kernels of a
 * family have one body, whatever the types of weights and tokens; `inBf16`, `inE4m3` and `inF32` declare its parameters and
 * those of an epilogue.
 */
import {
  ArgumentError,
  bf16,
  type Dependent,
  type Dim,
  type DType,
  DTypeError,
  e4m3,
  type Early,
  type Expr,
  f32,
  frozen,
  input,
  type Kernel,
  kernel,
  output,
  type Params,
  ShapeError,
  Size,
  type Tensor,
  type Thread,
} from "../dsl/index.ts";
import { describe, describeDType, requireOptions } from "../dsl/check.ts";
import { isDim, maxOf, minOf, powerOfTwoDivisor } from "../dsl/size.ts";
import { callerOfKernels } from "./caller.ts";
import { applyEpilogue, type NoParams, type Place, type WithEpilogue } from "./epilogue.ts";

/** Types of weights and tokens. */
export type InName = "f32" | "bf16" | "e4m3";
export type OutName = "f32" | "bf16" | "e4m3";

export interface GemmSizes<Out extends OutName = OutName> {
  /** Tokens; like N and K a number, or a Size known at launch. */
  readonly M: Dim;
  /** Outputs per token: rows of the weights. */
  readonly N: Dim;
  /** Inputs per token: what each sum goes over. */
  readonly K: Dim;
  /** Results are rounded to it once, to nearest even; e4m3 saturates. */
  readonly out: DType<Out>;
}

export interface Launch {
  readonly grid: Dim;
  readonly block: number;
  readonly cluster: number;
}

/** What a family's body is made from. */
export interface Gemm<W extends InName, X extends InName = W> extends Pick<GemmSizes, "M" | "N" | "K"> {
  readonly t: Thread<Late<X>>;
  readonly w: Tensor<W, 2, "frozen">; // (N, K)
  /** Loads the scales, where there are any. */
  readonly storeOf: (late: Late<X>) => StoreSum;
}

/** Scales a sum, applies the epilogue, rounds, and stores the result to y[m,n]. By one thread, where m < M and n < N. */
export type StoreSum = (m: Expr<"i32">, n: Expr<"i32">, sum: Expr<"f32">) => void;

/** What exists after the wait. */
interface Late<X extends InName> {
  readonly x: Tensor<X, 2, "input">; // (M, K)
  readonly y: Tensor<OutName, 2, "output">; // (M, N)
  readonly xScale?: Tensor<"f32", 1, "input">;
}

type Config<Out extends OutName, P extends Params> = GemmSizes<Out> & WithEpilogue<P>;

/** bf16 weights and tokens. @throws ShapeError for more than 16 tokens */
export function inBf16<Out extends OutName, P extends Params = NoParams>(
  family: string,
  config: Config<Out, P>,
  launch: Launch,
  body: (gemm: Gemm<"bf16">) => void,
) {
  const { M, N, K, out } = config;
  const alignBytes = rowAlignBytes(K, bf16);
  const params = {
    w: frozen(bf16, [N, K], { alignBytes }),
    x: input(bf16, [M, K], { alignBytes }),
    y: output(out, [M, N]),
  };
  return traced(`${family}_bf16`, config, launch, params, (t, early) => {
    const storeOf = (late: Late<"bf16">) => storing(t, config, { ...early, ...late });
    body({ M, N, K, t, w: early.w, storeOf });
  });
}

/** f32 weights, as of routers that are kept in full precision, and bf16 tokens. @throws ShapeError for more than 16 tokens */
export function inF32<Out extends OutName, P extends Params = NoParams>(
  family: string,
  config: Config<Out, P>,
  launch: Launch,
  body: (gemm: Gemm<"f32", "bf16">) => void,
) {
  const { M, N, K, out } = config;
  const params = {
    w: frozen(f32, [N, K], { alignBytes: rowAlignBytes(K, f32) }),
    x: input(bf16, [M, K], { alignBytes: rowAlignBytes(K, bf16) }),
    y: output(out, [M, N]),
  };
  return traced(`${family}_f32`, config, launch, params, (t, early) => {
    const storeOf = (late: Late<"bf16">) => storing(t, config, { ...early, ...late });
    body({ M, N, K, t, w: early.w, storeOf });
  });
}

/** e4m3 weights and tokens, with one scale each that is read from device memory. @throws ShapeError for more than 16 tokens */
export function inE4m3<Out extends OutName, P extends Params = NoParams>(
  family: string,
  config: Config<Out, P>,
  launch: Launch,
  body: (gemm: Gemm<"e4m3">) => void,
) {
  const { M, N, K, out } = config;
  const alignBytes = rowAlignBytes(K, e4m3);
  const params = {
    w: frozen(e4m3, [N, K], { alignBytes }),
    wScale: frozen(f32, [1]),
    x: input(e4m3, [M, K], { alignBytes }),
    xScale: input(f32, [1]),
    y: output(out, [M, N]),
  };
  return traced(`${family}_e4m3`, config, launch, params, (t, early) => {
    const rScaleW = early.wScale.load([0]);
    const storeOf = (late: Late<"e4m3">) =>
      storing(t, config, { ...early, ...late }, late.xScale && rScaleW.mul(late.xScale.load([0])));
    body({ M, N, K, t, w: early.w, storeOf });
  });
}

/** The kernel that has the epilogue's parameters beside `own`. */
function traced<Own extends Params, P extends Params>(
  name: string,
  { M, N, K, epilogue }: Config<OutName, P>,
  { grid, block, cluster }: Launch,
  own: Own,
  body: (t: Thread<Dependent<Own>>, early: Early<Own>) => void,
): Kernel<Own & P> {
  if (maxOf(M) > 16) {
    throw new ShapeError(`${name} serves 1 to 16 tokens, not ${typeof M === "number" ? M : `${M} up to ${M.max}`}`, {
      at: callerOfKernels(),
      hint: 'For a Size say so: size("M", { max: 16 })',
    });
  }
  const params: Own = { ...own, ...epilogue?.params };
  const at = callerOfKernels();
  return kernel({ name: `${name}_m${M}_n${N}_k${K}`, grid, block, cluster, params, at }, body) as Kernel<Own & P>;
}

/** `handles` are of all parameters, those of the epilogue too. */
function storing<P extends Params>(
  t: Thread,
  { out, epilogue }: Config<OutName, P>,
  handles: Pick<Late<InName>, "y">,
  scale?: Expr<"f32">,
): StoreSum {
  return (m, n, sum) => {
    const total = scale ? sum.mul(scale) : sum;
    const result = epilogue ? applyEpilogue(epilogue, total, { ...handles, t, m, n } as Place<P>) : total;
    handles.y.store([m, n], result.to(out));
  };
}

/** What rows of K elements are aligned to, up to the 16 bytes of one load. */
export function rowAlignBytes(K: Dim, dtype: DType): number {
  return powerOfTwoDivisor(K, 16 / dtype.bytes) * dtype.bytes;
}

/** @throws ShapeError unless these options of a configuration are whole numbers from 1 to `most` */
export function requireCounts(kernel: string, counts: Readonly<Record<string, number>>, most: number): void {
  for (const [what, count] of Object.entries(counts)) {
    if (Number.isInteger(count) && count >= 1 && count <= most) continue;
    throw new ShapeError(`${what} of ${kernel}: a whole number from 1 to ${most}, not ${describe(count)}`, {
      at: callerOfKernels(),
    });
  }
}

/**
 * What every configuration has, and no options but `own`.
 * @throws ArgumentError, ShapeError, DTypeError
 */
export function requireConfig(kernel: string, config: GemmSizes, own: readonly string[]): void {
  const at = callerOfKernels();
  if (typeof config !== "object" || config === null) {
    throw new ArgumentError(`${kernel} takes one object, not ${describe(config)}`, {
      at,
      hint: `${kernel}({ M: 8, N: 256, K: 7168, ${kernel === "linear" ? "weights: bf16, " : ""}out: f32 })`,
    });
  }
  requireOptions(config, ["M", "N", "K", "out", "epilogue", ...own], at);
  const { M, N, K, out } = config;
  for (const [name, dim] of Object.entries({ M, N, K })) {
    const isSize = dim instanceof Size;
    const declared = !isSize || dim.term.kind === "named";
    if (isDim(dim) && minOf(dim) >= 1 && maxOf(dim) <= 2 ** 31 - 1 && declared) continue;
    const given = isSize ? String(dim) : describe(dim);
    throw new ShapeError(`${kernel} takes whole numbers from 1 on, or sizes; ${name} is ${given}`, {
      at,
      hint: isSize ? `Declare it with at least 1: size("${name}", { max: 16 })` : undefined,
    });
  }
  if (out === undefined) {
    throw new DTypeError("out is missing: it says in what dtype results are stored", { at, hint: "Write out: bf16" });
  }
  if (out !== (bf16 as DType) && out !== (f32 as DType) && out !== (e4m3 as DType)) {
    throw new DTypeError(`out is bf16, f32 or e4m3, not ${describeDType(out)}`, {
      at,
      hint: "Pass the dtype itself, as imported from tegula: out: bf16",
    });
  }
}
