/** `t`, with what tiles need: clusters, barriers of some threads, fragments, copies, matrix instructions. */
import type { MmaAtom } from "../atoms/mma.ts";
import { checkArguments, checkReceivers, describe, requireOptions } from "../check.ts";
import type { DType, DTypeName } from "../dtype.ts";
import { i32 } from "../dtype.ts";
import { ScopeError, ShapeError, StagingError } from "../errors.ts";
import { Expr, type Index, toValue, use, wrap } from "../expr.ts";
import type { LaneCount, Shared, Type, Value } from "../ir.ts";
import type { SwizzleBytes } from "../ir-tile.ts";
import {
  type AnyLayout,
  ComposedLayout,
  cosize,
  crd2idx,
  get,
  Layout,
  makeLayout,
  type StrideLeaf,
  Swizzle,
} from "../layout/index.ts";
import { fragmentTypes } from "../typing.ts";
import type { TensorOptions } from "../params.ts";
import { callerLocation, type Location, variableNameAt } from "../source.ts";
import { type Access, type Indices, type Readable, Tensor, toIndices, type Writable } from "../tensor.ts";
import { BasicThread, type LaunchShape } from "../thread.ts";
import type { Trace } from "../trace.ts";
import { Mbarrier, Pipeline } from "./barrier.ts";
import { copyAsync, copyBulk, type CopyOptions, type CopyPlan, loadFragment, storeFragment } from "./copy.ts";
import { declareAccumulator, declareFragment, Fragment, type FragmentRole, memoryOrder } from "./fragment.ts";
import { loadMatrix, multiply, multiplyShared } from "./matrix.ts";
import { Partition, ThreadMma } from "./tiled-mma.ts";
import { Tile } from "./tile.ts";
import { TensorMapHandle, tensorMapOf } from "./tensor-map.ts";

/** The blocks that run together. */
export interface Cluster {
  /** Which block of the cluster this is. */
  readonly rank: Expr<"i32">;
  readonly size: number;
  /** Waits for every thread of the cluster; what they stored before, to whichever shared memory, is visible after. */
  barrier(): void;
  /** The two halves of the barrier, for work in between. */
  arrive(): void;
  wait(): void;
}

export class Thread<Late = unknown> extends BasicThread<Late> {
  readonly cluster: Cluster;
  private readonly threads: number;

  constructor(trace: Trace, shape: LaunchShape, late: () => Late) {
    super(trace, shape, late);
    this.threads = shape.block;
    const emit = (...kinds: readonly ("clusterArrive" | "clusterWait")[]): void => {
      const at = callerLocation();
      for (const kind of kinds) trace.emit({ kind, at });
    };
    const rank = new Expr<"i32">(
      trace,
      trace.root,
      trace.leaf("id rank", i32, { kind: "id", id: "rank" }, trace.root.at),
    );
    this.cluster = Object.freeze({
      rank,
      size: shape.cluster,
      barrier: () => emit("clusterArrive", "clusterWait"),
      arrive: () => emit("clusterArrive"),
      wait: () => emit("clusterWait"),
    });
  }

  // Tiles and fragments

  /**
   * Shared memory with a layout of its own, swizzled or not; static.
   * ```ts
   * const sW = t.sharedTile(bf16, composition(new Swizzle(3, 3, 3), makeLayout([16, 64], [64, 1]))); // (16, 64)
   * ```
   */
  sharedTile<N extends DTypeName>(dtype: DType<N>, layout: AnyLayout, options: TensorOptions = {}): Tile<N, "shared"> {
    const at = callerLocation();
    const { swizzle, plain } = taken(layout, at);
    const memory = this.shared(dtype, [cosize(plain)], { alignBytes: 128, ...options });
    return new Tile<N, "shared">(memory, [this.trace.constant(i32, 0, at)], plain, swizzle, at);
  }

