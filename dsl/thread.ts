/**
 * `t`: a kernel as one of its threads sees it. Where it is in the grid, what it shares with others, how it branches and
 * loops, and the points of programmatic dependent launch. tile/thread.ts adds what tiles need.
 */
import { checkReceivers, describe, describeAll, mostDimensions, requireDType, requireOptions } from "./check.ts";
import { bool, type DType, type DTypeName, i32, type NumericName } from "./dtype.ts";
import { ShapeError, StagingError } from "./errors.ts";
import { Expr, type Index, type Operand, toIndex, toValue, use, wrap } from "./expr.ts";
import type { Block, IdName, LaneCount, ReduceFn, Register, Shared, ShuffleMode, Type } from "./ir.ts";
import type { TensorOptions } from "./params.ts";
import { Reg, RegArray } from "./register.ts";
import { type Dim, isDim } from "./size.ts";
import { callerLocation, type Location, variableNameAt } from "./source.ts";
import { Tensor } from "./tensor.ts";
import { Trace } from "./trace.ts";
import { requireLanes } from "./typing.ts";

/** Exprs along the three axes of the grid. */
export interface Axes {
  readonly x: Expr<"i32">;
  readonly y: Expr<"i32">;
  readonly z: Expr<"i32">;
}

export interface RangeOptions {
  /** A positive whole number. Default 1. */
  readonly step?: number;
  /** Ask the compiler to unroll the whole loop; needs bounds known while tracing. */
  readonly unroll?: boolean;
}

/**
 * Programmatic dependent launch; CUDA C++ Programming Guide, "Programmatic Dependent Launch and Synchronization".
 * ```ts
 * const params = { w: frozen(f32, [64]), x: input(f32, [64]), y: output(f32, [64]) };
 * kernel({ name: "scale", grid: 1, block: 64, params }, (t, { w }) => {
 *   const weight = w.load([t.thread]); // on its way before the wait
 *   t.pdl.launchDependents();
 *   t.when(t.warp.eq(0), () => t.pdl.wait());
 *   t.barrier(); // the other warp comes after the one that waited
 *   const { x, y } = t.pdl.afterBarrier();
 *   y.store([t.thread], x.load([t.thread]).mul(weight));
 * });
 * ```
 */
export interface Pdl<Late> {
  /** Lets the next kernel start as soon as every block came here. It publishes no memory. */
  launchDependents(): void;
  /**
   * Waits until the kernels before this one are complete and visible; yields the tensors that they may have written. Once per
   * thread, outside loops. In a branch of some warps the tensors live in that branch only.
   */
  wait(): Late;
  /** The same tensors without waiting, for warps that came through `t.barrier()` after another warp of their block had waited. */
  afterBarrier(): Late;
}

/** How many blocks, of how many threads. */
export interface LaunchShape {
  readonly grid: readonly [Dim, Dim, Dim];
  readonly block: number;
  readonly cluster: number;
}

export class BasicThread<Late = unknown> {
  /** blockIdx */
  readonly block: Axes;
  /** gridDim */
  readonly grid: Axes;
  /** Index of the thread in its block. */
  readonly thread: Expr<"i32">;
  /** Index of the warp in its block. */
  readonly warp: Expr<"i32">;
  /** Index of the thread in its warp: 0 to 31. */
  readonly lane: Expr<"i32">;
  /** Warps per block. */
  readonly warps: number;
  readonly pdl: Pdl<Late>;
  protected readonly trace: Trace;

  constructor(trace: Trace, { grid, block }: LaunchShape, late: () => Late) {
    this.trace = trace;
    const at = trace.root.at;
    const id = (name: IdName): Expr<"i32"> =>
      new Expr(trace, trace.root, trace.leaf(`id ${name}`, i32, { kind: "id", id: name }, at));
    this.block = { x: id("block.x"), y: id("block.y"), z: id("block.z") };
    const lazyAxis = (axis: 0 | 1 | 2): Expr<"i32"> => wrap(trace, trace.dim(grid[axis], callerLocation()));
    this.grid = {
      get x() {
        return lazyAxis(0);
      },
      get y() {
        return lazyAxis(1);
      },
      get z() {
        return lazyAxis(2);
      },
    };
    this.thread = id("thread");
    this.warp = id("warp");
    this.lane = id("lane");
    this.warps = block / 32;
    this.pdl = {
      launchDependents: () => trace.emit({ kind: "pdlLaunch", at: callerLocation() }),
      wait: () => {
        trace.emit({ kind: "pdlWait", at: callerLocation() });
        return late();
      },
      afterBarrier: () => late(),
    };
  }

