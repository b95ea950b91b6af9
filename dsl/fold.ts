/** Folding of integer arithmetic on constants while tracing, so that generated code reads like what an author would write. */
import { bool, type DType, i32, u32 } from "./dtype.ts";
import type { BinaryFn, Value } from "./ir.ts";

/** The value that the operation is equal to, where that is already known. */
export function foldBinary(
  fn: BinaryFn,
  a: Value,
  b: Value,
  constant: (dtype: DType, value: number) => Value,
): Value | undefined {
  const { dtype, lanes } = a.type;
  if (lanes !== 1 || (dtype !== i32 && dtype !== u32)) return undefined;
  const [x, y] = [constantOf(a), constantOf(b)];
  if (x !== undefined && y !== undefined) {
    const result = computeInteger(fn, x, y, dtype === i32);
    return typeof result === "boolean" ? constant(bool, Number(result)) : constant(dtype, result);
  }
  if (y === 0 && (fn === "add" || fn === "sub" || fn === "or" || fn === "xor" || fn === "shl" || fn === "shr"))
    return a;
  if (x === 0 && (fn === "add" || fn === "or" || fn === "xor")) return b;
  if (y === 1 && (fn === "mul" || fn === "div")) return a;
  if (x === 1 && fn === "mul") return b;
  if ((x === 0 || y === 0) && (fn === "mul" || fn === "and")) return constant(dtype, 0);
  if (y === 1 && fn === "rem") return constant(dtype, 0);
  return undefined;
}

export function constantOf(value: Value): number | undefined {
  return value.op.kind === "const" ? value.op.value : undefined;
}

/** Integer arithmetic as ir.ts defines it, on i32 (`signed`) or u32. */
export function computeInteger(fn: BinaryFn, x: number, y: number, signed: boolean): number | boolean {
  const wrap = (value: number): number => (signed ? value | 0 : value >>> 0);
  switch (fn) {
    case "add":
      return wrap(x + y);
    case "sub":
      return wrap(x - y);
    case "mul":
      return wrap(Math.imul(x, y));
    case "div":
      return y === 0 ? x : wrap(Math.trunc(x / y));
    case "rem":
      return y === 0 ? 0 : wrap(x % y);
    case "min":
      return Math.min(x, y);
    case "max":
      return Math.max(x, y);
    case "and":
      return wrap(x & y);
    case "or":
      return wrap(x | y);
    case "xor":
      return wrap(x ^ y);
    case "shl":
      return wrap(x << (y & 31));
    case "shr":
      return signed ? x >> (y & 31) : x >>> (y & 31);
    case "eq":
      return x === y;
    case "ne":
      return x !== y;
    case "lt":
      return x < y;
    case "le":
      return x <= y;
    case "gt":
      return x > y;
    case "ge":
      return x >= y;
  }
}