  /**
   * A whole tensor of known shape, or shared memory, as a tile.
   * ```ts
   * const gX = t.tileOf(x); // (64,128):(1@0,1@1)
   * ```
   */
  tileOf<N extends DTypeName, A extends Access>(tensor: Tensor<N, number, A>): Tile<N, A> {
    const shape = tensor.memory.shape.map((dim) => {
      if (typeof dim === "number") return dim;
      throw new ShapeError(`${tensor.memory.name} has the dimension ${dim}, known only at launch`, {
        at: callerLocation(),
        hint: "Take tiles of fixed extents: tensor.tile([16, 64], [i, j])",
      });
    });
    return tensor.tile(
      shape,
      shape.map(() => 0),
    );
  }

  /**
   * Registers for what a tile or partition holds, in the order of its memory, so that copies are as wide as can be. Undefined
   * content; an accumulator (a partition of C) is an f32 or i32 zero.
   * ```ts
   * const kept = t.fragment(gX); // (16,16):(16,1), eight bf16 to a register
   * ```
   */
  fragment<N extends DTypeName, A extends Access, M extends MmaAtom>(
    like: Partition<N, A, "C", M>,
  ): Fragment<M["c"]["name"], "C", M>;
  fragment<N extends DTypeName, A extends Access, R extends "A" | "B", M extends MmaAtom>(
    like: Partition<N, A, R, M>,
  ): Fragment<N, R, M>;
  fragment<N extends DTypeName, A extends Access>(like: Tile<N, A>): Fragment<N, "none">;
  fragment(like: Tile): Fragment {
    const at = callerLocation();
    const { trace } = this;
    if (like instanceof Partition && like.role === "C") {
      return declareAccumulator(trace, like.atom, makeLayout(like.shape), at);
    }
    const { layout, run } = memoryOrder(like.layout, like.tensor.memory.shape.length - 1);
    const most = 16 / like.dtype.bytes;
    let lanes = 1;
    while (lanes * 2 <= most && run % (lanes * 2) === 0) lanes *= 2;
    const role: FragmentRole = like instanceof Partition ? like.role : "none";
    const atom = like instanceof Partition ? like.atom : undefined;
    return declareFragment(trace, like.dtype, layout, lanes as LaneCount, role, atom, undefined, at);
  }

  /**
   * A zero accumulator for an (M,N) tile, before there is a tensor to store it to: (value, M, N).
   * ```ts
   * const sums = t.accumulator(mma, [16, 8]);
   * ```
   */
  accumulator<A extends DTypeName, B extends DTypeName, C extends "f32" | "i32">(
    thread: ThreadMma<A, B, C>,
    shape: readonly [m: number, n: number],
  ): Fragment<C, "C", MmaAtom<A, B, C>> {
    const at = callerLocation();
    const layout = makeLayout(get(thread.mma.threadValue("C", makeLayout(shape)), 1).shape);
    return declareAccumulator(this.trace, thread.mma.atom, layout, at);
  }

  /**
   * Registers in the order of a matrix instruction, one of them per instruction: what ldmatrix fills.
   * ```ts
   * const rows = t.matrixFragment(mma.partitionA(sA)); // bf16x8 each
   * ```
   */
  matrixFragment<N extends DTypeName, A extends Access, R extends "A" | "B", M extends MmaAtom>(
    like: Partition<N, A, R, M>,
  ): Fragment<N, R, M> {
    const at = callerLocation();
    const lanes = like.size(0) as LaneCount;
    return declareFragment(this.trace, like.dtype, makeLayout(like.shape), lanes, like.role, like.atom, undefined, at);
  }

  /**
   * Copies between memory and registers, as wide as layouts and alignment allow; the plan that comes back explains itself.
   * ```ts
   * const plan = t.copy(gA, rA, { cache: "stream", guard: "edges" });
   * console.log(plan.explain());
   * ```
   * @throws ShapeError with both layouts, DTypeError
   */
  copy<N extends DTypeName>(from: Tile<N, Readable>, to: Fragment<NoInfer<N>>, options?: CopyOptions): CopyPlan;
  copy<N extends DTypeName>(from: Fragment<N>, to: Tile<NoInfer<N>, Writable>, options?: CopyOptions): CopyPlan;
  copy(from: Tile | Fragment, to: Tile | Fragment, options: CopyOptions = {}): CopyPlan {
    const at = callerLocation();
    requireOptions(options, ["cache", "guard"], at);
    if (from instanceof Tile && to instanceof Fragment) return loadFragment(this.trace, from, to, options, at);
    if (from instanceof Fragment && to instanceof Tile) return storeFragment(this.trace, from, to, options, at);
    throw new StagingError(
      `t.copy goes from a tile to a fragment or back, not from ${describe(from)} to ${describe(to)}`,
      {
        at,
        hint: "From global to shared memory: t.copyAsync, t.copyBulk, t.copyTensor",
      },
    );
  }

