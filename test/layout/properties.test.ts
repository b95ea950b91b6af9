/** What each operation promises, for random nested layouts. An operation may refuse its operands; never be wrong. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  _,
  type AnyLayout,
  applySwizzle,
  blockedProduct,
  coalesce,
  compatible,
  complement,
  ComposedLayout,
  composition,
  congruent,
  cosize,
  crd2crd,
  crd2idx,
  dice,
  downcast,
  elemLess,
  equal,
  filter,
  filterZeros,
  flatDivide,
  flatProduct,
  flatten,
  get,
  idx2crd,
  type IntTuple,
  Layout,
  LayoutError,
  leftInverse,
  logicalDivide,
  logicalProduct,
  makeIdentityLayout,
  makeLayout,
  makeLayoutLike,
  maxAlignment,
  maxCommonLayout,
  nullspace,
  parse,
  product,
  rakedProduct,
  rank,
  recastLayout,
  rightInverse,
  shape,
  size,
  sliceAndOffset,
  Swizzle,
  tiledDivide,
  tiledProduct,
  tileToShape,
  unflatten,
  upcast,
  withShape,
  zippedDivide,
  zippedProduct,
} from "../../dsl/layout/index.ts";
import {
  compactLayouts,
  composedLayouts,
  injectiveLayouts,
  layouts,
  shapes,
  signedLayouts,
  swizzles,
} from "./arbitrary.ts";

const image = (layout: Layout | ComposedLayout): readonly number[] =>
  Array.from({ length: size(layout) }, (__, i) => crd2idx(i, layout));

const sorted = (numbers: readonly number[]) => numbers.toSorted((a, b) => a - b);

/** Checks what the operation returns. Refusals are counted, and may not be the rule. */
function property<T>(arbitrary: fc.Arbitrary<T>, check: (value: T) => void, { runs = 200, accepted = 0.9 } = {}): void {
  let [refused, tried] = [0, 0];
  fc.assert(
    fc.property(arbitrary, (value) => {
      tried++;
      try {
        check(value);
      } catch (error) {
        if (!(error instanceof LayoutError)) throw error;
        refused++;
      }
    }),
    { numRuns: runs },
  );
  expect(1 - refused / tried, "share of accepted operands").toBeGreaterThanOrEqual(accepted);
}

