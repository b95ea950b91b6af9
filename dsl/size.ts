/**
 * Sizes: whole numbers that are known when a kernel is launched, not when it is traced.
 *
 * Tegula has three stages. A TypeScript `number` is known while tracing, a `Size` at launch, an `Expr` only on the device.
 * A Size stands wherever a dimension may: in parameter shapes, in the grid, as an index operand. Its value comes from the
 * shapes of the tensors passed to the launch.
 */
import { describe, requireOptions } from "./check.ts";
import { ShapeError } from "./errors.ts";
import { callerLocation, type Location } from "./source.ts";

/** A dimension: known while tracing, or at launch. */
export type Dim = number | Size;

export type SizeOp = "add" | "sub" | "mul" | "floorDiv" | "ceilDiv" | "min" | "max";

export type SizeTerm =
  | { readonly kind: "named"; readonly name: string }
  | { readonly kind: "op"; readonly op: SizeOp; readonly a: Dim; readonly b: Dim };

/** What is promised about a size; checked at every launch. */
export interface SizeFacts {
  readonly min: number;
  readonly max: number;
  readonly multipleOf: number;
}

/**
 * A number known at launch. Made by size(), and by arithmetic on other sizes.
 * ```ts
 * const K = size("K", { max: 8192, multipleOf: 8 });
 * dims.mul(ceilDiv(K, 64), 8) // (ceilDiv(K, 64) * 8)
 * dims.min(dims.max(dims.sub(K, 64), 0), dims.add(K, 1)) // min(max((K - 64), 0), (K + 1))
 * floorDiv(K, 4).max // 2048
 * ceilDiv(7, 4) // 2
 * powerOfTwoDivisor(K, 16) // 8
 * ```
 */
export class Size implements SizeFacts {
  readonly term: SizeTerm;
  readonly min: number;
  readonly max: number;
  readonly multipleOf: number;
  readonly at: Location;

  constructor(term: SizeTerm, facts: SizeFacts, at: Location) {
    this.term = Object.freeze(term);
    this.min = facts.min;
    this.max = facts.max;
    this.multipleOf = facts.multipleOf;
    this.at = at;
    Object.freeze(this);
  }

  toString(): string {
    if (this.term.kind === "named") return this.term.name;
    const { op, a, b } = this.term;
    const symbol = { add: "+", sub: "-", mul: "*", floorDiv: "/" } as const;
    return op in symbol ? `(${a} ${symbol[op as keyof typeof symbol]} ${b})` : `${op}(${a}, ${b})`;
  }

  /** A Size is not a number yet: `size * 2` must be `mul(size, 2)`. @throws ShapeError */
  [Symbol.toPrimitive](hint: string): string {
    if (hint === "string") return this.toString();
    throw new ShapeError(`The size ${this} is known only at launch, so JavaScript arithmetic can't use it`, {
      at: callerLocation(),
      hint: `Write dims.add, dims.mul, ceilDiv, ... instead of operators: ceilDiv(${this}, 4)`,
    });
  }
}

const maxSize = 2 ** 31 - 1;
/** What a size is at most where nothing is said: loops that step beyond it still end within 32 bits. */
const usualMax = 2 ** 30;

/**
 * Declares a run-time size. It takes its value from the shape of the tensors it appears in.
 * @throws ShapeError when the facts contradict each other
 */
export function size(name: string, facts: Partial<SizeFacts> = {}): Size {
  const at = callerLocation();
  requireOptions(facts, ["min", "max", "multipleOf"], at);
  const { min = 1, max = usualMax, multipleOf = 1 } = facts;
  if (![min, max, multipleOf].every(Number.isSafeInteger) || min < 0 || max < min || max > maxSize || multipleOf < 1) {
    throw new ShapeError(`size(${describe(name)}) needs whole numbers, 0 <= min <= max < 2^31 and multipleOf >= 1`, {
      at,
    });
  }
  if (Math.ceil(min / multipleOf) * multipleOf > max) {
    throw new ShapeError(`size(${describe(name)}): no multiple of ${multipleOf} lies between ${min} and ${max}`, {
      at,
    });
  }
  return new Size({ kind: "named", name }, { min, max, multipleOf }, at);
}

/** Arithmetic on dimensions. Of two numbers a number, else a Size. */
function operation(op: SizeOp) {
  function apply(a: number, b: number): number;
  function apply(a: Dim, b: Dim): Dim;
  function apply(a: Dim, b: Dim): Dim {
    const at = callerLocation();
    for (const dim of [a, b]) requireDim(dim, op, at);
    const divides = op === "floorDiv" || op === "ceilDiv";
    if (divides && minOf(b) < 1) throw new ShapeError(`${op} by ${b}, which may be zero`, { at });
    if (typeof a === "number" && typeof b === "number") return compute(op, a, b);
    // Devices truncate towards zero.
    if (divides && minOf(a) < 0) {
      throw new ShapeError(`${op} of ${a}, which may be negative`, { at, hint: `Write dims.max(${a}, 0)` });
    }
    return new Size({ kind: "op", op, a, b }, factsOf(op, a, b), at);
  }
  return apply;
}

