/** Tensors in a kernel author's hands: typed loads, stores and atomics on global and shared memory. */
import { checkReceivers, describe, requireOptions } from "./check.ts";
import type { DType, DTypeName, NumericName } from "./dtype.ts";
import { ShapeError, StagingError } from "./errors.ts";
import { Expr, type Index, type Operand, toIndex, toValue, use, wrap } from "./expr.ts";
import type { AtomicFn, CacheHint, LaneCount, Memory, Role, Value } from "./ir.ts";
import { Reg } from "./register.ts";
import type { Dim } from "./size.ts";
import { callerLocation, type Location } from "./source.ts";
import type { Scope, Trace, Traced } from "./trace.ts";
import { type Tile, tileOf } from "./tile/tile.ts";
import { requirePeer } from "./typing.ts";

/** Where a tensor lives and what may be done with it. */
export type Access = Role | "shared";
export type Readable = "frozen" | "input" | "inout" | "shared";
export type Writable = "output" | "inout" | "shared";
type Atomic = "inout" | "shared";

/** One index per dimension. */
export type Indices<Rank extends number> = Rank extends 1
  ? readonly [Index]
  : Rank extends 2
    ? readonly [Index, Index]
    : Rank extends 3
      ? readonly [Index, Index, Index]
      : Rank extends 4
        ? readonly [Index, Index, Index, Index]
        : readonly Index[];

export interface PeerOptions<A extends Access = Access> {
  /** Of shared memory only: that of which block of the cluster. Default: the own block. */
  readonly peer?: A extends "shared" ? Index : never;
}

export interface LoadOptions<A extends Access = Access> extends PeerOptions<A> {
  /**
   * How CUDA's near cache (L1) treats the line; the result is the same, and WGSL and shared memory have no such choice.
   * "normal", the default; "stream": read once, not kept there; "evictFirst", "evictLast": the first, the last to leave.
   */
  readonly cache?: CacheHint;
  /** Where false, memory is not touched and the result is zero. */
  readonly guard?: Expr<"bool">;
}

export interface StoreOptions<A extends Access = Access> extends PeerOptions<A> {
  /** "normal", the default; "stream": not read again soon, so CUDA lets it leave the caches first. The result is the same. */
  readonly cache?: "normal" | "stream";
}

/**
 * Global or shared memory: contiguous, row-major. What may be done with it is its `access`.
 * ```ts
 * line.store([t.thread], x.load([t.warp, t.lane]));
 * line.storeVec([t.lane.mul(4)], x.loadVec([t.warp, t.lane.mul(4)], 4, { cache: "stream" }));
 * const votes = t.shared(i32, [4]);
 * votes.atomicAdd([0], 1) // i32
 * votes.atomicExchange([0], votes.atomicCompareExchange([1], 0, t.lane));
 * votes.atomicMax([2], votes.atomicMin([1], t.lane));
 * votes.atomicXor([3], votes.atomicOr([2], votes.atomicAnd([1], 7)));
 * ```
 */
export class Tensor<
  N extends DTypeName = DTypeName,
  Rank extends number = number,
  A extends Access = Access,
