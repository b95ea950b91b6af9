/** Series of times, taken in turns so that what disturbs one disturbs all. */

/** Of a series, in microseconds a launch. */
export interface Quantiles {
  readonly p5: number;
  readonly median: number;
  readonly p95: number;
}

export function quantiles(times: readonly number[]): Quantiles {
  const sorted = times.toSorted((a, b) => a - b);
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? NaN;
  return { p5: at(0.05), median: at(0.5), p95: at(0.95) };
}

/** A moment of the device's time. */
export interface Mark extends Disposable {
  elapsedUs(since: Mark): Promise<number>;
}

/** What can be repeated: a graph of `launches` launches. */
export interface Repeatable {
  readonly launches: number;
  /** Enqueues a replay. */
  launch(): void;
  /** The moment when all replays so far are done. */
  record(): Mark;
}

/** Rounds that are enqueued at once: between them the device waits for the host. */
const roundsAtOnce = 10;

/**
 * Replays each graph `replays` times, one after the other in every round. What is timed never begins on an idle device: it
 * lasts from the end of the replay before to its own.
 * @returns microseconds per launch of each, in the order of `graphs`
 */
export async function interleaved(graphs: readonly Repeatable[], replays: number): Promise<readonly Quantiles[]> {
  const times = graphs.map((): number[] => []);
  for (let done = 0; done < replays; done += roundsAtOnce) {
    for (const graph of graphs) graph.launch();
    const marks = graphs.slice(0, 1).map((graph) => graph.record());
    try {
      const order = Array.from({ length: Math.min(roundsAtOnce, replays - done) }, () => graphs).flat();
      for (const graph of order) {
        graph.launch();
        marks.push(graph.record());
      }
      for (const [i, { launches }] of order.entries()) {
        const [before, after] = marks.slice(i, i + 2);
        if (before && after) times[i % graphs.length]?.push((await after.elapsedUs(before)) / launches);
      }
    } finally {
      for (const mark of marks) mark[Symbol.dispose]();
    }
  }
  return times.map(quantiles);
}

export function geometricMean(values: readonly number[]): number {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}
