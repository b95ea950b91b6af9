/**
 * Copies between tiles and fragments. A copy is a plan first: which instruction, how wide, and what stands in the way of
 * more. The width comes from the layouts (how many neighbours are neighbours on both sides) and from what is known of the
 * alignment of pointers, strides and indices; `explain()` says it in words.
 */
import { type CopyAtom, copyAtoms } from "../atoms/copy.ts";
import type { DTypeName } from "../dtype.ts";
import { describe } from "../check.ts";
import { AlignmentError, DTypeError, ShapeError, StagingError } from "../errors.ts";
import type { CacheHint, LaneCount, Value } from "../ir.ts";
import { coalesce, crd2idx, idx2crd, type Layout, size, type StrideLeaf } from "../layout/index.ts";
import { gcd, multipleOf } from "../size.ts";
import type { Location } from "../source.ts";
import { type Index, toIndex } from "../expr.ts";
import type { Slot } from "../ir-tile.ts";
import { requireHint, type Tensor, toIndices } from "../tensor.ts";
import type { Trace } from "../trace.ts";
import { stridesOf } from "../verify/alignment.ts";
import { type Fragment, joined, memoryOrder, part, requireSameShape } from "./fragment.ts";
import type { Tile } from "./tile.ts";

export interface CopyOptions {
  /** How loads treat the near cache, and stores ("normal" or "stream"). */
  readonly cache?: CacheHint;
  /** "edges": elements outside the tensor read as zero and are not stored. Default: all are promised to be inside. */
  readonly guard?: "edges";
}

/**
 * What a copy does.
 * ```ts
 * const plan = t.copy(gX, rX);
 * plan.bytes // 16
 * plan.accesses // 32
 * plan.explain().split("\n")[1] //   not wider: 16 bytes are the widest access before sm_100
 * ```
 */
export class CopyPlan {
  readonly atom: CopyAtom;
  /** Bytes that one access moves. */
  readonly bytes: number;
  /** Accesses per thread. */
  readonly accesses: number;
  readonly reasons: readonly string[];
  private readonly what: string;

  constructor(what: string, atom: CopyAtom, bytes: number, accesses: number, reasons: readonly string[]) {
    this.what = what;
    this.atom = atom;
    this.bytes = bytes;
    this.accesses = accesses;
    this.reasons = Object.freeze([...reasons]);
    Object.freeze(this);
  }

  /** For people: the instruction, its width, and why it is not wider. */
  explain(): string {
    const lines = [
      `${this.what}: ${this.accesses} x ${this.bytes} bytes per thread by ${this.atom.name} (${this.atom.ptx})`,
    ];
    for (const reason of this.reasons) lines.push(`  not wider: ${reason}`);
    return lines.join("\n");
  }
}

/** How wide accesses to a tile may be, and what limits them. */
interface Width {
  readonly lanes: number;
  readonly reason: string;
}

/** Global or shared memory to registers. */
export function loadFragment(
  trace: Trace,
  from: Tile,
  to: Fragment,
  { cache = "normal", guard }: CopyOptions,
  at: Location,
): CopyPlan {
  requireSameShape("copy", from, to, at);
  requireSameDType(from, to, at);
  requireCopy(["normal", "stream", "evictFirst", "evictLast"], cache, guard, at);
  const order = elementOrder(to.layout);
  const { lanes, reasons } = widest(from, order, to.lanes, guard !== undefined);
  const guards = new Map<string, Value | undefined>();
  for (let register = 0; register * to.lanes < order.length; register++) {
    const parts: Value[] = [];
    for (let lane = 0; lane < to.lanes; lane += lanes) {
      const steps = from.steps(idx2crdOf(order, register * to.lanes + lane, from.layout));
      const inside = guard && remembered(guards, steps, () => from.boundsOf(steps, at));
      parts.push(from.loadAt(steps, lanes, cache, inside, at));
    }
    to.writeRegister(register, joined(trace, parts, at), at);
  }
  const atom = from.tensor.memory.kind === "shared" ? copyAtoms.loadShared : copyAtoms.loadGlobal;
  return new CopyPlan(`${from} -> ${to}`, atom, lanes * from.dtype.bytes, order.length / lanes, reasons);
}

/** Registers to global or shared memory. */
export function storeFragment(
  trace: Trace,
  from: Fragment,
  to: Tile,
  { cache = "normal", guard }: CopyOptions,
  at: Location,
): CopyPlan {
  requireSameShape("copy", from, to, at);
  requireSameDType(from, to, at);
  requireCopy(["normal", "stream"], cache, guard, at);
  const order = elementOrder(from.layout);
  const { lanes, reasons } = widest(to, order, from.lanes, guard !== undefined);
  const { memory } = to.tensor;
  for (let offset = 0; offset < order.length; offset += lanes) {
    const register = from.readRegister(Math.floor(offset / from.lanes), at);
    const value = part(trace, register, offset % from.lanes, lanes, at);
    const steps = to.steps(idx2crdOf(order, offset, to.layout));
    const store = (): void => trace.emit({ kind: "store", memory, index: to.indexAt(steps, at), value, cache, at });
    const inside = guard && to.boundsOf(steps, at);
    if (!inside) store();
    else {
      const then = trace.block(at, store);
      trace.emit({ kind: "if", condition: inside, then, otherwise: Object.freeze([]), at });
    }
  }
  const atom = memory.kind === "shared" ? copyAtoms.storeShared : copyAtoms.storeGlobal;
  return new CopyPlan(`${from} -> ${to}`, atom, lanes * to.dtype.bytes, order.length / lanes, reasons);
}

