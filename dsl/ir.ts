/**
 * The intermediate representation: one page of grammar between authors and backends.
 *
 *   kernel  ::= name grid cluster block tensor* scalar* size* shared* mbarrier* tensorMap* stmt*
 *   type    ::= dtype x lanes                                    lanes 1, 2, 4, 8 or 16
 *   memory  ::= tensor(role, dtype, shape, alignBytes)           contiguous, row-major
 *             | shared(dtype, shape)
 *   value   ::= leaf                                             needs no statement
 *             | let                                              computed once, where its `let` stands; immutable
 *   stmt    ::= let | declare | write | store | for | if | barrier | pdlWait | pdlLaunch | sleep
 *             | what tiles need: copies beside the thread, mbarriers, wgmma (ir-tile.ts)
 *
 * Statements run in order, once per thread. Pure values may be computed anywhere between their `let` and their uses;
 * pinned values (read, load, shuffle, reduce, atomic, mma, ldmatrix) at their `let`. Every node knows its author's line (`at`). Nodes are
 * frozen.
 *
 * Arithmetic: integers wrap; x / 0 = x, x % 0 = 0; shift counts and the arguments of shuffles are taken modulo 32; f32
 * rounds each operation to nearest even (`fma` once); min and max of a NaN are either operand. Converting f32 to an integer
 * truncates and saturates, NaN to 0; `round` rounds to the nearest, ties to even. exp, log, rsqrt and tanh are within 2 ulp
 * on CUDA and within WGSL's own bounds there. Matrix instructions add as the tensor core does (atoms/mma.ts), in WGSL in f32.
 *
 * Memory: loads and stores of one thread to one address keep their order. Between threads of a block only barriers order
 * them, also between lanes of a warp, whose shuffles and matrix instructions exchange values and order nothing; between
 * blocks of a cluster the cluster's barrier does, between other blocks nothing within a kernel, between kernels the PDL wait.
 * Several threads may store the same bits to one element. A load may be merged with another of the same address when this
 * thread stores nothing between; what other threads change meanwhile is seen by atomics only (`atomicAdd(i, 0)` loads,
 * `atomicExchange` stores). Every index lies within its own dimension.
 */
import type { DType } from "./dtype.ts";
import type { MmaAtom } from "./atoms/mma.ts";
import { isTileStmt, type MBarrier, type TensorMap, tileOperands, type TileStmt } from "./ir-tile.ts";
import type { Dim, Size } from "./size.ts";
import type { Location } from "./source.ts";

export type LaneCount = 1 | 2 | 4 | 8 | 16;

export interface Type {
  readonly dtype: DType;
  readonly lanes: LaneCount;
}

/** frozen: written before the chain of kernels began. The others may have been written by the kernel just before. */
export type Role = "frozen" | "input" | "output" | "inout";

/** Whether a kernel may store to tensors of this role. */
export function isWritten(role: Role): boolean {
  return role === "output" || role === "inout";
}

export interface Tensor {
  readonly kind: "tensor";
  readonly name: string;
  readonly role: Role;
  readonly dtype: DType;
  readonly shape: readonly Dim[];
  /** Promised alignment of the first element. */
  readonly alignBytes: number;
  readonly at: Location;
}

export interface Shared {
  readonly kind: "shared";
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly alignBytes: number;
  readonly at: Location;
}

export type Memory = Tensor | Shared;

/** A run-time scalar parameter, the same for the whole grid. */
export interface Scalar {
  readonly name: string;
  readonly dtype: DType<"f32" | "i32" | "u32">;
  readonly at: Location;
}

/** A mutable register, or an array of `length` of them. */
export interface Register {
  readonly name: string;
  readonly type: Type;
  readonly length: number | undefined;
  readonly at: Location;
}

/** rank: which block of its cluster. */
export type IdName = "block.x" | "block.y" | "block.z" | "rank" | "thread" | "warp" | "lane";