  /**
   * Copies from global to shared memory beside the thread (cp.async), 4 to 16 bytes at a time. Done after t.asyncWait, or
   * when the mbarrier of arriveAfterCopies says so.
   * ```ts
   * t.copyAsync(gX, sX, { guard: "edges" });
   * t.asyncCommit();
   * t.asyncWait(0);
   * t.barrier(); // now other threads see it too
   * ```
   */
  copyAsync<N extends DTypeName>(
    from: Tile<N, "frozen" | "input" | "inout">,
    to: Tile<NoInfer<N>, "shared">,
    options: Pick<CopyOptions, "guard"> = {},
  ): CopyPlan {
    const at = callerLocation();
    requireOptions(options, ["guard"], at);
    return copyAsync(this.trace, from, to, options, at);
  }

  /**
   * Groups this thread's asynchronous copies since the last commit.
   * ```ts
   * t.copyAsync(gX, sX);
   * t.asyncCommit();
   * ```
   */
  asyncCommit(): void {
    this.trace.emit({ kind: "asyncCommit", at: callerLocation() });
  }

  /**
   * Waits until at most `pending` of this thread's groups are under way.
   * ```ts
   * t.asyncWait(1); // all groups but the last
   * ```
   */
  asyncWait(pending: number): void {
    const at = callerLocation();
    if (!Number.isInteger(pending) || pending < 0) {
      throw new ShapeError(`asyncWait takes the number of groups that may go on, not ${describe(pending)}`, { at });
    }
    this.trace.emit({ kind: "asyncWait", pending, at });
  }

  /**
   * One bulk copy of `count` contiguous elements, a multiple of 16 bytes, by this thread alone; `barrier` counts the bytes.
   * ```ts
   * t.when(t.thread.eq(0), () => {
   *   barrier.arriveExpect(0, 1024);
   *   t.copyBulk(x, [0, 0], line, [0], 128, barrier);
   * });
   * barrier.wait(0, 0);
   * ```
   */
  copyBulk<N extends DTypeName>(
    from: Tensor<N, number, "frozen" | "input" | "inout">,
    fromIndex: readonly Index[],
    to: Tensor<N, number, "shared">,
    toIndex: readonly Index[],
    count: Index,
    barrier: Mbarrier,
    slot: Index = 0,
  ): void {
    const at = callerLocation();
    copyBulk(this.trace, from, fromIndex, to, toIndex, count, barrier.slot(slot, at), at);
  }

  /**
   * How TMA sees a tensor: boxes of fixed extents, zeros outside.
   * ```ts
   * const map = t.tensorMap(x, [16, 64], { swizzleBytes: 128 });
   * ```
   */
  tensorMap<N extends DTypeName>(
    tensor: Tensor<N, number, "frozen" | "input" | "inout">,
    box: readonly number[],
    options: { readonly swizzleBytes?: SwizzleBytes } = {},
  ): TensorMapHandle<N> {
    return tensorMapOf(this.trace, tensor, box, options, callerLocation());
  }

  /**
   * One box by TMA, by this thread alone; `barrier` counts its bytes, `map.bytes`. `to` is the box in shared memory.
   * ```ts
   * t.when(t.thread.eq(0), () => {
   *   barrier.arriveExpect(0, boxes.bytes);
   *   t.copyTensor(boxes, [0, 64], box, barrier);
   * });
   * barrier.wait(0, 0);
   * ```
   */
  copyTensor<N extends DTypeName>(
    map: TensorMapHandle<N>,
    index: readonly Index[],
    to: Tile<N, "shared">,
    barrier: Mbarrier,
    slot: Index = 0,
  ): void {
    map.copy(index, to, barrier, slot, callerLocation());
  }

