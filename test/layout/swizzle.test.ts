/** A swizzle and its two masks: which bits it reads, which it changes. */
import { describe, expect, test } from "vitest";
import { applySwizzle, makeSwizzle, Swizzle } from "../../dsl/layout/index.ts";
import { sourceMask, targetMask } from "../../dsl/layout/swizzle.ts";

const all = [1, 2, 3].flatMap((bits) =>
  [0, 1, 4].flatMap((base) =>
    [-5, -3, 3, 4].filter((shift) => Math.abs(shift) >= bits).map((shift) => new Swizzle(bits, base, shift)),
  ),
);

describe.each(all.map((swizzle) => [String(swizzle), swizzle] as const))("%s", (_, swizzle) => {
  const [source, target] = [sourceMask(swizzle), targetMask(swizzle)];

  test("changes the bits of its target, by those of its source alone", () => {
    expect(source & target).toBe(0);
    for (let offset = 0; offset < 2 ** 12; offset++) {
      const changed = offset ^ applySwizzle(swizzle, offset);
      expect(changed & ~target).toBe(0);
      expect(applySwizzle(swizzle, offset & source) & target).toBe(changed);
    }
    // Every bit of the source counts.
    for (let bit = 1; bit <= source; bit *= 2) {
      if (source & bit) expect(applySwizzle(swizzle, bit)).not.toBe(bit);
    }
  });

  test("is what makeSwizzle finds for these masks", () => {
    expect(String(makeSwizzle(source, target))).toBe(String(swizzle));
  });
});
