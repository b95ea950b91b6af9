/**
 * Facts about integer values: the range they lie in and what they are a multiple of. Alignment proofs, bounds checks and
 * the choice between 32-bit and 64-bit offsets all rest on these.
 */
import { i32, u32 } from "../dtype.ts";
import { type IdName, type KernelIR, type Type, type Value, walk } from "../ir.ts";
import { type Dim, gcd, maxOf } from "../size.ts";

export interface Facts {
  readonly min: number;
  readonly max: number;
  /** 0 for the constant 0, which is a multiple of everything. */
  readonly multipleOf: number;
  /**
   * The independent leaves (lane, warp, block axes, loop variables) whose extremes together make `min` and `max`:
   * both are certain to occur. undefined where that is not known.
   */
  readonly attainedBy: ReadonlySet<Value | IdName> | undefined;
}

const nothing: ReadonlySet<Value | IdName> = new Set();

export class FactsAnalysis {
  private readonly ir: KernelIR;
  private readonly known = new Map<Value, Facts>();
  /** Bounds of loop variables, from their `for`. */
  private readonly inductions = new Map<Value, Facts>();

  constructor(ir: KernelIR) {
    this.ir = ir;
    walk(ir.body, (stmt) => {
      if (stmt.kind === "for") this.enterLoop(stmt.induction, stmt.from, stmt.to, stmt.step);
    });
  }

  of(value: Value): Facts {
    let facts = this.known.get(value);
    if (!facts) {
      facts = this.derive(value);
      this.known.set(value, facts);
    }
    return facts;
  }

  /** Whether 32-bit integer arithmetic may overflow here, so that the result wraps. */
  mayWrap(value: Value): boolean {
    const { op, type } = value;
    if (type.dtype !== i32 && type.dtype !== u32) return false;
    if (op.kind === "unary" && (op.fn === "neg" || op.fn === "abs")) return this.of(op.a).min <= top(type).min;
    if (op.kind !== "binary" || !wrapping.has(op.fn)) return false;
    const corners = cornersOf(op.fn, this.of(op.a), this.of(op.b));
    const { min, max } = top(type);
    return !corners || Math.min(...corners) < min || Math.max(...corners) > max;
  }

  /** Whether a condition is the same in every case: true, false, or undefined where it may be either. */
  decides(condition: Value): boolean | undefined {
    const { op } = condition;
    if (op.kind === "const") return op.value !== 0;
    if (op.kind === "unary" && op.fn === "not") {
      const inner = this.decides(op.a);
      return inner === undefined ? undefined : !inner;
    }
    if (op.kind !== "binary") return undefined;
    if (op.fn === "and" || op.fn === "or") {
      // One side may settle it: false for `and`, true for `or`.
      const settles = op.fn === "or";
      const [left, right] = [this.decides(op.a), this.decides(op.b)];
      if (left === settles || right === settles) return settles;
      return left === undefined || right === undefined ? undefined : !settles;
    }
    const { dtype, lanes } = op.a.type;
    if ((dtype !== i32 && dtype !== u32) || lanes !== 1) return undefined;
    const [a, b] = [this.of(op.a), this.of(op.b)];
    const below = a.max < b.min;
    const above = a.min > b.max;
    const equal = a.min === a.max && b.min === b.max && a.min === b.min;
    switch (op.fn) {
      case "lt":
        return below || (a.min >= b.max ? false : undefined);
      case "gt":
        return above || (a.max <= b.min ? false : undefined);
      case "le":
        return a.max <= b.min || (above ? false : undefined);
      case "ge":
        return a.min >= b.max || (below ? false : undefined);
      case "eq":
        return equal || (below || above ? false : undefined);
      case "ne":
        return below || above || (equal ? false : undefined);
      default:
        return undefined;
    }
  }

  private enterLoop(induction: Value, from: Value, to: Value, step: number): void {
    const [first, end] = [this.of(from), this.of(to)];
    const multiple = gcd(step, first.multipleOf);
    const exact = from.op.kind === "const" && to.op.kind === "const";
    const last = exact ? first.min + (Math.ceil((end.min - first.min) / step) - 1) * step : end.max - 1;
    const attained = exact && last >= first.min ? new Set([induction]) : undefined;
    const max = Math.max(last, first.min);
    this.inductions.set(induction, { min: first.min, max, multipleOf: multiple, attainedBy: attained });
  }

  private derive(value: Value): Facts {
    const { op, type } = value;
    switch (op.kind) {
      case "const":
        return exactly(op.value);
      case "size":
        return { min: op.size.min, max: op.size.max, multipleOf: op.size.multipleOf, attainedBy: undefined };
      case "id":
        return this.id(op.id);
      case "induction":
        return this.inductions.get(value) ?? top(type);
      case "binary":
        return type.dtype === i32 || type.dtype === u32 ? this.binary(value) : top(type);
      case "select": {
        const [a, b] = [this.of(op.yes), this.of(op.no)];
        const range = { min: Math.min(a.min, b.min), max: Math.max(a.max, b.max) };
        return { ...range, multipleOf: gcd(a.multipleOf, b.multipleOf), attainedBy: undefined };
      }
      case "convert": {
        if (op.to !== i32 && op.to !== u32) return top(type);
        const from = op.a.type.dtype;
        if (from.kind === "float") return top(type);
        const facts = this.of(op.a);
        const limits = top(type);
        return facts.min >= limits.min && facts.max <= limits.max ? facts : limits;
      }
      default:
        return top(type);
    }
  }

