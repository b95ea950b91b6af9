/**
 * What is ordered before what: vector clocks, one for each warp, exact to the lane.
 *
 * Accesses are stamped with an agent and its segment. Agents are the warps of a cluster, and its mbarriers: what copies do
 * beside the threads is the deed of the mbarrier that counts them. A warp's segment ends whenever some of its lanes tell
 * others what they did (`release`); from then on whoever hears of it (`acquire`) knows those lanes up to that segment.
 * Lanes of one warp are threads like any others: a lane knows itself, and its neighbours up to their last common barrier.
 */

/** Up to which segment each lane of each agent is known. */
export class Clock {
  /** Of all lanes of an agent. */
  readonly base: Int32Array;
  /** Of single lanes that are known further. */
  private readonly lanes: (Int32Array | undefined)[] = [];
  /** The same of stores that an asyncFence has made visible to wgmma. */
  readonly fenced: Clock | undefined;
  /** Whether something is known that came after the wait for the kernel before. */
  afterWait = false;

  constructor(agents: number, tracksFences: boolean) {
    this.base = new Int32Array(agents);
    this.fenced = tracksFences ? new Clock(agents, false) : undefined;
  }

  knows(agent: number, lane: number, segment: number): boolean {
    return (this.base[agent] ?? 0) >= segment || (this.lanes[agent]?.[lane] ?? 0) >= segment;
  }

  /** Whether any of its lanes is known at all. */
  hasHeardOf(agent: number): boolean {
    return (this.base[agent] ?? 0) > 0 || (this.lanes[agent]?.some((segment) => segment > 0) ?? false);
  }

  /** The lanes of `mask`, of which `segment` is now known. -1: all of them. */
  raise(agent: number, mask: number, segment: number): void {
    if (agent >= this.base.length) return;
    if (mask === -1) {
      if (segment > (this.base[agent] ?? 0)) this.base[agent] = segment;
      return;
    }
    const lanes = (this.lanes[agent] ??= new Int32Array(32));
    for (let lane = 0; lane < 32; lane++) {
      if ((mask >>> lane) & 1 && segment > (lanes[lane] ?? 0)) lanes[lane] = segment;
    }
  }

  join(other: Clock): void {
    const { base } = this;
    for (let agent = 0; agent < base.length; agent++) {
      const segment = other.base[agent] ?? 0;
      if (segment > (base[agent] ?? 0)) base[agent] = segment;
    }
    // Sparse: only where single lanes have arrived somewhere.
    other.lanes.forEach((theirs, agent) => {
      if (!theirs) return;
      const own = (this.lanes[agent] ??= new Int32Array(32));
      for (let lane = 0; lane < 32; lane++) own[lane] = Math.max(own[lane] ?? 0, theirs[lane] ?? 0);
    });
    this.afterWait ||= other.afterWait;
    if (this.fenced && other.fenced) this.fenced.join(other.fenced);
  }
}

/** One warp's history. */
export class Timeline {
  /** Among the agents of its cluster. */
  readonly agent: number;
  readonly clock: Clock;
  segment = 1;
  /** Lanes that have waited for the kernel before. */
  private waited = 0;

  constructor(agent: number, clock: Clock) {
    this.agent = agent;
    this.clock = clock;
  }

  /** Lanes that are ordered after the kernel before. */
  get afterWait(): number {
    return this.clock.afterWait ? -1 : this.waited;
  }

  pdlWait(mask: number): void {
    this.waited |= mask;
  }

  /** Whether a lane's access comes after one of `agent`'s lanes in its segment. `lane` -1: that of the whole warp. */
  isAfter(lane: number, agent: number, otherLane: number, segment: number): boolean {
    return (agent === this.agent && lane === otherLane) || this.clock.knows(agent, otherLane, segment);
  }

  /** The lanes of `mask` tell what they did, and what they know. */
  release(into: Clock, mask: number): void {
    into.join(this.clock);
    into.raise(this.agent, mask, this.segment);
    into.afterWait ||= (this.waited & mask) !== 0;
    this.segment++;
  }

  acquire(from: Clock): void {
    this.clock.join(from);
  }

  /** The lanes meet. */
  meet(): void {
    this.clock.raise(this.agent, -1, this.segment);
    this.clock.afterWait ||= this.waited !== 0;
    this.segment++;
  }

  /** asyncFence: what these lanes stored so far. */
  fence(mask: number): void {
    this.clock.fenced?.raise(this.agent, mask, this.segment);
    this.segment++;
  }
}
