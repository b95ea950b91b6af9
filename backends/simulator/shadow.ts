/**
 * Shadow memory: who wrote each element last, and who has read it since. Every access is compared with those before it
 * (FastTrack's idea: the last write is enough; of reads those that no later read is ordered after).
 *
 * Elements that a copy or wgmma beside the threads still writes or reads are marked as long as it may be under way.
 */
import type { Location } from "../../dsl/source.ts";
import { type FindingKind, type Findings, made, type Other, type Place, unravel } from "./findings.ts";
import type { Timeline } from "./order.ts";

/** Who accesses. */
export interface Actor extends Place {
  readonly order: Timeline;
}

/** What is shadowed. */
export interface Shadowed {
  readonly name: string;
  readonly at: Location;
  readonly dims: readonly number[];
  readonly count: number;
}

/** Agents of the whole grid. Those of the cluster that runs now begin at `first`, its warps before the others. */
export interface Grid {
  readonly findings: Findings;
  readonly warps: number;
  readonly first: number;
  /** A name for an agent of this cluster. */
  describe(agent: number, lane: number): string;
  /** The barrier that two agents may meet at; undefined where that is for the author to say. */
  barrierOf(a: number, b: number): string | undefined;
}

/** Thread + 1, its segment, its line, first record of reads. A thread is 32 * agent + lane. */
const cellWords = 4;
/** Agent, segment, lanes, 2 * line + isAtomic, next record. */
const recordWords = 5;

export class Shadow {
  private readonly memory: Shadowed;
  private readonly grid: Grid;
  private readonly isDefined: ((element: number) => boolean) | undefined;
  private readonly cells: Int32Array;
  /** Records of reads and atomics; 0 is none. */
  private records = new Int32Array(64 * recordWords);
  private used = 1;
  private free = 0;
  /** By element, 1 + the line of the copy that writes it. */
  private filling: Int32Array | undefined;
  /** By element, how many wgmma read it, and the line of one. */
  private draining: Int32Array | undefined;
  // The access that is looked at. Lane -1: by the whole warp, beside its threads.
  private actor: Actor | undefined;
  private lane = 0;
  private element = 0;
  private site = 0;
  private does = "";

  /** `isDefined`: whether an element may be read before this kernel writes it; undefined: any. */
  constructor(memory: Shadowed, grid: Grid, isDefined: ((element: number) => boolean) | undefined) {
    this.memory = memory;
    this.grid = grid;
    this.isDefined = isDefined;
    this.cells = new Int32Array(memory.count * cellWords);
  }

  /** Forgets everything, for the next cluster. */
  clear(): void {
    this.cells.fill(0);
    this.used = 1;
    this.free = 0;
    this.filling?.fill(0);
    this.draining?.fill(0);
  }

  read(actor: Actor, lane: number, element: number, site: number): void {
    this.begin(actor, lane, element, site, "is read");
    this.checkWriter();
    this.checkOthers("atomics");
    this.note(0, actor.order.agent, actor.order.segment);
  }

  /** `changes`: it isn't what stood there before; two that store the same are no race. */
  write(actor: Actor, lane: number, element: number, site: number, changes: boolean): void {
    this.begin(actor, lane, element, site, "is written");
    this.checkWrite(changes);
    this.setWriter(actor.order.agent, lane, actor.order.segment);
  }

  atomic(actor: Actor, lane: number, element: number, site: number): void {
    this.begin(actor, lane, element, site, "is changed by an atomic");
    this.checkWriter();
    this.checkOthers("reads");
    this.note(1, actor.order.agent, actor.order.segment);
  }

  /** From here on a copy may write the element at any time. */
  beginFill(actor: Actor, lane: number, element: number, site: number): void {
    this.begin(actor, lane, element, site, "is written");
    this.checkWrite(true);
    this.filling ??= new Int32Array(this.memory.count);
    this.filling[element] = site + 1;
  }

  /** The copy is over, and known to whoever knows this segment of the agent, one of this cluster's. */
  endFill(actor: Actor, element: number, agent: number, lane: number, segment: number, site: number): void {
    this.begin(actor, lane, element, site, "is written");
    if (this.filling) this.filling[element] = 0;
    this.setWriter(agent, lane, segment);
  }

