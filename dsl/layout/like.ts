/** Dense layouts for a copy of what another layout describes. */
import { compactMajor, compactOrder } from "./compact.ts";
import type { IntTuple } from "./int-tuple.ts";
import { Layout, rank } from "./layout.ts";
import { makeLayout, makeOrderedLayout } from "./make.ts";
import { get, take } from "./modes.ts";
import { tiledProduct } from "./product.ts";
import { zipLeaves } from "./tuple.ts";

/**
 * A dense layout of the same shape whose modes are in the order of the layout's strides. Strides of 0 stay.
 * ```ts
 * makeLayoutLike(parseLayout("(2,3,4,5):(0,42,1,0)")) // (2,3,4,5):(0,4,1,0)
 * ```
 */
export function makeLayoutLike(layout: Layout): Layout {
  return new Layout(layout.shape, compactOrder(withoutZeros(layout), layout.stride));
}

/**
 * A layout for registers that hold a copy: mode 0, the values of one instruction, is the densest and column-major; the others
 * are in the order of their strides.
 * ```ts
 * makeFragmentLike(parseLayout("((2,2),4,8):((64,8),512,16)")) // ((2,2),4,8):((1,2),32,4)
 * ```
 */
export function makeFragmentLike(layout: Layout): Layout {
  const modes = rank(layout);
  if (modes === 1) return makeLayout(layout.shape);
  const [first, rest] = [get(layout, 0), take(layout, 1, modes)];
  const values = new Layout(first.shape, compactMajor(withoutZeros(first), "left"));
  return tiledProduct(values, makeOrderedLayout(rest.shape, rest.stride));
}

function withoutZeros({ shape, stride }: Layout): IntTuple {
  return zipLeaves(stride, shape, (step, extent) => (step === 0 ? 1 : extent));
}
