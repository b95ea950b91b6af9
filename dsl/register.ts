/** Registers: what a thread may change. Everything else in a kernel is immutable. */
import { checkReceivers, describe } from "./check.ts";
import type { DType, DTypeName } from "./dtype.ts";
import { ShapeError, StagingError } from "./errors.ts";
import { type Expr, type Index, type Operand, toIndex, toValue, use, wrap } from "./expr.ts";
import type { LaneCount, Register, Value } from "./ir.ts";
import { callerLocation, type Location } from "./source.ts";
import type { Scope, Trace, Traced } from "./trace.ts";

/**
 * One mutable register. As an operand it stands for the value it has at that point.
 * ```ts
 * const sum = t.reg(f32, 0);
 * sum.set(2);
 * sum.update((now) => now.mul(sum));
 * sum.addDot(a8, a8);
 * sum.get() // f32
 * ```
 */
export class Reg<D extends DTypeName = DTypeName, L extends LaneCount = 1> implements Traced {
  readonly dtype: DType<D>;
  readonly lanes: L;
  readonly register: Register;
  readonly trace: Trace;
  readonly scope: Scope;
  private readonly index: Value | undefined;

  constructor(trace: Trace, scope: Scope, register: Register, index?: Value) {
    this.trace = trace;
    this.scope = scope;
    this.register = register;
    this.index = index;
    this.dtype = register.type.dtype as DType<D>;
    this.lanes = register.type.lanes as L;
  }

  get at(): Location {
    return this.register.at;
  }

  /** The value it has now. */
  get(): Expr<D, L> {
    return wrap(this.trace, this.read(this.trace, callerLocation()));
  }

  /** Gives it another value, from here on; a scalar goes to all lanes. */
  set(value: Operand<D, L>): void {
    const at = callerLocation();
    this.write(toValue(this.trace, value, this.register.type, "set", at), at);
  }

  /** Sets it to what a function makes of its value: `sum.update((s) => s.add(x))`. */
  update(next: (now: Expr<D, L>) => Operand<D, L>): void {
    if (typeof next !== "function") {
      throw new StagingError(`update takes a function, not ${describe(next)}`, {
        at: callerLocation(),
        hint: "Write sum.update((now) => now.add(x))",
      });
    }
    this.set(next(this.get()));
  }

  /** Adds a[0] * b[0] + a[1] * b[1] + ... in lane order, each step one f32 fma. */
  addDot<M extends LaneCount>(
    this: Reg<D & "f32", 1>,
    a: Expr<DTypeName, M> | Reg<DTypeName, M>,
    b: Expr<DTypeName, NoInfer<M>> | Reg<DTypeName, NoInfer<M>>,
  ): void {
    const at = callerLocation();
    const [left, right] = [
      use(this.trace, a, "an operand of addDot", at),
      use(this.trace, b, "an operand of addDot", at),
    ];
    const sum = this.read(this.trace, at);
    (this as Reg<"f32">).write(this.trace.let({ kind: "dot", a: left, b: right, c: sum }, at), at);
  }

  /** @internal Records a read; for operands. */
  read(trace: Trace, at: Location): Value {
    trace.checkScope("A register", this);
    return trace.let({ kind: "read", register: this.register, index: this.index }, at);
  }

  private write(value: Value, at: Location): void {
    this.trace.checkScope("A register", this);
    this.trace.emit({ kind: "write", register: this.register, index: this.index, value, at });
  }

  static {
    checkReceivers(this);
  }
}

/**
 * A fixed number of registers of one type. Indices that are TypeScript numbers or the variable of an unrolled loop keep
 * the array in registers; any other run-time index makes nvcc put it into (slow) local memory.
 * ```ts
 * const rows = t.array(f32, 4, { init: 0 });
 * for (const i of t.range(4, { unroll: true })) rows.set(i, rows.get(i).add(1));
 * rows.reg(3).update((now) => now.mul(2));
 * ```
 */
export class RegArray<D extends DTypeName = DTypeName, L extends LaneCount = 1> implements Traced {
  readonly dtype: DType<D>;
  readonly lanes: L;
  readonly register: Register;
  readonly length: number;
  readonly trace: Trace;
  readonly scope: Scope;

  constructor(trace: Trace, scope: Scope, register: Register, length: number) {
    this.trace = trace;
    this.scope = scope;
    this.register = register;
    this.length = length;
    this.dtype = register.type.dtype as DType<D>;
    this.lanes = register.type.lanes as L;
  }

  get at(): Location {
    return this.register.at;
  }

  /** One element, to read and to set. @throws ShapeError for a number outside the array */
  reg(index: Index): Reg<D, L> {
    const at = callerLocation();
    if (typeof index === "number" && !(Number.isInteger(index) && index >= 0 && index < this.length)) {
      throw new ShapeError(`${this.register.name} has ${this.length} registers; there is none at ${index}`, {
        at,
        related: [{ what: "the array was made", at: this.at }],
      });
    }
    this.trace.checkScope("A register array", this);
    return new Reg<D, L>(
      this.trace,
      this.trace.current,
      this.register,
      toIndex(this.trace, index, "a register array", at),
    );
  }

  /**
   * The value of one register now. Registers have no addresses: an index known while tracing, or that of an unrolled loop,
   * names one; any other makes nvcc keep the array in local memory, which is off the chip.
   */
  get(index: Index): Expr<D, L> {
    return this.reg(index).get();
  }

  /** Gives one register another value; indices as for get. */
  set(index: Index, value: Operand<D, L>): void {
    this.reg(index).set(value);
  }

  static {
    checkReceivers(this);
  }
}
