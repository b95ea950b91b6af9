/** Barriers wait for the last of their threads, however late it comes. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../backends/backend.ts";
import { run } from "../backends/run.ts";
import { i32, kernel, output } from "../dsl/index.ts";
import { devices } from "./harness.ts";

const rounds = 5;

/** Warp 1 passes through many waits of its own before it stores and arrives; warps 0 and 2 wait for what it stored. */
const late = kernel({ name: "late", grid: 1, block: 96, params: { y: output(i32, [rounds, 64]) } }, (t) => {
  const { y } = t.pdl.wait();
  const box = t.shared(i32, [64]);
  const stored = t.mbarrier(1, 96);
  const read = t.mbarrier(1, 64);
  const own = t.mbarrier(1, 32);
  for (const i of t.range(rounds)) {
    t.when(
      t.warp.eq(1),
      () => {
        for (const turn of t.range(4)) {
          own.arrive(0);
          own.wait(0, i.mul(4).add(turn).and(1));
        }
        for (const half of [0, 32]) box.store([t.lane.add(half)], i.mul(1000).add(t.lane).add(half));
        stored.arrive(0);
        stored.wait(0, i.and(1));
        read.wait(0, i.and(1));
      },
      () => {
        stored.arrive(0);
        stored.wait(0, i.and(1));
        const place = t.warp.div(2).mul(32).add(t.lane);
        y.store([i, place], box.load([place]));
        read.arrive(0);
      },
    );
  }
});

describe.each(devices)("on $name", ({ missing, open }) => {
  let backend: Backend;
  beforeAll(async () => {
    if (!missing) backend = await open();
  });
  afterAll(() => backend?.dispose());

  test.skipIf(missing)("a phase ends with the last arrival", async () => {
    const { y } = await run(backend, late, {});
    expect([...y.values()]).toEqual(
      Array.from({ length: rounds * 64 }, (_, i) => Math.floor(i / 64) * 1000 + (i % 64)),
    );
  });
});
