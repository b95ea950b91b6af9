/** What all compiled statements of one simulation share: places of values, memory, findings, and the cluster that runs now. */
import type { MBarrier, Slot } from "../../dsl/ir-tile.ts";
import {
  isLeaf,
  isWritten,
  type KernelIR,
  type Memory,
  type Op,
  type Register,
  type Tensor,
  type Value,
  walk,
} from "../../dsl/ir.ts";
import { encode } from "../../dsl/numerics.ts";
import { evaluate } from "../../dsl/size.ts";
import type { Location } from "../../dsl/source.ts";
import { Counters } from "./counts.ts";
import { Findings, made } from "./findings.ts";
import { eachLane, firstLane, FrameLayout } from "./frame.ts";
import { Clock } from "./order.ts";
import { type Grid, Shadow } from "./shadow.ts";
import { type Block, Storage, type Warp } from "./state.ts";
import { type InFlight, type MBarrierState, Rendezvous } from "./sync.ts";

/** Does a statement for the lanes of a warp that take part. */
export type Step = (warp: Warp) => void;

/** What a simulation starts with. */
export interface Inputs {
  /** Of scalars and sizes, by name. */
  readonly values: ReadonlyMap<string, number>;
  readonly tensors: ReadonlyMap<Tensor, Content>;
}

/** What a tensor has before the kernel, which changes it in place. */
export interface Content {
  readonly dims: readonly number[];
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Whether something was ever written to an element; undefined: to all of them. */
  readonly isDefined: ((element: number) => boolean) | undefined;
  /** From now on it was. */
  readonly define: ((element: number) => void) | undefined;
}

/** A register, or an array of them. */
export interface RegisterPlace {
  readonly register: Register;
  /** In the frame, of element 0. */
  readonly place: number;
  /** In `Warp.written`, of element 0; -1 where every lane has a value from the start. */
  readonly written: number;
}

export class Context implements Grid {
  readonly ir: KernelIR;
  readonly findings = new Findings();
  readonly counters = new Counters(this.findings);
  /** Whether accesses are checked against each other. */
  readonly checks: boolean;
  readonly layout = new FrameLayout();
  /** What is under way beside the threads of this cluster. */
  readonly inFlight = new Set<InFlight>();
  readonly tensors: ReadonlyMap<Tensor, Storage>;
  /** Agents of a cluster: its warps, then what each has of wgmma, then the mbarriers of each block. */
  readonly warps: number;
  readonly mbarrierAgents: number;
  readonly agents: number;
  /** The first agent of this cluster. */
  first = 0;
  /** Of this cluster. */
  blocks: readonly Block[] = [];
  clusterBarrier = new Rendezvous(this, "the cluster's barrier");
  /** Places of registers that wgmma adds to. */
  readonly accumulators = new Set<number>();
  /** Register elements of a warp whose writing is watched. */
  watched = 0;
  /** The first wait for the kernel before. */
  private readonly waitAt: Location | undefined;
  private readonly values: Inputs["values"];
  private readonly places = new Map<Value, number>();
  private readonly registers = new Map<Register, RegisterPlace>();
  private readonly leaves: Value[] = [];
  private readonly wgmmaRegisters = new Set<Register>();

  constructor(ir: KernelIR, { values, tensors }: Inputs, checks: boolean) {
    this.ir = ir;
    this.values = values;
    this.checks = checks;
    this.tensors = new Map(
      [...tensors].map(([tensor, { dims, bytes, isDefined }]) => {
        const storage = new Storage(tensor, dims, bytes);
        // Tensors that are only read can't race. Outputs begin as if nobody had written them.
        if (checks && (isWritten(tensor.role) || isDefined)) {
          storage.shadow = new Shadow(storage, this, tensor.role === "output" ? () => false : isDefined);
        }
        return [tensor, storage];
      }),
    );
    const slots = ir.mbarriers.reduce((sum, { length }) => sum + length, 0);
    let waitAt: Location | undefined;
    walk(ir.body, (stmt) => {
      if (stmt.kind === "wgmma") this.wgmmaRegisters.add(stmt.accumulator);
      if (stmt.kind === "pdlWait") waitAt ??= stmt.at;
    });
    this.waitAt = waitAt;
    this.warps = (ir.cluster * ir.block) / 32;
    this.mbarrierAgents = this.warps * (this.wgmmaRegisters.size > 0 ? 2 : 1);
    this.agents = this.mbarrierAgents + ir.cluster * slots;
  }

