/** `t`, whole: on top of thread.ts, thread-sync.ts and thread-copy.ts the matrix instructions. */
import type { MmaAtom } from "../atoms/mma.ts";
import { checkArguments, checkReceivers, describe, describeAll, requireOptions } from "../check.ts";
import type { DTypeName } from "../dtype.ts";
import { ScopeError, ShapeError, StagingError } from "../errors.ts";
import { type Expr, toValue, use, wrap } from "../expr.ts";
import type { LaneCount, Shared, Type, Value } from "../ir.ts";
import { get, makeLayout } from "../layout/index.ts";
import { callerLocation, type Location } from "../source.ts";
import { type Access, type Indices, Tensor, toIndices } from "../tensor.ts";
import { fragmentTypes } from "../typing.ts";
import type { CopyPlan } from "./copy.ts";
import { declareAccumulator, declareFragment, Fragment } from "./fragment.ts";
import { loadMatrix, multiply, multiplyShared } from "./matrix.ts";
import { CopyThread } from "./thread-copy.ts";
import { Partition, ThreadMma } from "./tiled-mma.ts";
import { Tile } from "./tile.ts";

/**
 * What a kernel's body gets as `t`: one thread, with its place in the grid, memory, order, tiles and matrix instructions.
 * ```ts
 * const i = t.block.x.mul(128).add(t.thread);
 * t.when(i.lt(rows), () => line.store([t.thread], t.const(bf16, 1)));
 * ```
 */
export class Thread<Late = unknown> extends CopyThread<Late> {
  /**
   * A zero accumulator for an (M,N) tile, before there is a tensor to store it to: (value, M, N).
   * ```ts
   * t.accumulator(mma, [16, 16]) // ((2,2),1,2):((1,2),0,4)
   * ```
   */
  accumulator<M extends MmaAtom>(
    thread: ThreadMma<M>,
    shape: readonly [m: number, n: number],
  ): Fragment<M["c"]["name"], "C", M> {
    const at = callerLocation();
    const isExtent = (extent: number) => Number.isInteger(extent) && extent >= 1 && extent <= 2 ** 16;
    if (shape.length !== 2 || !Array.from(shape).every(isExtent)) {
      throw new ShapeError(`An accumulator has two extents, rows and columns, not ${describeAll(shape)}`, {
        at,
        hint: "t.accumulator(mma, [16, 8])",
      });
    }
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
    requireOptions(options, ["accumulate"], at);
    multiplyShared(this.trace, accumulator, a, b, options.accumulate ?? true, at);
  }

  /**
   * Before the first wgmma, and before one that adds to sums that were read or set: lets it see the registers as they are.
   * ```ts
   * wide.fill(0);
   * t.wgmmaFence();
   * t.wgmma(wide, left, right);
   * t.wgmmaCommit();
   * t.wgmmaWait(0);
   * ```
   */
  wgmmaFence(): void {
    this.trace.emit({ kind: "wgmmaFence", at: callerLocation() });
  }

  /** Groups the wgmma since the last commit. */
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

  static {
    checkArguments(this, {
      accumulator: [ThreadMma, Array],
      matrixFragment: [Partition],
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
