/** The same memory seen as elements of another width. */
import { LayoutError } from "./errors.ts";
import { type AnyLayout, ComposedLayout, Layout, requireNumeric } from "./layout.ts";
import { Swizzle } from "./swizzle.ts";
import { gcd } from "./int-tuple.ts";
import { leaves, zipLeaves } from "./tuple.ts";

/**
 * n neighbours become one element.
 * ```ts
 * upcast(parse("(16,32):(32,1)"), 8) // (16,4):(4,1)
 * upcast(parse("Sw<3,4,3> o 0 o (8,128):(128,1)"), 4) // Sw<3,2,3> o 0 o (8,32):(32,1)
 * upcast(parse("(4,4):(6,1)"), 4) // LayoutError: upcast of (4,4):(6,1) by 4
 * ```
 * @throws LayoutError when n and a stride don't divide each other
 */
export function upcast<L extends AnyLayout | Swizzle>(layout: L, n: number): L;
export function upcast(layout: AnyLayout | Swizzle, n: number): AnyLayout | Swizzle {
  requireFactor(n);
  if (layout instanceof Swizzle) {
    const base = layout.base - log2(layout, n);
    return new Swizzle(Math.max(layout.bits + Math.min(base, 0), 0), Math.max(base, 0), layout.shift);
  }
  if (layout instanceof ComposedLayout) {
    const { layoutA, offset, layoutB } = layout;
    if (offset % n !== 0) throw new LayoutError(`upcast of ${layout} by ${n}: the offset is no multiple of ${n}`);
    return new ComposedLayout(upcast(layoutA, n), offset / n, upcast(layoutB, n));
  }
  const { shape, stride } = requireNumeric(layout, "upcast");
  for (const step of leaves(stride)) {
    if (step % n !== 0 && n % step !== 0) {
      throw new LayoutError(`upcast of ${layout} by ${n}: the stride ${step} and ${n} don't divide each other`);
    }
  }
  const wide = (step: number) => Math.ceil(Math.abs(step) / n) * Math.sign(step);
  const extents = zipLeaves(shape, stride, (extent, step) =>
    step === 0 ? extent : Math.ceil(extent / Math.ceil(n / Math.abs(step))),
  );
  return new Layout(extents, zipLeaves(stride, stride, wide));
}

/**
 * Each element becomes n neighbours.
 * ```ts
 * downcast(parse("(8,(4,2)):(8,(1,4))"), 2) // (8,(8,2)):(16,(1,8))
 * downcast(parse("8:2"), 2) // LayoutError: downcast of 8:2 by 2: no mode has stride 1
 * ```
 * @throws LayoutError when no mode has stride 1
 */
export function downcast<L extends AnyLayout | Swizzle>(layout: L, n: number): L;
export function downcast(layout: AnyLayout | Swizzle, n: number): AnyLayout | Swizzle {
  requireFactor(n);
  if (layout instanceof Swizzle) return new Swizzle(layout.bits, layout.base + log2(layout, n), layout.shift);
  if (layout instanceof ComposedLayout) {
    return new ComposedLayout(downcast(layout.layoutA, n), layout.offset * n, downcast(layout.layoutB, n));
  }
  const { shape, stride } = requireNumeric(layout, "downcast");
  if (!leaves(stride).includes(1)) {
    throw new LayoutError(`downcast of ${layout} by ${n}: no mode has stride 1`, "Only adjacent elements can be split");
  }
  return new Layout(
    zipLeaves(shape, stride, (extent, step) => (Math.abs(step) === 1 ? extent * n : extent)),
    zipLeaves(stride, stride, (step) => (Math.abs(step) === 1 ? step : step * n)),
  );
}

/**
 * A layout of elements of `oldBits` as one of elements of `newBits`.
 * ```ts
 * recastLayout(parse("(16,32):(32,1)"), 16, 32) // (16,16):(16,1)
 * recastLayout(parse("(16,32):(32,1)"), 16, 8) // (16,64):(64,1)
 * ```
 */
export function recastLayout<L extends AnyLayout | Swizzle>(layout: L, oldBits: number, newBits: number): L {
  const common = gcd(oldBits, newBits);
  const [up, down] = [newBits / common, oldBits / common];
  const wide = up === 1 ? layout : upcast(layout, up);
  return down === 1 ? wide : downcast(wide, down);
}

function requireFactor(n: number): void {
  if (!Number.isSafeInteger(n) || n < 1)
    throw new LayoutError(`Elements merge and split by a whole number, not by ${n}`);
}

function log2(swizzle: Swizzle, n: number): number {
  const log = Math.log2(n);
  if (!Number.isInteger(log)) throw new LayoutError(`${swizzle} can be recast only by powers of two, not by ${n}`);
  return log;
}
