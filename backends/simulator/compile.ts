/**
 * From IR to closures, once per simulation: what can't make a warp wait is a function of the warp, the rest are generators
 * that yield where it must.
 */
import type { Block as Stmts, Op, Stmt, Value } from "../../dsl/ir.ts";
import { isTileStmt, type TileStmt } from "../../dsl/ir-tile.ts";
import { arriveAfterCopies, compileBulkCopy, compileCopyAsync, compileTensorCopy } from "./async.ts";
import type { Context, Step } from "./context.ts";
import { eachLane, firstLane } from "./frame.ts";
import { compileLdmatrix, compileMma, compileStmatrix } from "./matrix.ts";
import { compileAtomic, compileLoad, compileStore, trueLanes } from "./memory.ts";
import { popcount } from "./numbers.ts";
import { compilePure, flopsOf } from "./operations.ts";
import { compileDeclare, compileRead, compileReduce, compileShuffle, compileWrite } from "./registers.ts";
import type { Wait, Warp } from "./state.ts";
import { type MBarrierState, Rendezvous } from "./sync.ts";
import { compileWgmma } from "./wgmma.ts";

/** What may have to wait: yields as long as it must. */
export type Task = (warp: Warp) => Generator<void>;
export type Program = { readonly kind: "step"; readonly run: Step } | { readonly kind: "task"; readonly run: Task };

const step = (run: Step): Program => ({ kind: "step", run });
const task = (run: Task): Program => ({ kind: "task", run });

/** What yields only where its parts do: without such parts it comes to its end at once. */
const programOf = (parts: readonly Program[], run: Task): Program =>
  parts.some(({ kind }) => kind === "task") ? task(run) : step((warp) => void run(warp).next());

/** Statements that other warps may see or be seen by. */
const shared: ReadonlySet<Stmt["kind"] | Op["kind"]> = new Set([
  ...(["load", "store", "atomic", "ldmatrix", "stmatrix", "copyAsync", "bulkCopy", "tensorCopy"] as const),
  ...(["arrive", "asyncArrive", "namedBarrier", "clusterArrive", "wgmma", "sleep"] as const),
]);

export class Compiler {
  private readonly context: Context;
  private readonly interrupts: (() => boolean) | undefined;

  /** `interrupts`: whether another warp, or the other side of a branch, comes next; asked wherever the order is open. */
  constructor(context: Context, interrupts: (() => boolean) | undefined) {
    this.context = context;
    this.interrupts = interrupts;
  }

  block(stmts: Stmts): Program {
    const programs = stmts.flatMap((stmt) => this.interruptible(stmt, this.stmt(stmt)) ?? []);
    return programOf(programs, function* (warp) {
      for (const program of programs) {
        if (program.kind === "step") program.run(warp);
        else yield* program.run(warp);
      }
    });
  }

  private interruptible(stmt: Stmt, program: Program | undefined): Program | undefined {
    const { interrupts } = this;
    const matters = shared.has(stmt.kind === "let" ? stmt.value.op.kind : stmt.kind);
    if (!interrupts || !matters || program?.kind === "task") return program;
    return task(function* (warp) {
      program?.run(warp);
      if (interrupts()) yield;
    });
  }

  private stmt(stmt: Stmt): Program | undefined {
    if (isTileStmt(stmt)) return this.tile(stmt);
    const { context } = this;
    const site = context.findings.sites.of(stmt.at);
    switch (stmt.kind) {
      case "let":
        return step(this.value(stmt.value, site));
      case "declare":
        return step(compileDeclare(context, stmt, site));
      case "write":
        return step(compileWrite(context, stmt, site));
      case "store":
        return step(compileStore(context, stmt, site));
      case "for":
        return this.loop(stmt, site);
      case "if":
        return this.branch(stmt, site);
      case "barrier":
        return stmt.scope === "warp" ? step((warp) => this.meet(warp, site)) : this.blockBarrier(site);
      case "pdlWait":
        return step(({ order, mask }) => order.pdlWait(mask));
      case "pdlLaunch":
      case "sleep":
        return undefined;
    }
  }