describe("layouts", () => {
  test("parse(print(x)) is x", () => {
    property(
      fc.oneof<fc.Arbitrary<AnyLayout>[]>(signedLayouts(), composedLayouts(), shapes().map(makeIdentityLayout)),
      (x) => {
        expect(parse(String(x))).toEqual(x);
        expect(
          parse(
            String(x)
              .replace(/(?<![@\d])-?\d+/g, "_$&")
              .replaceAll(",", " , "),
          ),
        ).toEqual(x);
      },
    );
  });

  test("a number and its coordinate lead to the same offset", () => {
    property(signedLayouts(), (x) => {
      for (let i = 0; i < size(x); i++) {
        const coord = idx2crd(i, x.shape);
        expect(congruent(coord, x.shape)).toBe(true);
        expect(elemLess(coord, x.shape)).toBe(true);
        expect(crd2idx(coord, x)).toBe(crd2idx(i, x));
        expect(crd2idx(coord, x.shape)).toBe(i);
        expect(crd2crd(coord, x.shape, size(x))).toBe(i);
      }
    });
  });

  test("cosize is one more than the largest offset", () => {
    property(layouts(), (x) => expect(cosize(x)).toBe(Math.max(...image(x)) + 1));
  });

  test("layouts can't be changed", () => {
    const strides = [1, [4, 8]];
    const x = new Layout([4, [2, 3]], strides);
    strides[0] = 7;
    expect(String(x)).toBe("(4,(2,3)):(1,(4,8))");
    expect(() => Object.assign(x, { shape: 3 })).toThrow(TypeError);
    expect(() => Object.assign(x.shape, { 0: 3 })).toThrow(TypeError);
  });

  test("flatten and unflatten keep the function", () => {
    property(layouts(), (x) => {
      expect(image(flatten(x))).toEqual(image(x));
      expect(equal(unflatten(flatten(x), x.shape), x)).toBe(true);
    });
  });

  test("a slice and its offset are the elements at the coordinate", () => {
    const sliced = fc.oneof(layouts(), composedLayouts()).filter((x) => rank(x) >= 2);
    property(fc.tuple(sliced, fc.nat()), ([x, n]) => {
      const fixed = n % size(x, 0);
      const coord = [fixed, ...Array<null>(rank(x) - 1).fill(_)];
      const [rest, offset] = sliceAndOffset(coord, x);
      for (let j = 0; j < size(rest); j++) {
        expect(Number(offset) + crd2idx(j, rest)).toBe(crd2idx(fixed + j * size(x, 0), x));
      }
      expect(size(dice(coord, x)) * size(rest)).toBe(size(x));
    });
  });

  test("an identity layout maps each coordinate to itself", () => {
    property(shapes(), (s) => {
      const identity = makeIdentityLayout(s);
      for (let i = 0; i < product(s); i++) expect(crd2idx(i, identity)).toEqual(idx2crd(i, s));
    });
  });

  test("makeLayoutLike is dense and keeps the order of the strides", () => {
    property(injectiveLayouts(), (x) => {
      const like = makeLayoutLike(x);
      expect(sorted(image(like))).toEqual([...Array(size(x)).keys()]);
      const order = (layout: Layout) =>
        image(layout)
          .map((offset, i) => [offset, i])
          .toSorted((a, b) => (a[0] ?? 0) - (b[0] ?? 0));
      expect(order(like).map(([, i]) => i)).toEqual(order(x).map(([, i]) => i));
    });
  });
});

describe("coalesce and filter", () => {
  test("coalesce keeps the function, and no two modes of the result merge", () => {
    property(signedLayouts(), (x) => {
      const result = coalesce(x);
      expect(image(result)).toEqual(image(x));
      const extents = [result.shape].flat() as readonly number[];
      const strides = [result.stride].flat() as readonly number[];
      for (let i = 0; i + 1 < extents.length; i++) {
        expect((extents[i] ?? 0) * (strides[i] ?? 0)).not.toBe(strides[i + 1]);
      }
      if (extents.length > 1) expect(extents).not.toContain(1);
    });
  });

  test("by a profile, coalesce keeps each part", () => {
    property(
      layouts().filter((x) => rank(x) >= 2),
      (x) => {
        const result = coalesce(x, [0, 0]);
        expect(rank(result)).toBe(rank(x));
        for (const i of [0, 1]) expect(equal(get(result, i), coalesce(get(x, i)))).toBe(true);
        expect(image(result)).toEqual(image(x));
      },
    );
  });

  test("filter keeps the set of offsets, filterZeros also the profile", () => {
    property(layouts(), (x) => {
      const offsets = [...new Set(image(x))];
      expect([...new Set(image(filter(x)))]).toEqual(offsets);
      expect(congruent(filterZeros(x).shape, x.shape)).toBe(true);
      expect(image(filterZeros(x))).toEqual(image(filter(x)));
    });
  });
});

