/** What people read of a run: a table in the terminal, a summary, and the README's table. */
import { type Case, peers, tokenCounts } from "./cases.ts";
import type { Cell, Limits } from "./measure.ts";
import { geometricMean } from "./statistics.ts";

/** A whole run, as it is written to a file. */
export interface Run {
  readonly date: string;
  readonly device: string;
  readonly cublasLt: string;
  readonly revision: string;
  readonly replays: number;
  readonly limits: Limits;
  readonly cells: readonly Cell[];
  /** Cells without a time, and why. */
  readonly failures: readonly string[];
}

/** The shortest time that the bytes and the launch allow. */
export function floorUs({ bytes }: Pick<Cell, "bytes">, { streamBytesPerUs, emptyUs }: Limits): number {
  return Math.max(bytes / streamBytesPerUs, emptyUs);
}

/** How often ours fits into another's time. */
function ratio({ ours }: Cell, other: { readonly median: number } | undefined): number | undefined {
  return other && other.median / ours.median;
}

const headings = [
  ...["N", "K", "in", "out", "M", "kernel", "us", "p5", "p95", "no PDL", "hot", "noise"],
  ...["GB/s", "of stream", "floor", "cuBLAS", "x", "best of 8", "x", "peer's x", "where"],
] as const;

function fields(cell: Cell, limits: Limits): readonly string[] {
  const { N, K, M, dtype, out, kernel, ours, oursHot, oursWithoutPdl, noise, bytes, cublas, cublasBest, where } = cell;
  const us = (value: number | undefined): string => (value === undefined ? "-" : value.toFixed(2));
  const percent = (share: number): string => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
  const peer = peers().get([dtype, N, K, M].join());
  return [
    ...[N, K, dtype, out, M, kernel.split(" ")[0] ?? ""].map(String),
    ...[ours.median, ours.p5, ours.p95, oursWithoutPdl.median, oursHot.median].map(us),
    percent(noise),
    (bytes / ours.median / 1000).toFixed(0),
    percent(bytes / ours.median / limits.streamBytesPerUs),
    us(floorUs(cell, limits)),
    ...[cublas?.median, ratio(cell, cublas), cublasBest?.median, ratio(cell, cublasBest), peer?.ratio].map(us),
    where,
  ];
}

/** One line a cell, right-aligned. */
export function table({ cells, limits }: Pick<Run, "cells" | "limits">): string {
  const rows = [headings, ...cells.map((cell) => fields(cell, limits))];
  const widths = headings.map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
  const last = headings.length - 1;
  return rows
    .map((row) => row.map((text, i) => (i === last ? text : text.padStart(widths[i] ?? 0))).join("  "))
    .join("\n");
}

/** Geometric mean over those cells that have it. */
function meanOf(cells: readonly Cell[], of: (cell: Cell) => number | undefined): string {
  const values = cells.map(of).filter((value) => value !== undefined);
  return values.length > 0 ? `${geometricMean(values).toFixed(2)}x (${values.length} cells)` : "none";
}

/** Nothing is said of differences below twice the noise. */
function slowerThanBest(cells: readonly Cell[]): readonly Cell[] {
  return cells.filter((cell) => (ratio(cell, cell.cublasBest) ?? 1) < 1 - 2 * cell.noise);
}

/** Ours to cuBLASLt's first choice, beside what the best hand-written peer has. */
function againstPeer(cell: Cell): number | undefined {
  const peer = peers().get([cell.dtype, cell.N, cell.K, cell.M].join());
  const own = ratio(cell, cell.cublas);
  return peer && own && own / peer.ratio;
}

/** A few lines: limits, means over all cells, and where ours is slower. */
export function summary({ cells, limits, failures }: Run): string {
  const mean = (of: (cell: Cell) => number | undefined): string => meanOf(cells, of);
  const slower = slowerThanBest(cells);
  return [
    `stream read ${(limits.streamBytesPerUs / 1e6).toFixed(2)} TB/s; an empty kernel ${limits.emptyUs.toFixed(2)} us in a chain, ` +
      `${limits.emptyWithoutPdlUs.toFixed(2)} without PDL`,
    `ours, the fastest of the families tried, beside cuBLASLt's first choice: ${mean((cell) => ratio(cell, cell.cublas))}`,
    `beside the best of its first 8: ${mean((cell) => ratio(cell, cell.cublasBest))}`,
    `its ratio beside the best hand-written peer's: ${mean(againstPeer)}`,
    `slower than the best of 8 in ${slower.length}: ${slower.map(({ N, K, dtype, M }) => `${M}x${N}x${K} ${dtype}`).join(", ") || "no cell"}`,
    ...failures,
  ].join("\n");
}

