/**
 * Tiled MMA: one matrix instruction spread over warps and repeated over a tile, after CuTe's TiledMMA.
 *
 * A tile is cut in four steps, all of them layout algebra:
 *
 *   permute     (M,K) by the tilers of `permute`, so that instructions see other elements as neighbours
 *   divide      into the instruction's shape: ((m,k),(restM,restK))
 *   compose     with the instruction's thread-value layout: ((thread,value),(restM,restK))
 *   share out   restM and restK over the warps
 *
 * Permuting K alike on A and B changes nothing in the product. With m16n8k16 and permute K = (2,4,2,2):(1,8,2,4) a lane's
 * values of two instructions are 8 neighbours, 16 bytes of global memory:
 *
 *   k       0 1 2 3 4 5 6 7 | 8 ...
 *   lane    0 0 0 0 0 0 0 0 | 1 ...
 *   step    0 0 0 0 1 1 1 1 | 0 ...     (of two)
 */
import { type MmaAtom } from "../atoms/mma.ts";
import { checkArguments, checkReceivers, describe, describeAll, requireOptions } from "../check.ts";
import type { DTypeName } from "../dtype.ts";
import { ArgumentError, ShapeError } from "../errors.ts";
import { type Index } from "../expr.ts";
import {
  composition,
  get,
  Layout,
  LayoutError,
  logicalDivide,
  makeLayout,
  print,
  size,
  type StrideLeaf,
  zippedDivide,
} from "../layout/index.ts";
import { concat } from "../layout/modes.ts";
import type { Value } from "../ir.ts";
import { callerLocation, type Location } from "../source.ts";
import type { Access } from "../tensor.ts";
import type { FragmentRole } from "./fragment.ts";
import { Tile } from "./tile.ts";

export interface TiledMmaOptions {
  /** How many warps (wgmma: warpgroups) lie along M and N. Default one. */
  readonly warps?: readonly [m: number, n: number];
  /** Tilers along M, N, K by which tiles are rearranged first; null leaves a mode as it is. */
  readonly permute?: readonly [m: Layout | null, n: Layout | null, k: Layout | null];
}

/**
 * An instruction, and how it is spread. Made by tiledMma().
 * ```ts
 * const spread = tiledMma(mmaAtoms.m16n8k16.bf16, { warps: [4, 1] });
 * spread.threads // 128
 * spread.threadValue("C", makeLayout([64, 8])).shape // (((4,8),(4,1)),((2,2),1,1))
 * spread.slice(t.thread).partitionC(y.tile([64, 8], [0, 0])) // ((2,2),1,1):((1@1,8@0),0,0)
 * ```
 */
export class TiledMma<M extends MmaAtom = MmaAtom> {
  readonly atom: M;
  readonly warps: readonly [m: number, n: number];
  readonly permute: readonly [m: Layout | null, n: Layout | null, k: Layout | null];
  /** Kernels cut many tiles alike. */
  readonly #threadValues = new Map<string, Layout<StrideLeaf>>();

  constructor(atom: M, { warps = [1, 1], permute = [null, null, null] }: TiledMmaOptions) {
    this.atom = atom;
    this.warps = warps;
    this.permute = permute;
  }

  /** Threads that take part. */
  get threads(): number {
    return this.atom.threads * this.warps[0] * this.warps[1];
  }

  /** The view of one thread, a number below `threads`: its lane first, then its warp along M, then along N. */
  slice(thread: Index): ThreadMma<M> {
    return new ThreadMma(this, thread);
  }

  /**
   * ((lane,(warpM,warpN)),(value,restM,restK)) of an (M,K) layout for A, of (N,K) for B, of (M,N) for C.
   * @throws LayoutError unless the tile holds whole instructions for all warps
   */
  threadValue(operand: "A" | "B" | "C", layout: Layout<StrideLeaf>): Layout<StrideLeaf> {
    const key = `${operand} ${layout}`;
    const known = this.#threadValues.get(key) ?? this.#threadValueOf(operand, layout);
    this.#threadValues.set(key, known);
    return known;
  }

  #threadValueOf(operand: "A" | "B" | "C", layout: Layout<StrideLeaf>): Layout<StrideLeaf> {
    const { atom, permute, warps } = this;
    const [first, second] = ({ A: [0, 2], B: [1, 2], C: [0, 1] } as const)[operand];
    const extents = [atom.M, atom.N, atom.K] as const;
    const tv = { A: atom.layoutA, B: atom.layoutB, C: atom.layoutC }[operand];
    const [over0, over1] = [[warps[0], warps[1], 1][first] ?? 1, [warps[0], warps[1], 1][second] ?? 1];
    if (size(layout, 0) % (extents[first] * over0) !== 0 || size(layout, 1) % (extents[second] * over1) !== 0) {
      throw new LayoutError(
        `${layout} as ${operand} holds no whole number of ${atom.name} for ${warps.join(" x ")} warps: ` +
          `${extents[first] * over0} x ${extents[second] * over1} elements`,
      );
    }
    const permuted = logicalDivide(layout, [permute[first], permute[second]]);
    const instructions = zippedDivide(permuted, [extents[first], extents[second]]);
    const values = composition(get(instructions, 0), tv);
    const rest = zippedDivide(get(instructions, 1), [over0, over1]);
    // Of A the warps along N hold the same elements, of B those along M.
    const none = new Layout<StrideLeaf>(1, 0);
    const along0 = get(rest, 0, 0);
    const along1 = get(rest, 0, 1);
    const repeated = (count: number): Layout<StrideLeaf> => (count === 1 ? none : new Layout<StrideLeaf>(count, 0));
    const warpModes = {
      A: [along0, repeated(warps[1])],
      B: [repeated(warps[0]), along0],
      C: [along0, along1],
    }[operand];
    const threads = concat([get(values, 0), concat(warpModes)]);
    return concat([threads, concat([get(values, 1), get(rest, 1, 0), get(rest, 1, 1)])]);
  }

  toString(): string {
    return `${this.atom.name} over ${this.warps.join(" x ")} warps, K by ${this.permute[2] ?? "itself"}`;
  }

  static {
    checkReceivers(this);
  }
}

