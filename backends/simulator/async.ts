/**
 * Copies beside the threads: cp.async, bulk copies, TMA. They are done as late as can be, at the wait that covers them (or,
 * under a random schedule, at any time before), so that whoever doesn't wait sees what was there before, and is found.
 */
import type { TileStmt } from "../../dsl/ir-tile.ts";
import type { Context, Step } from "./context.ts";
import { made } from "./findings.ts";
import { eachLane } from "./frame.ts";
import { Locator, trueLanes } from "./memory.ts";
import type { Storage, Warp } from "./state.ts";
import type { InFlight, MBarrierState } from "./sync.ts";

/** One cp.async of a warp. */
interface AsyncCopy extends InFlight {
  /** Lanes whose copy is not known to be over. */
  open: number;
  /** Of each lane, its group; -1 before the commit. */
  readonly groups: Int32Array;
  /** The copies of these lanes are over: known to whoever knows the agent's segment. */
  finish(mask: number, agent: number, segment: number): void;
}

/** `lanes` elements from `source` to `offsets` of `to` on, for each lane of `mask`. */
function asyncCopy(
  warp: Warp,
  site: number,
  mask: number,
  { bits, shadow }: Storage,
  offsets: Float64Array,
  lanes: number,
  source: (lane: number, i: number) => number,
): AsyncCopy {
  let unmoved = mask;
  const move = (which: number): void => {
    eachLane(unmoved & which, (lane) => {
      for (let i = 0; i < lanes; i++) bits[(offsets[lane] ?? 0) + i] = source(lane, i);
    });
    unmoved &= ~which;
  };
  return {
    ...{ site, warp, open: mask, groups: new Int32Array(32).fill(-1) },
    perform: () => move(-1),
    finish(which, agent, segment) {
      move(which);
      eachLane(shadow ? this.open & which : 0, (lane) => {
        const known = agent === warp.order.agent ? lane : 0;
        for (let i = 0; i < lanes; i++) shadow?.endFill(warp, (offsets[lane] ?? 0) + i, agent, known, segment, site);
      });
      this.open &= ~which;
    },
  };
}

/** A warp's cp.async that are under way. Each lane groups its own. */
export class CopyGroups {
  open: AsyncCopy[] = [];
  /** Arrivals that wait for copies, in order. */
  readonly arrivals: InFlight[] = [];
  private readonly committed = new Int32Array(32);
  private readonly inFlight: Set<InFlight>;

  constructor(inFlight: Set<InFlight>) {
    this.inFlight = inFlight;
  }

  commit(mask: number): void {
    for (const { groups } of this.open) {
      groups.forEach((group, lane) => {
        if (group < 0 && (mask >>> lane) & 1) groups[lane] = this.committed[lane] ?? 0;
      });
    }
    eachLane(mask, (lane) => (this.committed[lane] = (this.committed[lane] ?? 0) + 1));
  }

  wait(pending: number, { mask, order }: Warp): void {
    for (const copy of this.open) {
      let over = 0;
      copy.groups.forEach((group, lane) => {
        if (group >= 0 && group < (this.committed[lane] ?? 0) - pending) over |= 1 << lane;
      });
      copy.finish(over & mask, order.agent, order.segment);
    }
    this.clean();
  }

  /** Drops what is over. */
  clean(): void {
    for (const copy of this.open) if (copy.open === 0) this.inFlight.delete(copy);
    this.open = this.open.filter(({ open }) => open !== 0);
  }
}

type CopyAsync = Extract<TileStmt, { kind: "copyAsync" }>;