/** Global to shared memory beside the thread, 4, 8 or 16 bytes at a time. */
export function copyAsync(trace: Trace, from: Tile, to: Tile, { guard }: CopyOptions, at: Location): CopyPlan {
  requireSameShape("copyAsync", from, to, at);
  requireSameDType(from, to, at);
  requireCopy(["normal"], "normal", guard, at);
  const [source, target] = [from.tensor.memory, to.tensor.memory];
  if (source.kind !== "tensor" || target.kind !== "shared") {
    throw new ShapeError(`copyAsync goes from global to shared memory, not from ${from} to ${to}`, {
      at,
      hint: "t.copy moves between memory and registers",
    });
  }
  const order = elementOrder(memoryOrder(from.layout, source.shape.length - 1).layout);
  const most = 16 / from.dtype.bytes;
  const [a, b] = [widest(from, order, most, guard !== undefined), widest(to, order, most, false)];
  const lanes = Math.min(a.lanes, b.lanes) as LaneCount;
  const bytes = lanes * from.dtype.bytes;
  const reasons = [...a.reasons, ...b.reasons];
  if (bytes < 4) {
    throw new AlignmentError(`An asynchronous copy moves at least 4 bytes; ${bytes} are proved for ${from} -> ${to}`, {
      at,
      hint: `${reasons[0] ?? ""}; go through registers: t.copy to a fragment, then to shared memory`,
    });
  }
  for (let offset = 0; offset < order.length; offset += lanes) {
    const [steps, toSteps] = [from, to].map((tile) => tile.steps(idx2crdOf(order, offset, tile.layout)));
    if (!steps || !toSteps) continue;
    const inside = guard && from.boundsOf(steps, at);
    trace.emit({
      kind: "copyAsync",
      to: target,
      toIndex: to.indexAt(toSteps, at),
      memory: source,
      index: from.indexAt(steps, at),
      lanes,
      guard: inside,
      at,
    });
  }
  return new CopyPlan(`${from} -> ${to}`, copyAtoms.cpAsync, bytes, order.length / lanes, reasons);
}

/** `count` contiguous elements by one thread; `slot` counts their bytes. */
export function copyBulk(
  trace: Trace,
  from: Tensor,
  fromAt: readonly Index[],
  to: Tensor,
  toAt: readonly Index[],
  count: Index,
  slot: Slot,
  at: Location,
): void {
  const [memory, target] = [from.memory, to.memory];
  if (memory.kind !== "tensor" || target.kind !== "shared" || memory.dtype !== target.dtype) {
    throw new ShapeError("A bulk copy goes from a global tensor to shared memory of its dtype", { at });
  }
  const elements = toIndex(trace, count, "a bulk copy", at);
  const multiple = trace.facts.of(elements).multipleOf * from.dtype.bytes;
  if (multiple % 16 !== 0) {
    throw new AlignmentError(`A bulk copy moves a multiple of 16 bytes; the count is known for ${multiple} only`, {
      at,
      related: elements.at.line === at.line ? [] : [{ what: "the count was made", at: elements.at }],
      hint: `Pass a TypeScript number, a size with multipleOf, or n.mul(${16 / from.dtype.bytes})`,
    });
  }
  const targetIndex = toIndices(to, toAt, at);
  const index = toIndices(from, fromAt, at);
  trace.emit({ kind: "bulkCopy", to: target, toIndex: targetIndex, memory, index, count: elements, ...slot, at });
}

/** The number of the element at each offset of a dense layout. */
function elementOrder(layout: Layout): readonly number[] {
  const order: number[] = [];
  for (let i = 0; i < size(layout); i++) order[crd2idx(i, layout)] = i;
  return order;
}

function idx2crdOf(order: readonly number[], offset: number, layout: Layout<StrideLeaf>) {
  return idx2crd(order[offset] ?? 0, layout.shape);
}