  /**
   * Brings the line of an element into L2.
   * ```ts
   * t.prefetch(x, [t.warp, 0]);
   * ```
   */
  prefetch<N extends DTypeName, Rank extends number>(
    tensor: Tensor<N, Rank, "frozen" | "input" | "inout">,
    index: Indices<Rank>,
  ): void {
    const at = callerLocation();
    const { memory } = tensor;
    if (memory.kind !== "tensor") throw new ShapeError("Shared memory needs no prefetch", { at });
    this.trace.emit({ kind: "prefetch", memory, index: toIndices(tensor, index, at), at });
  }

  // Matrix instructions

  /**
   * accumulator += a * b, for every instruction of the tiles.
   * ```ts
   * t.mma(rC, rA, rB); // (value, M, N) += (value, M, K) * (value, N, K)
   * ```
   * @throws ShapeError with the layouts that don't match
   */
  mma<M extends MmaAtom>(
    accumulator: Fragment<M["c"]["name"], "C", M>,
    a: Fragment<M["a"]["name"], "A", M>,
    b: Fragment<M["b"]["name"], "B", M>,
  ): void {
    multiply(this.trace, accumulator, a, b, callerLocation());
  }

  /**
   * One instruction on bare vectors: a * b + c. Their lanes are the fragment's values in order.
   * ```ts
   * const d = t.mmaVectors(mmaAtoms.m16n8k16.bf16, a8, b4, c4);
   * ```
   */
  mmaVectors<A extends DTypeName, B extends DTypeName, C extends "f32" | "i32">(
    atom: MmaAtom<A, B, C>,
    a: Expr<A, LaneCount>,
    b: Expr<B, LaneCount>,
    c: Expr<C, LaneCount>,
  ): Expr<C, LaneCount> {
    const at = callerLocation();
    if (typeof atom !== "object" || atom === null || !("layoutA" in atom)) {
      throw new StagingError(`A matrix instruction is needed, not ${describe(atom)}`, {
        at,
        hint: "Take one of mmaAtoms",
      });
    }
    const types = fragmentTypes(atom);
    const value = (operand: unknown, type: Type): Value => toValue(this.trace, operand, type, atom.name, at);
    const operands = { a: value(a, types.a), b: value(b, types.b), c: value(c, types.c) };
    return wrap(this.trace, this.trace.let({ kind: "mma", atom, ...operands }, at));
  }

  /**
   * 1, 2 or 4 8x8 matrices (rows of 16 bytes) from shared memory; `index` is where this lane's row begins.
   * ```ts
   * const words = t.ldmatrix(rows8, [t.lane, 0], 4); // bf16x8: row l of all matrices begins at rows8[l, 0]
   * ```
   */
  ldmatrix<N extends DTypeName, Rank extends number>(
    memory: Tensor<N, Rank, "shared">,
    index: Indices<Rank>,
    matrices: 1 | 2 | 4,
    options: { readonly transposed?: boolean } = {},
  ): Expr<N, LaneCount> {
    const at = callerLocation();
    requireOptions(options, ["transposed"], at);
    if (matrices !== 1 && matrices !== 2 && matrices !== 4) {
      throw new ShapeError(`ldmatrix loads 1, 2 or 4 matrices, not ${describe(matrices)}`, { at });
    }
    const op = { kind: "ldmatrix", memory: sharedOf(memory, at), index: toIndices(memory, index, at) } as const;
    return wrap(this.trace, this.trace.let({ ...op, matrices, transposed: options.transposed ?? false }, at));
  }

  /**
   * The reverse of ldmatrix: stores the lanes' 4-byte words as rows of matrices.
   * ```ts
   * t.stmatrix(rows8, [t.lane, 0], a8);
   * ```
   */
  stmatrix<N extends DTypeName, Rank extends number>(
    memory: Tensor<N, Rank, "shared">,
    index: Indices<Rank>,
    value: Expr<N, LaneCount>,
    options: { readonly transposed?: boolean } = {},
  ): void {
    const at = callerLocation();
    requireOptions(options, ["transposed"], at);
    const stored = use(this.trace, value, "the operand of stmatrix", at);
    this.trace.emit({
      kind: "stmatrix",
      memory: sharedOf(memory, at),
      index: toIndices(memory, index, at),
      value: stored,
      transposed: options.transposed ?? false,
      at,
    });
  }

