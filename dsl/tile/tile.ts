/**
 * Tiles: parts of tensors, each an origin and a layout.
 *
 *   tensor    where the elements are: global or shared memory
 *   origin    run-time coordinates of the tile's first element in the tensor
 *   layout    static; from a coordinate in the tile to steps along the tensor's dimensions, (16,256):(1@0,1@1). In a flat
 *             tensor (shared memory with a layout of its own) steps are offsets: ((8,2),64):((64,512),1)
 *   swizzle   of a flat tensor: applied to the sum of both
 *
 * The layout algebra works on `layout`, so whatever it can cut, permute or partition, a tile can. And because a tile always
 * knows its coordinates in the tensor, it is its own identity tensor: predicates for ragged edges need nothing else.
 */
import {
  checkArguments,
  checkReceivers,
  describe,
  describeAll,
  requireCoordinate,
  requireModes,
  requireOptions,
} from "../check.ts";
import type { DType, DTypeName } from "../dtype.ts";
import { bool, i32 } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { type Expr, type Index, type Operand, toIndex, toValue, wrap } from "../expr.ts";
import type { Value } from "../ir.ts";
import type { SwizzleBytes } from "../ir-tile.ts";
import {
  basis,
  coalesce,
  composition,
  cosize,
  crd2idx,
  get,
  type IntTuple,
  Layout,
  LayoutError,
  rank,
  size,
  type StrideLeaf,
  type Swizzle,
  zippedDivide,
} from "../layout/index.ts";
import { pathOf, valueOf } from "../layout/basis.ts";
import { concat, modesOf } from "../layout/modes.ts";
import { sourceMask } from "../layout/swizzle.ts";
import { leaves } from "../layout/tuple.ts";
import { minOf } from "../size.ts";
import { callerLocation, type Location } from "../source.ts";
import { type Access, type PeerOptions, peerOf, type Readable, type Tensor, type Writable } from "../tensor.ts";
import type { Trace } from "../trace.ts";

/** A coordinate in a tile: a number counted along its modes from the left, or one of the tile's own profile. */
export type Coordinate = IntTuple;

/**
 * A part of a tensor, made by `tensor.tile(...)`, `t.sharedTile(...)` or from another tile.
 * ```ts
 * gX // (16,16):(1@0,1@1)
 * gX.size() // 256
 * gX.size(0) // 16
 * sX.store([2, 3], gX.load([2, 3]));
 * ```
 */
export class Tile<N extends DTypeName = DTypeName, A extends Access = Access> {
  readonly tensor: Tensor<N, number, A>;
  /** One per dimension of the tensor. */
  readonly origin: readonly Value[];
  readonly layout: Layout<StrideLeaf>;
  readonly swizzle: Swizzle | undefined;
  readonly at: Location;

  constructor(
    tensor: Tensor<N, number, A>,
    origin: readonly Value[],
    layout: Layout<StrideLeaf>,
    swizzle: Swizzle | undefined,
    at: Location,
  ) {
    this.tensor = tensor;
    this.origin = origin;
    this.layout = layout;
    this.swizzle = swizzle;
    this.at = at;
  }

  get dtype(): DType<N> {
    return this.tensor.dtype;
  }
  /** Where the tile lives and what may be done with it: also what keeps tsc from confusing tiles of different access. */
  get access(): A {
    return this.tensor.access;
  }
  get trace(): Trace {
    return this.tensor.trace;
  }
  get shape(): IntTuple {
    return this.layout.shape;
  }
  /** Number of elements, of the whole or of the mode at a path. */
  size(...path: readonly number[]): number {
    requireModes(path);
    return size(this.layout, ...path);
  }

  /**
   * The same elements in another order or grouping: applies functions of `tegula/layout` to the layout.
   * ```ts
   * gX.map((layout) => zippedDivide(layout, [4, 8])) // ((4,8),(4,2)):((1@0,1@1),(4@0,8@1))
   * ```
   * @throws ShapeError where the algebra refuses, with the layout and where the tile was made
   */
  map(change: (layout: Layout<StrideLeaf>) => Layout<StrideLeaf>): Tile<N, A> {
    const at = callerLocation();
    return this.with(
      this.algebra(at, () => change(this.layout)),
      at,
    );
  }