/** The widest power of two, up to `most`, that the layout and the known alignment allow for every access. */
function widest(
  tile: Tile,
  order: readonly number[],
  most: number,
  guarded: boolean,
): { readonly lanes: LaneCount; readonly reasons: readonly string[] } {
  const limits = [contiguity(tile, order, most), ...alignment(tile, most, guarded)];
  let lanes = Math.min(most, ...limits.map((limit) => limit.lanes));
  // Accesses begin at multiples of their own width: the steps within the tile count too.
  const steps = (width: number): boolean =>
    order.every((_, offset) => {
      if (offset % width !== 0) return true;
      const strides = stridesOf(tile.tensor.memory.shape);
      const from = tile.steps(idx2crdOf(order, offset, tile.layout));
      return from.every((step, axis) => (step * (strides[axis]?.multipleOf ?? 1)) % width === 0);
    });
  while (lanes > 1 && !steps(lanes)) lanes /= 2;
  const reasons = limits.filter((limit) => limit.lanes <= lanes && limit.lanes < most).map(({ reason }) => reason);
  if (lanes < most && reasons.length === 0) reasons.push(`steps of ${tile.layout} are no multiples of more`);
  if (lanes === most && most * tile.dtype.bytes === 16) reasons.push("16 bytes are the widest access before sm_100");
  return { lanes: lanes as LaneCount, reasons };
}

/** How many neighbours in registers are neighbours in memory. */
function contiguity(tile: Tile, order: readonly number[], most: number): Width {
  const last = tile.tensor.memory.shape.length - 1;
  const all = order.map((_, offset) => tile.steps(idx2crdOf(order, offset, tile.layout)));
  const runs = (width: number): boolean =>
    order.length % width === 0 &&
    all.every((steps, offset) => {
      if (offset % width === 0) return true;
      const before = all[offset - 1] ?? [];
      return steps.every((step, axis) => step === (before[axis] ?? 0) + (axis === last ? 1 : 0));
    });
  let lanes = most;
  while (lanes > 1 && !runs(lanes)) lanes /= 2;
  const { swizzle } = tile;
  const kept = swizzle && swizzle.bits > 0 ? Math.min(lanes, 2 ** swizzle.base) : lanes;
  return kept < lanes
    ? { lanes: kept, reason: `${swizzle} keeps ${kept} neighbours together` }
    : { lanes, reason: `${coalesce(tile.layout)} has ${lanes} contiguous elements` };
}

/** What pointer, strides and indices are known to be multiples of. */
function alignment(tile: Tile, most: number, guarded: boolean): readonly Width[] {
  const { memory, trace } = tile.tensor;
  const elements = memory.alignBytes / memory.dtype.bytes;
  const widths: Width[] = [
    {
      lanes: Math.min(most, elements),
      reason: `${memory.name} is promised to be aligned to ${memory.alignBytes} bytes`,
    },
  ];
  const strides = stridesOf(memory.shape);
  for (const [axis, origin] of tile.origin.entries()) {
    const stride = strides[axis]?.multipleOf ?? 1;
    const from = powerOfTwo(trace.facts.of(origin).multipleOf * stride, most);
    const row = axis < memory.shape.length - 1 ? powerOfTwo(stride, most) : most;
    if (row < most) {
      widths.push({
        lanes: row,
        reason: `rows of ${memory.name} are only known to be multiples of ${row} elements apart`,
      });
    } else if (from < most) {
      widths.push({ lanes: from, reason: `index ${axis} of ${memory.name} is only known to be a multiple of ${from}` });
    }
  }
  const last = memory.shape.at(-1);
  if (guarded && last !== undefined) {
    const whole = powerOfTwo(multipleOf(last), most);
    if (whole < most)
      widths.push({
        lanes: whole,
        reason: `the last dimension of ${memory.name}, ${last}, is guarded in steps of ${whole}`,
      });
  }
  return widths;
}

/** The largest power of two up to `most` that divides; 0 is a multiple of everything. */
function powerOfTwo(multiple: number, most: number): number {
  return multiple === 0 ? most : gcd(multiple, most);
}

function remembered(
  guards: Map<string, Value | undefined>,
  steps: readonly number[],
  make: () => Value | undefined,
): Value | undefined {
  const key = steps.join();
  if (!guards.has(key)) guards.set(key, make());
  return guards.get(key);
}

/** @throws StagingError for options that tsc would refuse */
function requireCopy(allowed: readonly CacheHint[], cache: CacheHint, guard: unknown, at: Location): void {
  requireHint(cache, allowed, at);
  if (guard === undefined || guard === "edges") return;
  throw new StagingError(`The guard of a copy is "edges", not ${describe(guard)}`, {
    at,
    hint: "Elements outside the tensor read as zero; for a condition of your own write t.when(...) or tile.load",
  });
}

function requireSameDType(
  a: { readonly dtype: { readonly name: DTypeName }; readonly at: Location },
  b: { readonly dtype: { readonly name: DTypeName }; readonly at: Location },
  at: Location,
): void {
  if (a.dtype.name === b.dtype.name) return;
  throw new DTypeError(`A copy moves bits: one side is ${a.dtype.name}, the other ${b.dtype.name}`, {
    at,
    related: [
      { what: `the ${a.dtype.name} side was made`, at: a.at },
      { what: `the ${b.dtype.name} side was made`, at: b.at },
    ],
    hint: "Convert in registers: fragment.update or .to(...), then copy",
  });
}