describe("composition", () => {
  test("R(i) is A(B(i)), and B's coordinates are R's", () => {
    const check = ([a, b]: readonly [Layout, Layout]) => {
      const result = composition(a, b);
      expect(compatible(b.shape, result.shape)).toBe(true);
      for (let i = 0; i < size(b); i++) expect(crd2idx(i, result)).toBe(crd2idx(crd2idx(i, b), a));
    };
    property(fc.tuple(signedLayouts(), layouts(64)), check, { runs: 1000, accepted: 0.3 });
    property(fc.tuple(compactLayouts(), injectiveLayouts(64)), check, { runs: 500, accepted: 0.3 });
    property(fc.tuple(layouts(), signedLayouts(16)), check, { runs: 500, accepted: 0.3 });
  });

  test("powers of two always divide each other, so one mode composes with anything", () => {
    const power = fc.constantFrom(1, 2, 4, 8, 16);
    const flat = fc.array(fc.tuple(power, power), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(flat, power, power, (modes, count, step) => {
        const a = new Layout(
          modes.map(([extent]) => extent),
          modes.map(([, stride]) => stride),
        );
        const result = composition(a, new Layout(count, step));
        for (let i = 0; i < count; i++) expect(crd2idx(i, result)).toBe(crd2idx(i * step, a));
      }),
    );
  });

  test("modes of B that carry into each other are refused, though CuTe C++ would add them up", () => {
    const a = new Layout([4, 2], [1, 16]);
    expect(() => composition(a, new Layout([2, 2], [3, 3]))).toThrow(
      "composition: (4,2):(1,16) o (2,2):(3,3) is not a layout: the modes of the right one together step over the end",
    );
    expect(() => composition(a, new Layout(4, 3))).toThrow("Stride Divisibility Condition");
  });

  test("is associative", () => {
    property(
      fc.tuple(compactLayouts(), injectiveLayouts(64), layouts(16)),
      ([a, b, c]) => {
        fc.pre(cosize(c) <= size(b)); // beyond its domain, a o b needn't go on as b does
        expect(image(composition(composition(a, b), c))).toEqual(image(composition(a, composition(b, c))));
      },
      { runs: 500, accepted: 0.3 },
    );
  });

  test("by mode, with numbers and underscores", () => {
    property(
      fc.tuple(
        compactLayouts().filter((x) => rank(x) >= 2),
        fc.integer({ min: 1, max: 4 }),
      ),
      ([x, n]) => {
        const result = composition(x, [n, _]);
        expect(image(get(result, 0))).toEqual(Array.from({ length: n }, (__, i) => crd2idx(i, get(x, 0))));
        expect(equal(get(result, 1), get(x, 1))).toBe(true);
      },
      { accepted: 0.3 },
    );
  });

  test("withShape keeps the elements in order", () => {
    property(compactLayouts(), (x) => {
      expect(image(withShape(x, size(x)))).toEqual(image(x));
      expect(image(withShape(x, x.shape))).toEqual(image(x));
    });
  });

  test("with coordinates: A of an identity layout is A", () => {
    property(layouts(), (x) => {
      const result = composition(x, makeIdentityLayout(x.shape));
      expect(image(result as Layout)).toEqual(image(x));
    });
  });
});

describe("complement and inverses", () => {
  test("the complement is ordered, disjoint, and fills the codomain", () => {
    property(fc.tuple(injectiveLayouts(), fc.integer({ min: 1, max: 1000 })), ([x, target]) => {
      const rest = complement(x, target);
      const offsets = image(rest);
      const own = new Set(image(x));
      expect(offsets).toEqual(sorted([...new Set(offsets)]));
      for (const offset of offsets.slice(1)) expect(own.has(offset)).toBe(false);
      const all = image(makeLayout(x, rest));
      expect(sorted(all)).toEqual([...Array(all.length).keys()]);
      expect(all.length).toBeGreaterThanOrEqual(target);
    });
  });

  test("of any layout it accepts, it is ordered and disjoint", () => {
    property(
      layouts(),
      (x) => {
        const offsets = image(complement(x));
        const own = new Set(image(x));
        expect(offsets).toEqual(sorted([...new Set(offsets)]));
        for (const offset of offsets.slice(1)) expect(own.has(offset)).toBe(false);
      },
      { accepted: 0.3 },
    );
  });

  test("A(rightInverse(i)) is i, as far as the modes of A go", () => {
    property(signedLayouts(), (x) => {
      const inverse = rightInverse(x);
      for (let i = 0; i < size(inverse); i++) expect(crd2idx(crd2idx(i, inverse), x)).toBe(i);
    });
    property(compactLayouts(), (x) => expect(size(rightInverse(x))).toBe(size(x)));
  });

  test("leftInverse(A(i)) is i for injective A; A(leftInverse(A(i))) is A(i), with strides of 0 too", () => {
    property(injectiveLayouts(), (x) => {
      const inverse = leftInverse(x);
      for (let i = 0; i < size(x); i++) expect(crd2idx(crd2idx(i, x), inverse)).toBe(i);
    });
    const injectiveButForZeros = layouts().filter((x) => new Set(image(x)).size === size(filter(x)));
    property(
      injectiveButForZeros,
      (x) => {
        const inverse = leftInverse(x);
        for (let i = 0; i < size(x); i++) expect(crd2idx(crd2idx(crd2idx(i, x), inverse), x)).toBe(crd2idx(i, x));
      },
      { accepted: 0.3 },
    );
  });

  test("the nullspace is what A maps to 0, once each", () => {
    property(layouts(), (x) => {
      const zeros = image(nullspace(x));
      expect(new Set(zeros).size).toBe(zeros.length);
      for (const i of zeros) expect(crd2idx(i, x)).toBe(0);
      expect(zeros.length).toBe(size(x) / size(filter(x)));
    });
  });

  test("the common layout counts 0, 1, 2, ... in both", () => {
    property(
      fc.tuple(layouts(), layouts()),
      ([a, b]) => {
        const common = maxCommonLayout(a, b);
        for (let i = 0; i < size(common); i++) {
          expect([crd2idx(crd2idx(i, common), a), crd2idx(crd2idx(i, common), b)]).toEqual([i, i]);
        }
      },
      { accepted: 0.6 },
    );
    property(compactLayouts(), (x) => expect(size(maxCommonLayout(x, x))).toBe(size(x)));
  });
});