  /**
   * The sub-tile of `shape` elements number `coordinate`.
   * ```ts
   * const part = gX.tile([4, 4], [1, t.warp]); // rows 4 to 7 of it, columns from 4 * warp on
   * part // (4,4):(1@0,1@1)
   * ```
   */
  tile(shape: readonly number[], coordinate: readonly Index[]): Tile<N, A> {
    const at = callerLocation();
    const divided = this.algebra(at, () => {
      for (const [i, extent] of shape.entries()) {
        if (!Number.isSafeInteger(extent) || extent < 1) {
          throw new LayoutError(`A tile has whole numbers of elements, not ${describe(extent)}`);
        }
        const whole = i < rank(this.layout) ? size(this.layout, i) : 1;
        if (whole % extent !== 0) throw new LayoutError(`Mode ${i} of ${this.layout} is no whole number of ${extent}`);
      }
      return zippedDivide(this.layout, shape);
    });
    const rest = modesOf(get(divided, 1));
    if (coordinate.length !== rest.length) {
      throw new ShapeError(`A tile of ${this.layout} is chosen by ${rest.length} numbers, not ${coordinate.length}`, {
        at,
      });
    }
    return this.with(get(divided, 0), at, this.moved(rest, coordinate, at));
  }

  /**
   * The modes with `null`, at the given coordinates of the others: CuTe's slicing.
   * ```ts
   * const stages = t.sharedTile(bf16, makeLayout([16, 64, 4], [64, 1, 1024]));
   * stages.slice([null, null, t.warp]) // (16,64):(64,1)
   * ```
   */
  slice(coordinate: readonly (Index | null)[]): Tile<N, A> {
    const at = callerLocation();
    const modes = modesOf(this.layout);
    if (coordinate.length !== modes.length) {
      throw new ShapeError(`${this.layout} has ${modes.length} modes; the slice names ${coordinate.length}`, { at });
    }
    const kept = modes.filter((_, i) => coordinate[i] === null);
    const fixed = modes.filter((_, i) => coordinate[i] !== null);
    const indices = coordinate.filter((index) => index !== null);
    if (kept.length === 0) {
      throw new ShapeError("A slice keeps at least one mode", { at, hint: "For one element write tile.load(...)" });
    }
    const [first] = kept;
    const layout = kept.length === 1 && first ? first : concat(kept);
    return this.with(layout, at, this.moved(fixed, indices, at));
  }

  /**
   * What one thread holds by a thread-value layout: (thread,value) -> number of the element in the tile.
   * ```ts
   * gX.partition(parseLayout("((4,8),(2,2)):((32,1),(16,8))"), t.lane) // (2,2):(1@1,8@0)
   * ```
   * @throws ShapeError unless its numbers are those of elements of the tile
   */
  partition(threadValue: Layout, thread: Index): Tile<N, A> {
    const at = callerLocation();
    const both = this.algebra(at, () => {
      if (rank(threadValue) !== 2 || cosize(threadValue) > this.size()) {
        throw new LayoutError(
          `${threadValue} is no (thread,value) layout of ${this.size()} elements: it has ${rank(threadValue)} modes and numbers up to ${cosize(threadValue) - 1}`,
        );
      }
      return composition(this.layout, threadValue);
    });
    return this.with(get(both, 1), at, this.moved([get(both, 0)], [thread], at));
  }

  /**
   * Where an element lies in the tensor: the tile as an identity tensor.
   * ```ts
   * const [row, column] = x.tile([16, 16], [1, 0]).coordinate([2, 3]);
   * row // 18
   * ```
   */
  coordinate(coordinate: Coordinate): readonly Expr<"i32">[] {
    const at = callerLocation();
    return this.coordinates(this.steps(coordinate), at).map((value) => wrap(this.trace, value));
  }

  /**
   * Whether an element lies inside the tensor.
   * ```ts
   * t.when(gX.inBounds([2, 3]), () => line.store([0], gX.load([2, 3])));
   * ```
   */
  inBounds(coordinate: Coordinate): Expr<"bool"> {
    const at = callerLocation();
    const condition = this.boundsOf(this.steps(coordinate), at);
    return wrap(this.trace, condition ?? this.trace.constant(bool, 1, at));
  }

  /** One element. */
  load(this: Tile<N, Readable>, coordinate: Coordinate, options: PeerOptions<A> = {}): Expr<N> {
    const at = callerLocation();
    requireOptions(options, ["peer"], at);
    const peer = peerOf(this.tensor, options, at);
    return wrap(this.trace, this.loadAt(this.steps(coordinate), 1, "normal", undefined, at, peer));
  }

