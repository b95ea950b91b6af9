/**
 * Fragments: a thread's part of a tile, in registers. A register holds `lanes` elements, so that one 16-byte load fills one;
 * the layout says in which register, and where in it, each element is: coordinate -> register * lanes + lane.
 *
 * The order in registers follows the order in memory, not that of the coordinates. A matrix instruction that wants other
 * neighbours takes them from several registers by `vector`, which costs nothing where the pieces are whole 4-byte words.
 */
import { type MmaAtom, valuesOf } from "../atoms/mma.ts";
import { checkArguments, checkReceivers, describe, requireCoordinate, requireModes } from "../check.ts";
import type { DType, DTypeName } from "../dtype.ts";
import { i32 } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { Expr, type Operand, toValue, wrap } from "../expr.ts";
import type { LaneCount, Register, Value } from "../ir.ts";
import { basis, crd2idx, type IntTuple, Layout, size, type StrideLeaf } from "../layout/index.ts";
import { pathOf, valueOf } from "../layout/basis.ts";
import { leaves, unflattenLeaves } from "../layout/tuple.ts";
import { callerLocation, type Location, variableNameAt } from "../source.ts";
import type { Trace } from "../trace.ts";
import type { Coordinate } from "./tile.ts";

/** What a fragment is to a matrix instruction: one of its operands, or "none". */
export type FragmentRole = "A" | "B" | "C" | "none";

/**
 * A thread's part of a tile in registers, made by t.fragment and its relatives.
 * ```ts
 * rX // (16,16):(16,1)
 * rX.size() // 256
 * rX.lanes // 8
 * rX.get([2, 3]) // bf16
 * rX.fill(t.const(bf16, 1));
 * rX.update((eight) => eight.to(f32).mul(2).to(bf16));
 * ```
 */
export class Fragment<
  N extends DTypeName = DTypeName,
  R extends FragmentRole = FragmentRole,
  M extends MmaAtom = MmaAtom,
> {
  readonly dtype: DType<N>;
  readonly role: R;
  readonly layout: Layout;
  readonly lanes: LaneCount;
  readonly register: Register;
  readonly trace: Trace;
  readonly scope;
  /** The instruction that it is an operand of. */
  readonly atom: M | undefined;

  constructor(trace: Trace, register: Register, layout: Layout, role: R, atom: M | undefined) {
    this.trace = trace;
    this.scope = trace.current;
    this.register = register;
    this.layout = layout;
    this.role = role;
    this.atom = atom;
    this.dtype = register.type.dtype as DType<N>;
    this.lanes = register.type.lanes;
  }

  get at(): Location {
    return this.register.at;
  }
  get shape(): IntTuple {
    return this.layout.shape;
  }
  /** Number of elements, of the whole or of the mode at a path. */
  size(...path: readonly number[]): number {
    requireModes(path);
    return size(this.layout, ...path);
  }

  /** One element. */
  get(coordinate: Coordinate): Expr<N> {
    return wrap(this.trace, this.vector([this.offset(coordinate)], callerLocation()));
  }

  /** Sets every element. */
  fill(value: Operand<N>): void {
    const at = callerLocation();
    const stored = toValue(this.trace, value, this.register.type, "fill", at);
    for (let i = 0; i < (this.register.length ?? 1); i++) this.writeRegister(i, stored, at);
  }

  /** Sets every register to what a function makes of it, `lanes` elements at a time. */
  update(change: (now: Expr<N, LaneCount>, register: number) => Expr<N, LaneCount>): void {
    const at = callerLocation();
    for (let i = 0; i < (this.register.length ?? 1); i++) {
      const next = change(wrap(this.trace, this.readRegister(i, at)), i);
      this.writeRegister(i, toValue(this.trace, next, this.register.type, "update", at), at);
    }
  }

  /**
   * A fragment of the same layout, of what a function makes of each register, `lanes` elements at a time.
   * ```ts
   * rX.map((eight) => eight.to(f32)).dtype.name // f32
   * ```
   * @throws ShapeError when that has another number of lanes
   */
  map<P extends DTypeName>(
    change: (now: Expr<N, LaneCount>, register: number) => Expr<P, LaneCount>,
  ): Fragment<P, R, M> {
    const at = callerLocation();
    const { trace, register, layout, role, atom } = this;
    const values = Array.from({ length: register.length ?? 1 }, (_, i) => {
      const value = change(wrap(trace, this.readRegister(i, at)), i);
      if (value instanceof Expr && value.lanes === this.lanes) return value;
      throw new ShapeError(`map makes ${this.lanes} elements of ${this.lanes}, not ${describe(value)}`, { at });
    });
    const [{ dtype }] = values as [Expr<P, LaneCount>];
    const mapped = declareFragment(trace, dtype, layout, this.lanes, role, atom, undefined, at);
    for (const [i, value] of values.entries())
      mapped.writeRegister(i, toValue(trace, value, mapped.register.type, "map", at), at);
    return mapped;
  }

  /** @internal Where an element is. */
  offset(coordinate: Coordinate): number {
    requireCoordinate(coordinate);
    return crd2idx(coordinate, this.layout);
  }

  /** @internal The elements at these offsets as one vector, from as few pieces as there are. */
  vector(offsets: readonly number[], at: Location): Value {
    const parts: Value[] = [];
    const width = pieceWidth(offsets, this.lanes);
    for (let i = 0; i < offsets.length; i += width) {
      const offset = offsets[i] ?? 0;
      const register = this.readRegister(Math.floor(offset / this.lanes), at);
      parts.push(part(this.trace, register, offset % this.lanes, width, at));
    }
    return joined(this.trace, parts, at);
  }

  /** @internal */
  readRegister(index: number, at: Location): Value {
    this.trace.checkScope("A fragment", this);
    return this.trace.let({ kind: "read", register: this.register, index: this.trace.constant(i32, index, at) }, at);
  }

  /** @internal */
  writeRegister(index: number, value: Value, at: Location): void {
    this.trace.checkScope("A fragment", this);
    this.trace.emit({
      kind: "write",
      register: this.register,
      index: this.trace.constant(i32, index, at),
      value,
      at,
    });
  }

  toString(): string {
    return `${this.dtype.name} fragment ${this.layout}, ${this.lanes} to a register`;
  }

  static {
    checkArguments(this, { update: [Function], map: [Function] });
    checkReceivers(this);
  }
}