describe("divide", () => {
  const operands = fc.tuple(compactLayouts(), injectiveLayouts(16));

  test("logicalDivide is A o (tiler, rest)", () => {
    property(
      operands,
      ([x, tiler]) => {
        const result = logicalDivide(x, tiler);
        const [tile, rest] = [get(result, 0), get(result, 1)];
        expect(rank(result)).toBe(2);
        expect(compatible(tiler.shape, tile.shape)).toBe(true);
        for (let i = 0; i < size(tiler); i++) expect(crd2idx(i, tile)).toBe(crd2idx(crd2idx(i, tiler), x));
        // Each tile is the first one, moved.
        for (let j = 0; j < size(rest); j++) {
          for (let i = 0; i < size(tile); i++) {
            expect(crd2idx([i, j], result)).toBe(crd2idx(i, tile) + crd2idx(j, rest));
          }
        }
        // And together they are the layout, if they divide it.
        if (size(result) === size(x)) expect(sorted(image(result))).toEqual(sorted(image(x)));
        else expect(size(result)).toBeGreaterThan(size(x));
      },
      { runs: 500, accepted: 0.3 },
    );
  });

  const byMode = fc
    .tuple(
      compactLayouts().filter((x) => rank(x) >= 2),
      fc.constantFrom(1, 2, 3, 4),
      fc.constantFrom(1, 2, 4),
    )
    .map(([x, m, n]) => [x, [m, new Layout(n, 1)]] as const);

  test("the four groupings hold the same tiles", () => {
    property(
      byMode,
      ([x, tiler]) => {
        const [logical, zipped] = [logicalDivide(x, tiler), zippedDivide(x, tiler)];
        const [tiled, flat] = [tiledDivide(x, tiler), flatDivide(x, tiler)];
        for (const i of [0, 1]) {
          expect(equal(get(zipped, 0, i), get(logical, i, 0))).toBe(true);
          expect(equal(get(zipped, 1, i), get(logical, i, 1))).toBe(true);
        }
        expect(rank(get(zipped, 1))).toBe(rank(x));
        expect(rank(tiled)).toBe(1 + rank(x));
        expect(rank(flat)).toBe(2 + rank(x));
        expect(image(tiled)).toEqual(image(zipped));
        expect(image(flat)).toEqual(image(zipped));
      },
      { accepted: 0.3 },
    );
  });

  test("a tiled identity layout says where the elements of a tiled layout came from", () => {
    property(
      byMode,
      ([x, tiler]) => {
        const [tiles, coordinates] = [zippedDivide(x, tiler), zippedDivide(makeIdentityLayout(x.shape), tiler)];
        for (let i = 0; i < size(tiles); i++) expect(crd2idx(crd2idx(i, coordinates), x)).toBe(crd2idx(i, tiles));
      },
      { accepted: 0.3 },
    );
  });
});

