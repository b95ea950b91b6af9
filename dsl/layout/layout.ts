/**
 * Layouts: functions from coordinates to offsets, written `shape:stride`.
 *
 *   ((2,4),8):((1,2),8)            element (i,j) of mode 0 and k of mode 1 lies at i*1 + j*2 + k*8
 *   Sw<2,0,3> o 0 o (8,8):(8,1)    composed: an offset of the layout on the right, plus 0, then swizzled
 *   (4,8):(1@0,1@1)                an identity tensor: maps to the coordinate itself
 *
 * A layout takes a number, counted along its modes from left to right, or a coordinate of any profile in between. All
 * values are frozen; operations are free functions that return new ones.
 */
import { addCoordinates, coordinateOf, scaled, type StrideLeaf, valueOf } from "./basis.ts";
import { LayoutError } from "./errors.ts";
import { type IntTuple, product } from "./int-tuple.ts";
import { Swizzle } from "./swizzle.ts";
import { frozen, isTuple, leaves, mapLeaves, modeOf, type Nested, print, sameProfile } from "./tuple.ts";

/** `shape:stride`. The strides are numbers, or scaled bases where D allows them. */
export class Layout<D extends StrideLeaf = number> {
  readonly shape: IntTuple;
  readonly stride: Nested<D>;

  /** @throws LayoutError unless both have the same parentheses and no extent is 0 */
  constructor(shape: IntTuple, stride: Nested<D>) {
    const numbers = leaves<number | D>([shape, stride]).filter((leaf) => typeof leaf === "number");
    if (!sameProfile(shape, stride) || !numbers.every(Number.isSafeInteger) || leaves(shape).includes(0)) {
      throw new LayoutError(
        `${print(shape)}:${print(stride)} is no layout`,
        "Shape and stride need the same parentheses and whole numbers, the extents other than 0",
      );
    }
    this.shape = frozen(shape);
    this.stride = frozen(stride);
    Object.freeze(this);
  }

  toString(): string {
    return `${print(this.shape)}:${print(this.stride)}`;
  }
}

/** `layoutA o offset o layoutB`: the coordinate goes through layoutB, the offset is added, layoutA comes last. */
export class ComposedLayout {
  readonly layoutA: Swizzle | Layout;
  readonly offset: number;
  /** Defines the domain: shape, size and modes are those of layoutB. */
  readonly layoutB: Layout | ComposedLayout;

  constructor(layoutA: Swizzle | Layout | ComposedLayout, offset: number, layoutB: Layout | ComposedLayout) {
    if (!Number.isSafeInteger(offset)) throw new LayoutError(`The offset of a layout is a whole number, not ${offset}`);
    const nested = layoutA instanceof ComposedLayout;
    // (A o m o B) o n o C is A o m o (B o n o C): one form for one function.
    this.layoutA = nested ? layoutA.layoutA : layoutA;
    this.offset = nested ? layoutA.offset : offset;
    this.layoutB = nested ? new ComposedLayout(layoutA.layoutB, offset, layoutB) : layoutB;
    Object.freeze(this);
  }

  toString(): string {
    return `${this.layoutA} o ${this.offset} o ${this.layoutB}`;
  }
}

export type AnyLayout = Layout<StrideLeaf> | ComposedLayout;

/** The `shape:stride` part that defines the domain. */
export function domainOf(layout: AnyLayout): Layout<StrideLeaf> {
  return layout instanceof ComposedLayout ? domainOf(layout.layoutB) : layout;
}

/** Applies an operation on domains, such as a division, to a layout of any kind. */
export function onDomain<L extends AnyLayout>(layout: L, f: (domain: Layout<StrideLeaf>) => Layout<StrideLeaf>): L {
  const whole: AnyLayout = layout;
  const result: AnyLayout =
    whole instanceof ComposedLayout
      ? new ComposedLayout(whole.layoutA, whole.offset, onDomain(whole.layoutB, f))
      : f(whole);
  return result as L; // f keeps the kind of strides
}

