/**
 * Parameters and their roles. `frozen` tensors were written before the chain of kernels began (weights, tables) and may be
 * read at once. `input`, `output` and `inout` tensors exist only after `t.pdl.wait()`, because the kernel launched just
 * before may still be writing them.
 */
import { describe, requireDType, requireOptions } from "./check.ts";
import { type DType, type DTypeName } from "./dtype.ts";
import { ShapeError } from "./errors.ts";
import type { Expr } from "./expr.ts";
import type { Role } from "./ir.ts";
import { type Dim, isDim, maxOf, minOf, Size } from "./size.ts";
import { callerLocation, type Location } from "./source.ts";
import type { Tensor } from "./tensor.ts";

export interface TensorSpec<R extends Role = Role, N extends DTypeName = DTypeName, Rank extends number = number> {
  readonly kind: "tensor";
  readonly role: R;
  readonly dtype: DType<N>;
  readonly shape: readonly Dim[] & { readonly length: Rank };
  readonly alignBytes: number;
  readonly at: Location;
}

export interface ScalarSpec<N extends "f32" | "i32" | "u32" = "f32" | "i32" | "u32"> {
  readonly kind: "scalar";
  readonly dtype: DType<N>;
  readonly at: Location;
}

/**
 * What a kernel declares: names, and who writes what.
 * ```ts
 * const params = {
 *   w: frozen(bf16, [256, 1024], { alignBytes: 16 }),
 *   eps: scalar(f32),
 *   x: input(bf16, [size("M"), 1024], { alignBytes: 16 }),
 *   residual: inout(bf16, [size("M"), 1024]),
 *   y: output(f32, [size("M"), 256]),
 * };
 * ```
 */
export type Params = Readonly<Record<string, TensorSpec | ScalarSpec>>;

export interface TensorOptions {
  /** Promised alignment of the first element, checked at launch: a power of two up to 256. Default: one element. */
  readonly alignBytes?: number;
}

type Shape = readonly [Dim, ...Dim[]];

function tensorRole<R extends Role>(role: R) {
  return <const N extends DTypeName, const S extends Shape>(
    dtype: DType<N>,
    shape: S,
    options: TensorOptions = {},
  ): TensorSpec<R, N, S["length"]> => {
    const at = callerLocation();
    requireDType(dtype, at);
    requireOptions(options, ["alignBytes"], at);
    const { alignBytes = dtype.bytes } = options;
    if (!Array.isArray(shape) || shape.length === 0) {
      throw new ShapeError(`A shape is an array of at least one dimension, not ${describe(shape)}`, {
        at,
        hint: `Write ${role}(${dtype.name}, [M, N]); for a single number scalar(...), or [1]`,
      });
    }
    for (const dim of shape) {
      if (dim instanceof Size && dim.term.kind !== "named") {
        throw new ShapeError(`The dimension ${dim} is computed; a launch could not tell what its parts are`, {
          at,
          hint: "Declare it by its own size(...), and compute from it inside the kernel",
        });
      }
      if (!isDim(dim) || minOf(dim) < 1 || maxOf(dim) > 2 ** 31 - 1) {
        const given = isDim(dim)
          ? `${dim}${typeof dim === "number" ? "" : `, which is from ${dim.min} on`}`
          : describe(dim);
        throw new ShapeError(`A dimension is a whole number from 1 to 2^31 - 1, not ${given}`, { at });
      }
    }
    if (![1, 2, 4, 8, 16, 32, 64, 128, 256].includes(alignBytes) || alignBytes < dtype.bytes) {
      throw new ShapeError(
        `alignBytes of ${dtype.name} is a power of two from ${dtype.bytes} to 256, not ${describe(alignBytes)}`,
        { at },
      );
    }
    const frozenShape = Object.freeze([...shape]) as unknown as TensorSpec<R, N, S["length"]>["shape"];
    return Object.freeze({ kind: "tensor", role, dtype, shape: frozenShape, alignBytes, at });
  };
}

/** A tensor that no kernel of the running chain writes: weights, tables. Readable before the wait, through the read-only path. */
export const frozen = tensorRole("frozen");
/** A tensor that an earlier kernel may have written. */
export const input = tensorRole("input");
/** A tensor that this kernel writes; its old content can't be read. */
export const output = tensorRole("output");
/** A tensor that this kernel reads and writes: updates in place, atomics. */
export const inout = tensorRole("inout");

/** A run-time number, passed by value and known from the kernel's first line on. */
export function scalar<N extends "f32" | "i32" | "u32">(dtype: DType<N>): ScalarSpec<N> {
  const at = callerLocation();
  requireDType(dtype, at, ["f32", "i32", "u32"]);
  return Object.freeze({ kind: "scalar", dtype, at });
}

type Handle<S> =
  S extends TensorSpec<infer R, infer N, infer Rank>
    ? Tensor<N, Rank, R>
    : S extends ScalarSpec<infer N>
      ? Expr<N>
      : never;

type IsEarly<S> = S extends ScalarSpec ? true : S extends TensorSpec<"frozen", DTypeName, number> ? true : false;

/** What a kernel may touch at once: frozen tensors and scalars. */
export type Early<P extends Params> = {
  readonly [K in keyof P as IsEarly<P[K]> extends true ? K : never]: Handle<P[K]>;
};

/** What exists only after the wait. */
export type Dependent<P extends Params> = {
  readonly [K in keyof P as IsEarly<P[K]> extends true ? never : K]: Handle<P[K]>;
};