describe("product", () => {
  test("logicalProduct is the block and its translates, which don't overlap", () => {
    property(
      fc.tuple(injectiveLayouts(32), injectiveLayouts(32)),
      ([block, tiler]) => {
        const result = logicalProduct(block, tiler);
        expect(equal(get(result, 0), block)).toBe(true);
        expect(compatible(tiler.shape, shape(result, 1))).toBe(true);
        const gaps = complement(block, size(block) * cosize(tiler));
        for (let j = 0; j < size(tiler); j++) {
          expect(crd2idx([0, j], result)).toBe(crd2idx(crd2idx(j, tiler), gaps));
        }
        expect(new Set(image(result)).size).toBe(size(result));
      },
      { runs: 300, accepted: 0.3 },
    );
  });

  test("the groupings hold the same blocks", () => {
    property(
      fc.tuple(
        injectiveLayouts(32).filter((x) => rank(x) >= 2),
        fc.constantFrom(1, 2, 3, 4),
        fc.constantFrom(1, 2, 4),
      ),
      ([block, m, n]) => {
        const [logical, zipped] = [logicalProduct(block, [m, n]), zippedProduct(block, [m, n])];
        for (const i of [0, 1]) expect(equal(get(zipped, 1, i), get(logical, i, 1))).toBe(true);
        expect(image(tiledProduct(block, [m, n]))).toEqual(image(zipped));
        expect(image(flatProduct(block, [m, n]))).toEqual(image(zipped));
      },
      { accepted: 0.3 },
    );
  });

  const grids = fc.tuple(
    compactLayouts(32).filter((x) => rank(x) === 2),
    compactLayouts(32).filter((x) => rank(x) === 2),
  );

  test("blockedProduct puts blocks side by side, rakedProduct interleaves them", () => {
    property(grids, ([block, tiler]) => {
      const [blocked, raked] = [blockedProduct(block, tiler), rakedProduct(block, tiler)];
      for (let i = 0; i < size(block); i++) {
        for (let j = 0; j < size(tiler); j++) {
          const [bi, bj] = idx2crd(i, [size(block, 0), size(block, 1)]) as readonly [number, number];
          const [ti, tj] = idx2crd(j, [size(tiler, 0), size(tiler, 1)]) as readonly [number, number];
          const offset = crd2idx(i, block) + size(block) * crd2idx(j, tiler);
          expect(crd2idx([bi + size(block, 0) * ti, bj + size(block, 1) * tj], blocked)).toBe(offset);
          expect(crd2idx([ti + size(tiler, 0) * bi, tj + size(tiler, 1) * bj], raked)).toBe(offset);
        }
      }
    });
  });

  test("tileToShape has the shape, and begins with the block", () => {
    property(fc.tuple(grids, fc.boolean()), ([[block, times], right]) => {
      const target: IntTuple = [0, 1].map((i) => size(block, i) * size(times, i));
      const result = tileToShape(block, target, right ? "right" : "left");
      expect([0, 1].map((i) => size(result, i))).toEqual(target);
      expect(sorted(image(result))).toEqual([...Array(product(target)).keys()]);
      for (let i = 0; i < size(block); i++) {
        const coord = idx2crd(i, [size(block, 0), size(block, 1)]);
        expect(crd2idx(coord, result)).toBe(crd2idx(i, block));
      }
    });
  });
});

