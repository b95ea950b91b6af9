/**
 * Tracing: while an author's function runs, this records what its Exprs do as IR statements.
 *
 * A Trace is a stack of open blocks. A value belongs to the block that was innermost when it was made and may be used
 * while that block is open; afterwards its line in the generated code would be out of scope.
 */
import { describe } from "./check.ts";
import { type DType, f32, i32 } from "./dtype.ts";
import { DTypeError, ScopeError, StagingError, UnsupportedError } from "./errors.ts";
import { foldBinary } from "./fold.ts";
import {
  type BinaryFn,
  type Block,
  type Leaf,
  type Op,
  type Shared,
  type Stmt,
  stmtOperands,
  type Type,
  type Value,
} from "./ir.ts";
import type { MBarrier, TensorMap } from "./ir-tile.ts";
import { decode, encode } from "./numerics.ts";
import { type Dim, minOf, multipleOf, type Size } from "./size.ts";
import { callerLocation, inOneDeclaration, type Location, loopVariableAt, variableNameAt } from "./source.ts";
import { resultType } from "./typing.ts";
import { FactsAnalysis, type LaunchFacts } from "./verify/facts.ts";

/** A block being recorded. */
export interface Scope {
  readonly stmts: Stmt[];
  readonly at: Location;
  open: boolean;
}

/** Anything of the author's that stands for recorded IR: Expr, Reg, tensor. */
export interface Traced {
  readonly trace: Trace;
  readonly scope: Scope;
  readonly at: Location;
}

/** More statements than any kernel needs: a `while (expr)` never ends and would otherwise eat all memory. */
const maxStatements = 200_000;

export class Trace {
  readonly kernelName: string;
  readonly root: Scope;
  readonly shared: Shared[] = [];
  readonly mbarriers: MBarrier[] = [];
  readonly tensorMaps: TensorMap[] = [];
  readonly usedSizes = new Set<Size>();
  /** Where loops were described that nothing has iterated yet. */
  readonly idleLoops = new Set<Location>();
  /** What is known about indices so far; for choosing how wide an access may be. */
  readonly facts: FactsAnalysis;
  private readonly stack: Scope[];
  private readonly leaves = new Map<string, Value>();
  /** Values that go by the author's name, as yet: not frozen, because only the last one of a declaration keeps it. */
  private readonly named = new Map<Value, { name: string | undefined }>();
  private nextId = 0;
  private statements = 0;

  constructor(kernelName: string, at: Location, launch: Omit<LaunchFacts, "body">) {
    this.kernelName = kernelName;
    this.facts = new FactsAnalysis({ ...launch, body: [] });
    this.root = { stmts: [], at, open: true };
    this.stack = [this.root];
  }

  /** The innermost open block. @throws ScopeError when the kernel is already finished */
  get current(): Scope {
    const scope = this.stack.at(-1);
    if (!scope) {
      throw new ScopeError(`The kernel ${this.kernelName} is finished; nothing can be added to it`, {
        at: callerLocation(),
        related: [{ what: "it began", at: this.root.at }],
        hint: "Build the whole kernel inside the function given to kernel(); don't keep `t` or values beyond it",
      });
    }
    return scope;
  }

  emit(stmt: Stmt): void {
    if (++this.statements > maxStatements) {
      throw new UnsupportedError(`The kernel ${this.kernelName} has more than ${maxStatements} statements`, {
        at: stmt.at,
        hint: "A JavaScript while on a run-time value never ends; for loops use t.range(...)",
      });
    }
    this.current.stmts.push(Object.freeze(stmt));
    if (stmt.kind === "let" || stmt.kind === "declare") this.takeName(stmt);
  }

  /** Records one operation and returns its value; folds integer constants. @throws DTypeError */
  let(op: Exclude<Op, Leaf>, at: Location): Value {
    const type = resultType(op, at);
    if (op.kind === "binary") {
      const folded = foldBinary(op.fn, op.a, op.b, (dtype, value) => this.constant(dtype, value, at));
      if (folded) return folded;
    }
    const value = this.value(type, op, at, variableNameAt(at));
    this.emit({ kind: "let", value, at });
    return value;
  }

  /** @throws DTypeError when the dtype can't hold the number */
  constant(dtype: DType, value: number, at: Location): Value {
    const exact = representable(dtype, value, at);
    const text = Object.is(exact, -0) ? "-0" : String(exact);
    return this.leaf(`const ${dtype.name} ${text}`, dtype, { kind: "const", value: exact }, at);
  }

  leaf(key: string, dtype: DType, op: Leaf, at: Location): Value {
    const known = this.leaves.get(key);
    if (known) return known;
    const value = this.value({ dtype, lanes: 1 }, op, at, undefined);
    this.leaves.set(key, value);
    return value;
  }

  /** A dimension as an i32 value; arithmetic on sizes becomes IR. */
  dim(dim: Dim, at: Location): Value {
    if (typeof dim === "number") return this.constant(i32, dim, at);
    const { term } = dim;
    if (term.kind === "named") {
      this.usedSizes.add(dim);
      return this.leaf(`size ${term.name}`, i32, { kind: "size", size: dim }, at);
    }
    const [a, b] = [this.dim(term.a, at), this.dim(term.b, at)];
    const one = this.constant(i32, 1, at);
    const binary = (fn: BinaryFn, left: Value, right: Value): Value =>
      this.let({ kind: "binary", fn, a: left, b: right }, at);
    if (term.op === "floorDiv") return binary("div", a, b);
    if (term.op !== "ceilDiv") return binary(term.op, a, b);
    if (typeof term.b === "number" && multipleOf(term.a) % term.b === 0) return binary("div", a, b);
    // Not (a + b - 1) / b, which wraps for a large a.
    if (minOf(term.a) >= 1) return binary("add", binary("div", binary("sub", a, one), b), one);
    return binary("add", binary("div", a, b), binary("min", binary("rem", a, b), one));
  }