> implements Traced {
  readonly dtype: DType<N>;
  readonly access: A;
  readonly memory: Memory;
  readonly trace: Trace;
  readonly scope: Scope;
  declare readonly rank: Rank;

  constructor(trace: Trace, scope: Scope, memory: Memory, access: A) {
    this.trace = trace;
    this.scope = scope;
    this.memory = memory;
    this.access = access;
    this.dtype = memory.dtype as DType<N>;
  }

  get at(): Location {
    return this.memory.at;
  }

  get shape(): readonly Dim[] {
    return this.memory.shape;
  }

  /** One element. */
  load(this: Tensor<N, Rank, Readable>, index: Indices<Rank>, options: LoadOptions<A> = {}): Expr<N> {
    return load(this, index, 1, options);
  }

  /**
   * `lanes` consecutive elements of the last dimension, as one access of 1 to 16 bytes. Its alignment must follow from
   * `alignBytes`, the strides and the index; the verifier names what is missing.
   */
  loadVec<const L extends LaneCount>(
    this: Tensor<N, Rank, Readable>,
    index: Indices<Rank>,
    lanes: L,
    options: LoadOptions<A> = {},
  ): Expr<N, L> {
    return load(this, index, lanes, options);
  }

  /** One element. */
  store(this: Tensor<N, Rank, Writable>, index: Indices<Rank>, value: Operand<N>, options: StoreOptions<A> = {}): void {
    const at = callerLocation();
    const stored = toValue(this.trace, value, { dtype: this.dtype, lanes: 1 }, `a store to ${this.memory.name}`, at);
    store(this, index, stored, options, at);
  }

  /** Stores a vector to consecutive elements of the last dimension; alignment as for loadVec. */
  storeVec<L extends LaneCount>(
    this: Tensor<N, Rank, Writable>,
    index: Indices<Rank>,
    value: Expr<N, L> | Reg<N, L>,
    options: StoreOptions<A> = {},
  ): void {
    const at = callerLocation();
    const lanes = value instanceof Expr || value instanceof Reg ? value.lanes : 1;
    const stored = toValue(this.trace, value, { dtype: this.dtype, lanes }, `a store to ${this.memory.name}`, at);
    store(this, index, stored, options, at);
  }

  /**
   * The tile of `shape` elements number `coordinate`, counted in whole tiles along each dimension: CuTe's local_tile.
   * ```ts
   * const gW = w.tile([16, 256], [t.warp, 1]); // from row 16 * t.warp and column 256 on
   * gW // (16,256):(1@0,1@1)
   * ```
   * @throws ShapeError unless there is one number per dimension
   */
  tile(shape: readonly number[], coordinate: readonly Index[]): Tile<N, A> {
    return tileOf(this, shape, coordinate, callerLocation());
  }

  /** Adds to the element, and returns the old one: i32, u32, f32. Relaxed, at device scope, as all atomics. */
  atomicAdd(this: Tensor<N & NumericName, Rank, Atomic>, index: Indices<Rank>, value: Operand<N>): Expr<N> {
    return atomic("add", this, index, value);
  }
  /** The smaller of the element and `value` takes its place; returns the old element. */
  atomicMin(this: Tensor<N & ("i32" | "u32"), Rank, Atomic>, index: Indices<Rank>, value: Operand<N>): Expr<N> {
    return atomic("min", this, index, value);
  }
  /** The larger of the element and `value` takes its place; returns the old element. */
  atomicMax(this: Tensor<N & ("i32" | "u32"), Rank, Atomic>, index: Indices<Rank>, value: Operand<N>): Expr<N> {
    return atomic("max", this, index, value);
  }
  /** Bitwise and with `value`, in place; returns the old element. */
  atomicAnd(this: Tensor<N & ("i32" | "u32"), Rank, Atomic>, index: Indices<Rank>, value: Operand<N>): Expr<N> {
    return atomic("and", this, index, value);
  }
  /** Bitwise or with `value`, in place; returns the old element. */
  atomicOr(this: Tensor<N & ("i32" | "u32"), Rank, Atomic>, index: Indices<Rank>, value: Operand<N>): Expr<N> {
    return atomic("or", this, index, value);
  }
  /** Bitwise exclusive or with `value`, in place; returns the old element. */
  atomicXor(this: Tensor<N & ("i32" | "u32"), Rank, Atomic>, index: Indices<Rank>, value: Operand<N>): Expr<N> {
    return atomic("xor", this, index, value);
  }
  /** Puts `value` in the element's place, and returns the old one: i32, u32, f32. */
  atomicExchange(this: Tensor<N & NumericName, Rank, Atomic>, index: Indices<Rank>, value: Operand<N>): Expr<N> {
    return atomic("exchange", this, index, value);
  }
  /** Stores `value` if the element equals `compare`; returns the old element, by which one sees whether it did. */
  atomicCompareExchange(
    this: Tensor<N & ("i32" | "u32"), Rank, Atomic>,
    index: Indices<Rank>,
    compare: Operand<N>,
    value: Operand<N>,
  ): Expr<N> {
    return atomic("compareExchange", this, index, value, compare);
  }

  static {
    checkReceivers(this);
  }
}

