/** Sizes known at launch: each has one value, whichever tensors it is taken from, and the grid covers all of it. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../backends/backend.ts";
import { run } from "../backends/run.ts";
import { ArgumentError, ceilDiv, floorDiv, HostTensor, i32, input, kernel, output, size } from "../dsl/index.ts";
import { devices } from "./harness.ts";

const N = size("N", { max: 1000 });
const params = { a: input(i32, [N]), b: input(i32, [2, N]), y: output(i32, [N]) };

/** The sum of a and both rows of b; the grid has one block for 32 of them, rounded up. */
const sums = kernel({ name: "sums", grid: ceilDiv(N, 32), block: 32, params }, (t) => {
  const { a, b, y } = t.pdl.wait();
  const i = t.block.x.mul(32).add(t.lane);
  t.when(i.lt(N), () =>
    y.store(
      [i],
      a
        .load([i])
        .add(b.load([0, i]))
        .add(b.load([1, i])),
    ),
  );
});

/** The same but for what is left over. */
const whole = kernel({ name: "whole", grid: floorDiv(N, 32), block: 32, params }, (t) => {
  const { a, y } = t.pdl.wait();
  const i = t.block.x.mul(32).add(t.lane);
  y.store([i], a.load([i]));
});

const counting = (...shape: readonly number[]): HostTensor<"i32"> =>
  HostTensor.from(
    i32,
    shape,
    Array.from({ length: shape.reduce((x, y) => x * y, 1) }, (_, i) => i),
  );

describe.each(devices)("on $name", ({ missing, open }) => {
  let backend: Backend;
  beforeAll(async () => {
    if (!missing) backend = await open();
  });
  afterAll(() => backend?.dispose());

  test.skipIf(missing).each([1, 31, 32, 33, 95, 96, 97])("%i elements are all there", async (n) => {
    const args = { a: counting(n), b: counting(2, n), y: HostTensor.filled(i32, [n], 0xff) };
    const { y } = await run(backend, sums, args);
    expect([...y.values()]).toEqual(Array.from({ length: n }, (_, i) => 3 * i + n));
    if (n < 32) return;
    const rounded = await run(backend, whole, args);
    expect([...rounded.y.values()]).toEqual(Array.from({ length: n }, (_, i) => (i < n - (n % 32) ? i : -1)));
  });

  test.skipIf(missing).each([
    [8, 9, 8, "the size N is 8 in a and 9 in b"],
    [9, 8, 9, "the size N is 9 in a and 8 in b"],
    [8, 8, 7, "the size N is 8 in a and 7 in y"],
    [8, 8, 9, "the size N is 8 in a and 9 in y"],
  ])("of %i, %i and %i elements it would have two values", async (a, b, y, says) => {
    const args = { a: counting(a), b: counting(2, b), y: HostTensor.filled(i32, [y], 0) };
    const refused = run(backend, sums, args);
    await expect(refused).rejects.toThrow(ArgumentError);
    await expect(refused).rejects.toThrow(`sums: ${says}`);
  });
});