  /** Where a value stands in a warp's frame. */
  place(value: Value): number {
    let place = this.places.get(value);
    if (place === undefined) {
      place = this.layout.place(value.type);
      this.places.set(value, place);
      if (isLeaf(value)) this.leaves.push(value);
    }
    return place;
  }

  /** Room for a register. `isUndefined`: until it is written. */
  declare(register: Register, isUndefined: boolean): RegisterPlace {
    const length = register.length ?? 1;
    const written = isUndefined && this.checks ? this.watched : -1;
    if (written >= 0) this.watched += length;
    const declared = { register, place: this.layout.place(register.type, length), written };
    this.registers.set(register, declared);
    if (this.checks && this.wgmmaRegisters.has(register)) this.accumulators.add(declared.place);
    return declared;
  }

  register(register: Register): RegisterPlace {
    const place = this.registers.get(register);
    if (!place) throw new RangeError(`the register ${register.name} is not declared`);
    return place;
  }

  /** Sets what needs no statement; `again`: only what differs from block to block. */
  fillLeaves({ frame, block, index }: Warp, again: boolean): void {
    const [x, y, z] = block.coordinates;
    for (const value of this.leaves) {
      const { op, type } = value;
      const moves = op.kind === "id" && op.id.startsWith("block");
      if ((again && !moves) || op.kind === "induction") continue;
      const content = ((): ((k: number) => number) => {
        if (op.kind === "id") {
          if (op.id === "lane") return (k) => k;
          if (op.id === "thread") return (k) => index * 32 + k;
          const id = { "block.x": x, "block.y": y, "block.z": z, rank: block.rank, warp: index }[op.id];
          return () => id;
        }
        const known = op.kind === "const" ? constantBits(value, op.value) : this.known(op);
        return () => known;
      })();
      const isBits = type.dtype.kind === "float" && type.dtype.bytes < 4;
      const numbers = isBits ? frame.bits(type.dtype.bytes) : frame.numbers(type.dtype);
      const place = this.places.get(value) ?? 0;
      for (let k = 0; k < 32 * type.lanes; k++) numbers[place + k] = content(k);
    }
  }

  private known(op: Op): number {
    if (op.kind === "size") return evaluate(op.size, this.values);
    return op.kind === "scalar" ? (this.values.get(op.scalar.name) ?? 0) : 0;
  }

  dimsOf(memory: Memory): readonly number[] {
    return memory.shape.map((dim) => evaluate(dim, this.values));
  }

  /** Which storage a memory is, for a warp. */
  storageOf(memory: Memory): (warp: Warp) => Storage {
    if (memory.kind === "tensor") {
      const storage = this.tensors.get(memory);
      if (!storage) throw new RangeError(`the tensor ${memory.name} is none of the kernel's`);
      return () => storage;
    }
    const number = this.ir.shared.indexOf(memory);
    return ({ block }) => {
      const storage = block.shared[number];
      if (!storage) throw new RangeError(`the memory ${memory.name} is none of the kernel's`);
      return storage;
    };
  }

  /** The mbarrier that each lane means. */
  slot({ barrier, slot }: Slot, site: number): (warp: Warp, lane: number, block?: Block) => MBarrierState | undefined {
    const number = this.ir.mbarriers.indexOf(barrier as MBarrier);
    const place = this.place(slot);
    return (warp, lane, block = warp.block) => {
      const index = warp.frame.words[place + lane] ?? 0;
      const state = block.mbarriers[number]?.[index];
      if (!state) {
        const message = (): string => `${barrier.name}[${index}]: there are ${barrier.length} of them`;
        this.findings.add(warp, "out-of-bounds", site, lane, message, made(barrier));
      }
      return state;
    };
  }