  induction(at: Location): Value {
    return this.value({ dtype: i32, lanes: 1 }, { kind: "induction" }, at, loopVariableAt(at));
  }

  /** Opens a block; the caller closes it. */
  open(at: Location): Scope {
    const scope: Scope = { stmts: [], at, open: true };
    this.stack.push(scope);
    return scope;
  }

  /** Closes the innermost block and returns what it recorded. */
  close(scope: Scope): Block {
    if (this.stack.at(-1) !== scope) {
      throw new StagingError("A traced block was left before the blocks inside it ended", {
        at: scope.at,
        hint: "Don't leave a traced loop or branch by break, return or an iterator of your own",
      });
    }
    this.stack.pop();
    scope.open = false;
    if (scope === this.root) this.named.forEach(Object.freeze);
    return Object.freeze(scope.stmts);
  }

  /** Records a block by running a function. */
  block(at: Location, body: () => unknown): Block {
    if (typeof body !== "function") {
      throw new StagingError(`A branch is a function, not ${describe(body)}`, {
        at,
        hint: "Write t.when(condition, () => { ... }): what stands outside the arrow happens in every thread",
      });
    }
    const scope = this.open(at);
    rejectAsync(body(), at);
    return this.close(scope);
  }

  /** The last line recorded in a block, for error messages. */
  static lastLine(scope: Scope): Location {
    return scope.stmts.at(-1)?.at ?? scope.at;
  }

  /** Checks that something may be used here. @throws ScopeError */
  checkScope(what: string, traced: Traced): void {
    const at = (): Location => callerLocation();
    if (traced.trace !== this) {
      throw new ScopeError(`${what} belongs to the kernel ${traced.trace.kernelName}, not to ${this.kernelName}`, {
        at: at(),
        related: [{ what: "it was made", at: traced.at }],
        hint: "Each kernel makes its own values; pass numbers between kernels, or write the function inside",
      });
    }
    // Throws when the kernel is finished.
    void this.current;
    if (!traced.scope.open) {
      throw new ScopeError(`${what} is used outside the loop or branch that made it`, {
        at: at(),
        related: [
          { what: "it was made", at: traced.at },
          { what: "inside the block that began", at: traced.scope.at },
        ],
        hint: "Carry values out in a register: const r = t.reg(f32, 0) before the block, r.set(x) inside, r after it",
      });
    }
  }

  private value(type: Type, op: Op, at: Location, name: string | undefined): Value {
    const value = { id: this.nextId++, type: Object.freeze(type), op: Object.freeze(op), at, name };
    if (name === undefined) return Object.freeze(value);
    this.named.set(value, value);
    return value;
  }

  /** In `const sum = x.load([k]).add(1)` the sum has the name, not what was loaded for it. */
  private takeName(stmt: Stmt): void {
    for (const operand of stmtOperands(stmt)) {
      const inner = this.named.get(operand);
      if (!inner || !inOneDeclaration(operand.at, stmt.at)) continue;
      inner.name = undefined;
      Object.freeze(inner);
      this.named.delete(operand);
    }
  }
}

/** The rest of an async or generator function would run after tracing has ended, or never. @throws StagingError */
export function rejectAsync(result: unknown, at: Location): void {
  if (result instanceof Promise) {
    result.catch(() => undefined);
    throw new StagingError("A traced function can't be async: what follows its first await would not be recorded", {
      at,
      hint: "Do asynchronous work before calling kernel()",
    });
  }
  if (typeof result === "object" && result !== null && "next" in result) {
    throw new StagingError("A traced function can't be a generator: nothing in it would be recorded", {
      at,
      hint: "Write an ordinary function: () => { ... }",
    });
  }
}

/** The number as the dtype holds it. @throws DTypeError */
function representable(dtype: DType, value: number, at: Location): number {
  if (typeof value !== "number") {
    throw new StagingError(`${describe(value)} stands where a number or a run-time value is needed`, { at });
  }
  if (dtype === f32) return Math.fround(value);
  if (dtype.kind === "float") return decode(dtype, encode(dtype, value, dtype.bytes === 1 ? "satfinite" : "nosat"));
  const ranges: { readonly [name: string]: readonly [number, number] } = {
    i32: [-(2 ** 31), 2 ** 31 - 1],
    u32: [0, 2 ** 32 - 1],
    i8: [-128, 127],
    u8: [0, 255],
    bool: [0, 1],
  };
  const [low, high] = ranges[dtype.name] ?? [0, 0];
  if (!Number.isInteger(value) || value < low || value > high) {
    throw new DTypeError(`${value} is not ${dtype === i32 ? "an" : "a"} ${dtype.name}`, {
      at,
      hint: `Whole numbers from ${low} to ${high}; for fractions convert the other side with .to(f32)`,
    });
  }
  return value === 0 ? 0 : value;
}
