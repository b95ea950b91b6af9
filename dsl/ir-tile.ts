/**
 * The tile part of the grammar: what a tile kernel needs beyond loads, stores and arithmetic.
 *
 *   memory  ::= mbarrier(length, arrivals)                       in shared memory, initialised before the first statement
 *             | tensorMap(tensor, box, swizzleBytes)             made on the host when the kernel is launched
 *   stmt    ::= stmatrix
 *             | copyAsync | asyncCommit | asyncWait | asyncArrive          16 bytes a thread (cp.async)
 *             | bulkCopy | tensorCopy                                      whole tiles by one thread (TMA)
 *             | arrive | await | clusterArrive | clusterWait | namedBarrier
 *             | prefetch | asyncFence | setRegisters
 *             | wgmmaFence | wgmma | wgmmaCommit | wgmmaWait
 *
 * Copies and wgmma run beside the thread that issued them: what they read may change, and what they write is defined, only
 * after the wait that covers them. An mbarrier's phase ends when `arrivals` threads arrived and every announced byte came;
 * `await` of a parity returns at once unless the phase of that parity is still under way.
 */
import type { MmaAtom } from "./atoms/mma.ts";
import type { CacheHint, LaneCount, Memory, Register, Shared, Tensor, Value } from "./ir.ts";
import type { Location } from "./source.ts";

/** `length` barriers; each phase of one ends after `arrivals` arrivals. */
export interface MBarrier {
  readonly kind: "mbarrier";
  readonly name: string;
  readonly length: number;
  readonly arrivals: number;
  readonly at: Location;
}

/**
 * Within rows of so many bytes TMA and wgmma permute the 16-byte pieces of shared memory, each row in another way, so that
 * reads down a column are free of bank conflicts; 0: not at all.
 */
export type SwizzleBytes = 0 | 32 | 64 | 128;

/** "stream": read once, and the first to leave L2. TMA passes the near cache by. */
export type CopyHint = Extract<CacheHint, "normal" | "stream">;

/** A tensor as TMA sees it: boxes of `box` elements (as many numbers as the tensor has dimensions), zeros outside. */
export interface TensorMap {
  readonly kind: "tensorMap";
  readonly name: string;
  readonly tensor: Tensor;
  readonly box: readonly number[];
  /** The box lies in shared memory row-major, its 16-byte units swizzled within rows of this many bytes. */
  readonly swizzleBytes: SwizzleBytes;
  readonly at: Location;
}

/** One of the barriers of an MBarrier. */
export interface Slot {
  readonly barrier: MBarrier;
  readonly slot: Value;
}

/** From global to shared memory. */
export interface CopyEnds {
  readonly to: Shared;
  readonly toIndex: readonly Value[];
  readonly memory: Tensor;
  readonly index: readonly Value[];
}

/** A matrix in shared memory as wgmma reads it, K contiguous; PTX ISA, "Matrix descriptor". Strides in bytes. */
export interface MatrixOperand {
  readonly memory: Shared;
  /** The first element. */
  readonly index: readonly Value[];
  readonly swizzleBytes: SwizzleBytes;
  /** Between groups of 8 rows. */
  readonly strideBytes: number;
  /** Between 16-byte columns; without swizzle only. */
  readonly leadingBytes: number;
}