  /** Of the lanes of `mask` those that are not ordered after the kernel before. */
  early(warp: Warp, tensor: Memory, mask: number, site: number, what: "load" | "store"): number {
    if (tensor.kind !== "tensor" || (tensor.role === "frozen" && what === "load")) return 0;
    const early = mask & ~warp.order.afterWait;
    const { waitAt } = this;
    const [kind, does] = what === "load" ? (["early-access", "read"] as const) : (["early-store", "written"] as const);
    eachLane(early, (lane) => {
      const message = (): string => `${tensor.name} is ${does} by a thread that is not ordered after the wait`;
      this.findings.add(warp, kind, site, lane, message, waitAt && { what: "the wait is", at: waitAt });
    });
    return early;
  }

  /** The block of the cluster that a lane reaches out to. */
  peer(warp: Warp, lane: number, rank: number, site: number): Block | undefined {
    const block = this.blocks[rank];
    const { order } = warp;
    const report = (kind: "out-of-bounds" | "lifetime", message: string): void =>
      this.findings.add(warp, kind, site, lane, () => message);
    if (!block) report("out-of-bounds", `Block ${rank} of a cluster of ${this.blocks.length}`);
    if (!block || block === warp.block || !this.checks) return block;
    if (!block.warps.some((other) => order.clock.hasHeardOf(other.order.agent))) {
      report("lifetime", "The other block may not have started yet: a cluster barrier must come first");
    }
    if (block.running === 0) report("lifetime", "The other block has ended already: a cluster barrier must come after");
    const key = order.agent * 2 ** 20 + site;
    const before = block.remote.get(key);
    const lanes = (1 << lane) | (before?.segment === order.segment ? before.lanes : 0);
    block.remote.set(key, { warp, lanes, segment: order.segment, site });
    return block;
  }

  /** Whether all lanes are here, for what they can only do together. */
  together(warp: Warp, site: number, what: string): void {
    if (warp.mask === -1) return;
    const other = warp.splitAt < 0 ? undefined : this.findings.line("the lanes parted", warp.splitAt);
    const message = (): string => `Not all lanes of the warp come to this ${what}`;
    this.findings.add(warp, "divergence", site, firstLane(warp.mask), message, other);
  }

  newClock(): Clock {
    return new Clock(this.checks ? this.agents : 0, this.checks && this.wgmmaRegisters.size > 0);
  }

  describe(agent: number, lane: number): string {
    if (agent < this.warps) return `${this.describeWarp(agent)}, lane ${lane}`;
    return agent < this.mbarrierAgents ? `a wgmma of ${this.describeWarp(agent - this.warps)}` : "a copy";
  }

  barrierOf(a: number, b: number): string | undefined {
    if (Math.min(a, b) < 0 || Math.max(a, b) >= this.warps) return undefined;
    if (a === b) return "t.warpBarrier()";
    // Warps with tasks of their own stand in branches, where a barrier of all would hang.
    if (this.ir.mbarriers.length > 0) return undefined;
    const perBlock = this.ir.block / 32;
    return Math.floor(a / perBlock) === Math.floor(b / perBlock) ? "t.barrier()" : "t.cluster.barrier()";
  }

  describeWarp(warp: number): string {
    const perBlock = this.ir.block / 32;
    const name = `warp ${warp % perBlock}`;
    return this.ir.cluster === 1 ? name : `${name} of block ${Math.floor(warp / perBlock)} of the cluster`;
  }
}

/** Narrow floats are kept as their bits. */
function constantBits({ type: { dtype } }: Value, value: number): number {
  return dtype.kind === "float" && dtype.bytes < 4 ? encode(dtype, value, "nosat") : value;
}
