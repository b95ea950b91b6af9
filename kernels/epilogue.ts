/**
 * Epilogues: what a low-latency GEMM does with each sum before it stores it. An author's function takes the sum in f32,
 * after the scales of e4m3, and returns what is rounded and stored: a bias, scales of channels, an activation, a residual.
 */
import {
  type Dependent,
  DTypeError,
  type Early,
  Expr,
  f32,
  type LaneCount,
  NameError,
  type Params,
  StagingError,
  type TensorSpec,
  type Thread,
} from "../dsl/index.ts";
import { describe } from "../dsl/check.ts";
import { formatType } from "../dsl/ir.ts";
import { Trace } from "../dsl/trace.ts";

/** What the kernels declare themselves, and the position of the sum. */
const taken = ["w", "x", "y", "wScale", "xScale", "t", "m", "n"] as const;

/** Where a sum stands, and what is there: y[m,n], with m < M and n < N, and the epilogue's parameters by name. */
export type Place<P extends Params> = {
  readonly m: Expr<"i32">;
  readonly n: Expr<"i32">;
  /** For constants, branches, registers. Few threads are here: no barriers, no operations of whole warps. */
  readonly t: Thread;
} & Early<P> &
  Dependent<P>;

/** Made by epilogue(). It belongs to no kernel and may be given to any number of them. */
export interface Epilogue<P extends Params> {
  /** Parameters that the kernel has beside its own. */
  readonly params: P;
  readonly apply: (sum: Expr<"f32">, place: Place<P>) => Expr<"f32">;
}

/** The part of a kernel's configuration that says how it ends. */
export interface WithEpilogue<P extends Params> {
  /** What to do with each sum before it is rounded to `out` and stored. Default: nothing, at no cost. */
  readonly epilogue?: Epilogue<P>;
}

/** The parameters of a kernel without an epilogue are its own. */
export type NoParams = Readonly<Record<never, TensorSpec>>;

/**
 * Declares further parameters, of any role, and the function that uses them. It is traced where one thread has the finished
 * sum of y[m,n]; whatever it loads must have been declared here.
 * ```ts
 * const [M, N, K] = [size("M", { max: 16 }), 4096, 2048];
 * const params = { bias: frozen(bf16, [N]), residual: input(bf16, [M, N]) };
 * const end = epilogue(params, (sum, { m, n, bias, residual }) =>
 *   silu(sum.add(bias.load([n]).to(f32))).add(residual.load([m, n]).to(f32)),
 * );
 * llGemmMmaBf16({ M, N, K, out: bf16, epilogue: end }).params // w, x, y, bias, residual
 * ```
 * @throws NameError for parameters with names that the kernels use themselves: w, x, y, wScale, xScale, t, m, n
 */
export function epilogue<const P extends Params>(
  params: P & { readonly [K in (typeof taken)[number]]?: never },
  apply: Epilogue<P>["apply"],
): Epilogue<P> {
  for (const name of taken) {
    const spec = (params as Params)[name];
    if (!spec) continue;
    throw new NameError(`An epilogue's parameter can't be called ${name}: the kernels have a ${name} of their own`, {
      at: spec.at,
      hint: `Write bias, residual, channelScale or the like; taken are ${taken.join(", ")}`,
    });
  }
  if (typeof apply !== "function") {
    throw new StagingError(`An epilogue's second argument is a function, not ${describe(apply)}`, {
      at: Object.values<Params[string]>(params)[0]?.at,
      hint: "Write epilogue({ bias: frozen(bf16, [N]) }, (sum, { n, bias }) => sum.add(bias.load([n]).to(f32)))",
    });
  }
  return Object.freeze({ params, apply });
}

/** What an epilogue makes of a sum. @throws StagingError, DTypeError unless that is an f32 */
export function applyEpilogue<P extends Params>(end: Epilogue<P>, sum: Expr<"f32">, place: Place<P>): Expr<"f32"> {
  if (typeof end.params !== "object") {
    throw new StagingError(`A kernel's epilogue is what epilogue() makes, not ${describe(end)}`, {
      hint: "Write epilogue: epilogue({}, relu)",
    });
  }
  const result: unknown = end.apply(sum, place);
  if (!(result instanceof Expr)) {
    throw new StagingError(`An epilogue returns the f32 to store, not ${describe(result)}`, {
      at: Trace.lastLine(sum.trace.current),
      hint: "Write (sum) => sum.mul(2), or { ...; return sum; }; of a register return its value: r.get()",
    });
  }
  if (result.dtype !== f32 || result.lanes !== 1) {
    throw new DTypeError(`An epilogue returns an f32, not ${formatType(result.value.type)}`, {
      at: result.at,
      hint: "Leave rounding to the kernel: its `out` says what is stored; convert others with .to(f32)",
    });
  }
  return result;
}

/** max(x, 0); NaN stays NaN. */
export function relu<L extends LaneCount>(x: Expr<"f32", L>): Expr<"f32", L> {
  return x.lt(0).not().select(x, 0);
}

/** x * sigmoid(x), also called swish. */
export function silu<L extends LaneCount>(x: Expr<"f32", L>): Expr<"f32", L> {
  return gated(x, x);
}

/** GELU by tanh, as models use it: x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))). */
export function geluTanh<L extends LaneCount>(x: Expr<"f32", L>): Expr<"f32", L> {
  // (1 + tanh(u)) / 2 is sigmoid(2u), which keeps its relative precision for large negative u.
  return gated(
    x,
    x
      .mul(x)
      .fma(0.044715, 1)
      .mul(x)
      .mul(2 * Math.sqrt(2 / Math.PI)),
  );
}

/** x * sigmoid(gate) */
function gated<L extends LaneCount>(x: Expr<"f32", L>, gate: Expr<"f32", L>): Expr<"f32", L> {
  return x.div(gate.neg().exp().add(1));
}