  /**
   * A constant. f32 rounds to nearest; the other dtypes must hold the number exactly or, for narrow floats, round it.
   * ```ts
   * t.const(bf16, 1.003) // 1
   * ```
   */
  const<D extends DTypeName>(dtype: DType<D>, value: number): Expr<D> {
    const at = callerLocation();
    requireDType(dtype, at);
    return wrap(this.trace, this.trace.constant(dtype, value, at));
  }

  /**
   * A dimension, whichever kind it is, as an Expr.
   * ```ts
   * t.dim(rows).sub(1) // i32
   * ```
   */
  dim(dim: Dim): Expr<"i32"> {
    const at = callerLocation();
    if (!isDim(dim)) throw new ShapeError(`A dimension is a whole number or a size, not ${describe(dim)}`, { at });
    return wrap(this.trace, this.trace.dim(dim, at));
  }

  /**
   * A mutable register, of `lanes` lanes or as many as `init` has.
   * ```ts
   * const largest = t.reg(f32, -Infinity);
   * largest.update((now) => now.max(x.load([t.warp, t.lane]).to(f32)));
   * ```
   */
  reg<D extends DTypeName, L extends LaneCount = 1>(
    dtype: DType<D>,
    init: Operand<NoInfer<D>, L> | number,
    lanes?: L,
  ): Reg<D, L> {
    const at = callerLocation();
    const trace = this.trace;
    const type = typeOf(dtype, lanes ?? (init instanceof Expr || init instanceof Reg ? init.lanes : 1), at);
    const value = toValue(trace, init, type, "reg", at);
    const register: Register = Object.freeze({ name: variableNameAt(at) ?? "r", type, length: undefined, at });
    trace.emit({ kind: "declare", register, init: value, at });
    return new Reg<D, L>(trace, trace.current, register);
  }

  /**
   * `length` registers. Without `init` their content is undefined until set.
   * ```ts
   * const rW = t.array(bf16, 4, { lanes: 8 }); // (4) of 8
   * ```
   */
  array<D extends DTypeName, L extends LaneCount = 1>(
    dtype: DType<D>,
    length: number,
    options: { readonly lanes?: L; readonly init?: Operand<NoInfer<D>, NoInfer<L>> | number } = {},
  ): RegArray<D, L> {
    const at = callerLocation();
    const trace = this.trace;
    requireOptions(options, ["lanes", "init"], at);
    const { lanes, init } = options;
    if (!Number.isInteger(length) || length < 1) {
      throw new ShapeError(`A register array has a fixed length of at least 1, not ${describe(length)}`, {
        at,
        hint: "Its length must be a TypeScript number; registers can't be allocated at run time",
      });
    }
    const type = typeOf(dtype, lanes ?? 1, at);
    const value = init === undefined ? undefined : toValue(trace, init, type, "array", at);
    const register: Register = Object.freeze({ name: variableNameAt(at) ?? "r", type, length, at });
    trace.emit({ kind: "declare", register, init: value, at });
    return new RegArray<D, L>(trace, trace.current, register, length);
  }

  /**
   * A vector of 2, 4, 8 or 16 scalars.
   * ```ts
   * t.pack(t.lane, t.warp) // i32x2
   * ```
   */
  pack<D extends DTypeName, const E extends readonly Expr<NoInfer<D>>[]>(
    first: Expr<D>,
    ...others: E
  ): Expr<D, [0, ...E]["length"] & LaneCount>;
  pack<D extends DTypeName>(...lanes: readonly Expr<D>[]): Expr<D, LaneCount>;
  pack(...lanes: readonly Expr[]): Expr<DTypeName, LaneCount> {
    const at = callerLocation();
    const values = lanes.map((lane) => use(this.trace, lane, "a lane of pack", at));
    return wrap(this.trace, this.trace.let({ kind: "pack", lanes: Object.freeze(values) }, at));
  }