export function compileCopyAsync(context: Context, stmt: CopyAsync, site: number): Step {
  const { lanes, memory } = stmt;
  const target = new Locator(context, stmt.to, stmt.toIndex, lanes, site);
  const origin = new Locator(context, memory, stmt.index, lanes, site);
  const guard = stmt.guard ? context.place(stmt.guard) : -1;
  const [storageOf, fromOf] = [context.storageOf(stmt.to), context.storageOf(memory)];
  return (warp) => {
    const { mask } = warp;
    const guarded = guard < 0 ? mask : mask & trueLanes(warp.frame.bytes, guard);
    const [inside, to, from] = [target.locate(warp, mask), storageOf(warp), fromOf(warp)];
    let readable = origin.locate(warp, guarded);
    readable &= ~context.early(warp, memory, readable, site, "load");
    origin.count("Load", readable);
    target.count("Store", inside);
    for (let lane = 0; lane < 32; lane++) {
      for (let i = 0; i < lanes; i++) {
        if ((readable >>> lane) & 1) from.shadow?.read(warp, lane, (origin.offsets[lane] ?? 0) + i, site);
        if ((inside >>> lane) & 1) to.shadow?.beginFill(warp, lane, (target.offsets[lane] ?? 0) + i, site);
      }
    }
    const offsets = origin.offsets.slice();
    const copy = asyncCopy(warp, site, inside, to, target.offsets.slice(), lanes, (lane, i) => {
      if ((readable >>> lane) & 1) return from.bits[(offsets[lane] ?? 0) + i] ?? 0;
      return (guarded >>> lane) & 1 ? -1 : 0;
    });
    warp.copies.open.push(copy);
    context.inFlight.add(copy);
  };
}

/** The lanes of `mask` arrive when their copies so far are over. */
export function arriveAfterCopies(
  context: Context,
  warp: Warp,
  mask: number,
  state: MBarrierState,
  site: number,
): void {
  const { open, arrivals } = warp.copies;
  const copies = open.map((copy) => ({ copy, lanes: copy.open & mask }));
  const arrival: InFlight = {
    ...{ site, warp },
    perform() {
      if (!state.inFlight.delete(arrival)) return;
      // Earlier ones come first: they wait for fewer copies.
      while (arrivals[0] !== arrival) arrivals[0]?.perform();
      arrivals.shift();
      context.inFlight.delete(arrival);
      for (const { copy, lanes } of copies) copy.finish(lanes, state.agent, state.phase + 1);
      warp.copies.clean();
      eachLane(mask, (lane) => state.count(warp, lane, site));
    },
  };
  arrivals.push(arrival);
  state.inFlight.add(arrival);
  context.inFlight.add(arrival);
}

/** One lane copies elements of `from`, -1 for a zero, to those of `to`; an mbarrier counts them. */
function copyBeside(
  context: Context,
  warp: Warp,
  lane: number,
  site: number,
  [from, sources]: readonly [Storage, Float64Array],
  [to, targets]: readonly [Storage, Int32Array],
  isEarly: boolean,
  state: MBarrierState | undefined,
): void {
  if (!state) return;
  const { bytes } = to.dtype;
  let [read, rows, last] = [0, 0, -2];
  for (const element of sources) {
    if (element >= 0) {
      read++;
      if (element !== last + 1) rows++;
      from.shadow?.read(warp, lane, element, site);
    }
    last = element;
  }
  context.counters.transfer(site, "Load", read * bytes, Math.max(rows, Math.ceil((read * bytes) / 32)));
  for (const element of targets) to.shadow?.beginFill(warp, lane, element, site);
  const copy: InFlight = {
    ...{ site, warp },
    perform() {
      if (!state.inFlight.delete(copy)) return;
      context.inFlight.delete(copy);
      targets.forEach((target, i) => {
        const element = sources[i] ?? -1;
        to.bits[target] = element < 0 ? 0 : isEarly ? -1 : (from.bits[element] ?? 0);
        to.shadow?.endFill(warp, target, state.agent, 0, state.phase + 1, site);
      });
      state.complete(targets.length * bytes);
    },
  };
  state.inFlight.add(copy);
  context.inFlight.add(copy);
}

type BulkCopy = Extract<TileStmt, { kind: "bulkCopy" }>;

