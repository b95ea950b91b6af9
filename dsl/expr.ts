/**
 * Exprs: run-time values in an author's hands. An Expr is immutable; every method records one operation and returns a new
 * Expr. Types carry the dtype and the lane count, so tsc refuses to add f32 to u32 or to store bf16 as f32.
 */
import { checkReceivers, describe, requireDType } from "./check.ts";
import type { DType, DTypeName, IntegerName, NumericName } from "./dtype.ts";
import { f32, i32, u32 } from "./dtype.ts";
import { DTypeError, StagingError } from "./errors.ts";
import type { BinaryFn, LaneCount, Type, UnaryFn, Value } from "./ir.ts";
import { formatType } from "./ir.ts";
import type { Reg } from "./register.ts";
import { Size } from "./size.ts";
import { callerLocation, type Location } from "./source.ts";
import type { Scope, Trace, Traced } from "./trace.ts";
import { convertible, whereMade } from "./typing.ts";

/** What may stand where an Expr of this type is wanted. A scalar spreads over the lanes of a vector. */
export type Operand<D extends DTypeName, L extends LaneCount = 1> =
  | Expr<D, L>
  | Reg<D, L>
  | Expr<D, 1>
  | Reg<D, 1>
  | (D extends NumericName ? number : never)
  | (D extends "i32" ? Size : never);

/** An index into a tensor. */
export type Index = number | Size | Expr<"i32"> | Reg<"i32">;

/**
 * A value that each thread will have. Methods record an operation; numbers may stand for constants of the same dtype, and
 * scalars for vectors of equal lanes.
 * ```ts
 * const seven = t.const(i32, 7);
 * seven.add(2).mul(3).sub(1) // 26
 * seven.div(2) // 3
 * seven.rem(4) // 3
 * seven.min(3).max(5) // 5
 * seven.and(3).or(8).xor(1) // 10
 * seven.shl(2).shr(1) // 14
 * seven.eq(7) // true
 * const x = t.lane.to(f32).mul(0.5); // known on the device only: what follows are dtypes
 * x.neg().exp().add(1).rsqrt() // f32
 * x.abs().log().sqrt().tanh() // f32
 * x.fma(2, 1).round().to(i32) // i32
 * x.floor().lt(x.ceil()) // bool
 * x.le(1).and(x.ge(0)).or(x.ne(4).not()) // bool
 * x.gt(0).select(x, 0) // f32
 * x.bitcast(u32).clz().popcount() // u32
 * t.pack(x, x).mul(2) // f32x2
 * t.pack(x, x).lane(1) // f32
 * ```
 */
export class Expr<D extends DTypeName = DTypeName, L extends LaneCount = 1> implements Traced {
  readonly dtype: DType<D>;
  readonly lanes: L;
  /** The IR node; for backends and tools. */
  readonly value: Value;
  readonly trace: Trace;
  readonly scope: Scope;

  /**
   * Never there at run time. Declaring it makes tsc refuse `if (expr)`, `expr ? a : b` and `expr && a` ("this condition
   * will always return true"), as it does for promises: write t.when(...) or condition.select(a, b).
   */
  declare readonly then: (resolve: (value: "not a JavaScript condition: use t.when or select") => void) => void;

  constructor(trace: Trace, scope: Scope, value: Value) {
    this.trace = trace;
    this.scope = scope;
    this.value = value;
    this.dtype = value.type.dtype as DType<D>;
    this.lanes = value.type.lanes as L;
  }

  get at(): Location {
    return this.value.at;
  }

