/** `t`, its third part: tiles of shared memory, fragments, and the copies that fill them. */
import type { MmaAtom } from "../atoms/mma.ts";
import { checkArguments, checkReceivers, describe, requireDType, requireOptions } from "../check.ts";
import type { DType, DTypeName } from "../dtype.ts";
import { i32 } from "../dtype.ts";
import { ShapeError, StagingError } from "../errors.ts";
import type { Index } from "../expr.ts";
import type { LaneCount } from "../ir.ts";
import type { CopyHint, SwizzleBytes } from "../ir-tile.ts";
import {
  type AnyLayout,
  ComposedLayout,
  cosize,
  crd2idx,
  Layout,
  makeLayout,
  type StrideLeaf,
  Swizzle,
} from "../layout/index.ts";
import type { TensorOptions } from "../params.ts";
import { callerLocation, type Location } from "../source.ts";
import { type Access, type Indices, type Readable, requireHint, Tensor, toIndices, type Writable } from "../tensor.ts";
import { Mbarrier } from "./barrier.ts";
import { copyAsync, copyBulk, type CopyOptions, type CopyPlan, loadFragment, storeFragment } from "./copy.ts";
import { declareAccumulator, declareFragment, Fragment, type FragmentRole, memoryOrder } from "./fragment.ts";
import { TensorMapHandle, tensorMapOf } from "./tensor-map.ts";
import { SyncThread } from "./thread-sync.ts";
import { Partition } from "./tiled-mma.ts";
import { Tile } from "./tile.ts";

/**
 * `t` with tiles and what moves them: between global memory, shared memory and registers, by threads or beside them.
 * ```ts
 * const rW = t.fragment(gX);
 * t.copy(gX, rW);
 * ```
 */
export class CopyThread<Late = unknown> extends SyncThread<Late> {
  /**
   * Shared memory with a layout of its own, swizzled or not; static.
   * ```ts
   * const sW = t.sharedTile(bf16, composition(new Swizzle(3, 3, 3), makeLayout([16, 64], [64, 1]))); // (16, 64)
   * ```
   */
  sharedTile<N extends DTypeName>(dtype: DType<N>, layout: AnyLayout, options: TensorOptions = {}): Tile<N, "shared"> {
    const at = callerLocation();
    requireDType(dtype, at);
    requireOptions(options, ["alignBytes"], at);
    const { swizzle, plain } = taken(layout, at);
    const memory = this.shared(dtype, [cosize(plain)], { alignBytes: 128, ...options });
    return new Tile<N, "shared">(memory, [this.trace.constant(i32, 0, at)], plain, swizzle, at);
  }

  /**
   * A whole tensor of known shape, or shared memory, as a tile.
   * ```ts
   * t.tileOf(x) // (64,128):(1@0,1@1)
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
   * Copies between memory and registers, as wide as layouts and alignment allow; the plan that comes back explains itself.
   * ```ts
   * const plan = t.copy(gA, rA, { cache: "stream", guard: "edges" });
   * plan.bytes // 4
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
   * t.asyncWait(0);
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
   * `cache: "stream"` for what is read once: it leaves L2 first.
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
    options: { readonly cache?: CopyHint } = {},
  ): void {
    const at = callerLocation();
    if (typeof slot === "object" && slot !== null && Object.getPrototypeOf(slot) === Object.prototype) {
      throw new StagingError("Options of copyTensor come after the slot", {
        at,
        hint: 'Write t.copyTensor(map, index, to, barrier, 0, { cache: "stream" })',
      });
    }
    requireOptions(options, ["cache"], at);
    const { cache = "normal" } = options;
    requireHint(cache, ["normal", "stream"], at);
    map.copy(index, to, barrier, slot, cache, at);
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

  static {
    checkArguments(this, {
      tileOf: [Tensor],
      fragment: [Tile],
      copyAsync: [Tile, Tile],
      copyBulk: [Tensor, Array, Tensor, Array, undefined, Mbarrier],
      tensorMap: [Tensor, Array],
      copyTensor: [TensorMapHandle, Array, Tile, Mbarrier],
      prefetch: [Tensor, Array],
    });
    checkReceivers(this, "Thread");
  }
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
