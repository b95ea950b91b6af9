/** Much work on WGSL leaves nothing behind in JavaScript's memory; `npm run soak -- --device wgsl` does more of it, and sees all. */
import { expect, it } from "vitest";
import { soak } from "../playground/soak/rounds.ts";

/** What a process may grow by for other reasons, and 20 bytes a round. */
const flatBytes = 2 ** 20;

it("launches, uploads, programs and backends grow no heap", async () => {
  const results = await soak({ launches: 10_000, uploads: 500, programs: 100, backends: 10 }, undefined, "wgsl");
  expect(results.map(({ what }) => what)).toEqual(["launches", "uploads", "programs", "backends"]);
  for (const { what, rounds, before, after } of results) {
    expect(after.heap - before.heap, `${rounds} ${what}`).toBeLessThan(flatBytes + 20 * rounds);
  }
});
