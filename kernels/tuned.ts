/** What `npm run tune` found: for sizes and a GPU the fastest configuration. */
import { ArgumentError } from "../dsl/index.ts";
import { describe } from "../dsl/check.ts";
import type { Location } from "../dsl/source.ts";
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
export function tableOf(device = ""): TunedTable {
  const model = (name: string) => name.split(" (")[0];
  return tables.find((table) => model(table.device) === model(device)) ?? h200;
}

/** What is in there. */
export function tableFor(device?: string): readonly TunedEntry[] {
  return tableOf(device).entries;
}

/** For tables that come from elsewhere. @throws ArgumentError */
export function requireTable(table: unknown, at: Location): void {
  const { device, entries }: Partial<TunedTable> = typeof table === "object" && table !== null ? table : {};
  const isTable = typeof device === "string" && Array.isArray(entries);
  const strange = isTable ? entries.findIndex((entry) => !isEntry(entry)) : -1;
  if (isTable && strange < 0) return;
  const what = isTable ? `entry ${strange} is none` : `not ${describe(table)}`;
  throw new ArgumentError(`A table is what npm run tune wrote, ${what}`, {
    at,
    hint: 'npm run tune -- --table mine.json; then table: JSON.parse(readFileSync("mine.json", "utf8"))',
  });
}

function isEntry(entry: unknown): boolean {
  if (typeof entry !== "object" || entry === null) return false;
  const { dtype, N, K, M, choice }: { readonly [key in keyof TunedEntry]?: unknown } = entry;
  const counts = [N, K, M].every((count) => Number.isInteger(count) && Number(count) >= 1);
  const isChoice = typeof choice === "string" && /^(dot|mma|stream)( [a-zA-Z]+=\d+)*$/.test(choice);
  return counts && typeof dtype === "string" && isChoice;
}
