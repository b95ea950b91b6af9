/** Checks on numbers before they reach C: koffi turns NaN into 0, 2^32 into 0 and -1 into 4294967295 without a word. */
import { describe } from "../../dsl/check.ts";
import { ArgumentError } from "../../dsl/errors.ts";

/** @throws ArgumentError unless `value` is a whole number in [min, max] */
export function wholeNumber(what: string, value: number, min: number, max: number): number {
  if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
  throw new ArgumentError(`${what} must be a whole number from ${min} to ${max}, got ${describe(value)}`);
}
