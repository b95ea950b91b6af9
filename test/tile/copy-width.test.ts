/** How wide a copy is: as wide as is proved of where the tile begins, and no wider; elements come to their places. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../../backends/backend.ts";
import { run } from "../../backends/run.ts";
import { bf16, HostTensor, input, kernel, output } from "../../dsl/index.ts";
import { makeLayout } from "../../dsl/layout/index.ts";
import { devices } from "../harness.ts";

const columns = 64;

/** Each of 8 blocks copies 16 columns from `step` * block on; `bytes`: of one access. */
function shifted(step: number) {
  let bytes = 0;
  const params = {
    x: input(bf16, [4, columns], { alignBytes: 16 }),
    y: output(bf16, [8, 4, 16], { alignBytes: 16 }),
  };
  const copy = kernel({ name: `shifted_by_${step}`, grid: 8, block: 32, params }, (t) => {
    const { x, y } = t.pdl.wait();
    const from = x.tile([1, step], [t.lane.rem(4), t.block.x]);
    const to = y.tile([1, 1, step], [t.block.x, t.lane.rem(4), 0]);
    const rX = t.fragment(from);
    bytes = t.copy(from, rX).bytes;
    for (let i = 0; i < step; i++) {
      const [, , column = 0] = to.coordinate([0, 0, i]);
      y.store([t.block.x, t.lane.rem(4), column], rX.get(i));
    }
  });
  return { copy, bytes };
}

test.each([
  [1, 2],
  [2, 4],
  [3, 2],
  [4, 8],
  [6, 4],
  [8, 16],
])("a tile of %i elements that begins at a multiple of them is read by %i bytes", (step, bytes) => {
  expect(shifted(step).bytes).toBe(bytes);
});

/** Threads take 8 neighbours each, from every `step`-th element on. */
test.each([
  [1, 2],
  [2, 4],
  [4, 8],
  [8, 16],
])("8 neighbours from every element %i on are read by %i bytes", (step, bytes) => {
  const params = { x: input(bf16, [4, columns], { alignBytes: 16 }), y: output(bf16, [32, 8], { alignBytes: 16 }) };
  kernel({ name: "overlapping", grid: 1, block: 32, params }, (t) => {
    const { x, y } = t.pdl.wait();
    const from = x.tile([1, 32], [0, 0]).partition(makeLayout([4, 8], [step, 1]), t.lane.rem(4));
    const rX = t.fragment(from);
    const plan = t.copy(from, rX);
    expect(plan.bytes).toBe(bytes);
    if (step < 8) expect(plan.explain()).toContain(`index 1 of x is only known to be a multiple of ${step}`);
    for (let i = 0; i < 8; i++) y.store([t.lane, i], rX.get(i));
  });
});

describe.each(devices)("on $name", ({ missing, open }) => {
  let backend: Backend;
  beforeAll(async () => {
    if (!missing) backend = await open();
  });
  afterAll(() => backend?.dispose());

  test.skipIf(missing).each([1, 2, 3, 4, 6, 8])("tiles of %i elements are those of the tensor", async (step) => {
    const x = HostTensor.from(
      bf16,
      [4, columns],
      Array.from({ length: 4 * columns }, (_, i) => i % 251),
    );
    const { y } = await run(backend, shifted(step).copy, { x, y: HostTensor.filled(bf16, [8, 4, 16], 0) });
    const [given, result] = [x.values(), y.values()];
    for (let i = 0; i < result.length; i++) {
      const [block, row, column] = [Math.floor(i / 64), Math.floor(i / 16) % 4, i % 16];
      expect(result[i]).toBe(column < step ? given[row * columns + block * step + column] : 0);
    }
  });
});