export type TileStmt =
  /** Stores `value.lanes * bytes / 4` 8x8 matrices of 16-byte rows; lane l gives the address of row l % 8 of matrix l / 8. */
  | {
      readonly kind: "stmatrix";
      readonly memory: Shared;
      readonly index: readonly Value[];
      readonly value: Value;
      readonly transposed: boolean;
      readonly at: Location;
    }
  /** 4, 8 or 16 bytes from global to shared memory; zeros where `guard` is false. */
  | ({
      readonly kind: "copyAsync";
      readonly lanes: LaneCount;
      readonly guard: Value | undefined;
      readonly at: Location;
    } & CopyEnds)
  /** Groups this thread's copies since the last commit. */
  | { readonly kind: "asyncCommit"; readonly at: Location }
  /** Until at most `pending` of this thread's groups are under way. */
  | { readonly kind: "asyncWait"; readonly pending: number; readonly at: Location }
  /** This thread arrives, once its copies so far are done; what it stored itself is not ordered by that. */
  | ({ readonly kind: "asyncArrive"; readonly at: Location } & Slot)
  /** `count` contiguous elements, a multiple of 16 bytes, by one thread; their bytes are counted by the barrier. */
  | ({ readonly kind: "bulkCopy"; readonly count: Value; readonly at: Location } & CopyEnds & Slot)
  /** A box from `index` on, by one thread; the whole box's bytes are counted by the barrier. */
  | ({
      readonly kind: "tensorCopy";
      readonly to: Shared;
      readonly toIndex: readonly Value[];
      readonly map: TensorMap;
      readonly index: readonly Value[];
      readonly cache: CopyHint;
      readonly at: Location;
    } & Slot)
  /** One arrival; announces `expectBytes` more bytes first, if given. `peer`: the barrier of that block of the cluster. */
  | ({
      readonly kind: "arrive";
      readonly expectBytes: Value | undefined;
      readonly peer: Value | undefined;
      readonly at: Location;
    } & Slot)
  | ({ readonly kind: "await"; readonly parity: Value; readonly at: Location } & Slot)
  /** The barrier of all threads of a cluster, in two halves; what was stored before the arrival is visible after the wait. */
  | { readonly kind: "clusterArrive"; readonly at: Location }
  | { readonly kind: "clusterWait"; readonly at: Location }
  /** Barrier `id` (1 to 15) of `threads` threads; "arrive" doesn't wait. */
  | {
      readonly kind: "namedBarrier";
      readonly action: "sync" | "arrive";
      readonly id: number;
      readonly threads: number;
      readonly at: Location;
    }
  /** Into L2. */
  | { readonly kind: "prefetch"; readonly memory: Tensor; readonly index: readonly Value[]; readonly at: Location }
  /** Makes this thread's stores to shared memory visible to wgmma and TMA. */
  | { readonly kind: "asyncFence"; readonly at: Location }
  /** Takes or gives back registers, by all warps of a warpgroup (four warps). */
  | {
      readonly kind: "setRegisters";
      readonly change: "increase" | "decrease";
      readonly count: number;
      readonly at: Location;
    }
  /** Before the first wgmma that uses registers written by other means. */
  | { readonly kind: "wgmmaFence"; readonly at: Location }
  /**
   * Registers first, first + 1, ... += a * b by a warpgroup (four warps, the first a multiple of 4); where `accumulate` is
   * false, = a * b.
   */
  | {
      readonly kind: "wgmma";
      readonly atom: MmaAtom;
      readonly accumulator: Register;
      readonly first: number;
      readonly a: MatrixOperand;
      readonly b: MatrixOperand;
      readonly accumulate: Value;
      readonly at: Location;
    }
  | { readonly kind: "wgmmaCommit"; readonly at: Location }
  | { readonly kind: "wgmmaWait"; readonly pending: number; readonly at: Location };

export type TileStmtKind = TileStmt["kind"];

/** The values that a tile statement reads. */
export function tileOperands(stmt: TileStmt): readonly Value[] {
  switch (stmt.kind) {
    case "stmatrix":
      return [...stmt.index, stmt.value];
    case "copyAsync":
      return [...stmt.toIndex, ...stmt.index, ...(stmt.guard ? [stmt.guard] : [])];
    case "asyncArrive":
      return [stmt.slot];
    case "bulkCopy":
      return [...stmt.toIndex, ...stmt.index, stmt.count, stmt.slot];
    case "tensorCopy":
      return [...stmt.toIndex, ...stmt.index, stmt.slot];
    case "arrive":
      return [stmt.slot, ...(stmt.expectBytes ? [stmt.expectBytes] : []), ...(stmt.peer ? [stmt.peer] : [])];
    case "await":
      return [stmt.slot, stmt.parity];
    case "prefetch":
      return stmt.index;
    case "wgmma":
      return [...stmt.a.index, ...stmt.b.index, stmt.accumulate];
    case "asyncCommit":
    case "asyncWait":
    case "clusterArrive":
    case "clusterWait":
    case "namedBarrier":
    case "asyncFence":
    case "setRegisters":
    case "wgmmaFence":
    case "wgmmaCommit":
    case "wgmmaWait":
      return [];
  }
}

/** Memory that a tile statement touches, and how. */
export function tileAccesses(stmt: TileStmt): readonly { readonly memory: Memory; readonly writes: boolean }[] {
  switch (stmt.kind) {
    case "stmatrix":
      return [{ memory: stmt.memory, writes: true }];
    case "copyAsync":
    case "bulkCopy":
      return [
        { memory: stmt.memory, writes: false },
        { memory: stmt.to, writes: true },
      ];
    case "tensorCopy":
      return [
        { memory: stmt.map.tensor, writes: false },
        { memory: stmt.to, writes: true },
      ];
    case "prefetch":
      return [{ memory: stmt.memory, writes: false }];
    case "wgmma":
      return [
        { memory: stmt.a.memory, writes: false },
        { memory: stmt.b.memory, writes: false },
      ];
    default:
      return [];
  }
}

/** Over which threads a tile statement must be reached together; undefined: each alone. */
export const tileScopes: { readonly [K in TileStmtKind]: "cluster" | "warpgroup" | "warp" | undefined } = {
  stmatrix: "warp",
  copyAsync: undefined,
  asyncCommit: undefined,
  asyncWait: undefined,
  asyncArrive: undefined,
  bulkCopy: undefined,
  tensorCopy: undefined,
  arrive: undefined,
  await: "warp",
  clusterArrive: "cluster",
  clusterWait: "cluster",
  namedBarrier: "warp",
  prefetch: undefined,
  asyncFence: undefined,
  setRegisters: "warpgroup",
  wgmmaFence: "warpgroup",
  wgmma: "warpgroup",
  wgmmaCommit: "warpgroup",
  wgmmaWait: "warpgroup",
};

export function isTileStmt(stmt: { readonly kind: string }): stmt is TileStmt {
  return Object.hasOwn(tileScopes, stmt.kind);
}
