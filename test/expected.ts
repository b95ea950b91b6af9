/**
 * How many tests a complete `npm test` must come to. Fewer, or more that are skipped, fail the run: tests that are gone find
 * nothing. Raise the numbers when tests are added; a new skip needs a reason.
 */
export type Missing = "GPU" | "nvcc";

export interface Expected {
  /** Tests that run, at least, where nothing but a GPU is missing. */
  readonly ran: number;
  /** Tests that are skipped, at most, for want of something; and for nothing: too slow for a device, or not meant for it. */
  readonly skipped: { readonly [M in Missing | "nothing"]: number };
}

export const expected: Expected = { ran: 3500, skipped: { GPU: 550, nvcc: 60, nothing: 30 } };

/** What a complete run is short of, in sentences. `missing`: what is not on this machine. */
export function shortfalls(
  { ran, skipped }: { readonly ran: number; readonly skipped: number },
  { ran: least, skipped: reasons }: Expected,
  missing: readonly Missing[],
): readonly string[] {
  const wanted = missing.includes("nvcc") ? least - reasons.nvcc : least;
  const most = missing.reduce((sum, what) => sum + reasons[what], reasons.nothing);
  const without = missing.length > 0 ? ` without ${missing.join(" and ")}` : "";
  const complaints: string[] = [];
  if (ran < wanted) complaints.push(`Only ${ran} tests ran, ${wanted} are expected; see test/expected.ts`);
  if (skipped > most) {
    complaints.push(`${skipped} tests were skipped, ${most} may be${without}; see test/expected.ts`);
  }
  return complaints;
}