  private value(value: Value, site: number): Step {
    const { context } = this;
    const { op, type } = value;
    const place = context.place(value);
    switch (op.kind) {
      case "const":
      case "size":
      case "scalar":
      case "id":
      case "induction":
        throw new RangeError(`${op.kind} has no statement`);
      case "read":
        return compileRead(context, op, place, site);
      case "load":
        return compileLoad(context, op, place, site);
      case "shuffle":
        return compileShuffle(context, op, place, site);
      case "reduce":
        return compileReduce(context, op, place, site);
      case "atomic":
        return compileAtomic(context, op, place, site);
      case "mma":
        return compileMma(context, op, place, site);
      case "ldmatrix":
        return compileLdmatrix(context, op, place, site);
      default: {
        const compute = compilePure(op, type, place, (operand) => context.place(operand));
        const flops = flopsOf(op, type);
        if (flops === 0) return ({ frame }) => compute(frame);
        return ({ frame, mask }) => {
          compute(frame);
          context.counters.add(site, "flops", flops * popcount(mask));
        };
      }
    }
  }

  private branch(stmt: Extract<Stmt, { kind: "if" }>, site: number): Program {
    const { interrupts } = this;
    const condition = this.context.place(stmt.condition);
    const [then, otherwise] = [this.block(stmt.then), this.block(stmt.otherwise)];
    return programOf([then, otherwise], function* (warp) {
      const { mask, splitAt } = warp;
      const yes = mask & trueLanes(warp.frame.bytes, condition);
      if (yes !== 0 && yes !== mask) warp.splitAt = site;
      for (const side of interrupts?.() ? [otherwise, then] : [then, otherwise]) {
        warp.mask = side === then ? yes : mask & ~yes;
        if (warp.mask === 0) continue;
        if (side.kind === "step") side.run(warp);
        else yield* side.run(warp);
      }
      warp.mask = mask;
      warp.splitAt = splitAt;
    });
  }

  private loop({ induction, from, to, step: by, body }: Extract<Stmt, { kind: "for" }>, site: number): Program {
    const { context } = this;
    const [i, first, end] = [context.place(induction), context.place(from), context.place(to)];
    const program = this.block(body);
    return programOf([program], function* (warp) {
      const { mask, splitAt } = warp;
      const { words } = warp.frame;
      words.copyWithin(i, first, first + 32);
      for (;;) {
        let lanes = 0;
        for (let l = 0; l < 32; l++) if ((words[i + l] ?? 0) < (words[end + l] ?? 0)) lanes |= 1 << l;
        lanes &= warp.mask;
        if (lanes === 0) break;
        if (lanes !== warp.mask) warp.splitAt = site;
        warp.mask = lanes;
        if (program.kind === "step") program.run(warp);
        else yield* program.run(warp);
        // Beyond 2^31 - 1 a loop ends, instead of going on with negative numbers.
        for (let l = 0; l < 32; l++)
          if ((lanes >>> l) & 1) words[i + l] = Math.min((words[i + l] ?? 0) + by, 2 ** 31 - 1);
      }
      warp.mask = mask;
      warp.splitAt = splitAt;
    });
  }

  private meet(warp: Warp, site: number): void {
    this.context.together(warp, site, "barrier of the warp");
    warp.order.meet();
  }

  private blockBarrier(site: number): Program {
    const { context } = this;
    const warps = context.ir.block / 32;
    return task(function* (warp) {
      context.together(warp, site, "barrier of the block");
      context.counters.add(site, "barriers", 1);
      const { barrier } = warp.block;
      const phase = barrier.arrive(warp, warps, site, true);
      yield* until(warp, { site, isOver: () => phase.isOver, describe: () => barrier.describe() });
      warp.order.acquire(phase.clock);
    });
  }

