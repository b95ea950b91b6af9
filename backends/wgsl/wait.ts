/**
 * Waiting without taking the processor from the work waited for. Dawn's Node module polls in a busy loop while a promise of
 * its own is pending; SwiftShader and lavapipe need that core (measured on 2 cores: 2.6 s of shaders took 1.7 s with naps).
 */

const longestNapMs = 1;
const cell = new Int32Array(new SharedArrayBuffer(4));
let waiting = 0;
let since = 0;
/** Whether the next nap is on its way: one after the other, however many wait. */
let isNapping = false;

/** Awaits `work`; meanwhile the main thread sleeps for a tenth of the time waited so far, at most 1 ms at a time. */
export async function waitNapping<T>(work: Promise<T>): Promise<T> {
  if (waiting++ === 0) since = performance.now();
  if (!isNapping) nap();
  try {
    return await work;
  } finally {
    waiting--;
  }
}

function nap(): void {
  isNapping = waiting > 0;
  if (!isNapping) return;
  const durationMs = Math.min((performance.now() - since) / 10, longestNapMs);
  if (durationMs > 0.02) Atomics.wait(cell, 0, 0, durationMs);
  setImmediate(nap).unref();
}