  /**
   * Shared memory of the block: undefined content, 16-byte aligned or more, the same tensor wherever in the kernel it is made.
   * That no thread reads what another still writes is seen by the simulator, not while tracing: `simulate`, `npm run check`.
   * ```ts
   * const sums = t.shared(f32, [t.warps, 16]);
   * ```
   */
  shared<N extends DTypeName, const S extends readonly [number, ...number[]]>(
    dtype: DType<N>,
    shape: S,
    options: TensorOptions = {},
  ): Tensor<N, S["length"], "shared"> {
    const at = callerLocation();
    requireDType(dtype, at);
    requireOptions(options, ["alignBytes"], at);
    const { alignBytes = 16 } = options;
    const ranked = Array.isArray(shape) && shape.length > 0 && shape.length <= mostDimensions;
    if (!ranked || !shape.every((size) => Number.isInteger(size) && size >= 1)) {
      const given = Array.isArray(shape) ? describeAll(shape) : describe(shape);
      throw new ShapeError(`Shared memory has a fixed shape of positive whole numbers, not ${given}`, {
        at,
        hint: "Write t.shared(f32, [rows, columns]) with TypeScript numbers; for a size known at launch use its maximum",
      });
    }
    if (![16, 32, 64, 128, 256, 512, 1024].includes(alignBytes)) {
      throw new ShapeError(
        `Shared memory is aligned to a power of two from 16 to 1,024 bytes, not ${describe(alignBytes)}`,
        { at },
      );
    }
    const name = variableNameAt(at) ?? "s";
    const memory: Shared = Object.freeze({
      kind: "shared",
      name,
      dtype,
      shape: Object.freeze([...shape]),
      alignBytes,
      at,
    });
    this.trace.shared.push(memory);
    return new Tensor<N, S["length"], "shared">(this.trace, this.trace.root, memory, "shared");
  }

  /**
   * A loop: `for (const i of t.range(n)) { ... }`. Its body is traced once, with `i` standing for every iteration. What
   * it makes can't leave it except through registers and memory.
   * ```ts
   * const sum = t.reg(f32, 0);
   * for (const k of t.range(t.lane, 128, { step: 32 })) sum.update((s) => s.add(x.load([0, k]).to(f32)));
   * ```
   */
  range(end: Index, options?: RangeOptions): Iterable<Expr<"i32">>;
  range(start: Index, end: Index, options?: RangeOptions): Iterable<Expr<"i32">>;
  range(first: Index, second?: Index | RangeOptions, third?: RangeOptions): Iterable<Expr<"i32">> {
    const at = callerLocation();
    const { trace } = this;
    const single = second === undefined || isOptions(second);
    const [start, end] = single ? [0, first] : [first, second];
    const options = (single ? second : third) ?? {};
    requireOptions(options, ["step", "unroll"], at);
    const { step = 1, unroll = false } = options;
    if (!Number.isInteger(step) || step < 1) {
      throw new ShapeError(`The step of a loop is a positive TypeScript number, not ${describe(step)}`, { at });
    }
    trace.idleLoops.add(at);
    return {
      [Symbol.iterator](): Iterator<Expr<"i32">> {
        trace.idleLoops.delete(at);
        const from = toIndex(trace, start, "range", at);
        const to = toIndex(trace, end, "range", at);
        if (unroll && (from.op.kind !== "const" || to.op.kind !== "const")) {
          throw new StagingError("Only a loop whose bounds are TypeScript numbers can be unrolled", { at });
        }
        const induction = trace.induction(at);
        trace.facts.enterLoop(induction, from, to, step);
        const scope = trace.open(at);
        let started = false;
        return {
          next() {
            if (!started) {
              started = true;
              return { done: false, value: wrap(trace, induction) };
            }
            const body = trace.close(scope);
            trace.emit({ kind: "for", induction, from, to, step, unroll, body, at });
            return { done: true, value: undefined };
          },
          return(): never {
            throw new StagingError("A traced loop was left before its end, by break, return or destructuring", {
              at,
              related: [{ what: "the last line recorded in it is", at: Trace.lastLine(scope) }],
              hint: "Its body runs once, while tracing; put what should be skipped into t.when(condition, ...)",
            });
          },
        };
      },
    };
  }

  /**
   * Branches on a run-time condition. Both functions are traced.
   * ```ts
   * t.when(t.lane.eq(0), () => line.store([t.warp], t.const(bf16, 1)));
   * ```
   */
  when(condition: Expr<"bool"> | Reg<"bool">, then: () => void, otherwise?: () => void): void {
    const at = callerLocation();
    const value = toValue(this.trace, condition, { dtype: bool, lanes: 1 }, "when", at);
    const thenBlock = this.trace.block(at, then);
    const otherwiseBlock = otherwise === undefined ? noStmts : this.trace.block(at, otherwise);
    this.trace.emit({ kind: "if", condition: value, then: thenBlock, otherwise: otherwiseBlock, at });
  }

  /**
   * Waits for every thread of the block; what they stored to shared memory before is visible after (`__syncthreads`).
   * Where one is missing there is a race, which tracing doesn't see: the simulator does (`simulate`, `npm run check`).
   * ```ts
   * line.store([t.thread], t.const(bf16, 1));
   * t.barrier();
   * line.load([t.thread.xor(64)]) // bf16
   * ```
   */
  barrier(): void {
    this.trace.emit({ kind: "barrier", scope: "block", at: callerLocation() });
  }