  /** One element. */
  store(this: Tile<N, Writable>, coordinate: Coordinate, value: Operand<N>, options: PeerOptions<A> = {}): void {
    const at = callerLocation();
    const type = { dtype: this.dtype, lanes: 1 } as const;
    const stored = toValue(this.trace, value, type, `a store to ${this.tensor.memory.name}`, at);
    requireOptions(options, ["peer"], at);
    const peer = peerOf(this.tensor, options, at);
    const index = this.indexAt(this.steps(coordinate), at);
    this.trace.emit({ kind: "store", memory: this.tensor.memory, index, value: stored, cache: "normal", peer, at });
  }

  toString(): string {
    return `${this.dtype.name} tile ${this.swizzle ? `${this.swizzle} o ` : ""}${this.layout} of ${this.tensor.memory.name}`;
  }

  /** @internal Steps along the tensor's dimensions. */
  steps(coordinate: Coordinate): readonly number[] {
    requireCoordinate(coordinate);
    const steps = crd2idx(coordinate, this.layout);
    const numbers: readonly number[] = typeof steps === "number" ? [steps] : leaves(steps);
    return this.origin.map((_, dimension) => numbers[dimension] ?? 0);
  }

  /** @internal */
  coordinates(steps: readonly number[], at: Location): readonly Value[] {
    return this.origin.map((origin, dimension) => plus(this.trace, origin, steps[dimension] ?? 0, at));
  }

  /** @internal The index of a load or store. */
  indexAt(steps: readonly number[], at: Location): readonly Value[] {
    this.trace.checkScope(`The tensor ${this.tensor.memory.name}`, this.tensor);
    const index = this.coordinates(steps, at);
    const [offset] = index;
    return this.swizzle && offset ? [swizzled(this.trace, offset, this.swizzle, at)] : index;
  }

  /** @internal */
  loadAt(
    steps: readonly number[],
    lanes: 1 | 2 | 4 | 8 | 16,
    cache: "normal" | "stream" | "evictFirst" | "evictLast",
    guard: Value | undefined,
    at: Location,
    peer?: Value,
  ): Value {
    const index = this.indexAt(steps, at);
    return this.trace.let({ kind: "load", memory: this.tensor.memory, index, lanes, guard, cache, peer }, at);
  }

  /** @internal Whether the element is inside, as far as that is not certain. */
  boundsOf(steps: readonly number[], at: Location): Value | undefined {
    const { trace } = this;
    let all: Value | undefined;
    for (const [dimension, value] of this.coordinates(steps, at).entries()) {
      const extent = this.tensor.memory.shape[dimension];
      const { min, max } = trace.facts.of(value);
      const compare = (fn: "lt" | "ge", b: Value): void => {
        const inside = trace.let({ kind: "binary", fn, a: value, b }, at);
        all = all ? trace.let({ kind: "binary", fn: "and", a: all, b: inside }, at) : inside;
      };
      if (min < 0) compare("ge", trace.constant(i32, 0, at));
      if (extent !== undefined && max >= minOf(extent)) compare("lt", trace.dim(extent, at));
    }
    return all;
  }

  /** @internal */
  with(layout: Layout<StrideLeaf>, at: Location, origin = this.origin): Tile<N, A> {
    return new Tile(this.tensor, origin, layout, this.swizzle, at);
  }

  /** @internal The origin after going to `coordinate` along some modes. */
  moved(modes: readonly Layout<StrideLeaf>[], coordinate: readonly Index[], at: Location): readonly Value[] {
    const { trace } = this;
    const origin = [...this.origin];
    const add = (stride: StrideLeaf, index: Value): void => {
      const dimension = pathOf(stride)[0] ?? 0;
      const before = origin[dimension];
      if (before) origin[dimension] = sum(trace, before, times(trace, index, valueOf(stride), at), at);
    };
    for (const [i, mode] of modes.entries()) {
      const index = toIndex(trace, coordinate[i], "a tile", at);
      const { shape, stride } = coalesce(mode);
      const [extents, strides] = [leaves(shape), leaves<StrideLeaf>(stride)];
      let before = 1;
      for (const [j, extent] of extents.entries()) {
        const step = strides[j] ?? 0;
        if (extent > 1 && valueOf(step) !== 0) {
          const part = quotient(trace, index, before, at);
          add(step, j === extents.length - 1 ? part : remainder(trace, part, extent, at));
        } else if (extents.length === 1) add(step, index);
        before *= extent;
      }
    }
    return Object.freeze(origin);
  }