export type UnaryFn =
  | "neg"
  | "abs"
  | "not" // bool: logical; integers: bitwise
  | "exp"
  | "log"
  | "sqrt"
  | "rsqrt"
  | "tanh"
  | "floor"
  | "ceil"
  | "round"
  | "popcount"
  | "clz";

export type CompareFn = "eq" | "ne" | "lt" | "le" | "gt" | "ge";
export type BinaryFn =
  | "add"
  | "sub"
  | "mul"
  | "div"
  | "rem"
  | "min"
  | "max"
  | "and"
  | "or"
  | "xor"
  | "shl"
  | "shr" // arithmetic on i32, logical on u32
  | CompareFn;

/** How binary functions are written, in C, WGSL and our own printed IR alike; min and max are calls. */
export const infixSymbols: { readonly [F in Exclude<BinaryFn, "min" | "max">]: string } & {
  readonly [fn in "min" | "max"]?: never;
} = {
  add: "+",
  sub: "-",
  mul: "*",
  div: "/",
  rem: "%",
  and: "&",
  or: "|",
  xor: "^",
  shl: "<<",
  shr: ">>",
  eq: "==",
  ne: "!=",
  lt: "<",
  le: "<=",
  gt: ">",
  ge: ">=",
};

export type ReduceFn = "add" | "min" | "max" | "and" | "or";
export type ShuffleMode = "xor" | "up" | "down" | "index";
export type AtomicFn = "add" | "min" | "max" | "and" | "or" | "xor" | "exchange" | "compareExchange";

/** "stream": read or written once, keep it out of the near cache. "evictFirst"/"evictLast": order of eviction there. */
export type CacheHint = "normal" | "stream" | "evictFirst" | "evictLast";

export type Leaf =
  | { readonly kind: "const"; readonly value: number }
  | { readonly kind: "size"; readonly size: Size }
  | { readonly kind: "scalar"; readonly scalar: Scalar }
  | { readonly kind: "id"; readonly id: IdName }
  | { readonly kind: "induction" };

/** Lane by lane on vectors, except pack, join, extract, slice and dot. */
export type Pure =
  | { readonly kind: "unary"; readonly fn: UnaryFn; readonly a: Value }
  | { readonly kind: "binary"; readonly fn: BinaryFn; readonly a: Value; readonly b: Value }
  | { readonly kind: "fma"; readonly a: Value; readonly b: Value; readonly c: Value }
  | { readonly kind: "select"; readonly condition: Value; readonly yes: Value; readonly no: Value }
  | { readonly kind: "convert"; readonly a: Value; readonly to: DType }
  | { readonly kind: "bitcast"; readonly a: Value; readonly to: DType }
  | { readonly kind: "pack"; readonly lanes: readonly Value[] }
  /** The lanes of several vectors of one type, one after the other. */
  | { readonly kind: "join"; readonly parts: readonly Value[] }
  | { readonly kind: "extract"; readonly a: Value; readonly lane: number }
  /** `lanes` lanes from `first` on, which is a multiple of `lanes`. */
  | { readonly kind: "slice"; readonly a: Value; readonly first: number; readonly lanes: LaneCount }
  /** c + a[0] * b[0] + a[1] * b[1] + ..., from lane 0 on, each step one fma in f32. */
  | { readonly kind: "dot"; readonly a: Value; readonly b: Value; readonly c: Value };

