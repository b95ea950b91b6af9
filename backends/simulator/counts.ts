/**
 * Counts: what a kernel asks of the machine, line by line. All are of warps' instructions: 32 lanes that load together are one
 * request. Tensors are taken to begin at multiples of 32 bytes, shared memory at bank 0.
 */
import type { Location } from "../../dsl/source.ts";
import type { Findings } from "./findings.ts";

const names = [
  "globalLoads",
  "globalLoadBytes",
  "globalLoadSectors",
  "globalStores",
  "globalStoreBytes",
  "globalStoreSectors",
  "sharedRequests",
  "sharedBytes",
  "bankConflicts",
  "atomics",
  "shuffles",
  "barriers",
  "mmas",
  "flops",
] as const;
type CountName = (typeof names)[number];

/**
 * Requests, bytes that lanes asked for, sectors of 32 bytes that these lie in; of shared memory the passes beyond those that
 * the width alone needs (`bankConflicts`); lanes of atomics; shuffles and reductions; waits at barriers of any kind; mma and
 * wgmma instructions; f32 operations of dot, fma and arithmetic, and multiplications and additions of mma.
 */
export type Counts = { readonly [N in CountName]: number };

export interface LineCounts extends Counts {
  readonly at: Location;
}

export interface KernelCounts {
  readonly total: Counts;
  /** By `file:line`. */
  readonly lines: ReadonlyMap<string, LineCounts>;
}

export class Counters {
  private readonly findings: Findings;
  private readonly rows: Float64Array[] = [];
  private readonly units = new Float64Array(256);
  private readonly banks = new Int32Array(32);

  constructor(findings: Findings) {
    this.findings = findings;
  }

  add(site: number, name: CountName, count: number): void {
    const row = (this.rows[site] ??= new Float64Array(names.length));
    const column = names.indexOf(name);
    row[column] = (row[column] ?? 0) + count;
  }

  /** One request: `bytes` from `offsets[lane] * elementBytes` on, for each lane of `mask`. */
  global(
    site: number,
    what: "Load" | "Store",
    offsets: Float64Array,
    mask: number,
    elementBytes: number,
    bytes: number,
  ) {
    if (mask === 0) return;
    let [used, lanes] = [0, 0];
    for (let lane = 0; lane < 32; lane++) {
      if (((mask >>> lane) & 1) === 0) continue;
      lanes++;
      const begin = (offsets[lane] ?? 0) * elementBytes;
      const last = Math.floor((begin + bytes - 1) / 32);
      for (let sector = Math.floor(begin / 32); sector <= last; sector++) used = this.take(sector, used);
    }
    this.transfer(site, what, lanes * bytes, used);
  }

  transfer(site: number, what: "Load" | "Store", bytes: number, sectors: number): void {
    this.add(site, `global${what}s`, 1);
    this.add(site, `global${what}Bytes`, bytes);
    this.add(site, `global${what}Sectors`, sectors);
  }

  /** One request to shared memory. Words of 4 bytes lie in 32 banks; 8 or 16 bytes a lane take two or four passes. */
  shared(site: number, offsets: Float64Array, mask: number, elementBytes: number, bytes: number): void {
    if (mask === 0) return;
    const perPass = bytes <= 4 ? 32 : 128 / bytes;
    let [passes, needed, lanes] = [0, 0, 0];
    for (let first = 0; first < 32; first += perPass) {
      let used = 0;
      this.banks.fill(0);
      for (let lane = first; lane < first + perPass; lane++) {
        if (((mask >>> lane) & 1) === 0) continue;
        lanes++;
        const begin = Math.floor(((offsets[lane] ?? 0) * elementBytes) / 4);
        for (let word = begin; word < begin + Math.max(1, bytes / 4); word++) {
          const before = used;
          used = this.take(word, used);
          if (used > before) this.banks[word & 31] = (this.banks[word & 31] ?? 0) + 1;
        }
      }
      if (used > 0) needed++;
      let most = 0;
      for (const count of this.banks) if (count > most) most = count;
      passes += most;
    }
    this.add(site, "sharedRequests", 1);
    this.add(site, "sharedBytes", lanes * bytes);
    this.add(site, "bankConflicts", passes - needed);
  }

  /** Adds to the units of a request what isn't among them yet. */
  private take(unit: number, used: number): number {
    for (let i = used - 1; i >= 0; i--) if (this.units[i] === unit) return used;
    this.units[used] = unit;
    return used + 1;
  }

  get result(): KernelCounts {
    const total = new Float64Array(names.length);
    const lines = new Map<string, { readonly at: Location; readonly row: Float64Array }>();
    this.rows.forEach((row, site) => {
      const at = this.findings.sites.at(site);
      const key = `${at.file}:${at.line}`;
      const line = lines.get(key) ?? { at, row: new Float64Array(names.length) };
      lines.set(key, line);
      row.forEach((count, i) => {
        total[i] = (total[i] ?? 0) + count;
        line.row[i] = (line.row[i] ?? 0) + count;
      });
    });
    return {
      total: named(total),
      lines: new Map([...lines].map(([key, { at, row }]) => [key, { at, ...named(row) }])),
    };
  }
}

function named(row: Float64Array): Counts {
  return Object.fromEntries(names.map((name, i) => [name, row[i] ?? 0])) as Counts;
}
