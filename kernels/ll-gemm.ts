/**
 * What the low-latency GEMMs have in common: y[m,n] = sum over k of x[m,k] * w[n,k], for 1 to 16 tokens m. The kernels of a
 * family have one body, whatever the type of weights and tokens; `inBf16` and `inE4m3` declare its parameters.
 */
import {
  bf16,
  type Dim,
  type DType,
  e4m3,
  type Expr,
  f32,
  frozen,
  input,
  kernel,
  output,
  ShapeError,
  type Tensor,
  type Thread,
} from "../dsl/index.ts";
import { maxOf, powerOfTwoDivisor } from "../dsl/size.ts";

export type InName = "bf16" | "e4m3";
export type OutName = "f32" | "bf16";

export interface GemmSizes<Out extends OutName = OutName> {
  /** Tokens; like N and K a number, or a Size known at launch. */
  readonly M: Dim;
  readonly N: Dim;
  readonly K: Dim;
  readonly out: DType<Out>;
}

export interface Launch {
  readonly grid: Dim;
  readonly block: number;
  readonly cluster: number;
}

/** What a family's body is made from. */
export interface Gemm<In extends InName, Out extends OutName> extends GemmSizes<Out> {
  readonly t: Thread<Late<In, Out>>;
  readonly w: Tensor<In, 2, "frozen">; // (N, K)
  /** Loads what to multiply sums by; undefined for bf16. */
  scaleOf(late: Late<In, Out>): Expr<"f32"> | undefined;
}

/** What exists after the wait. */
interface Late<In extends InName, Out extends OutName> {
  readonly x: Tensor<In, 2, "input">; // (M, K)
  readonly y: Tensor<Out, 2, "output">; // (M, N)
  readonly xScale?: Tensor<"f32", 1, "input">;
}

/** bf16 weights and tokens. @throws ShapeError for more than 16 tokens */
export function inBf16<Out extends OutName>(
  family: string,
  sizes: GemmSizes<Out>,
  { grid, block, cluster }: Launch,
  body: (gemm: Gemm<"bf16", Out>) => void,
) {
  const { M, N, K, out } = sizes;
  requireTokens(family, M);
  const alignBytes = rowAlignBytes(K, bf16);
  const params = {
    w: frozen(bf16, [N, K], { alignBytes }),
    x: input(bf16, [M, K], { alignBytes }),
    y: output(out, [M, N]),
  };
  return kernel({ name: nameOf(`${family}_bf16`, sizes), grid, block, cluster, params }, (t, { w }) =>
    body({ ...sizes, t, w, scaleOf: () => undefined }),
  );
}

/** e4m3 weights and tokens, with one scale each that is read from device memory. @throws ShapeError for more than 16 tokens */
export function inE4m3<Out extends OutName>(
  family: string,
  sizes: GemmSizes<Out>,
  { grid, block, cluster }: Launch,
  body: (gemm: Gemm<"e4m3", Out>) => void,
) {
  const { M, N, K, out } = sizes;
  requireTokens(family, M);
  const alignBytes = rowAlignBytes(K, e4m3);
  const params = {
    w: frozen(e4m3, [N, K], { alignBytes }),
    wScale: frozen(f32, [1]),
    x: input(e4m3, [M, K], { alignBytes }),
    xScale: input(f32, [1]),
    y: output(out, [M, N]),
  };
  return kernel({ name: nameOf(`${family}_e4m3`, sizes), grid, block, cluster, params }, (t, { w, wScale }) => {
    const rScaleW = wScale.load([0]);
    body({ ...sizes, t, w, scaleOf: ({ xScale }) => xScale && rScaleW.mul(xScale.load([0])) });
  });
}

const nameOf = (family: string, { M, N, K }: GemmSizes) => `${family}_m${M}_n${N}_k${K}`;

function requireTokens(family: string, M: Dim): void {
  if (maxOf(M) <= 16) return;
  throw new ShapeError(`${family} serves 1 to 16 tokens, not ${typeof M === "number" ? M : `${M} up to ${M.max}`}`, {
    hint: 'For a Size say so: size("M", { max: 16 })',
  });
}

/** What rows of K elements are aligned to, up to the 16 bytes of one load. */
export function rowAlignBytes(K: Dim, dtype: DType): number {
  return powerOfTwoDivisor(K, 16 / dtype.bytes) * dtype.bytes;
}

/** @throws ShapeError unless these options of a configuration are whole numbers from 1 to `most` */
export function requireCounts(kernel: string, counts: Readonly<Record<string, number>>, most: number): void {
  for (const [what, count] of Object.entries(counts)) {
    if (Number.isInteger(count) && count >= 1 && count <= most) continue;
    throw new ShapeError(`${what} of ${kernel}: a whole number from 1 to ${most}, not ${count}`);
  }
}