export type Pinned =
  | { readonly kind: "read"; readonly register: Register; readonly index: Value | undefined }
  /** `lanes` consecutive elements from `index` on; zeros where `guard` is false. `peer`: of that block's shared memory. */
  | {
      readonly kind: "load";
      readonly memory: Memory;
      readonly index: readonly Value[];
      readonly lanes: LaneCount;
      readonly guard: Value | undefined;
      readonly cache: CacheHint;
      readonly peer?: Value | undefined;
    }
  /** up and down: a lane without a partner keeps its own value. */
  | { readonly kind: "shuffle"; readonly mode: ShuffleMode; readonly a: Value; readonly by: Value }
  /** Over the 32 lanes, as a butterfly: distances 16, 8, 4, 2, 1. */
  | { readonly kind: "reduce"; readonly fn: ReduceFn; readonly a: Value }
  /** The element's old value; relaxed, at device scope. */
  | {
      readonly kind: "atomic";
      readonly fn: AtomicFn;
      readonly memory: Memory;
      readonly index: readonly Value[];
      readonly a: Value;
      readonly compare: Value | undefined;
    }
  /** a * b + c of a warp's fragments (atoms/mma.ts), whose lanes are the atom's values in order. */
  | { readonly kind: "mma"; readonly atom: MmaAtom; readonly a: Value; readonly b: Value; readonly c: Value }
  /**
   * 1, 2 or 4 8x8 matrices of 16-byte rows: lane l gives the address of row l % 8 of matrix l / 8 (of fewer matrices the first
   * lanes) and gets the 4 bytes at column l % 4 of row l / 4 of each. `transposed`, of 2-byte elements: (2 * (l % 4), l / 4) and below.
   */
  | {
      readonly kind: "ldmatrix";
      readonly memory: Shared;
      readonly index: readonly Value[];
      readonly matrices: 1 | 2 | 4;
      readonly transposed: boolean;
    };

export type Op = Leaf | Pure | Pinned;

export interface Value {
  readonly id: number;
  readonly type: Type;
  readonly op: Op;
  readonly at: Location;
  /** The author's name for it, where one was found; a hint, not unique. */
  readonly name: string | undefined;
}

export type Block = readonly Stmt[];

export type Stmt =
  | TileStmt
  | { readonly kind: "let"; readonly value: Value; readonly at: Location }
  | {
      readonly kind: "declare";
      readonly register: Register;
      /** Of every element; undefined: the content is undefined until written. */
      readonly init: Value | undefined;
      readonly at: Location;
    }
  | {
      readonly kind: "write";
      readonly register: Register;
      readonly index: Value | undefined;
      readonly value: Value;
      readonly at: Location;
    }
  | {
      readonly kind: "store";
      readonly memory: Memory;
      readonly index: readonly Value[];
      readonly value: Value;
      readonly cache: CacheHint;
      readonly peer?: Value | undefined;
      readonly at: Location;
    }
  /** `for (i = from; i < to; i += step)`; step >= 1. */
  | {
      readonly kind: "for";
      readonly induction: Value;
      readonly from: Value;
      readonly to: Value;
      readonly step: number;
      readonly unroll: boolean;
      readonly body: Block;
      readonly at: Location;
    }
  | {
      readonly kind: "if";
      readonly condition: Value;
      readonly then: Block;
      readonly otherwise: Block;
      readonly at: Location;
    }
  | { readonly kind: "barrier"; readonly scope: "block" | "warp"; readonly at: Location }
  | { readonly kind: "pdlWait"; readonly at: Location }
  | { readonly kind: "pdlLaunch"; readonly at: Location }
  /** About so long; for tests of ordering. */
  | { readonly kind: "sleep"; readonly nanoseconds: number; readonly at: Location };

export interface KernelIR {
  readonly name: string;
  readonly grid: readonly [x: Dim, y: Dim, z: Dim];
  /** Blocks of a cluster, 1 to 8, next to each other along x. */
  readonly cluster: number;
  /** Threads per block, a multiple of 32, at most 1,024. */
  readonly block: number;
  readonly tensors: readonly Tensor[];
  readonly scalars: readonly Scalar[];
  readonly sizes: readonly Size[];
  readonly shared: readonly Shared[];
  readonly mbarriers: readonly MBarrier[];
  readonly tensorMaps: readonly TensorMap[];
  readonly body: Block;
  readonly at: Location;
}

/** Leaves need no `let`: any block may use them, an induction variable inside its loop only. */
export function isLeaf(value: Value): boolean {
  return operandsKind[value.op.kind] === "leaf";
}

