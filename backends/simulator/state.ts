/** The running parts of a grid: warps, the blocks they belong to, and memory. */
import type { DType } from "../../dsl/dtype.ts";
import type { Location } from "../../dsl/source.ts";
import type { CopyGroups } from "./async.ts";
import { type Frame, type Words, wordsOf } from "./frame.ts";
import type { Clock, Timeline } from "./order.ts";
import type { Shadow } from "./shadow.ts";
import type { MBarrierState, Rendezvous } from "./sync.ts";
import type { WgmmaQueue } from "./wgmma.ts";

/** Contiguous elements: a tensor, or one block's copy of shared memory. */
export class Storage {
  readonly name: string;
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly alignBytes: number;
  readonly at: Location;
  readonly count: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly bits: Words;
  shadow: Shadow | undefined;

  /** `bytes`: where its elements are; room of its own where there are none yet. */
  constructor(
    memory: { readonly name: string; readonly dtype: DType; readonly alignBytes: number; readonly at: Location },
    dims: readonly number[],
    bytes?: Uint8Array<ArrayBuffer>,
  ) {
    this.name = memory.name;
    this.dtype = memory.dtype;
    this.dims = dims;
    this.alignBytes = memory.alignBytes;
    this.at = memory.at;
    this.count = dims.reduce((a, b) => a * b, 1);
    this.bytes = bytes ?? new Uint8Array(this.count * this.dtype.bytes);
    this.bits = wordsOf(this.bytes, this.dtype.bytes);
  }
}

/** An access to this block's shared memory by another block; it must be over before this block ends. */
export interface RemoteAccess {
  readonly warp: Warp;
  readonly lanes: number;
  readonly segment: number;
  readonly site: number;
}

/** What the warps of a block have in common. */
export interface Block {
  /** In its cluster. */
  readonly rank: number;
  coordinates: readonly [x: number, y: number, z: number];
  readonly warps: readonly Warp[];
  /** In the order of the kernel's. */
  readonly shared: readonly Storage[];
  readonly mbarriers: readonly (readonly MBarrierState[])[];
  readonly barrier: Rendezvous;
  readonly named: Map<number, Rendezvous>;
  /** Warps that have not ended. */
  running: number;
  /** The last access of each warp at each line. */
  readonly remote: Map<number, RemoteAccess>;
  /** Of each warpgroup, the lines of its wgmma, in order. */
  readonly wgmmas: number[][];
}

/** What a warp stands still for. */
export interface Wait {
  readonly site: number;
  isOver(): boolean;
  describe(): string;
}

export interface Warp {
  readonly block: Block;
  /** In its block. */
  readonly index: number;
  readonly order: Timeline;
  readonly frame: Frame;
  /** Lanes that take part. */
  mask: number;
  /** The branch or loop that the other lanes left at; -1 where all are here. */
  splitAt: number;
  /** Of registers that begin without a value: by element, the lanes that have one. */
  readonly written: Int32Array;
  readonly copies: CopyGroups;
  readonly wgmmas: WgmmaQueue;
  /** The use of the cluster's barrier that this warp arrived at. */
  clusterPhase: { readonly isOver: boolean; readonly clock: Clock } | undefined;
  wait: Wait | undefined;
  done: boolean;
}