export function compileBulkCopy(context: Context, stmt: BulkCopy, site: number): Step {
  const { memory } = stmt;
  const { bytes } = memory.dtype;
  const target = new Locator(context, stmt.to, stmt.toIndex, 1, site, 16);
  const origin = new Locator(context, memory, stmt.index, 1, site, 16);
  const [storageOf, fromOf] = [context.storageOf(stmt.to), context.storageOf(memory)];
  const [count, slotOf] = [context.place(stmt.count), context.slot(stmt, site)];
  return (warp) => {
    const inside = target.locate(warp, origin.locate(warp, warp.mask));
    const early = context.early(warp, memory, inside, site, "load");
    const [to, from] = [storageOf(warp), fromOf(warp)];
    eachLane(inside, (lane) => {
      const [first, start] = [target.offsets[lane] ?? 0, origin.offsets[lane] ?? 0];
      const wanted = warp.frame.words[count + lane] ?? 0;
      const length = Math.max(0, Math.min(wanted, to.count - first, from.count - start));
      if (length !== wanted) {
        const message = (): string =>
          `A copy of ${wanted} elements where ${from.name} or ${to.name} has only ${length}`;
        context.findings.add(warp, "out-of-bounds", site, lane, message, made(memory));
      }
      if ((wanted * bytes) % 16 !== 0) {
        const message = (): string => `A bulk copy moves a multiple of 16 bytes, not ${wanted * bytes}`;
        context.findings.add(warp, "misaligned", site, lane, message, made(memory));
      }
      const sources = Float64Array.from({ length }, (_, i) => start + i);
      const targets = Int32Array.from({ length }, (_, i) => first + i);
      const isEarly = ((early >>> lane) & 1) === 1;
      copyBeside(context, warp, lane, site, [from, sources], [to, targets], isEarly, slotOf(warp, lane));
    });
  };
}

type TensorCopy = Extract<TileStmt, { kind: "tensorCopy" }>;

export function compileTensorCopy(context: Context, stmt: TensorCopy, site: number): Step {
  const { map, to: memory } = stmt;
  const { tensor, box, swizzleBytes } = map;
  const { bytes } = memory.dtype;
  const dims = context.dimsOf(tensor);
  const target = new Locator(context, memory, stmt.toIndex, 1, site, Math.max(128, 8 * swizzleBytes));
  const [storageOf, fromOf, slotOf] = [context.storageOf(memory), context.storageOf(tensor), context.slot(stmt, site)];
  const coordinates = stmt.index.map((value) => context.place(value));
  const length = box.reduce((a, b) => a * b, 1);
  const rowBytes = (dims.at(-1) ?? 1) * bytes;
  return (warp) => {
    const inside = target.locate(warp, warp.mask);
    const early = context.early(warp, tensor, inside, site, "load");
    const [to, from] = [storageOf(warp), fromOf(warp)];
    eachLane(inside, (lane) => {
      const first = target.offsets[lane] ?? 0;
      if (first + length > to.count) {
        const message = (): string => `A box of ${length} elements goes beyond ${memory.name}`;
        context.findings.add(warp, "out-of-bounds", site, lane, message, made(memory));
        return;
      }
      if (dims.length > 1 && rowBytes % 16 !== 0) {
        const message = (): string =>
          `Rows of ${tensor.name} are ${rowBytes} bytes apart, no multiple of 16 as TMA needs`;
        context.findings.add(warp, "misaligned", site, lane, message, made(tensor));
      }
      const corner = coordinates.map((place) => warp.frame.words[place + lane] ?? 0);
      const sources = boxElements(corner, box, dims);
      const targets = Int32Array.from({ length }, (_, i) => swizzled((first + i) * bytes, swizzleBytes) / bytes);
      const isEarly = ((early >>> lane) & 1) === 1;
      copyBeside(context, warp, lane, site, [from, sources], [to, targets], isEarly, slotOf(warp, lane));
    });
  };
}

/** The elements of a box in row-major order; -1 outside of the tensor. */
function boxElements(origin: readonly number[], box: readonly number[], dims: readonly number[]): Float64Array {
  const size = box.reduce((a, b) => a * b, 1);
  return Float64Array.from({ length: size }, (_, i) => {
    let [element, stride, rest] = [0, 1, i];
    for (let axis = box.length - 1; axis >= 0; axis--) {
      const [extent, dim] = [box[axis] ?? 1, dims[axis] ?? 1];
      const at = (origin[axis] ?? 0) + (rest % extent);
      if (at < 0 || at >= dim) return -1;
      element += at * stride;
      stride *= dim;
      rest = Math.floor(rest / extent);
    }
    return element;
  });
}

/** Byte addresses whose 16-byte units are swizzled within rows of so many bytes: Sw<3,4,3>, Sw<2,4,3>, Sw<1,4,3>. */
export function swizzled(address: number, bytes: 0 | 32 | 64 | 128): number {
  return address ^ ((address >> 3) & { 0: 0, 32: 0x10, 64: 0x30, 128: 0x70 }[bytes]);
}