/** a / b, rounded up, of numbers and sizes: how many tiles of b cover a. @throws ShapeError where b may be 0, or a negative */
export const ceilDiv = operation("ceilDiv");
/** a / b, rounded down, of numbers and sizes: how many whole tiles of b a has. @throws ShapeError as ceilDiv */
export const floorDiv = operation("floorDiv");
/** Operators on dimensions, for code that takes a number or a Size. */
export const dims = Object.freeze({
  add: operation("add"),
  sub: operation("sub"),
  mul: operation("mul"),
  min: operation("min"),
  max: operation("max"),
});

/** Whether it is a whole number or a Size. */
export function isDim(dim: unknown): dim is Dim {
  return dim instanceof Size || Number.isSafeInteger(dim);
}

function requireDim(dim: unknown, what: string, at: Location): void {
  if (isDim(dim)) return;
  throw new ShapeError(`${what} takes whole numbers and sizes, not ${describe(dim)}`, {
    at,
    hint: "Run-time values have methods for it: x.add(y), x.div(y)",
  });
}

/** The largest power of two, at most `limit`, that is certain to divide the dimension. @throws ShapeError */
export function powerOfTwoDivisor(dim: Dim, limit: number): number {
  const at = callerLocation();
  for (const number of [dim, limit]) requireDim(number, "powerOfTwoDivisor", at);
  let divisor = 1;
  while (divisor * 2 <= limit && multipleOf(dim) % (divisor * 2) === 0) divisor *= 2;
  return divisor;
}

/** The value of a dimension, given the values of the named sizes. @throws ShapeError for a size without a value */
export function evaluate(dim: Dim, values: ReadonlyMap<string, number>): number {
  if (typeof dim === "number") return dim;
  if (dim.term.kind === "op") return compute(dim.term.op, evaluate(dim.term.a, values), evaluate(dim.term.b, values));
  const value = values.get(dim.term.name);
  if (value === undefined) throw new ShapeError(`The size ${dim} has no value`, { at: dim.at });
  return value;
}

/** The named sizes that a dimension is made of. */
export function namedSizes(dim: Dim): readonly Size[] {
  if (typeof dim === "number") return [];
  return dim.term.kind === "named" ? [dim] : [...namedSizes(dim.term.a), ...namedSizes(dim.term.b)];
}

export const minOf = (dim: Dim): number => (typeof dim === "number" ? dim : factsKnown(dim).min);
export const maxOf = (dim: Dim): number => (typeof dim === "number" ? dim : factsKnown(dim).max);
/** 0 for the number 0, which is a multiple of everything. */
export const multipleOf = (dim: Dim): number => (typeof dim === "number" ? Math.abs(dim) : factsKnown(dim).multipleOf);

/** @throws ShapeError for what is no dimension at all */
function factsKnown(dim: Size): SizeFacts {
  if (dim instanceof Size) return dim;
  throw new ShapeError(`A dimension is a whole number or a size, not ${describe(dim)}`, { at: callerLocation() });
}

/** Greatest common divisor; gcd(0, n) = n. */
export function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}

function compute(op: SizeOp, a: number, b: number): number {
  switch (op) {
    case "add":
      return a + b;
    case "sub":
      return a - b;
    case "mul":
      return a * b;
    case "floorDiv":
      return Math.floor(a / b);
    case "ceilDiv":
      return Math.ceil(a / b);
    case "min":
      return Math.min(a, b);
    case "max":
      return Math.max(a, b);
  }
}

function factsOf(op: SizeOp, a: Dim, b: Dim): SizeFacts {
  const [multipleA, multipleB] = [multipleOf(a), multipleOf(b)];
  // Every operation rises or falls in each operand, so its extremes lie at theirs.
  const ends = [minOf(a), maxOf(a)].flatMap((x) => [compute(op, x, minOf(b)), compute(op, x, maxOf(b))]);
  const [min, max] = [Math.min(...ends), Math.max(...ends)];
  switch (op) {
    case "mul":
      return { min, max, multipleOf: Math.max(1, multipleA * multipleB) };
    case "floorDiv":
    case "ceilDiv": {
      const exact = typeof b === "number" && multipleA % b === 0;
      return { min, max, multipleOf: exact ? Math.max(1, multipleA / b) : 1 };
    }
    default:
      return { min, max, multipleOf: Math.max(1, gcd(multipleA, multipleB)) };
  }
}
