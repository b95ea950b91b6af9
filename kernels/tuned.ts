/** What `npm run tune` found: for sizes and a GPU the fastest configuration. */
import h200 from "./tuned/h200.json" with { type: "json" };

export interface TunedEntry {
  /** Of the weights. */
  readonly dtype: string;
  readonly N: number;
  readonly K: number;
  /** Tokens: 1, 2, 4, 8 or 16; for more than the number before. */
  readonly M: number;
  /** As linear-space.ts writes it. */
  readonly choice: string;
  /** In a PDL chain with cold weights. */
  readonly us: number;
}

/** As `npm run tune` writes it. */
export interface TunedTable {
  /** As `cuda.device` says it, e.g. "NVIDIA H200 (sm_90, driver 580.1)". */
  readonly device: string;
  readonly date: string;
  readonly entries: readonly TunedEntry[];
}

const tables: readonly TunedTable[] = [h200];

/** Of this GPU, or else that of the H200. */
export function tableFor(device = ""): readonly TunedEntry[] {
  const model = (name: string) => name.split(" (")[0];
  const own = tables.find((table) => model(table.device) === model(device));
  return (own ?? h200).entries;
}