  /** Runs layout algebra; what it refuses becomes an error at the author's line. */
  private algebra<T>(at: Location, work: () => T): T {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof LayoutError)) throw error;
      throw new ShapeError(error.message, { at, related: [{ what: `${this.layout} was made`, at: this.at }] });
    }
  }

  static {
    checkArguments(this, { map: [Function], tile: [Array, Array], slice: [Array], partition: [Layout] });
    checkReceivers(this);
  }
}

/** @throws ShapeError */
export function tileOf<N extends DTypeName, A extends Access>(
  tensor: Tensor<N, number, A>,
  shape: readonly number[],
  coordinate: readonly Index[],
  at: Location,
): Tile<N, A> {
  const { trace, memory } = tensor;
  const dimensions = memory.shape.length;
  const known = Array.isArray(shape) && shape.length === dimensions && Array.isArray(coordinate);
  const positive = known && shape.every((extent) => Number.isInteger(extent) && extent >= 1);
  if (!positive || coordinate.length !== dimensions) {
    throw new ShapeError(
      `A tile of ${memory.name} has ${dimensions} extents, TypeScript numbers, and as many coordinates; got ` +
        `${Array.isArray(shape) ? describeAll(shape) : describe(shape)} and ` +
        `${Array.isArray(coordinate) ? coordinate.length : "no"} coordinates`,
      {
        at,
        related: [{ what: `${memory.name} was declared`, at: memory.at }],
        hint: `Write ${memory.name}.tile([${memory.shape.map(() => 16).join(", ")}], [${memory.shape.map((_, i) => "ijklmn"[i] ?? "i").join(", ")}])`,
      },
    );
  }
  const origin = coordinate.map((index, i) => times(trace, toIndex(trace, index, "a tile", at), shape[i] ?? 1, at));
  const strides: readonly StrideLeaf[] = dimensions === 1 ? [1] : shape.map((_, i) => basis(i));
  return new Tile(tensor, Object.freeze(origin), new Layout<StrideLeaf>(shape, strides), undefined, at);
}

function sum(trace: Trace, a: Value, b: Value, at: Location): Value {
  return trace.let({ kind: "binary", fn: "add", a, b }, at);
}

function plus(trace: Trace, a: Value, by: number, at: Location): Value {
  return by === 0 ? a : sum(trace, a, trace.constant(i32, by, at), at);
}

function times(trace: Trace, a: Value, by: number, at: Location): Value {
  return by === 1 ? a : trace.let({ kind: "binary", fn: "mul", a, b: trace.constant(i32, by, at) }, at);
}

function quotient(trace: Trace, a: Value, by: number, at: Location): Value {
  return by === 1 ? a : trace.let({ kind: "binary", fn: "div", a, b: trace.constant(i32, by, at) }, at);
}

function remainder(trace: Trace, a: Value, by: number, at: Location): Value {
  if (trace.facts.of(a).max < by) return a;
  return trace.let({ kind: "binary", fn: "rem", a, b: trace.constant(i32, by, at) }, at);
}

/** offset ^ ((offset & source) >> shift) */
function swizzled(trace: Trace, offset: Value, swizzle: Swizzle, at: Location): Value {
  if (swizzle.bits === 0) return offset;
  const constant = (value: number): Value => trace.constant(i32, value, at);
  const source = trace.let({ kind: "binary", fn: "and", a: offset, b: constant(sourceMask(swizzle)) }, at);
  const fn = swizzle.shift >= 0 ? "shr" : "shl";
  const bits = trace.let({ kind: "binary", fn, a: source, b: constant(Math.abs(swizzle.shift)) }, at);
  return trace.let({ kind: "binary", fn: "xor", a: offset, b: bits }, at);
}

/**
 * @internal The swizzle of a tile as TMA and wgmma know it, by the bytes of a row that it mixes; undefined for one that they
 * don't have. PTX ISA, "Swizzling modes".
 */
export function hardwareSwizzle({ swizzle, dtype }: Tile): SwizzleBytes | undefined {
  if (!swizzle || swizzle.bits === 0) return 0;
  const known = swizzle.bits <= 3 && swizzle.base + Math.log2(dtype.bytes) === 4 && swizzle.shift === 3;
  return known ? ((16 * 2 ** swizzle.bits) as SwizzleBytes) : undefined;
}