  /** Sum. f32 rounds to nearest even; integers wrap. */
  add(this: Expr<D & NumericName, L>, other: Operand<D, L>): Expr<D, L> {
    return binary("add", this, other);
  }
  /** Difference. f32 rounds to nearest even; integers wrap. */
  sub(this: Expr<D & NumericName, L>, other: Operand<D, L>): Expr<D, L> {
    return binary("sub", this, other);
  }
  /** Product. f32 rounds to nearest even; integers wrap. */
  mul(this: Expr<D & NumericName, L>, other: Operand<D, L>): Expr<D, L> {
    return binary("mul", this, other);
  }
  /** f32: IEEE division. Integers: truncates; x / 0 = x. */
  div(this: Expr<D & NumericName, L>, other: Operand<D, L>): Expr<D, L> {
    return binary("div", this, other);
  }
  /** Remainder with the sign of the dividend; x rem 0 = 0. */
  rem(this: Expr<D & IntegerName, L>, other: Operand<D, L>): Expr<D, L> {
    return binary("rem", this, other);
  }
  /** The smaller one. Of a NaN and another number it is either. */
  min(this: Expr<D & NumericName, L>, other: Operand<D, L>): Expr<D, L> {
    return binary("min", this, other);
  }
  /** The larger one. Of a NaN and another number it is either: ask x.ne(x) first where NaN must stay. */
  max(this: Expr<D & NumericName, L>, other: Operand<D, L>): Expr<D, L> {
    return binary("max", this, other);
  }
  /** Logical on bool, bitwise on integers. */
  and(this: Expr<D & (IntegerName | "bool"), L>, other: Operand<D, L>): Expr<D, L> {
    return binary("and", this, other);
  }
  /** Logical on bool, bitwise on integers. */
  or(this: Expr<D & (IntegerName | "bool"), L>, other: Operand<D, L>): Expr<D, L> {
    return binary("or", this, other);
  }
  /** Exclusive or: logical on bool, bitwise on integers. */
  xor(this: Expr<D & (IntegerName | "bool"), L>, other: Operand<D, L>): Expr<D, L> {
    return binary("xor", this, other);
  }
  /** Shifts left, by `count` modulo 32. */
  shl(this: Expr<D & IntegerName, L>, count: Operand<D, L>): Expr<D, L> {
    return binary("shl", this, count);
  }
  /** Shifts right, by `count` modulo 32: i32 keeps its sign, u32 fills with zeros. */
  shr(this: Expr<D & IntegerName, L>, count: Operand<D, L>): Expr<D, L> {
    return binary("shr", this, count);
  }

  /** Whether they are equal, lane by lane; false of a NaN. */
  eq(this: Expr<D & (NumericName | "bool"), L>, other: Operand<D, L>): Expr<"bool", L> {
    return binary("eq", this, other);
  }
  /** Whether they differ, lane by lane; true of a NaN: x.ne(x) asks for one. */
  ne(this: Expr<D & (NumericName | "bool"), L>, other: Operand<D, L>): Expr<"bool", L> {
    return binary("ne", this, other);
  }
  /** this < other, lane by lane; false of a NaN. */
  lt(this: Expr<D & NumericName, L>, other: Operand<D, L>): Expr<"bool", L> {
    return binary("lt", this, other);
  }
  /** this <= other, lane by lane; false of a NaN. */
  le(this: Expr<D & NumericName, L>, other: Operand<D, L>): Expr<"bool", L> {
    return binary("le", this, other);
  }
  /** this > other, lane by lane; false of a NaN. */
  gt(this: Expr<D & NumericName, L>, other: Operand<D, L>): Expr<"bool", L> {
    return binary("gt", this, other);
  }
  /** this >= other, lane by lane; false of a NaN. */
  ge(this: Expr<D & NumericName, L>, other: Operand<D, L>): Expr<"bool", L> {
    return binary("ge", this, other);
  }

  /** -this; -(2^31) of i32 stays what it is. */
  neg(this: Expr<D & ("f32" | "i32"), L>): Expr<D, L> {
    return unary("neg", this);
  }
  /** Magnitude; that of -(2^31) in i32 stays negative. */
  abs(this: Expr<D & ("f32" | "i32"), L>): Expr<D, L> {
    return unary("abs", this);
  }
  /** Logical on bool, bitwise on integers. */
  not(this: Expr<D & (IntegerName | "bool"), L>): Expr<D, L> {
    return unary("not", this);
  }
  /** e^x, within 2 ulp. */
  exp(this: Expr<D & "f32", L>): Expr<D, L> {
    return unary("exp", this);
  }
  /** Natural logarithm, within 2 ulp. */
  log(this: Expr<D & "f32", L>): Expr<D, L> {
    return unary("log", this);
  }
  /** Square root; NaN below 0. */
  sqrt(this: Expr<D & "f32", L>): Expr<D, L> {
    return unary("sqrt", this);
  }
  /** 1 / sqrt(x), within 2 ulp. */
  rsqrt(this: Expr<D & "f32", L>): Expr<D, L> {
    return unary("rsqrt", this);
  }
  /** Hyperbolic tangent, within 2 ulp. */
  tanh(this: Expr<D & "f32", L>): Expr<D, L> {
    return unary("tanh", this);
  }
  /** The next whole number below, or itself. */
  floor(this: Expr<D & "f32", L>): Expr<D, L> {
    return unary("floor", this);
  }
  /** The next whole number above, or itself. */
  ceil(this: Expr<D & "f32", L>): Expr<D, L> {
    return unary("ceil", this);
  }
  /** To the nearest whole number, ties to even. Before `.to(i8)`, which truncates. */
  round(this: Expr<D & "f32", L>): Expr<D, L> {
    return unary("round", this);
  }
  /** Number of one bits. */
  popcount(this: Expr<D & IntegerName, L>): Expr<D, L> {
    return unary("popcount", this);
  }
  /** Number of leading zero bits; 32 for 0. */
  clz(this: Expr<D & IntegerName, L>): Expr<D, L> {
    return unary("clz", this);
  }

