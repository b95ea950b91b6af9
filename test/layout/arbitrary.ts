/** Random layouts for the property tests. */
import fc from "fast-check";
import {
  compactOrder,
  ComposedLayout,
  type IntTuple,
  Layout,
  type Nested,
  product,
  Swizzle,
} from "../../dsl/layout/index.ts";

const mapLeaves = (tuple: IntTuple, f: (leaf: number) => number): IntTuple =>
  typeof tuple === "number" ? f(tuple) : tuple.map((mode) => mapLeaves(mode, f));

const countLeaves = (tuple: Nested<number>): number =>
  typeof tuple === "number" ? 1 : tuple.reduce<number>((sum, mode) => sum + countLeaves(mode), 0);

/** The leaves of `shape` replaced by these, from left to right. */
function withLeaves(shape: IntTuple, flat: readonly number[]): IntTuple {
  let next = 0;
  return mapLeaves(shape, () => flat[next++] ?? 0);
}

const extent = fc.constantFrom(1, 2, 2, 3, 4, 4, 5, 6, 8);

/** Nested shapes of at most `max` elements, most of them of rank 2 or 3. */
export const shapes = (max = 256): fc.Arbitrary<IntTuple> => {
  const { mode } = fc.letrec<{ mode: IntTuple }>((tie) => ({
    mode: fc.oneof(
      { maxDepth: 2, withCrossShrink: true },
      { weight: 3, arbitrary: extent },
      { weight: 1, arbitrary: fc.array(tie("mode"), { minLength: 1, maxLength: 3 }) },
    ),
  }));
  const tuple = fc.array(mode, { minLength: 2, maxLength: 3, size: "max" });
  return fc
    .oneof({ weight: 1, arbitrary: mode }, { weight: 5, arbitrary: tuple })
    .filter((shape) => product(shape) <= max);
};

const withStrides = (shape: IntTuple, stride: fc.Arbitrary<number>): fc.Arbitrary<Layout> =>
  fc
    .array(stride, { minLength: countLeaves(shape), maxLength: countLeaves(shape) })
    .map((flat) => new Layout(shape, withLeaves(shape, flat)));

/** Bijections onto 0, 1, 2, ...: the modes in any order. */
export const compactLayouts = (max = 256): fc.Arbitrary<Layout> =>
  shapes(max).chain((shape) =>
    fc
      .shuffledSubarray([...Array(countLeaves(shape)).keys()], { minLength: countLeaves(shape) })
      .map((order) => new Layout(shape, compactOrder(shape, withLeaves(shape, order)))),
  );

/** Injective, with strides that are multiples of one another; perhaps with gaps between the modes. */
export const injectiveLayouts = (max = 256): fc.Arbitrary<Layout> =>
  fc
    .tuple(compactLayouts(max), fc.array(fc.constantFrom(1, 1, 2, 3), { minLength: 8, maxLength: 8 }))
    .map(([{ shape, stride }, gaps]) => {
      const flat: readonly number[] = [stride].flat(8) as readonly number[];
      const sorted = [...new Set(flat)].toSorted((a, b) => a - b);
      const scale = (d: number) =>
        sorted.reduce((by, other, i) => (other > 0 && other <= d ? by * (gaps[i] ?? 1) : by), 1);
      return new Layout(
        shape,
        mapLeaves(stride, (d) => d * scale(d)),
      );
    });

/** Any strides, among them 0 and equal ones; mostly ones that divide each other. */
export const layouts = (max = 256): fc.Arbitrary<Layout> =>
  fc.oneof(
    compactLayouts(max),
    injectiveLayouts(max),
    shapes(max).chain((shape) => withStrides(shape, fc.constantFrom(0, 1, 2, 3, 4, 8, 12, 16, 24, 64))),
    shapes(max).chain((shape) => withStrides(shape, fc.integer({ min: 0, max: 40 }))),
  );

/** Also with negative strides. */
export const signedLayouts = (max = 256): fc.Arbitrary<Layout> =>
  fc.oneof(
    layouts(max),
    shapes(max).chain((shape) => withStrides(shape, fc.integer({ min: -12, max: 12 }))),
  );

export const swizzles: fc.Arbitrary<Swizzle> = fc
  .tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 4 }), fc.integer({ min: 0, max: 3 }), fc.boolean())
  .map(([bits, base, extra, left]) => new Swizzle(bits, base, (bits + extra) * (left ? -1 : 1)));

export const composedLayouts = (max = 256): fc.Arbitrary<ComposedLayout> =>
  fc
    .tuple(swizzles, fc.integer({ min: 0, max: 64 }), layouts(max))
    .map(([swizzle, offset, layout]) => new ComposedLayout(swizzle, offset, layout));