  /** From here on a wgmma may read the element at any time. */
  beginDrain(actor: Actor, element: number, site: number): void {
    this.begin(actor, -1, element, site, "is read");
    this.checkWriter();
    this.checkOthers("atomics");
    this.draining ??= new Int32Array(2 * this.memory.count);
    this.draining[2 * element] = (this.draining[2 * element] ?? 0) + 1;
    this.draining[2 * element + 1] = site;
  }

  endDrain(actor: Actor, element: number, agent: number, segment: number, site: number): void {
    this.begin(actor, 0, element, site, "is read");
    if (this.draining) this.draining[2 * element] = (this.draining[2 * element] ?? 0) - 1;
    this.note(0, agent, segment);
  }

  /** Whether a store or an atomic, whoever's, was here. */
  isWritten(element: number): boolean {
    const cell = element * cellWords;
    let at = this.cells[cell + 3] ?? 0;
    while (at !== 0 && ((this.records[at + 3] ?? 0) & 1) === 0) at = this.records[at + 4] ?? 0;
    return this.cells[cell] !== 0 || at !== 0;
  }

  private begin(actor: Actor, lane: number, element: number, site: number, does: string): void {
    this.actor = actor;
    this.lane = lane;
    this.element = element;
    this.site = site;
    this.does = does;
  }

  private checkWrite(changes: boolean): void {
    const cell = this.element * cellWords;
    const writer = this.cells[cell] ?? 0;
    this.checkFilling();
    if (this.draining?.[2 * this.element]) {
      const other = this.grid.findings.line("the wgmma is", this.draining[2 * this.element + 1] ?? 0);
      this.report("in-flight", "a wgmma may still read it; wait for that first", other);
    }
    if (changes && writer !== 0 && !this.isAfter(writer - 1, this.cells[cell + 1] ?? 0)) {
      this.race(writer - 1, this.cells[cell + 2] ?? 0, "written");
    }
    this.checkOthers("all");
  }

  private checkWriter(): void {
    const cell = this.element * cellWords;
    const [writer, segment, site] = [this.cells[cell] ?? 0, this.cells[cell + 1] ?? 0, this.cells[cell + 2] ?? 0];
    if (this.filling) this.checkFilling();
    if (writer === 0) {
      const isMissing =
        this.isDefined?.(this.element) === false && !this.isWritten(this.element) && !this.filling?.[this.element];
      if (isMissing) this.report("uninitialised", "nobody has written it", made(this.memory));
    } else if (!this.isAfter(writer - 1, segment)) {
      this.race(writer - 1, site, "written");
    } else if (this.lane === -1 && !this.isFenced(writer - 1, segment)) {
      const why = "wgmma may not see the store; whoever stores calls t.asyncFence() before the barrier";
      this.report("in-flight", why, this.grid.findings.line("it was stored", site));
    }
  }

  private checkFilling(): void {
    const filling = this.filling?.[this.element] ?? 0;
    if (filling === 0) return;
    const other = this.grid.findings.line("the copy is", filling - 1);
    this.report("in-flight", "a copy may still write it; wait for that first", other);
  }

  /** Against reads and atomics since the last write. */
  private checkOthers(which: "reads" | "atomics" | "all"): void {
    const { records } = this;
    for (let at = this.cells[this.element * cellWords + 3] ?? 0; at !== 0; at = records[at + 4] ?? 0) {
      const isAtomic = ((records[at + 3] ?? 0) & 1) === 1;
      if (which === (isAtomic ? "reads" : "atomics")) continue;
      const lane = this.firstUnordered(at);
      if (lane < 0) continue;
      this.race(
        (records[at] ?? 0) * 32 + lane,
        (records[at + 3] ?? 0) >> 1,
        isAtomic ? "changed by an atomic" : "read",
      );
    }
  }

  /** A lane of a record that this access isn't ordered after; -1: none. */
  private firstUnordered(at: number): number {
    const [agent, segment] = [this.records[at] ?? 0, this.records[at + 1] ?? 0];
    for (let rest = this.records[at + 2] ?? 0; rest !== 0; rest &= rest - 1) {
      const lane = 31 - Math.clz32(rest & -rest);
      if (!this.isAfter(agent * 32 + lane, segment)) return lane;
    }
    return -1;
  }