/**
 * Spreads an instruction.
 * ```ts
 * const spread = tiledMma(mmaAtoms.m16n8k16.bf16, { permute: [null, null, parseLayout("(2,4,2,2):(1,8,2,4)")] });
 * const gW = spread.slice(t.lane).partitionA(w.tile([16, 64], [0, t.warp]));
 * t.copy(gW, t.fragment(gW)).bytes // 16
 * ```
 * @throws ShapeError
 */
export function tiledMma<M extends MmaAtom>(atom: M, options: TiledMmaOptions = {}): TiledMma<M> {
  const at = callerLocation();
  if (typeof atom !== "object" || atom === null || !("layoutA" in atom)) {
    throw new ArgumentError(`tiledMma takes one of mmaAtoms or wgmmaAtom(...), not ${describe(atom)}`, { at });
  }
  requireOptions(options, ["warps", "permute"], at);
  const { warps = [1, 1], permute } = options;
  const whole =
    Array.isArray(warps) &&
    warps.length === 2 &&
    Array.from(warps).every((count) => Number.isInteger(count) && count >= 1);
  const isPermuted =
    permute === undefined ||
    (Array.isArray(permute) &&
      permute.length === 3 &&
      Array.from<unknown>(permute).every((layout) => layout === null || layout instanceof Layout));
  if (!whole || !isPermuted) {
    const [what, given] = whole ? ["three permutations", permute] : ["warps along M and N", warps];
    throw new ShapeError(
      `A tiled MMA has ${what}, not ${Array.isArray(given) ? describeAll(given) : describe(given)}`,
      {
        at,
        hint: "tiledMma(atom, { warps: [2, 4], permute: [null, null, layoutK] })",
      },
    );
  }
  return new TiledMma(atom, options);
}

/** A tile as one thread's operand of an instruction: (value, restM, restK). */
export class Partition<
  N extends DTypeName,
  X extends Access,
  R extends FragmentRole,
  M extends MmaAtom = MmaAtom,
> extends Tile<N, X> {
  readonly role: R;
  readonly atom: M;
  /** The same before a thread was chosen: ((lane,warps),(value,restM,restK)), for instructions in which lanes help each other. */
  readonly whole: Tile<N, X>;
  readonly thread: Index;

  constructor(role: R, atom: M, whole: Tile<N, X>, thread: Index, at: Location) {
    const [threads, values] = [get(whole.layout, 0), get(whole.layout, 1)];
    const origin: readonly Value[] = whole.moved([threads], [thread], at);
    super(whole.tensor, origin, values, whole.swizzle, at);
    this.role = role;
    this.atom = atom;
    this.whole = whole;
    this.thread = thread;
  }
}

/** A thread's view of a tiled MMA. */
export class ThreadMma<M extends MmaAtom = MmaAtom> {
  readonly mma: TiledMma<M>;
  readonly thread: Index;

  constructor(mma: TiledMma<M>, thread: Index) {
    this.mma = mma;
    this.thread = thread;
  }

  /**
   * This thread's part of an (M,K) tile: (value,restM,restK). Of any dtype: a fragment of another than the instruction's is
   * converted in registers, by `fragment.map`.
   * ```ts
   * mma.partitionA(w.tile([16, 64], [0, t.warp])).shape // ((2,2,2),1,4)
   * ```
   * @throws ShapeError with both layouts
   */
  partitionA<N extends DTypeName, X extends Access>(tile: Tile<N, X>): Partition<N, X, "A", M> {
    return this.partition("A", tile, callerLocation());
  }

  /**
   * Of an (N,K) tile.
   * ```ts
   * mma.partitionB(x.tile([16, 64], [0, t.warp])).shape // ((2,2),2,4)
   * ```
   */
  partitionB<N extends DTypeName, X extends Access>(tile: Tile<N, X>): Partition<N, X, "B", M> {
    return this.partition("B", tile, callerLocation());
  }

  /**
   * Of an (M,N) tile, of any dtype: results are converted before they are stored.
   * ```ts
   * mma.partitionC(y.tile([16, 8], [0, t.warp])).shape // ((2,2),1,1)
   * ```
   */
  partitionC<N extends DTypeName, X extends Access>(tile: Tile<N, X>): Partition<N, X, "C", M> {
    return this.partition("C", tile, callerLocation());
  }

  private partition<N extends DTypeName, X extends Access, R extends "A" | "B" | "C">(
    role: R,
    tile: Tile<N, X>,
    at: Location,
  ): Partition<N, X, R, M> {
    const { atom } = this.mma;
    const whole = tile.map((layout) => {
      if (size(makeLayout(layout.shape)) === 0) throw new LayoutError(`${print(layout.shape)} is empty`);
      return this.mma.threadValue(role, layout);
    });
    return new Partition(role, atom, whole, this.thread, at);
  }

  static {
    checkArguments(this, { partitionA: [Tile], partitionB: [Tile], partitionC: [Tile] });
    checkReceivers(this);
  }
}