/** Pinned values happen exactly where their `let` stands; all others may be recomputed at their uses. */
export function isPinned(value: Value): boolean {
  return operandsKind[value.op.kind] === "pinned";
}

const operandsKind: { readonly [K in Op["kind"]]: "leaf" | "pure" | "pinned" } = {
  const: "leaf",
  size: "leaf",
  scalar: "leaf",
  id: "leaf",
  induction: "leaf",
  unary: "pure",
  binary: "pure",
  fma: "pure",
  select: "pure",
  convert: "pure",
  bitcast: "pure",
  pack: "pure",
  join: "pure",
  extract: "pure",
  slice: "pure",
  dot: "pure",
  read: "pinned",
  load: "pinned",
  shuffle: "pinned",
  reduce: "pinned",
  atomic: "pinned",
  mma: "pinned",
  ldmatrix: "pinned",
};

/** The values that an operation reads, in order. */
export function operands(op: Op): readonly Value[] {
  switch (op.kind) {
    case "const":
    case "size":
    case "scalar":
    case "id":
    case "induction":
      return [];
    case "unary":
    case "convert":
    case "bitcast":
    case "extract":
    case "slice":
    case "reduce":
      return [op.a];
    case "binary":
      return [op.a, op.b];
    case "fma":
    case "dot":
    case "mma":
      return [op.a, op.b, op.c];
    case "select":
      return [op.condition, op.yes, op.no];
    case "pack":
      return op.lanes;
    case "join":
      return op.parts;
    case "read":
      return op.index ? [op.index] : [];
    case "load":
      return [...op.index, ...(op.guard ? [op.guard] : []), ...(op.peer ? [op.peer] : [])];
    case "ldmatrix":
      return op.index;
    case "shuffle":
      return [op.a, op.by];
    case "atomic":
      return op.compare ? [...op.index, op.a, op.compare] : [...op.index, op.a];
  }
}

/** The values that a statement itself reads (a `let`'s operands included, its inner blocks not). */
export function stmtOperands(stmt: Stmt): readonly Value[] {
  if (isTileStmt(stmt)) return tileOperands(stmt);
  switch (stmt.kind) {
    case "let":
      return operands(stmt.value.op);
    case "declare":
      return stmt.init ? [stmt.init] : [];
    case "write":
      return stmt.index ? [stmt.index, stmt.value] : [stmt.value];
    case "store":
      return [...stmt.index, stmt.value, ...(stmt.peer ? [stmt.peer] : [])];
    case "for":
      return [stmt.from, stmt.to];
    case "if":
      return [stmt.condition];
    case "barrier":
    case "pdlWait":
    case "pdlLaunch":
    case "sleep":
      return [];
  }
}

/** Which block of the cluster a statement reaches out to, if it does. */
export function peerOf(stmt: Stmt): Value | undefined {
  if (stmt.kind === "let") return stmt.value.op.kind === "load" ? stmt.value.op.peer : undefined;
  return stmt.kind === "store" || stmt.kind === "arrive" ? stmt.peer : undefined;
}

/** A statement's inner blocks. */
export function innerBlocks(stmt: Stmt): readonly Block[] {
  if (stmt.kind === "for") return [stmt.body];
  return stmt.kind === "if" ? [stmt.then, stmt.otherwise] : [];
}

/** Visits every statement, outer ones before inner ones. */
export function walk(block: Block, visit: (stmt: Stmt) => void): void {
  for (const stmt of block) {
    visit(stmt);
    for (const inner of innerBlocks(stmt)) walk(inner, visit);
  }
}

export function sameType(a: Type, b: Type): boolean {
  return a.dtype === b.dtype && a.lanes === b.lanes;
}

/** `f32`, `bf16x8`. */
export function formatType(type: Type): string {
  return type.lanes === 1 ? type.dtype.name : `${type.dtype.name}x${type.lanes}`;
}
