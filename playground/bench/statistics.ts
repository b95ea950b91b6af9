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

/** What can be repeated: a graph of `launches` launches. */
export interface Repeatable {
  readonly launches: number;
  timeUs(replays: number): Promise<number>;
}

/**
 * Replays each graph `replays` times, one after the other in every round.
 * @returns microseconds per launch of each, in the order of `graphs`
 */
export async function interleaved(graphs: readonly Repeatable[], replays: number): Promise<readonly Quantiles[]> {
  const times = graphs.map((): number[] => []);
  for (let round = -2; round < replays; round++) {
    for (const [i, graph] of graphs.entries()) {
      const us = (await graph.timeUs(1)) / graph.launches;
      if (round >= 0) times[i]?.push(us); // two rounds to warm up
    }
  }
  return times.map(quantiles);
}

export function geometricMean(values: readonly number[]): number {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}
