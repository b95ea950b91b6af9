/**
 * Facts about integer values: the range they lie in and what they are a multiple of. Alignment proofs, bounds checks and
 * the choice between 32-bit and 64-bit offsets all rest on these.
 */
import { i32, u32 } from "../dtype.ts";
import { computeInteger } from "../fold.ts";
import { type IdName, type KernelIR, type Type, type Value, walk } from "../ir.ts";
import { type Dim, evaluate, gcd, maxOf } from "../size.ts";
import { cornersOf, type Divisible, divisor, lowestBit, monotone, wrapping } from "./ranges.ts";

/** The values of the named sizes at one launch. */
export type SizeValues = ReadonlyMap<string, number>;

export interface Facts extends Divisible {
  /**
   * The independent leaves (lane, warp, block axes, loop variables) whose extremes together make `min` and `max`:
   * both are certain to occur. undefined where that is not known.
   */
  readonly attainedBy: ReadonlySet<Value | IdName> | undefined;
}

/** Some warps of a block. */
export interface WarpRange {
  readonly first: number;
  readonly last: number;
}

/** What of a kernel the facts rest on. */
export type LaunchFacts = Pick<KernelIR, "grid" | "block" | "cluster" | "body">;

const nothing: ReadonlySet<Value | IdName> = new Set();

export class FactsAnalysis {
  /** With them, the facts are those of launches with these sizes; otherwise of every launch. */
  readonly sizes: SizeValues | undefined;
  private readonly ir: LaunchFacts;
  private readonly warps: WarpRange;
  private readonly known = new Map<Value, Facts>();
  private readonly decided = new Map<Value, boolean | undefined>();
  /** Bounds of loop variables, from their `for`. */
  private readonly inductions = new Map<Value, Facts>();

  /** While tracing the body is not there yet: then loops are entered one by one. `warps`: the facts of these warps only. */
  constructor(ir: LaunchFacts, sizes?: SizeValues, warps: WarpRange = { first: 0, last: ir.block / 32 - 1 }) {
    this.ir = ir;
    this.sizes = sizes;
    this.warps = warps;
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

  /** What a dimension is where the sizes are known; otherwise the dimension. */
  extent(dim: Dim): Dim {
    return this.sizes ? evaluate(dim, this.sizes) : dim;
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
    if (!this.decided.has(condition)) this.decided.set(condition, this.decide(condition));
    return this.decided.get(condition);
  }

  private decide({ op }: Value): boolean | undefined {
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

  /** Notes what a loop's bounds say of its variable. */
  enterLoop(induction: Value, from: Value, to: Value, step: number): void {
    const [first, end] = [this.of(from), this.of(to)];
    const multiple = gcd(step, first.multipleOf);
    const exact = isExact(first) && isExact(end);
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
        if (this.sizes) return exactly(evaluate(op.size, this.sizes));
        return { min: op.size.min, max: op.size.max, multipleOf: op.size.multipleOf, attainedBy: undefined };
      case "id":
        return this.id(op.id);
      case "induction":
        return this.inductions.get(value) ?? top(type);
      case "binary":
        return type.dtype === i32 || type.dtype === u32 ? this.binary(value) : top(type);
      case "select": {
        const decided = this.decides(op.condition);
        if (decided !== undefined) return this.of(decided ? op.yes : op.no);
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
    const { grid } = this.ir;
    const { first, last } = this.warps;
    const span = (dim: Dim, leaves: readonly IdName[]): Facts => {
      const count = this.extent(dim);
      const attainedBy = typeof count === "number" ? new Set(leaves) : undefined;
      return { min: 0, max: Math.max(0, maxOf(count) - 1), multipleOf: 1, attainedBy };
    };
    switch (id) {
      case "block.x":
        return span(grid[0], [id]);
      case "block.y":
        return span(grid[1], [id]);
      case "block.z":
        return span(grid[2], [id]);
      case "thread":
        return { min: 32 * first, max: 32 * last + 31, multipleOf: 1, attainedBy: new Set(["warp", "lane"] as const) };
      case "warp":
        return { min: first, max: last, multipleOf: 1, attainedBy: new Set([id]) };
      case "lane":
        return span(32, [id]);
      case "rank":
        // Not independent of block.x, of which it is a part.
        return { min: 0, max: this.ir.cluster - 1, multipleOf: 1, attainedBy: undefined };
    }
  }

  private binary(value: Value): Facts {
    const { op, type } = value;
    if (op.kind !== "binary") return top(type);
    const [a, b] = [this.of(op.a), this.of(op.b)];
    if (isExact(a) && isExact(b)) return exactly(Number(computeInteger(op.fn, a.min, b.min, type.dtype === i32)));
    const multipleOf = divisor(op.fn, a, b);
    // The result may wrap: only powers of two still divide it.
    const wrapped = Math.max(1, lowestBit(multipleOf));
    const corners = cornersOf(op.fn, a, b);
    const limits = top(type);
    if (!corners) return { ...limits, multipleOf: wrapping.has(op.fn) ? wrapped : multipleOf };
    const [min, max] = [Math.min(...corners), Math.max(...corners)];
    if (min < limits.min || max > limits.max) return { ...limits, multipleOf: wrapped };
    if (multipleOf > 1) {
      // Between the bounds only multiples occur.
      const [least, most] = [Math.ceil(min / multipleOf) * multipleOf, Math.floor(max / multipleOf) * multipleOf];
      if (least === most) return exactly(least + 0);
      if (least !== min || most !== max) return { min: least, max: most, multipleOf, attainedBy: undefined };
    }
    return { min, max, multipleOf, attainedBy: monotone.has(op.fn) ? independent(a, b) : undefined };
  }
}

function independent(a: Facts, b: Facts): ReadonlySet<Value | IdName> | undefined {
  if (!a.attainedBy || !b.attainedBy) return undefined;
  for (const leaf of a.attainedBy) if (b.attainedBy.has(leaf)) return undefined;
  return new Set([...a.attainedBy, ...b.attainedBy]);
}

const isExact = ({ min, max }: Facts): boolean => min === max;

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