  /**
   * The same for the 32 threads of the warp (`__syncwarp`).
   * ```ts
   * line.store([t.thread], t.const(bf16, 1));
   * t.warpBarrier();
   * line.load([t.thread.xor(1)]) // bf16
   * ```
   */
  warpBarrier(): void {
    this.trace.emit({ kind: "barrier", scope: "warp", at: callerLocation() });
  }

  /**
   * The value of lane `lane ^ mask`.
   * ```ts
   * const [other, first] = [t.shuffleXor(t.thread, 1), t.shuffle(t.thread, 0)];
   * const [before, after] = [t.shuffleUp(t.thread, 1), t.shuffleDown(t.thread, 1)];
   * ```
   */
  shuffleXor<D extends NumericName>(x: Expr<D> | Reg<D>, mask: Index): Expr<D> {
    return this.exchange("xor", x, mask);
  }
  /** The value of lane `lane - delta`; lanes below `delta` keep their own. */
  shuffleUp<D extends NumericName>(x: Expr<D> | Reg<D>, delta: Index): Expr<D> {
    return this.exchange("up", x, delta);
  }
  /** The value of lane `lane + delta`; the last `delta` lanes keep their own. */
  shuffleDown<D extends NumericName>(x: Expr<D> | Reg<D>, delta: Index): Expr<D> {
    return this.exchange("down", x, delta);
  }
  /** The value of lane `source` modulo 32. */
  shuffle<D extends NumericName>(x: Expr<D> | Reg<D>, source: Index): Expr<D> {
    return this.exchange("index", x, source);
  }

  /**
   * Sum over the warp, the same in every lane: a butterfly over distances 16, 8, 4, 2, 1.
   * ```ts
   * const value = x.load([t.warp, t.lane]).to(f32);
   * const [mean, low, high] = [t.warpSum(value).div(32), t.warpMin(value), t.warpMax(value)];
   * t.warpAny(value.lt(0)).and(t.warpAll(value.lt(1))) // bool
   * ```
   */
  warpSum<D extends NumericName>(x: Expr<D> | Reg<D>): Expr<D> {
    return this.reduce("add", x);
  }
  /** The smallest over the warp, the same in every lane; of a NaN, as min. */
  warpMin<D extends NumericName>(x: Expr<D> | Reg<D>): Expr<D> {
    return this.reduce("min", x);
  }
  /** The largest over the warp, the same in every lane; of a NaN, as max. */
  warpMax<D extends NumericName>(x: Expr<D> | Reg<D>): Expr<D> {
    return this.reduce("max", x);
  }
  /** Whether any lane's condition is true. */
  warpAny(x: Expr<"bool"> | Reg<"bool">): Expr<"bool"> {
    return this.reduce("or", x);
  }
  /** Whether every lane's condition is true. */
  warpAll(x: Expr<"bool"> | Reg<"bool">): Expr<"bool"> {
    return this.reduce("and", x);
  }

  /**
   * Lets about this many nanoseconds pass (`__nanosleep`); nothing in WGSL. For tests of ordering.
   * ```ts
   * t.sleep(1000);
   * ```
   */
  sleep(nanoseconds: number): void {
    const at = callerLocation();
    if (!Number.isInteger(nanoseconds) || nanoseconds < 0 || nanoseconds > 1_000_000) {
      throw new ShapeError(`sleep takes 0 to 1,000,000 whole nanoseconds, not ${describe(nanoseconds)}`, { at });
    }
    this.trace.emit({ kind: "sleep", nanoseconds, at });
  }

  private exchange<D extends DTypeName>(mode: ShuffleMode, x: Expr<D> | Reg<D>, by: Index): Expr<D> {
    const at = callerLocation();
    const a = use(this.trace, x, "the operand of a shuffle", at);
    return wrap(
      this.trace,
      this.trace.let({ kind: "shuffle", mode, a, by: toIndex(this.trace, by, "shuffle", at) }, at),
    );
  }

  private reduce<D extends DTypeName>(fn: ReduceFn, x: Expr<D> | Reg<D>): Expr<D> {
    const at = callerLocation();
    const a = use(this.trace, x, "the operand of a warp reduction", at);
    return wrap(this.trace, this.trace.let({ kind: "reduce", fn, a }, at));
  }

  static {
    checkReceivers(this, "Thread");
  }
}

const noStmts: Block = Object.freeze([]);

function typeOf(dtype: DType, lanes: number, at: Location): Type {
  requireDType(dtype, at);
  requireLanes(lanes, at);
  return Object.freeze({ dtype, lanes });
}

function isOptions(value: Index | RangeOptions): value is RangeOptions {
  return typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}