  private id(id: IdName): Facts {
    const { grid, block } = this.ir;
    const span = (count: Dim, leaves: readonly IdName[]): Facts => ({
      min: 0,
      max: Math.max(0, maxOf(count) - 1),
      multipleOf: 1,
      attainedBy: typeof count === "number" ? new Set(leaves) : undefined,
    });
    switch (id) {
      case "block.x":
        return span(grid[0], [id]);
      case "block.y":
        return span(grid[1], [id]);
      case "block.z":
        return span(grid[2], [id]);
      case "thread":
        return span(block, ["warp", "lane"]);
      case "warp":
        return span(block / 32, [id]);
      case "lane":
        return span(32, [id]);
    }
  }

  private binary(value: Value): Facts {
    const { op, type } = value;
    if (op.kind !== "binary") return top(type);
    const [a, b] = [this.of(op.a), this.of(op.b)];
    const multipleOf = multiple(op.fn, a, b, op.b);
    const corners = cornersOf(op.fn, a, b);
    const limits = top(type);
    if (!corners) return { ...limits, multipleOf: op.fn === "and" ? multipleOf : 1 };
    const [min, max] = [Math.min(...corners), Math.max(...corners)];
    // The result may wrap: nothing is known but divisors that are powers of two.
    if (min < limits.min || max > limits.max) return { ...limits, multipleOf: Math.max(1, lowestBit(multipleOf)) };
    return { min, max, multipleOf, attainedBy: monotone.has(op.fn) ? independent(a, b) : undefined };
  }
}

/** Their exact result may need more than 32 bits: -2^31 / -1 does. */
const wrapping: ReadonlySet<string> = new Set(["add", "sub", "mul", "div", "shl"]);

/** Rising or falling in each operand, so that corner values of the operands give corner values of the result. */
const monotone: ReadonlySet<string> = new Set(["add", "sub", "mul", "div", "min", "max", "shl", "shr"]);

/** Values among which the extremes lie, or undefined. */
function cornersOf(fn: string, a: Facts, b: Facts): readonly number[] | undefined {
  const pairs = [
    [a.min, b.min],
    [a.min, b.max],
    [a.max, b.min],
    [a.max, b.max],
  ] as const;
  switch (fn) {
    case "add":
      return pairs.map(([x, y]) => x + y);
    case "sub":
      return pairs.map(([x, y]) => x - y);
    case "mul":
      return pairs.map(([x, y]) => x * y);
    case "min":
      return [Math.min(a.min, b.min), Math.min(a.max, b.max)];
    case "max":
      return [Math.max(a.min, b.min), Math.max(a.max, b.max)];
    case "div":
      return b.min >= 1 ? pairs.map(([x, y]) => Math.trunc(x / y)) : undefined;
    case "rem":
      return b.min >= 1 && a.min >= 0 ? [0, Math.min(a.max, b.max - 1)] : undefined;
    case "and": {
      // Clears bits of whichever is not negative.
      const bounds = [a, b].filter(({ min }) => min >= 0).map(({ max }) => max);
      return bounds.length > 0 ? [0, Math.min(...bounds)] : undefined;
    }
    case "shl":
      return b.min >= 0 && b.max <= 31 ? pairs.map(([x, y]) => x * 2 ** y) : undefined;
    case "shr":
      return b.min >= 0 && b.max <= 31 ? pairs.map(([x, y]) => Math.floor(x / 2 ** y)) : undefined;
    case "or":
    case "xor":
      return a.min >= 0 && b.min >= 0 ? [0, 2 ** Math.ceil(Math.log2(Math.max(a.max, b.max) + 1)) - 1] : undefined;
    default:
      return undefined;
  }
}

function multiple(fn: string, a: Facts, b: Facts, divisor: Value): number {
  const constant = divisor.op.kind === "const" ? divisor.op.value : undefined;
  switch (fn) {
    case "add":
    case "sub":
    case "min":
    case "max":
      return gcd(a.multipleOf, b.multipleOf);
    case "mul": {
      const product = a.multipleOf * b.multipleOf;
      // Beyond 2^53 only powers of two are exact.
      return Number.isSafeInteger(product) ? product : lowestBit(a.multipleOf) * lowestBit(b.multipleOf);
    }
    case "shl":
      return constant === undefined || constant < 0 ? 1 : a.multipleOf * 2 ** (constant & 31);
    case "div":
      return constant !== undefined && constant >= 1 && a.multipleOf % constant === 0 ? a.multipleOf / constant : 1;
    case "rem":
      return constant === undefined ? 1 : gcd(a.multipleOf, Math.abs(constant));
    case "and": {
      // x & ~7 is a multiple of 8.
      const bits = [a.multipleOf, b.multipleOf].map(lowestBit);
      return bits.includes(0) ? 0 : Math.max(...bits);
    }
    default:
      return 1;
  }
}

function independent(a: Facts, b: Facts): ReadonlySet<Value | IdName> | undefined {
  if (!a.attainedBy || !b.attainedBy) return undefined;
  for (const leaf of a.attainedBy) if (b.attainedBy.has(leaf)) return undefined;
  return new Set([...a.attainedBy, ...b.attainedBy]);
}

const exactly = (value: number): Facts => ({
  min: value,
  max: value,
  multipleOf: Math.abs(value),
  attainedBy: nothing,
});

function top({ dtype }: Type): Facts {
  const [min, max] =
    ({ u32: [0, 2 ** 32 - 1], i8: [-128, 127], u8: [0, 255], bool: [0, 1] } as const)[dtype.name as "u32"] ??
    ([-(2 ** 31), 2 ** 31 - 1] as const);
  return { min, max, multipleOf: 1, attainedBy: undefined };
}

/** The largest power of two that divides; 0 for 0. */
function lowestBit(value: number): number {
  if (value === 0) return 0;
  let bit = 1;
  while (value % (bit * 2) === 0) bit *= 2;
  return bit;
}