  /** this * factor + addend, rounded once (in f32; WGSL devices may round twice). */
  fma(this: Expr<D & "f32", L>, factor: Operand<D, L>, addend: Operand<D, L>): Expr<D, L> {
    const { trace, at, a, other } = begin("fma", this, factor);
    const c = toValue(trace, addend, a.type, "fma", at);
    return wrap(trace, trace.let({ kind: "fma", a, b: other, c }, at));
  }

  /** `yes` where this is true, else `no`. Both are evaluated. */
  select<T extends DTypeName, M extends LaneCount>(
    this: Expr<D & "bool", L>,
    yes: Expr<T, M>,
    no: Operand<NoInfer<T>, NoInfer<M>>,
  ): Expr<T, M> {
    const at = callerLocation();
    const condition = use(this.trace, this, "the condition of select", at);
    const yesValue = use(this.trace, yes, "an operand of select", at);
    const noValue = toValue(this.trace, no, yesValue.type, "select", at);
    return wrap(this.trace, this.trace.let({ kind: "select", condition, yes: yesValue, no: noValue }, at));
  }

  /**
   * Converts. Floats to narrower floats round to nearest even, and saturate for e4m3 and e5m2; f32 to integers truncates
   * and saturates (NaN to 0); between integers the low bits stay; bool is 0 or 1, and anything but 0 is true.
   */
  to<T extends DTypeName>(dtype: DType<T>): Expr<T, L> {
    const at = callerLocation();
    requireDType(dtype, at);
    const value = use(this.trace, this, "the operand of to", at);
    return wrap(this.trace, convert(this.trace, value, dtype, at));
  }

  /** The same bits read as another dtype of the same size. */
  bitcast<T extends DTypeName>(dtype: DType<T>): Expr<T, L> {
    const at = callerLocation();
    requireDType(dtype, at);
    const a = use(this.trace, this, "the operand of bitcast", at);
    return wrap(
      this.trace,
      a.type.dtype.name === dtype.name ? a : this.trace.let({ kind: "bitcast", a, to: dtype }, at),
    );
  }

  /** One lane of a vector; `lane` is a TypeScript number. */
  lane(lane: number): Expr<D, 1> {
    const at = callerLocation();
    const a = use(this.trace, this, "the vector", at);
    return wrap(this.trace, this.lanes === 1 && lane === 0 ? a : this.trace.let({ kind: "extract", a, lane }, at));
  }

  toString(): string {
    return `${formatType(this.value.type)} made at ${this.at.file}:${this.at.line}`;
  }

  /** JavaScript operators can't see run-time values. @throws StagingError */
  [Symbol.toPrimitive](): never {
    throw new StagingError("A run-time value was used in JavaScript arithmetic, comparison or text", {
      at: callerLocation(),
      related: [{ what: `the ${formatType(this.value.type)} was made`, at: this.at }],
      hint: "Use its methods: a.add(b), a.lt(b), condition.select(a, b)",
    });
  }

  static {
    checkReceivers(this);
  }
}

/** Wraps a value as belonging to the innermost open block. */
export function wrap<D extends DTypeName, L extends LaneCount>(trace: Trace, value: Value): Expr<D, L> {
  return new Expr<D, L>(trace, trace.current, value);
}

/** The IR value of an Expr or register that may be used here. @throws StagingError, ScopeError */
export function use(trace: Trace, operand: unknown, what: string, at: Location): Value {
  if (operand instanceof Expr) {
    trace.checkScope("A value", operand);
    return operand.value;
  }
  if (isReg(operand)) return operand.read(trace, at);
  throw new StagingError(`${capitalized(what)} is ${describe(operand)}; a run-time value is needed`, {
    at,
    related: lastCondition(trace, operand),
    hint: insteadOf(operand),
  });
}

