/**
 * Findings: what a kernel did that its author can't have meant, with the TypeScript lines of both parties. One finding for
 * each pair of lines, however often it happened.
 */
import { formatLocation } from "../../dsl/errors.ts";
import type { Location } from "../../dsl/source.ts";

export type FindingKind =
  /** An index outside of a tensor, shared memory, a register array, the cluster, or an array of mbarriers. */
  | "out-of-bounds"
  /** A vector access, matrix row or copy that isn't aligned to its size. */
  | "misaligned"
  /** A read of registers or memory that nobody wrote. */
  | "uninitialised"
  /** Two accesses to one element, one of them a write, that nothing orders. */
  | "race"
  /** Use of what an asynchronous copy or wgmma still reads or writes; a fence that is missing; an operation nobody waits for. */
  | "in-flight"
  /** A barrier or warp-wide operation that not all its threads came to, or came to at different lines. */
  | "divergence"
  /** Warps that wait for ever. The simulation ends here. */
  | "deadlock"
  /** An access to a tensor that the kernel before may still be writing. */
  | "early-access"
  /** A store to global memory while the kernel before may still be running. */
  | "early-store"
  /** Shared memory of another block, before that is certain to have started or after it may have ended. */
  | "lifetime"
  /** An mbarrier that is arrived at more often than its phase allows. */
  | "arrivals";

export interface Finding {
  readonly kind: FindingKind;
  /** One sentence. */
  readonly message: string;
  readonly at: Location;
  /** The other party's line, where there are two. */
  readonly other: { readonly what: string; readonly at: Location } | undefined;
  /** What to write, where one thing is most likely missing. */
  readonly hint: string | undefined;
  /** Where it happened first: block along x, y, z, warp of the block, lane of the warp. */
  readonly block: readonly [x: number, y: number, z: number];
  readonly warp: number;
  readonly lane: number;
  /** How often it happened, lane by lane. */
  readonly count: number;
}

/** Elements of an output tensor that nobody wrote: perhaps meant so, perhaps not. */
export interface Unwritten {
  readonly tensor: string;
  readonly count: number;
  /** Index of the first, in row-major order. */
  readonly first: readonly number[];
  /** Where the tensor was declared. */
  readonly at: Location;
}

/** For people: the sentence, then each line. */
export function formatFinding({ kind, message, at, other, hint, block, warp, lane, count }: Finding): string {
  const lines = [`${kind}: ${message}`, `  at ${formatLocation(at)}`];
  if (other) lines.push(`  ${other.what} at ${formatLocation(other.at)}`);
  if (hint) lines.push(`  ${hint}`);
  lines.push(`  first in block [${block.join(", ")}], warp ${warp}, lane ${lane}; ${count} times in all`);
  return lines.join("\n");
}

/** Lines of the kernel by number, so that shadow memory can name them in one word. */
export class Sites {
  readonly locations: Location[] = [];
  private readonly numbers = new Map<string, number>();

  of(at: Location): number {
    const key = formatLocation(at);
    let site = this.numbers.get(key);
    if (site === undefined) {
      site = this.locations.push(at) - 1;
      this.numbers.set(key, site);
    }
    return site;
  }

  at(site: number): Location {
    const location = this.locations[site];
    if (!location) throw new RangeError(`there is no site ${site}`);
    return location;
  }
}

/** Where in the grid something happens. */
export interface Place {
  readonly block: { readonly coordinates: readonly [number, number, number] };
  readonly index: number;
}

/** The other party of a finding. */
export type Other = Finding["other"];

/** Where something was made. */
export const made = ({ name, at }: { readonly name: string; readonly at: Location }): Other => ({
  what: `${name} was made`,
  at,
});

export class Findings {
  readonly sites = new Sites();
  private readonly found = new Map<string, Finding>();

  /** `message` is asked for the first of a pair of lines only. */
  add(
    { block: { coordinates: block }, index: warp }: Place,
    kind: FindingKind,
    site: number,
    lane: number,
    message: () => string,
    other?: Other,
    hint?: string,
  ): void {
    const key = `${kind} ${site} ${other ? formatLocation(other.at) : ""}`;
    const before = this.found.get(key);
    const made = before ?? {
      kind,
      message: message(),
      at: this.sites.at(site),
      other,
      hint,
      block,
      warp,
      lane,
      count: 0,
    };
    this.found.set(key, { ...made, count: made.count + 1 });
  }

  /** The other party, by its line. */
  line(what: string, site: number): Other {
    return { what, at: this.sites.at(site) };
  }

  /** In the order in which they were found; what only follows from a race comes after all others. */
  get list(): readonly Finding[] {
    const all = [...this.found.values()];
    const races = all.filter(({ kind }) => kind === "race");
    // What is read too early may not be written yet, or be written too late.
    const follows = ({ kind, at, other }: Finding): boolean =>
      races.some((race) =>
        kind === "race"
          ? other?.what === "it was read" && race.at === other.at && race.other?.at === at
          : kind === "uninitialised" && race.at === at,
      );
    return [...all.filter((finding) => !follows(finding)), ...all.filter(follows)];
  }
}

/** An element's index from its number in row-major order. */
export function unravel(offset: number, dims: readonly number[]): readonly number[] {
  const index: number[] = [];
  for (const dim of dims.toReversed()) {
    index.unshift(offset % dim);
    offset = Math.floor(offset / dim);
  }
  return index;
}
