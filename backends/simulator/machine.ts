/**
 * Runs the grid: all blocks of a cluster at once, one cluster after the other. Within a cluster a warp runs until it must
 * wait, then the next one does; with a seed the order is random, and warps are interrupted wherever they touch memory.
 */
import { Compiler, type Program } from "./compile.ts";
import { CopyGroups } from "./async.ts";
import { Context } from "./context.ts";
import { Frame } from "./frame.ts";
import { randomFrom } from "./numbers.ts";
import { Timeline } from "./order.ts";
import { Shadow } from "./shadow.ts";
import { type Block, Storage, type Warp } from "./state.ts";
import { MBarrierState, Rendezvous } from "./sync.ts";
import { checkWarpgroupsEnd, WgmmaQueue } from "./wgmma.ts";

export class Machine {
  private readonly context: Context;
  private readonly grid: readonly [x: number, y: number, z: number];
  private readonly program: Program;
  private readonly random: (() => number) | undefined;
  /** Of each warp of a cluster; used again by the next one. */
  private readonly frames: readonly Frame[];
  /** Of each block of a cluster. */
  private readonly shared: readonly (readonly Storage[])[];

  constructor(context: Context, grid: Machine["grid"], seed: number | undefined) {
    const { ir, checks, layout } = context;
    this.context = context;
    this.grid = grid;
    this.random = seed === undefined ? undefined : randomFrom(seed);
    const { random } = this;
    this.program = new Compiler(context, random && (() => random() < 0.3)).block(ir.body);
    this.frames = Array.from({ length: context.warps }, () => new Frame(layout.byteLength));
    this.shared = Array.from({ length: ir.cluster }, () =>
      ir.shared.map((memory) => {
        const storage = new Storage(memory, memory.shape);
        if (checks) storage.shadow = new Shadow(storage, context, () => false);
        return storage;
      }),
    );
  }

  run(): void {
    const { ir } = this.context;
    const [x, y, z] = this.grid;
    const perRow = x / ir.cluster;
    const order = Array.from({ length: perRow * y * z }, (_, i) => i);
    if (this.random) shuffle(order, this.random);
    for (const [number, cluster] of order.entries()) {
      const first = (cluster % perRow) * ir.cluster;
      const row = Math.floor(cluster / perRow);
      const blocks = this.makeCluster(number, (rank) => [first + rank, row % y, Math.floor(row / y)]);
      if (!this.runCluster(blocks.flatMap(({ warps }) => warps))) return;
    }
  }

  private makeCluster(number: number, coordinatesOf: (rank: number) => Block["coordinates"]): readonly Block[] {
    const { context } = this;
    const { ir, agents } = context;
    context.first = number * agents;
    context.inFlight.clear();
    context.clusterBarrier = new Rendezvous(context, "the cluster's barrier");
    let agent = context.mbarrierAgents;
    context.blocks = this.shared.map((shared, rank) => {
      for (const { bytes, shadow } of shared) {
        bytes.fill(0xff);
        shadow?.clear();
      }
      const warps: Warp[] = [];
      const block: Block = {
        ...{ rank, coordinates: coordinatesOf(rank), warps, shared },
        mbarriers: ir.mbarriers.map((barrier) =>
          Array.from({ length: barrier.length }, (_, slot) => new MBarrierState(context, barrier, slot, agent++)),
        ),
        barrier: new Rendezvous(context, "the block's barrier"),
        ...{ named: new Map(), running: ir.block / 32, remote: new Map(), wgmmas: [] },
      };
      for (let index = 0; index < ir.block / 32; index++) warps.push(this.makeWarp(block, index, number > 0));
      return block;
    });
    return context.blocks;
  }

  private makeWarp(block: Block, index: number, again: boolean): Warp {
    const { context } = this;
    const agent = (block.rank * context.ir.block) / 32 + index;
    const frame = this.frames[agent];
    if (!frame) throw new RangeError(`there is no warp ${agent}`);
    const clock = context.newClock();
    clock.afterWait = !context.checks;
    const warp: Warp = {
      ...{ block, index, order: new Timeline(agent, clock), frame, mask: -1, splitAt: -1 },
      written: new Int32Array(context.watched),
      copies: new CopyGroups(context.inFlight),
      wgmmas: new WgmmaQueue(context.warps + agent, clock),
      ...{ clusterPhase: undefined, wait: undefined, done: false },
    };
    context.fillLeaves(warp, again);
    return warp;
  }