  /**
   * Fills an operand's fragment from shared memory by ldmatrix, four matrices at a time where there are as many.
   * ```ts
   * const tA = mma.partitionA(sA);
   * const rows = t.matrixFragment(tA);
   * t.copyMatrix(tA, rows);
   * ```
   */
  copyMatrix<N extends DTypeName, R extends "A" | "B", M extends MmaAtom>(
    from: Partition<N, "shared", R, M>,
    to: Fragment<N, R, M>,
  ): CopyPlan {
    return loadMatrix(this.trace, from, to, callerLocation());
  }

  /**
   * accumulator += a * b by a warpgroup, both tiles in shared memory, K contiguous: (64 m, K) and (N, K). Runs beside the
   * thread: t.wgmmaFence() before the first, t.wgmmaCommit() after the last, t.wgmmaWait(0) before the sums are read.
   * ```ts
   * t.asyncFence();
   * t.barrier();
   * t.wgmmaFence();
   * t.wgmma(wide, left, right);
   * t.wgmmaCommit();
   * t.wgmmaWait(0);
   * ```
   */
  wgmma<M extends MmaAtom>(
    accumulator: Fragment<M["c"]["name"], "C", M>,
    a: Tile<M["a"]["name"], "shared">,
    b: Tile<M["b"]["name"], "shared">,
    options: { readonly accumulate?: Expr<"bool"> | boolean } = {},
  ): void {
    const at = callerLocation();
    if (this.threads % 128 !== 0) {
      throw new ShapeError(`wgmma works on whole warpgroups of 128 threads; the block has ${this.threads}`, { at });
    }
    multiplyShared(this.trace, accumulator, a, b, options.accumulate ?? true, at);
  }

  wgmmaFence(): void {
    this.trace.emit({ kind: "wgmmaFence", at: callerLocation() });
  }
  wgmmaCommit(): void {
    this.trace.emit({ kind: "wgmmaCommit", at: callerLocation() });
  }
  /**
   * Waits until at most `pending` committed groups of wgmma are under way.
   * ```ts
   * t.wgmmaWait(1); // the last group may go on
   * ```
   */
  wgmmaWait(pending: number): void {
    this.trace.emit({ kind: "wgmmaWait", pending, at: callerLocation() });
  }

  // Synchronization

  /**
   * `length` mbarriers, whose phases end after `arrivals` arrivals each.
   * ```ts
   * const ready = t.mbarrier(2, t.warps); // ready[0] and ready[1]: each phase one arrival a warp
   * ```
   */
  mbarrier(length: number, arrivals: number): Mbarrier {
    const at = callerLocation();
    return this.namedMbarrier(variableNameAt(at) ?? "barrier", length, arrivals, at);
  }

  /**
   * A ring of `stages` buffers, filled by `producers` arrivals and emptied by `consumers`.
   * ```ts
   * const ring = t.pipeline(4, { producers: 1, consumers: 96 });
   * ```
   */
  pipeline(stages: number, arrivals: { readonly producers: number; readonly consumers: number }): Pipeline {
    const at = callerLocation();
    requireOptions(arrivals, ["producers", "consumers"], at);
    const name = variableNameAt(at) ?? "pipe";
    const full = this.namedMbarrier(`${name}_full`, stages, arrivals.producers, at);
    const empty = this.namedMbarrier(`${name}_empty`, stages, arrivals.consumers, at);
    return new Pipeline(this.trace, stages, full, empty);
  }

  /**
   * Waits for `threads` threads at barrier `id`, 1 to 15 (`bar.sync`): a barrier of some warps.
   * ```ts
   * t.when(t.warp.lt(2), () => t.namedBarrier(1, 64));
   * ```
   */
  namedBarrier(id: number, threads: number): void {
    this.named("sync", id, threads);
  }