/** For operations that exist only for numeric strides. @throws LayoutError */
export function requireNumeric(layout: AnyLayout, operation: string): Layout {
  if (layout instanceof Layout && leaves(layout.stride).every((stride) => typeof stride === "number")) {
    return layout as Layout;
  }
  throw new LayoutError(`${operation} needs a layout with numbers as strides, not ${layout}`);
}

/** What a swizzle or an offset applies to. @throws LayoutError for scaled bases */
export function requireOffsets(layout: AnyLayout, operation: string): Layout | ComposedLayout {
  return layout instanceof ComposedLayout ? layout : requireNumeric(layout, operation);
}

const shapeOf = (of: AnyLayout | IntTuple): IntTuple =>
  of instanceof Layout || of instanceof ComposedLayout ? domainOf(of).shape : of;

/**
 * The shape of a layout, or of the mode at a path.
 * ```ts
 * shape(parse("((2,4),8):((1,2),8)"), 0) // (2,4)
 * ```
 */
export function shape(of: AnyLayout, ...path: readonly number[]): IntTuple {
  return modeOf(shapeOf(of), ...path);
}

/**
 * The strides of a layout, or of the mode at a path.
 * ```ts
 * stride(parseLayout("((2,4),8):((1,2),8)"), 0, 1) // 2
 * ```
 */
export function stride<D extends StrideLeaf>(of: Layout<D>, ...path: readonly number[]): Nested<D> {
  return modeOf(of.stride, ...path);
}

/**
 * How many elements a layout, a shape, or the mode at a path has.
 * ```ts
 * size(parse("((2,4),8):((1,2),8)")) // 64
 * size(parse("((2,4),8):((1,2),8)"), 0) // 8
 * ```
 */
export function size(of: AnyLayout | IntTuple, ...path: readonly number[]): number {
  return product(modeOf(shapeOf(of), ...path));
}

/**
 * How many modes.
 * ```ts
 * rank(parse("((2,4),8):((1,2),8)")) // 2
 * rank(parse("64:1")) // 1
 * ```
 */
export function rank(of: AnyLayout | IntTuple, ...path: readonly number[]): number {
  const tuple = modeOf(shapeOf(of), ...path);
  return isTuple(tuple) ? tuple.length : 1;
}

/**
 * How deep the parentheses nest.
 * ```ts
 * depth(parse("((2,4),8):((1,2),8)")) // 2
 * depth(parse("64:1")) // 0
 * ```
 */
export function depth(of: AnyLayout | IntTuple, ...path: readonly number[]): number {
  const tuple = modeOf(shapeOf(of), ...path);
  return isTuple(tuple) ? 1 + Math.max(0, ...tuple.map((mode) => depth(mode))) : 0;
}

/**
 * The smallest shape that holds everything the layout maps to; a number for numeric strides.
 * ```ts
 * coshape(parse("(4,8):(1@0,2@1)")) // (4,15)
 * ```
 */
export function coshape(of: AnyLayout, ...path: readonly number[]): IntTuple {
  const { shape, stride } = domainOf(of);
  const extents = leaves(modeOf(shape, ...path));
  const last = leaves(modeOf(stride, ...path)).map((step, i) =>
    coordinateOf(scaled(step, Math.sign(valueOf(step)) * ((extents[i] ?? 1) - 1))),
  );
  return mapLeaves(last.reduce(addCoordinates, 0), (x) => x + 1);
}

/**
 * One more than the largest offset, counting negative strides as positive; of a swizzled layout, before the swizzle.
 * ```ts
 * cosize(parse("(4,8):(1,16)")) // 116
 * ```
 */
export function cosize(of: AnyLayout, ...path: readonly number[]): number {
  return product(coshape(of, ...path));
}

/**
 * Whether two layouts are written the same; as functions they can be equal even so.
 * ```ts
 * equal(parse("(4,8):(1,4)"), makeLayout([4, 8])) // true
 * equal(parse("(4,8):(1,4)"), parse("32:1")) // false
 * ```
 */
export function equal(a: AnyLayout | Swizzle, b: AnyLayout | Swizzle): boolean {
  return String(a) === String(b);
}