  /** Whether all its warps came to the end. */
  private runCluster(warps: readonly Warp[]): boolean {
    const { context, program, random } = this;
    if (program.kind === "step") {
      for (const warp of warps) {
        program.run(warp);
        this.end(warp);
      }
      return true;
    }
    const running = warps.map((warp) => ({ warp, task: program.run(warp) }));
    const order = [...running];
    while (running.length > 0) {
      let moved = false;
      if (random) shuffle(order, random);
      for (const entry of order) {
        const { warp, task } = entry;
        if (warp.done || (warp.wait && !warp.wait.isOver())) continue;
        moved = true;
        if (task.next().done) {
          running.splice(running.indexOf(entry), 1);
          this.end(warp);
        }
        if (random && random() < 0.3) this.performOne(random);
      }
      if (!moved) {
        this.reportDeadlock(running.map(({ warp }) => warp));
        return false;
      }
    }
    context.inFlight.clear();
    return true;
  }

  /** Something that is under way may come to its end at any time. */
  private performOne(random: () => number): void {
    const { inFlight } = this.context;
    const operation = [...inFlight][Math.floor(random() * inFlight.size)];
    if (!operation) return;
    inFlight.delete(operation);
    operation.perform();
  }

  private end(warp: Warp): void {
    const { context } = this;
    const { block } = warp;
    warp.done = true;
    block.running--;
    if (block.running > 0 || !context.checks) return;
    for (const { copies, wgmmas } of block.warps) {
      for (const { site } of [...copies.open, ...wgmmas.open]) this.reportUnfinished(warp, site);
    }
    for (const { inFlight } of block.mbarriers.flat())
      for (const { site } of inFlight) this.reportUnfinished(warp, site);
    checkWarpgroupsEnd(context, block.warps);
    for (const access of block.remote.values()) {
      const { agent } = access.warp.order;
      const isOver = (lane: number): boolean =>
        block.warps.some(({ order }) => order.clock.knows(agent, lane, access.segment));
      const open = Array.from({ length: 32 }, (_, lane) => lane).find(
        (lane) => (access.lanes >>> lane) & 1 && !isOver(lane),
      );
      if (open === undefined) continue;
      const message = (): string => "The other block may have ended already: a cluster barrier must come after";
      context.findings.add(access.warp, "lifetime", access.site, open, message);
    }
  }

  private reportUnfinished(warp: Warp, site: number): void {
    const message = (): string => "The block ends while this may still be under way: nobody waited for it";
    this.context.findings.add(warp, "in-flight", site, 0, message);
  }

  private reportDeadlock(stuck: readonly Warp[]): void {
    const { context } = this;
    const [first] = stuck;
    const other = stuck.find(({ wait }) => wait?.site !== first?.wait?.site);
    if (!first) return;
    const lines = new Map<string, Warp[]>();
    for (const warp of stuck) {
      const where = context.findings.sites.at(warp.wait?.site ?? 0);
      const text = `${warp.wait?.describe()} at line ${where.line}`;
      lines.set(text, [...(lines.get(text) ?? []), warp]);
    }
    const message = (): string => {
      const ended = context.warps - stuck.length;
      const waits = [...lines].map(([text, warps]) => {
        const names = warps.map(({ order }) => context.describeWarp(order.agent)).join(", ");
        return `${names} ${warps.length === 1 ? "waits" : "wait"} for ${text}`;
      });
      return `Deadlock in "${context.ir.name}": ${waits.join("; ")}${ended > 0 ? `; ${ended} warps have ended` : ""}`;
    };
    const line = other?.wait && context.findings.line("another warp waits", other.wait.site);
    context.findings.add(first, "deadlock", first.wait?.site ?? 0, 0, message, line);
  }
}

/** Fisher and Yates. */
function shuffle<T>(list: T[], random: () => number): void {
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    const [a, b] = [list[i], list[j]];
    if (a !== undefined && b !== undefined) [list[i], list[j]] = [b, a];
  }
}