describe("recast", () => {
  const factor = fc.constantFrom(1, 2, 4, 8);

  test("upcast undoes downcast", () => {
    property(
      fc.tuple(fc.oneof(compactLayouts(), composedLayouts(64)), factor),
      ([x, n]) => expect(equal(upcast(downcast(x, n), n), x)).toBe(true),
      { accepted: 0.3 },
    );
  });

  test("upcast by n keeps the groups of n offsets, downcast by n splits each offset into n", () => {
    property(
      fc.tuple(compactLayouts(), factor),
      ([x, n]) => {
        const [wide, narrow] = [upcast(x, n), downcast(x, n)];
        expect(new Set(image(wide))).toEqual(new Set(image(x).map((offset) => Math.floor(offset / n))));
        expect(new Set(image(narrow).map((offset) => Math.floor(offset / n)))).toEqual(new Set(image(x)));
        expect(equal(recastLayout(x, 8, 8 * n), wide)).toBe(true);
        expect(equal(recastLayout(x, 8 * n, 8), narrow)).toBe(true);
      },
      { accepted: 0.3 },
    );
  });

  test("upcast accepts the alignment that maxAlignment finds", () => {
    property(layouts(), (x) => void upcast(x, maxAlignment(x)), { accepted: 0.3 });
  });
});

describe("swizzles", () => {
  test("are involutions that keep blocks of 2^base together", () => {
    property(fc.tuple(swizzles, fc.nat(2 ** 40)), ([swizzle, i]) => {
      expect(applySwizzle(swizzle, applySwizzle(swizzle, i))).toBe(i);
      const block = 2 ** swizzle.base;
      expect(applySwizzle(swizzle, i) % block).toBe(i % block);
      expect(Math.floor(applySwizzle(swizzle, i) / 2 ** 12)).toBe(
        Math.floor(i / 2 ** 12 + (applySwizzle(swizzle, i) - i) / 2 ** 12),
      );
    });
  });

  test("of a swizzled layout, divide and friends rearrange the elements of the layout within", () => {
    property(
      composedLayouts(64),
      (x) => {
        const inner = x.layoutB as Layout;
        const swizzled = (layout: Layout) => image(layout).map((o) => applySwizzle(x.layoutA as Swizzle, x.offset + o));
        expect(image(x)).toEqual(swizzled(inner));
        expect(image(coalesce(x))).toEqual(image(x));
        expect(image(zippedDivide(x, 2))).toEqual(swizzled(zippedDivide(inner, 2)));
      },
      { accepted: 0.3 },
    );
  });

  test("Layout o Swizzle is Swizzle' o Layout, the same function", () => {
    const powersOfTwo = compactLayouts().filter((x) => Number.isInteger(Math.log2(size(x))));
    property(
      fc.tuple(powersOfTwo, swizzles),
      ([x, swizzle]) => {
        const result = composition(x, swizzle);
        expect(image(result)).toEqual(image(x).map((__, i) => crd2idx(applySwizzle(swizzle, i), x)));
      },
      { accepted: 0.3 },
    );
  });

  test("swizzled layouts have inverses", () => {
    const swizzled = fc
      .tuple(swizzles, fc.constantFrom("left", "right"), fc.constantFrom([8, 8], [16, 16], [32, [4, 4]], [8, 64]))
      .map(([swizzle, major, s]) => new ComposedLayout(swizzle, 0, makeLayout(s, major as "left" | "right")));
    property(
      swizzled,
      (x) => {
        const [left, right] = [leftInverse(x), rightInverse(x)];
        for (let i = 0; i < size(x); i++) expect(crd2idx(crd2idx(i, x), left)).toBe(i);
        for (let i = 0; i < size(right); i++) expect(crd2idx(crd2idx(i, right), x)).toBe(i);
      },
      { runs: 50, accepted: 0.3 },
    );
  });

  test("an offset within a swizzled layout: its left inverse takes it off again", () => {
    const x = parse("Sw<2,0,3> o 8 o (8,8):(8,1)") as ComposedLayout;
    const left = leftInverse(x);
    for (let i = 0; i < size(x); i++) expect(crd2idx(crd2idx(i, x), left)).toBe(i);
    expect(() => rightInverse(x)).toThrow("no element lies at 0");
  });
});
