/** `t`, its second part: order among some threads of a block, among warps with tasks of their own, among blocks of a cluster. */
import { checkReceivers, describe, requireOptions } from "../check.ts";
import { i32 } from "../dtype.ts";
import { ShapeError, StagingError } from "../errors.ts";
import { Expr } from "../expr.ts";
import { callerLocation, type Location, variableNameAt } from "../source.ts";
import { BasicThread, type LaunchShape } from "../thread.ts";
import type { Trace } from "../trace.ts";
import { Mbarrier, Pipeline } from "./barrier.ts";

/**
 * The blocks that run together.
 * ```ts
 * const sum = t.shared(f32, [32]);
 * t.cluster.arrive();
 * t.cluster.wait(); // the other blocks have started: their memory is there
 * sum.store([t.lane], 1, { peer: t.cluster.rank.xor(1) });
 * t.cluster.barrier(); // what the others stored here is visible, and none of them ends before
 * ```
 */
export interface Cluster {
  /** Which block of the cluster this is. */
  readonly rank: Expr<"i32">;
  /** Blocks per cluster. */
  readonly size: number;
  /** Waits for every thread of the cluster; what they stored before, to whichever shared memory, is visible after. */
  barrier(): void;
  /** The first half of the barrier: says that this thread is here, and goes on with work of its own. */
  arrive(): void;
  /** The second half: waits until every thread of the cluster has arrived; what they stored before that is visible after. */
  wait(): void;
}

/**
 * `t` with what orders threads beyond a block's barrier: mbarriers, pipelines, named barriers, clusters.
 * ```ts
 * const ready = t.mbarrier(1, t.warps);
 * t.when(t.lane.eq(0), () => ready.arrive(0));
 * ready.wait(0, 0); // every warp was there
 * ```
 */
export class SyncThread<Late = unknown> extends BasicThread<Late> {
  readonly cluster: Cluster;

  constructor(trace: Trace, shape: LaunchShape, late: () => Late) {
    super(trace, shape, late);
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

  /**
   * Makes this thread's stores to shared memory visible to wgmma and bulk copies (`fence.proxy.async`).
   * ```ts
   * line.store([t.thread], t.const(bf16, 0));
   * t.asyncFence();
   * t.barrier(); // now wgmma may read it
   * ```
   */
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
    if (!Number.isInteger(count)) {
      throw new ShapeError(`A thread has a whole number of registers, not ${describe(count)}`, { at });
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
    checkReceivers(this, "Thread");
  }
}