function insteadOf(operand: unknown): string | undefined {
  if (typeof operand === "boolean")
    return "`!x`, `x && y`, `x === y` are JavaScript's own: write x.not(), x.and(y), x.eq(y)";
  if (typeof operand === "number") return `Make it one: t.const(f32, ${operand})`;
  if (operand instanceof Size) return "Make it one: t.dim(size), an i32, and .to(f32) where that is needed";
  if (operand === undefined)
    return "A function without `return`, a missing property and a forgotten argument give undefined";
  if (typeof operand !== "object" || operand === null || !("trace" in operand)) return undefined;
  return "Take an element of it: tensor.load([i]), array.get(i)";
}

/** The IR value of an operand where a value of `type` is wanted: numbers become constants, scalars spread over lanes. */
export function toValue(trace: Trace, operand: unknown, type: Type, what: string, at: Location): Value {
  let value: Value;
  if (typeof operand === "number") {
    value = trace.constant(type.dtype, operand, at);
  } else if (operand instanceof Size && type.dtype === i32) {
    value = trace.dim(operand, at);
  } else {
    value = use(trace, operand, `an operand of ${what}`, at);
  }
  if (value.type.dtype !== type.dtype) {
    throw new DTypeError(`${titled(what)} takes ${formatType(type)} here, not ${formatType(value.type)}`, {
      at,
      related: whereMade("the value", value),
      hint: `Convert it: .to(${type.dtype.name})`,
    });
  }
  if (value.type.lanes === 1 && type.lanes > 1) {
    const lanes = Object.freeze(Array.from({ length: type.lanes }, () => value));
    return trace.let({ kind: "pack", lanes }, at);
  }
  if (value.type.lanes !== type.lanes) {
    throw new DTypeError(`${titled(what)} takes ${formatType(type)} here, not ${formatType(value.type)}`, {
      at,
      related: whereMade("the value", value),
    });
  }
  return value;
}

/** An index as an i32 value. */
export function toIndex(trace: Trace, index: unknown, what: string, at: Location): Value {
  return toValue(trace, index, { dtype: i32, lanes: 1 }, what, at);
}

/** Records a conversion; one between narrow types goes through f32. */
export function convert(trace: Trace, value: Value, to: DType, at: Location): Value {
  const from = value.type.dtype;
  if (from === to) return value;
  if (convertible(from, to)) return trace.let({ kind: "convert", a: value, to }, at);
  const between = from.kind === "float" || to.kind === "float" ? f32 : u32;
  const wide = trace.let({ kind: "convert", a: value, to: between }, at);
  return trace.let({ kind: "convert", a: wide, to }, at);
}

function unary<D extends DTypeName, L extends LaneCount>(fn: UnaryFn, self: Expr<DTypeName, L>): Expr<D, L> {
  const at = callerLocation();
  const a = use(self.trace, self, `the operand of ${fn}`, at);
  return wrap(self.trace, self.trace.let({ kind: "unary", fn, a }, at));
}

function binary<D extends DTypeName, L extends LaneCount>(
  fn: BinaryFn,
  self: Expr<DTypeName, L>,
  operand: unknown,
): Expr<D, L> {
  const { trace, at, a, other } = begin(fn, self, operand);
  return wrap(trace, trace.let({ kind: "binary", fn, a, b: other }, at));
}

function begin(what: string, self: Expr<DTypeName, LaneCount>, operand: unknown) {
  const at = callerLocation();
  const { trace } = self;
  const a = use(trace, self, `an operand of ${what}`, at);
  return { trace, at, a, other: toValue(trace, operand, a.type, what, at) };
}

function isReg(operand: unknown): operand is Reg<DTypeName, LaneCount> {
  return typeof operand === "object" && operand !== null && "read" in operand && "trace" in operand;
}

/** `!condition` leaves nothing behind but a boolean: the last condition made is most likely the one meant. */
function lastCondition(trace: Trace, operand: unknown): { what: string; at: Location }[] {
  if (typeof operand !== "boolean") return [];
  for (const stmt of trace.current.stmts.toReversed()) {
    if (stmt.kind === "let" && stmt.value.type.dtype.name === "bool") {
      return [{ what: "the last condition before it was made", at: stmt.at }];
    }
  }
  return [];
}

const capitalized = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);
/** A single word is a name that the author wrote: it stays as it is. */
const titled = (what: string): string => (what.includes(" ") ? capitalized(what) : what);