  /** Adds this access to those of the element, and drops what it comes after. */
  private note(isAtomic: 0 | 1, ofAgent: number, segment: number): void {
    const head = this.element * cellWords + 3;
    const agent = this.grid.first + ofAgent;
    let foreign = 0;
    for (let at = this.cells[head] ?? 0, before = 0; at !== 0;) {
      const { records } = this;
      const next = records[at + 4] ?? 0;
      const isSame = ((records[at + 3] ?? 0) & 1) === isAtomic;
      if (isSame && records[at] === agent && records[at + 1] === segment) {
        records[at + 2] = (records[at + 2] ?? 0) | (1 << this.lane);
        return;
      }
      // Of those of other clusters, which are unordered with all of this one, one is enough.
      const isForeign = isSame && (records[at] ?? 0) < this.grid.first;
      if (isSame && (isForeign ? foreign++ > 0 : this.firstUnordered(at) < 0)) {
        if (before === 0) this.cells[head] = next;
        else records[before + 4] = next;
        this.release(at);
      } else before = at;
      at = next;
    }
    const at = this.allocate();
    this.records.set([agent, segment, 1 << this.lane, 2 * this.site + isAtomic, this.cells[head] ?? 0], at);
    this.cells[head] = at;
  }

  private setWriter(agent: number, lane: number, segment: number): void {
    const { cells } = this;
    const cell = this.element * cellWords;
    cells[cell] = (this.grid.first + agent) * 32 + lane + 1;
    cells[cell + 1] = segment;
    cells[cell + 2] = this.site;
    for (let at = cells[cell + 3] ?? 0; at !== 0;) {
      const next = this.records[at + 4] ?? 0;
      this.release(at);
      at = next;
    }
    cells[cell + 3] = 0;
  }

  private allocate(): number {
    const reused = this.free;
    if (reused !== 0) {
      this.free = this.records[reused + 4] ?? 0;
      return reused;
    }
    const at = this.used++ * recordWords;
    if (at + recordWords > this.records.length) {
      const longer = new Int32Array(2 * this.records.length);
      longer.set(this.records);
      this.records = longer;
    }
    return at;
  }

  private release(at: number): void {
    this.records[at + 4] = this.free;
    this.free = at;
  }

  /** Whether this access comes after what a thread did in its segment. */
  private isAfter(thread: number, segment: number): boolean {
    const agent = (thread >>> 5) - this.grid.first;
    return agent >= 0 && (this.actor?.order.isAfter(this.lane, agent, thread & 31, segment) ?? false);
  }

  /** Only what warps store through their threads needs a fence. */
  private isFenced(thread: number, segment: number): boolean {
    const fenced = this.actor?.order.clock.fenced;
    const agent = (thread >>> 5) - this.grid.first;
    return !fenced || agent >= this.grid.warps || fenced.knows(agent, thread & 31, segment);
  }

  private race(thread: number, site: number, did: string): void {
    const agent = (thread >>> 5) - this.grid.first;
    const who = agent < 0 ? "a thread of another cluster" : this.grid.describe(agent, thread & 31);
    const why = `nothing orders this after ${who}, by which it was ${did}`;
    const barrier = site === this.site ? undefined : this.barrierAfter(agent);
    const hint = barrier && `Put ${barrier} between the two, and at the end of a loop around them`;
    this.report("race", why, this.grid.findings.line(`it was ${did}`, site), hint);
  }

  /** What would order this access after those of a warp. */
  private barrierAfter(agent: number): string | undefined {
    return this.actor && this.lane >= 0 ? this.grid.barrierOf(agent, this.actor.order.agent) : undefined;
  }

  private report(kind: FindingKind, why: string, other: Other, hint?: string): void {
    const { actor, lane, element, does } = this;
    if (!actor) return;
    const message = (): string => {
      const { name, dims } = this.memory;
      const who = lane < 0 ? "a wgmma" : this.grid.describe(actor.order.agent, lane);
      return `${name}[${unravel(element, dims).join(", ")}] ${does} by ${who}: ${why}`;
    };
    this.grid.findings.add(actor, kind, this.site, Math.max(lane, 0), message, other, hint);
  }
}
