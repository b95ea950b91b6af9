/** Where the verifier draws the line: the last access that fits and the first that doesn't, what is uniform and what just not. */
import { describe, expect, test } from "vitest";
import {
  DivergenceError,
  f32,
  frozen,
  i32,
  input,
  kernel,
  OutOfBoundsError,
  output,
  type Thread,
} from "../dsl/index.ts";
import { caught } from "./mistake.ts";

describe("a vector", () => {
  test.each([
    [2, 66],
    [2, 67],
    [4, 66],
    [4, 67],
    [4, 68],
  ] as const)("of %i elements ends within the %i that there are", (lanes, count) => {
    const at = (first: number) =>
      caught(() => {
        const params = { x: input(f32, [count], { alignBytes: 16 }), y: output(f32, [3, count], { alignBytes: 16 }) };
        kernel({ name: "reads", grid: 1, block: 32, params }, (t) => {
          const { x, y } = t.pdl.wait();
          y.store([0, 0], x.loadVec([first], lanes).lane(0));
        });
      });
    for (let first = 0; first < count + 4; first += lanes) {
      const error = at(first);
      if (first + lanes <= count) expect(error, `from ${first}`).toBeUndefined();
      else expect(error, `from ${first}`).toBeInstanceOf(OutOfBoundsError);
    }
  });

  test("in rows ends within its row, for stores and run-time indices too", () => {
    const write = (columns: number, last: number) =>
      caught(() => {
        const params = { y: output(f32, [4, columns], { alignBytes: 16 }) };
        kernel({ name: "writes", grid: 1, block: 32, params }, (t) => {
          const { y } = t.pdl.wait();
          y.storeVec([t.lane.rem(4), t.lane.min(last).mul(4)], t.pack(...[0, 1, 2, 3].map((x) => t.const(f32, x))));
        });
      });
    expect(write(128, 31)).toBeUndefined();
    expect(write(124, 30)).toBeUndefined();
    expect(write(124, 31)).toBeInstanceOf(OutOfBoundsError);
  });
});

describe("a register that decides about a barrier", () => {
  type Flag = { set(value: number): void };
  /** Sets a flag under some control flow, then meets at a barrier where the flag is 1. */
  const decided = (write: (t: Thread, flag: Flag) => void) =>
    caught(() => {
      const params = { w: frozen(i32, [4]), y: output(i32, [64]) };
      kernel({ name: "decides", grid: 2, block: 64, params }, (t) => {
        const { y } = t.pdl.wait();
        const flag = t.reg(i32, 0);
        write(t as unknown as Thread, flag as unknown as Flag);
        t.when(flag.get().eq(1), () => t.barrier());
        y.store([t.thread], 0);
      });
    });

  test.each<[string, (t: Thread, flag: Flag) => void]>([
    ["by all", (_, flag) => flag.set(1)],
    ["by whole blocks", (t, flag) => t.when(t.block.x.eq(0), () => flag.set(1))],
    ["in a loop of all", (t, flag) => { for (const i of t.range(3)) t.when(i.eq(2), () => flag.set(1)); }], // prettier-ignore
  ])("may be set %s", (_, write) => expect(decided(write)).toBeUndefined());

  test.each<[string, (t: Thread, flag: Flag) => void]>([
    ["by some lanes", (t, flag) => t.when(t.lane.lt(5), () => flag.set(1))],
    ["by one warp", (t, flag) => t.when(t.warp.eq(1), () => flag.set(1))],
    ["by those who are not some lanes", (t, flag) => t.when(t.lane.lt(5), () => undefined, () => flag.set(1))], // prettier-ignore
    ["in a loop of different lengths", (t, flag) => { for (const _ of t.range(t.lane)) flag.set(1); }], // prettier-ignore
    ["within both", (t, flag) => t.when(t.block.x.eq(0), () => t.when(t.thread.gt(3), () => flag.set(1)))],
  ])("can't be set %s", (_, write) => expect(decided(write)).toBeInstanceOf(DivergenceError));
});
