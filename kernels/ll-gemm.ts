/** What the low-latency GEMMs have in common: the sizes they take, and what is promised of their rows. */
import { type Dim, type DType, ShapeError } from "../dsl/index.ts";
import { maxOf, powerOfTwoDivisor } from "../dsl/size.ts";

export type OutName = "f32" | "bf16";

export interface LlGemmSizes<Out extends OutName = OutName> {
  /** Tokens, at most 16; like N and K a number, or a Size known at launch. */
  readonly M: Dim;
  readonly N: Dim;
  readonly K: Dim;
  readonly out: DType<Out>;
}

/** @throws ShapeError for more than 16 tokens */
export function requireTokens(kernel: string, M: Dim): void {
  if (maxOf(M) <= 16) return;
  throw new ShapeError(`${kernel} serves 1 to 16 tokens, not ${typeof M === "number" ? M : `${M} up to ${M.max}`}`, {
    hint: 'For a Size say so: size("M", { max: 16 })',
  });
}

/** What rows of K elements are aligned to, up to the 16 bytes of one load. */
export function rowAlignBytes(K: Dim, dtype: DType): number {
  return powerOfTwoDivisor(K, 16 / dtype.bytes) * dtype.bytes;
}
