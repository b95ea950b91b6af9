/** Barriers that some threads of a block, or of a cluster, agree on: mbarriers, named barriers, and pipelines of stages. */
import { checkArguments, checkReceivers, requireOptions } from "../check.ts";
import { Expr, type Index, toIndex, wrap } from "../expr.ts";
import type { MBarrier, Slot } from "../ir-tile.ts";
import { i32 } from "../dtype.ts";
import { callerLocation, type Location } from "../source.ts";
import type { Trace } from "../trace.ts";

/**
 * `length` barriers in shared memory. A phase of one ends when its number of threads have arrived and all bytes announced
 * to it have come; phases count 0, 1, 0, 1, ...
 */
export class Mbarrier {
  readonly barrier: MBarrier;
  private readonly trace: Trace;

  constructor(trace: Trace, barrier: MBarrier) {
    this.trace = trace;
    this.barrier = barrier;
  }

  /**
   * This thread arrives at barrier `slot`; with `peer` at that of another block of the cluster.
   * ```ts
   * t.cluster.barrier(); // the other block has started
   * barrier.arrive(0, { peer: t.cluster.rank.xor(1) });
   * t.cluster.barrier(); // and has not ended
   * ```
   */
  arrive(slot: Index = 0, options: { readonly peer?: Index } = {}): void {
    const at = callerLocation();
    requireOptions(options, ["peer"], at);
    const peer = options.peer === undefined ? undefined : toIndex(this.trace, options.peer, "arrive", at);
    this.trace.emit({ kind: "arrive", ...this.slot(slot, at), expectBytes: undefined, peer, at });
  }

  /**
   * Announces bytes of bulk copies, then arrives.
   * ```ts
   * t.when(t.thread.eq(0), () => barrier.arriveExpect(0, 1024));
   * ```
   */
  arriveExpect(slot: Index, bytes: Index): void {
    const at = callerLocation();
    const expectBytes = toIndex(this.trace, bytes, "arriveExpect", at);
    this.trace.emit({ kind: "arrive", ...this.slot(slot, at), expectBytes, peer: undefined, at });
  }

  /**
   * This thread arrives as soon as its asynchronous copies so far are done.
   * ```ts
   * t.copyAsync(gX, sX);
   * barrier.arriveAfterCopies(0);
   * barrier.wait(0, 0);
   * ```
   */
  arriveAfterCopies(slot: Index = 0): void {
    const at = callerLocation();
    this.trace.emit({ kind: "asyncArrive", ...this.slot(slot, at), at });
  }

  /**
   * Waits, a whole warp at a time, until the phase of this parity has ended. On a new barrier parity 1 has.
   * ```ts
   * barrier.wait(0, 0); // until its first phase has ended
   * ```
   */
  wait(slot: Index, parity: Index): void {
    const at = callerLocation();
    const value = toIndex(this.trace, parity, "wait", at);
    this.trace.emit({ kind: "await", ...this.slot(slot, at), parity: value, at });
  }

  /** @internal For copies that count their bytes here. */
  slot(slot: Index, at: Location): Slot {
    return { barrier: this.barrier, slot: toIndex(this.trace, slot, "an mbarrier", at) };
  }

  static {
    checkReceivers(this);
  }
}

/**
 * A ring of `stages` buffers between producers and consumers:
 *
 *     producer   for each tile i: acquire(i), copy into stage(i), commit
 *     consumer   for each tile i: wait(i), use stage(i), release(i)
 *
 * Tile i lies in stage i % stages; the barriers' parities follow from i / stages, so there is no state to carry.
 * ```ts
 * const ring = t.pipeline(4, { producers: 32, consumers: 96 }); // warp 0 copies, the others read
 * const stages = t.sharedTile(bf16, makeLayout([16, 16, 4], [16, 1, 256]));
 * const produce = () => {
 *   for (const i of t.range(8)) {
 *     ring.acquire(i);
 *     t.copyAsync(x.tile([16, 16], [0, i]), stages.slice([null, null, ring.stage(i)]));
 *     ring.full.arriveAfterCopies(ring.stage(i));
 *   }
 * };
 * const consume = () => {
 *   for (const i of t.range(8)) {
 *     ring.wait(i);
 *     t.copy(stages.slice([null, null, ring.stage(i)]), rX);
 *     ring.release(i);
 *   }
 * };
 * t.when(t.warp.eq(0), produce, consume);
 * ring.stage(ring.tile(6)) // 2
 * ```
 */
export class Pipeline {
  readonly stages: number;
  /** Ends a phase when a stage is filled. */
  readonly full: Mbarrier;
  /** Ends a phase when a stage is used up. */
  readonly empty: Mbarrier;
  private readonly trace: Trace;

  constructor(trace: Trace, stages: number, full: Mbarrier, empty: Mbarrier) {
    this.trace = trace;
    this.stages = stages;
    this.full = full;
    this.empty = empty;
  }

  /** In which stage tile `i` lies. */
  stage(i: Expr<"i32">): Expr<"i32"> {
    return i.rem(this.stages);
  }

  /** Producer: waits until the stage of tile `i` is free. */
  acquire(i: Expr<"i32">): void {
    this.empty.wait(this.stage(i), this.parity(i).xor(1));
  }

  /** Consumer: waits until tile `i` is there. */
  wait(i: Expr<"i32">): void {
    this.full.wait(this.stage(i), this.parity(i));
  }

  /**
   * Consumer: this thread has read tile `i`, and used what it read. A copy of TMA into the stage is not ordered after a load
   * whose value is still under way: release behind the mma, or let the producer call `t.asyncFence()` between acquire and
   * copy. Seen on an H200: wrong results when a stage was released before the mma that used it.
   */
  release(i: Expr<"i32">): void {
    this.empty.arrive(this.stage(i));
  }

  private parity(i: Expr<"i32">): Expr<"i32"> {
    return i.div(this.stages).and(1);
  }

  /** An i32 constant, for tiles whose number is known. */
  tile(i: number): Expr<"i32"> {
    return wrap(this.trace, this.trace.constant(i32, i, callerLocation()));
  }

  static {
    checkArguments(this, { stage: [Expr], acquire: [Expr], wait: [Expr], release: [Expr] });
    checkReceivers(this);
  }
}