  private tile(stmt: TileStmt): Program | undefined {
    const { context } = this;
    const site = context.findings.sites.of(stmt.at);
    switch (stmt.kind) {
      case "stmatrix":
        return step(compileStmatrix(context, stmt, site));
      case "copyAsync":
        return step(compileCopyAsync(context, stmt, site));
      case "asyncCommit":
        return step(({ copies, mask }) => copies.commit(mask));
      case "asyncWait":
        return step((warp) => warp.copies.wait(stmt.pending, warp));
      case "asyncArrive": {
        const slotOf = context.slot(stmt, site);
        return step((warp) => {
          for (const [state, lanes] of byState(warp, slotOf)) arriveAfterCopies(context, warp, lanes, state, site);
        });
      }
      case "bulkCopy":
        return step(compileBulkCopy(context, stmt, site));
      case "tensorCopy":
        return step(compileTensorCopy(context, stmt, site));
      case "arrive":
        return step(this.arrive(stmt, site));
      case "await":
        return this.await(stmt, site);
      case "clusterArrive":
        return step((warp) => {
          context.together(warp, site, "cluster barrier");
          warp.clusterPhase = context.clusterBarrier.arrive(warp, context.warps, site, false);
        });
      case "clusterWait":
        return task(function* (warp) {
          context.together(warp, site, "cluster barrier");
          context.counters.add(site, "barriers", 1);
          const phase = warp.clusterPhase;
          if (!phase) return;
          yield* until(warp, { site, isOver: () => phase.isOver, describe: () => context.clusterBarrier.describe() });
          warp.order.acquire(phase.clock);
        });
      case "namedBarrier":
        return this.namedBarrier(stmt, site);
      case "asyncFence":
        return step(({ order, mask }) => order.fence(mask));
      case "wgmmaFence":
        return step(({ wgmmas }) => wgmmas.touched.clear());
      case "wgmma":
        return step(compileWgmma(context, stmt, site));
      case "wgmmaCommit":
        return step(({ wgmmas }) => wgmmas.commit());
      case "wgmmaWait":
        return step(({ wgmmas }) => wgmmas.wait(stmt.pending));
      case "prefetch":
      case "setRegisters":
        return undefined;
    }
  }

  private arrive(stmt: Extract<TileStmt, { kind: "arrive" }>, site: number): Step {
    const { context } = this;
    const slotOf = context.slot(stmt, site);
    const expected = stmt.expectBytes && context.place(stmt.expectBytes);
    const peer = stmt.peer && context.place(stmt.peer);
    return (warp) => {
      const { words } = warp.frame;
      const ofPeer = (lane: number) =>
        peer === undefined ? warp.block : context.peer(warp, lane, words[peer + lane] ?? 0, site);
      for (const [state, lanes] of byState(warp, (_, lane) => {
        const block = ofPeer(lane);
        return block && slotOf(warp, lane, block);
      })) {
        // All that these lanes know is there before one of them ends the phase.
        state.hear(warp, lanes);
        eachLane(lanes, (lane) => {
          state.arrive(warp, lane, expected === undefined ? 0 : (words[expected + lane] ?? 0), site);
        });
      }
    };
  }

  private await(stmt: Extract<TileStmt, { kind: "await" }>, site: number): Program {
    const { context } = this;
    const slotOf = context.slot(stmt, site);
    const parity = context.place(stmt.parity);
    return task(function* (warp) {
      context.together(warp, site, "wait for an mbarrier");
      context.counters.add(site, "barriers", 1);
      const states = [...byState(warp, slotOf)].map(([state, lanes]) => {
        return { state, parity: warp.frame.words[parity + firstLane(lanes)] ?? 0 };
      });
      const missing = () => states.find(({ state, parity }) => state.isUnderWay(parity));
      yield* until(warp, {
        site,
        isOver() {
          // What is under way for the barrier is done now, and no earlier.
          for (const { state, parity } of states) if (state.isUnderWay(parity)) state.flush();
          return missing() === undefined;
        },
        describe: () => missing()?.state.describe() ?? "",
      });
      for (const { state } of states) state.acquire(warp);
    });
  }

  private namedBarrier(stmt: Extract<TileStmt, { kind: "namedBarrier" }>, site: number): Program {
    const { context } = this;
    const { id, threads, action } = stmt;
    return task(function* (warp) {
      context.together(warp, site, "named barrier");
      context.counters.add(site, "barriers", 1);
      const { named } = warp.block;
      const barrier = named.get(id) ?? new Rendezvous(context, `the named barrier ${id}`);
      named.set(id, barrier);
      const phase = barrier.arrive(warp, threads / 32, site, false);
      if (action === "arrive") return;
      yield* until(warp, { site, isOver: () => phase.isOver, describe: () => barrier.describe() });
      warp.order.acquire(phase.clock);
    });
  }
}

function* until(warp: Warp, wait: Wait): Generator<void> {
  if (wait.isOver()) return;
  warp.wait = wait;
  do yield;
  while (!wait.isOver());
  warp.wait = undefined;
}

/** The lanes that take part, by the mbarrier that they mean. */
function byState(
  warp: Warp,
  slotOf: (warp: Warp, lane: number) => MBarrierState | undefined,
): ReadonlyMap<MBarrierState, number> {
  const lanes = new Map<MBarrierState, number>();
  eachLane(warp.mask, (lane) => {
    const state = slotOf(warp, lane);
    if (state) lanes.set(state, (lanes.get(state) ?? 0) | (1 << lane));
  });
  return lanes;
}