const [begin, end] = ["<!-- made by npm run bench -->", "<!-- end of what it made -->"] as const;

/** The README with this run's table between its two marks. @throws Error when it has no marks */
export function readmeWith(readme: string, run: Run): string {
  const [before, rest] = readme.split(begin);
  const after = rest?.split(end)[1];
  if (before === undefined || after === undefined) throw new Error(`The README has no ${begin} and ${end}`);
  return `${before}${begin}\n\n${markdown(run)}\n\n${end}${after}`;
}

/** A few shapes of each kind; times of ours, and how often they fit into cuBLASLt's best. */
function markdown({ cells, date, device, cublasLt, revision, limits }: Run): string {
  const shapes = new Map<string, Case>();
  for (const cell of cells) shapes.set([cell.N, cell.K, cell.dtype, cell.out].join(), cell);
  const rows = [...shapes.values()]
    .filter(({ N, K, dtype }) => shown.has(`${N} x ${K} ${dtype}`))
    .map(({ where, N, K, dtype, out }) => {
      const times = tokenCounts.map((M) => {
        const cell = cells.find((c) => c.N === N && c.K === K && c.dtype === dtype && c.out === out && c.M === M);
        if (!cell) return "-";
        const factor = ratio(cell, cell.cublasBest);
        return `${cell.ours.median.toFixed(2)}${factor ? ` (${factor.toFixed(1)}x)` : ""}`;
      });
      return [`${N} x ${K} ${dtype}`, where, ...times];
    });
  const heads = ["N x K", "where", ...tokenCounts.map((M) => `M = ${M}`)];
  const widths = heads.map((head, i) => Math.max(head.length, ...rows.map((row) => row[i]?.length ?? 0)));
  const line = (fields: readonly string[], pad = " "): string =>
    `| ${fields.map((field, i) => field.padEnd(widths[i] ?? 0, pad)).join(" | ")} |`;
  return [
    line(heads),
    line(
      heads.map(() => "---"),
      "-",
    ),
    ...rows.map((row) => line(row)),
    "",
    ...wrapped(
      `Microseconds a launch, cold weights, in a PDL chain; in parentheses how often that fits into the best of cuBLASLt ` +
        `${cublasLt}'s first 8 algorithms, measured in turns with it. ${device}, which reads ` +
        `${(limits.streamBytesPerUs / 1e6).toFixed(2)} TB/s; ${date}, revision ${revision}. ${overall(cells)}`,
    ),
  ].join("\n");
}

/** All cells of a run in a few sentences. */
function overall(cells: readonly Cell[]): string {
  const below = cells.filter((cell) => (againstPeer(cell) ?? 1) < 1).length;
  const slower = slowerThanBest(cells).map(
    (cell) => `${cell.M} x ${cell.N} x ${cell.K} ${cell.dtype} (${ratio(cell, cell.cublasBest)?.toFixed(2)}x)`,
  );
  return (
    `All ${cells.length} cells of the run: ${meanOf(cells, (cell) => ratio(cell, cell.cublas)).replace(/ .*/, "")} of cuBLASLt's first ` +
    `choice as a geometric mean, ${meanOf(cells, (cell) => ratio(cell, cell.cublasBest)).replace(/ .*/, "")} of the best of 8; slower than ` +
    `that in ${slower.join(", ") || "none"}. Beside the best of seven hand-written kernels, measured elsewhere on the scale of ` +
    `cuBLASLt's first choice, ${meanOf(cells, againstPeer)}; below it in ${below}.`
  );
}

/** Lines of the README's width. */
function wrapped(text: string): readonly string[] {
  const lines: string[] = [""];
  for (const word of text.split(" ")) {
    const last = lines.at(-1) ?? "";
    if (last.length + word.length + 1 > 120) lines.push(word);
    else lines[lines.length - 1] = last === "" ? word : `${last} ${word}`;
  }
  return lines;
}

const shown = new Set([
  ...["128 x 2880 bf16", "256 x 7168 bf16", "384 x 7168 bf16", "1536 x 7168 bf16", "2112 x 7168 bf16"],
  ...["1280 x 8192 bf16", "7168 x 4096 bf16", "28672 x 4096 bf16"],
  ...["256 x 12288 e4m3", "1280 x 8192 e4m3", "1792 x 12288 e4m3", "12288 x 1536 e4m3", "7168 x 12288 e4m3"],
]);
