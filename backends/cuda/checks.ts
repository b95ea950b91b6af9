/** Checks on numbers before they reach C: koffi turns NaN into 0, 2^32 into 0 and -1 into 4294967295 without a word. */
import { describe } from "../../dsl/check.ts";
import type { DType } from "../../dsl/dtype.ts";
import { ArgumentError, DTypeError } from "../../dsl/errors.ts";
import { isDType } from "../tensor.ts";

/** @throws ArgumentError unless `value` is a whole number in [min, max] */
export function wholeNumber(what: string, value: number, min: number, max: number): number {
  if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
  throw new ArgumentError(`${what} must be a whole number from ${min} to ${max}, got ${String(value)}`);
}

/** @throws DTypeError */
export function requireDType(dtype: DType): void {
  if (isDType(dtype)) return;
  throw new DTypeError(`A dtype is needed here, e.g. f32, not ${describe(dtype)}`);
}

/**
 * A detached typed array has length 0, so that copying it would quietly copy nothing.
 * @throws ArgumentError
 */
export function notDetached(bytes: Uint8Array): Uint8Array {
  try {
    new Uint8Array(bytes.buffer);
  } catch {
    throw new ArgumentError("The memory of this array was transferred away (detached); nothing can be copied from it");
  }
  return bytes;
}