  /**
   * Is counted at barrier `id`, and goes on (`bar.arrive`).
   * ```ts
   * t.when(
   *   t.warp.lt(2),
   *   () => t.namedArrive(1, 128), // produced
   *   () => t.namedBarrier(1, 128), // waits for it
   * );
   * ```
   */
  namedArrive(id: number, threads: number): void {
    this.named("arrive", id, threads);
  }

  /** Makes this thread's stores to shared memory visible to wgmma and bulk copies (`fence.proxy.async`). */
  asyncFence(): void {
    this.trace.emit({ kind: "asyncFence", at: callerLocation() });
  }

  /**
   * All four warps of a warpgroup take registers from the block's pool, or give some back, until they have `count` each.
   * ```ts
   * t.setRegisters("decrease", 40);
   * ```
   */
  setRegisters(change: "increase" | "decrease", count: number): void {
    const at = callerLocation();
    if (change !== "increase" && change !== "decrease") {
      throw new StagingError(`Registers increase or decrease, not ${describe(change)}`, { at });
    }
    if (this.threads % 128 !== 0) {
      throw new ShapeError(`setRegisters works on whole warpgroups of 128 threads; the block has ${this.threads}`, {
        at,
      });
    }
    this.trace.emit({ kind: "setRegisters", change, count, at });
  }

  private named(action: "sync" | "arrive", id: number, threads: number): void {
    const at = callerLocation();
    if (!Number.isInteger(id) || !Number.isInteger(threads)) {
      const given = `${describe(id)} and ${describe(threads)}`;
      throw new ShapeError(`A named barrier has a number and a count of threads known while tracing, not ${given}`, {
        at,
      });
    }
    this.trace.emit({ kind: "namedBarrier", action, id, threads, at });
  }

  private namedMbarrier(name: string, length: number, arrivals: number, at: Location): Mbarrier {
    for (const [what, value, most] of [
      ["length", length, 1024],
      ["number of arrivals", arrivals, 2 ** 20 - 1],
    ] as const) {
      if (Number.isInteger(value) && value >= 1 && value <= most) continue;
      throw new ShapeError(`The ${what} of mbarriers is a whole number from 1 to ${most}, not ${describe(value)}`, {
        at,
      });
    }
    const barrier = Object.freeze({ kind: "mbarrier", name, length, arrivals, at } as const);
    this.trace.mbarriers.push(barrier);
    return new Mbarrier(this.trace, barrier);
  }

  static {
    checkArguments(this, {
      tileOf: [Tensor],
      fragment: [Tile],
      accumulator: [ThreadMma, Array],
      matrixFragment: [Partition],
      copyAsync: [Tile, Tile],
      copyBulk: [Tensor, Array, Tensor, Array, undefined, Mbarrier],
      tensorMap: [Tensor, Array],
      copyTensor: [TensorMapHandle, Array, Tile, Mbarrier],
      prefetch: [Tensor, Array],
      mma: [Fragment, Fragment, Fragment],
      ldmatrix: [Tensor, Array],
      stmatrix: [Tensor, Array],
      copyMatrix: [Partition, Fragment],
      wgmma: [Fragment, Tile, Tile],
    });
    checkReceivers(this);
  }
}

function sharedOf({ memory }: Tensor, at: Location): Shared {
  if (memory.kind === "shared") return memory;
  throw new ScopeError(`${memory.name} is global memory; matrices are loaded from shared memory`, { at });
}

/** A layout as a swizzle after a plain layout. @throws ShapeError for what shared memory can't have */
function taken(layout: AnyLayout, at: Location): { readonly swizzle: Swizzle | undefined; readonly plain: Layout } {
  if (layout instanceof ComposedLayout) {
    const { layoutA, offset, layoutB } = layout;
    if (layoutA instanceof Swizzle && offset === 0 && layoutB instanceof Layout)
      return { swizzle: layoutA, plain: layoutB };
  } else if (layout instanceof Layout) {
    const offset = crd2idx(0, layout as Layout<StrideLeaf>);
    if (offset === 0) return { swizzle: undefined, plain: layout as Layout };
  }
  throw new ShapeError(`Shared memory has a layout, or a swizzle of one, not ${String(layout)}`, { at });
}
