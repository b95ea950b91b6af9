/** Barriers: those where whole warps meet (of a block, named, of a cluster), and mbarriers, which count arrivals and bytes. */
import type { MBarrier } from "../../dsl/ir-tile.ts";
import { type Findings, made } from "./findings.ts";
import { Clock } from "./order.ts";
import type { Warp } from "./state.ts";

/** What a barrier is made with. */
export interface Clocks {
  readonly findings: Findings;
  newClock(): Clock;
}

/** One use of a barrier, from its first arrival to its last. */
interface Phase {
  isOver: boolean;
  readonly clock: Clock;
  arrived: number;
  needed: number;
  readonly site: number;
}

/** A barrier where a number of warps meet, again and again. */
export class Rendezvous {
  private readonly clocks: Clocks;
  private readonly name: string;
  private phase: Phase | undefined;

  constructor(clocks: Clocks, name: string) {
    this.clocks = clocks;
    this.name = name;
  }

  /** A warp arrives; the barrier is over when `needed` have. `sameLine`: all must arrive at one line. */
  arrive(warp: Warp, needed: number, site: number, sameLine: boolean): Phase {
    const { findings } = this.clocks;
    this.phase ??= { isOver: false, clock: this.clocks.newClock(), arrived: 0, needed, site };
    const { phase } = this;
    if (phase.needed !== needed || (sameLine && phase.site !== site)) {
      const message = (): string =>
        phase.needed === needed
          ? `The warps of a block come to ${this.name} at different lines`
          : `${this.name} is for ${needed * 32} threads here and for ${phase.needed * 32} elsewhere`;
      findings.add(warp, "divergence", site, 0, message, findings.line("another warp came", phase.site));
    }
    warp.order.release(phase.clock, warp.mask);
    phase.arrived++;
    if (phase.arrived >= phase.needed) {
      phase.isOver = true;
      this.phase = undefined;
    }
    return phase;
  }

  describe(): string {
    if (!this.phase) return this.name;
    return `${this.name}, to which ${this.phase.arrived} of ${this.phase.needed} warps have come`;
  }
}

/** Something under way beside the threads. */
export interface InFlight {
  readonly site: number;
  /** Who began it. */
  readonly warp: Warp;
  /** Does it, once; it may be done at any time between its issue and the wait that covers it. */
  perform(): void;
}

/** One mbarrier of one block. */
export class MBarrierState {
  readonly name: string;
  /** The agent of copies that end here. Those of phase p are its segment p + 1. */
  readonly agent: number;
  phase = 0;
  /** What will arrive here when it is done; done as late as can be. */
  readonly inFlight = new Set<InFlight>();
  private readonly clocks: Clocks;
  private readonly barrier: MBarrier;
  private pending: number;
  private bytes = 0;
  private arriving: Clock;
  /** Everything that came to the phases that have ended. */
  private readonly done: Clock;

  constructor(clocks: Clocks, barrier: MBarrier, slot: number, agent: number) {
    this.clocks = clocks;
    this.barrier = barrier;
    this.name = `${barrier.name}[${slot}]`;
    this.agent = agent;
    this.pending = barrier.arrivals;
    this.arriving = clocks.newClock();
    this.done = clocks.newClock();
  }

  /** One lane arrives. `expectBytes` are announced first. */
  arrive(warp: Warp, lane: number, expectBytes: number, site: number): void {
    this.bytes += expectBytes;
    this.count(warp, lane, site);
  }

  /** Lanes of a warp tell what they did; their arrivals follow. */
  hear(warp: Warp, mask: number): void {
    warp.order.release(this.arriving, mask);
  }

  /** One arrival that publishes nothing. */
  count(warp: Warp, lane: number, site: number): void {
    if (this.pending <= 0) {
      const message = (): string =>
        `More than ${this.barrier.arrivals} arrivals at ${this.name} while bytes are to come`;
      this.clocks.findings.add(warp, "arrivals", site, lane, message, made(this.barrier));
    }
    this.pending--;
    this.advance();
  }

  complete(bytes: number): void {
    this.bytes -= bytes;
    this.advance();
  }

  /** Whether the phase of this parity is under way. */
  isUnderWay(parity: number): boolean {
    return (this.phase & 1) === (parity & 1);
  }

  /** Does everything that is under way for it. */
  flush(): void {
    for (const operation of [...this.inFlight]) operation.perform();
  }

  acquire(warp: Warp): void {
    warp.order.acquire(this.done);
  }

  describe(): string {
    const arrived = this.barrier.arrivals - this.pending;
    const bytes = this.bytes === 0 ? "" : `, and ${this.bytes} bytes are to come`;
    return `${this.name}, to whose phase ${this.phase} ${arrived} of ${this.barrier.arrivals} arrivals have come${bytes}`;
  }

  private advance(): void {
    while (this.pending <= 0 && this.bytes === 0) {
      this.pending += this.barrier.arrivals;
      this.phase++;
      this.done.join(this.arriving);
      this.done.raise(this.agent, -1, this.phase);
      this.arriving = this.clocks.newClock();
    }
  }
}
