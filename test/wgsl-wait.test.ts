/** Waiting for Dawn: however many waits follow each other, the main thread takes one nap at a time. */
import { setTimeout } from "node:timers/promises";
import { afterEach, expect, test, vi } from "vitest";
import { waitNapping } from "../backends/wgsl/wait.ts";

afterEach(() => void vi.restoreAllMocks());

test("waits that end at once leave no naps behind", async () => {
  const immediates = vi.spyOn(globalThis, "setImmediate");
  for (let i = 0; i < 100; i++) expect(await waitNapping(Promise.resolve(i))).toBe(i);
  expect(immediates.mock.calls.length).toBeLessThanOrEqual(1);
});

test("a long wait is napped through, and the next one, too", async () => {
  const naps = vi.spyOn(Atomics, "wait");
  for (let i = 0; i < 2; i++) {
    naps.mockClear();
    let hasEnded = false;
    const work = setTimeout(30).then(() => (hasEnded = true));
    // As Dawn does: it keeps the event loop turning.
    const turn = (): void => void (hasEnded || setImmediate(turn));
    turn();
    await waitNapping(work);
    expect(naps.mock.calls.length).toBeGreaterThan(3);
    for (const [, , , durationMs] of naps.mock.calls) expect(durationMs).toBeLessThanOrEqual(1);
  }
});

test("what is waited for may fail", async () => {
  await expect(waitNapping(Promise.reject(new RangeError("no")))).rejects.toThrow("no");
});