/** @internal `lanes` lanes of a vector, or one. */
export function part(trace: Trace, vector: Value, first: number, lanes: number, at: Location): Value {
  if (lanes === vector.type.lanes) return vector;
  if (lanes === 1) return trace.let({ kind: "extract", a: vector, lane: first }, at);
  return trace.let({ kind: "slice", a: vector, first, lanes: lanes as LaneCount }, at);
}

/** @internal */
export function joined(trace: Trace, parts: readonly Value[], at: Location): Value {
  const [first] = parts;
  if (first && parts.length === 1) return first;
  return first?.type.lanes === 1
    ? trace.let({ kind: "pack", lanes: Object.freeze([...parts]) }, at)
    : trace.let({ kind: "join", parts: Object.freeze([...parts]) }, at);
}

/** The largest power of two such that all offsets fall into aligned runs of so many. */
function pieceWidth(offsets: readonly number[], lanes: number): number {
  for (let width = Math.min(lanes, offsets.length); width > 1; width /= 2) {
    const runs = offsets.every((offset, i) =>
      i % width === 0 ? offset % width === 0 : offset === (offsets[i - 1] ?? 0) + 1,
    );
    if (offsets.length % width === 0 && runs) return width;
  }
  return 1;
}

/** @internal Declares registers for as many elements as the layout has. */
export function declareFragment<N extends DTypeName, R extends FragmentRole, M extends MmaAtom>(
  trace: Trace,
  dtype: DType<N>,
  layout: Layout,
  lanes: LaneCount,
  role: R,
  atom: M | undefined,
  init: Value | undefined,
  at: Location,
): Fragment<N, R, M> {
  const count = size(layout);
  if (count % lanes !== 0) {
    throw new ShapeError(`A fragment of ${layout} doesn't fill registers of ${lanes} elements`, { at });
  }
  const register: Register = Object.freeze({
    name: variableNameAt(at) ?? "r",
    type: Object.freeze({ dtype, lanes }),
    length: count / lanes,
    at,
  });
  trace.emit({ kind: "declare", register, init, at });
  return new Fragment<N, R, M>(trace, register, layout, role, atom);
}

/** @internal Zeros to add products to; one instruction's values to a register, of wgmma each its own. */
export function declareAccumulator<M extends MmaAtom>(
  trace: Trace,
  atom: M,
  layout: Layout,
  at: Location,
): Fragment<M["c"]["name"], "C", M> {
  const lanes = atom.kind === "mma" ? (valuesOf(atom, "C") as LaneCount) : 1;
  const zero = toValue(trace, 0, { dtype: atom.c, lanes }, "an accumulator", at);
  return declareFragment<M["c"]["name"], "C", M>(trace, atom.c, layout, lanes, "C", atom, zero, at);
}

/**
 * @internal A dense layout of the same shape whose order follows memory: what is contiguous along the last dimension comes
 * first. `run` is how many elements are contiguous from the first one on.
 */
export function memoryOrder(
  layout: Layout<StrideLeaf>,
  lastDimension: number,
): { readonly layout: Layout; readonly run: number } {
  const [extents, strides] = [leaves(layout.shape), leaves<StrideLeaf>(layout.stride)];
  const modes = extents.map((extent, i) => ({ i, extent, stride: strides[i] ?? basis(0) }));
  const along = ({ stride }: { readonly stride: StrideLeaf }): boolean => (pathOf(stride)[0] ?? 0) === lastDimension;
  const contiguous = modes.filter((mode) => along(mode) && valueOf(mode.stride) > 0 && mode.extent > 1);
  contiguous.sort((a, b) => valueOf(a.stride) - valueOf(b.stride));
  const order = [...contiguous, ...modes.filter((mode) => !contiguous.includes(mode))];
  const compact: number[] = [];
  let [next, run] = [1, 1];
  for (const { i, extent, stride } of order) {
    compact[i] = extent === 1 ? 0 : next;
    if (along({ stride }) && valueOf(stride) === run && run === next) run *= extent;
    next *= extent;
  }
  return { layout: new Layout(layout.shape, unflattenLeaves(compact, layout.shape)), run };
}

/** @throws ShapeError unless both have as many elements, mode by mode */
export function requireSameShape(
  what: string,
  a: { readonly layout: Layout<StrideLeaf>; readonly at: Location },
  b: { readonly layout: Layout<StrideLeaf>; readonly at: Location },
  at: Location,
): void {
  const [first, second] = [a, b].map(({ layout }) =>
    Array.isArray(layout.shape) ? layout.shape.map((mode: IntTuple) => size(mode)) : [size(layout)],
  );
  if (String(first) === String(second)) return;
  throw new ShapeError(`${what}: ${a.layout} and ${b.layout} differ in shape`, {
    at,
    related: [
      { what: "the first was made", at: a.at },
      { what: "the second was made", at: b.at },
    ],
    hint: `Partition both by the same layout; ${describe(first)} and ${describe(second)} elements per mode don't match`,
  });
}