type Any = Tensor<DTypeName, number, Access>;

function load<N extends DTypeName, L extends LaneCount>(
  tensor: Any,
  index: readonly Index[],
  lanes: L,
  options: LoadOptions,
): Expr<N, L> {
  const at = callerLocation();
  const { trace, memory } = tensor;
  requireOptions(options, ["cache", "guard", "peer"], at);
  const { cache = "normal", guard } = options;
  requireHint(cache, ["normal", "stream", "evictFirst", "evictLast"], at);
  const indices = toIndices(tensor, index, at);
  const guardValue = guard === undefined ? undefined : use(trace, guard, "the guard of a load", at);
  const peer = peerOf(tensor, options, at);
  return wrap(trace, trace.let({ kind: "load", memory, index: indices, lanes, guard: guardValue, cache, peer }, at));
}

function store(tensor: Any, index: readonly Index[], value: Value, options: StoreOptions, at: Location): void {
  const { trace, memory } = tensor;
  requireOptions(options, ["cache", "peer"], at);
  const { cache = "normal" } = options;
  requireHint(cache, ["normal", "stream"], at);
  const indices = toIndices(tensor, index, at);
  const peer = peerOf(tensor, options, at);
  trace.emit({ kind: "store", memory, index: indices, value, cache, peer, at });
}

/** The block whose shared memory is meant, as a value. @throws DTypeError for global memory */
export function peerOf({ trace, memory }: Any, { peer }: PeerOptions, at: Location): Value | undefined {
  if (peer === undefined) return undefined;
  const value = toIndex(trace, peer, "peer", at);
  requirePeer(memory, value, at);
  return value;
}

/** @throws StagingError */
export function requireHint(cache: CacheHint, allowed: readonly CacheHint[], at: Location): void {
  if (allowed.includes(cache)) return;
  const names = allowed.map((name) => `"${name}"`);
  const others = names.slice(0, -1).join(", ");
  throw new StagingError(`cache is ${others} or ${names.at(-1)}, not ${describe(cache)}`, { at });
}

function atomic<N extends DTypeName>(
  fn: AtomicFn,
  tensor: Any,
  index: readonly Index[],
  operand: unknown,
  compare?: unknown,
): Expr<N> {
  const at = callerLocation();
  const { trace, memory } = tensor;
  const type = { dtype: memory.dtype, lanes: 1 } as const;
  const a = toValue(trace, operand, type, `atomic ${fn}`, at);
  const expected = compare === undefined ? undefined : toValue(trace, compare, type, `atomic ${fn}`, at);
  const indices = toIndices(tensor, index, at);
  return wrap(trace, trace.let({ kind: "atomic", fn, memory, index: indices, a, compare: expected }, at));
}

/** One index per dimension, as values. @throws ShapeError */
export function toIndices(tensor: Any, index: readonly Index[], at: Location): readonly Value[] {
  const { memory, trace } = tensor;
  trace.checkScope(`The tensor ${memory.name}`, tensor);
  if (!Array.isArray(index) || index.length !== memory.shape.length) {
    throw new ShapeError(
      `${memory.name} has shape [${memory.shape.join(", ")}] and takes an array of ${memory.shape.length} indices, not ` +
        (Array.isArray(index) ? `${index.length}` : describe(index)),
      {
        at,
        related: [{ what: `${memory.name} was declared`, at: memory.at }],
        hint: `Write ${memory.name}.load([${memory.shape.map((_, i) => "ijklmn"[i] ?? "i").join(", ")}])`,
      },
    );
  }
  // A hole is no index either.
  return Object.freeze(Array.from(index, (value) => toIndex(trace, value, `an index of ${memory.name}`, at)));
}
