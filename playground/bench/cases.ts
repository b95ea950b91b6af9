/** What is measured: weight shapes of real models (shapes.csv), and what hand-written kernels take for them (peers.csv). */
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** Of weights. Tokens are of the same type; those of f32 weights are bf16. */
export type InName = "bf16" | "e4m3" | "f32";
export type OutName = "f32" | "bf16";

/** y[M,N] = x[M,K] w[N,K]^T. */
export interface Case {
  /** What the shape is for: router, a (attention and dense layers), fp8. */
  readonly group: string;
  /** One model and layer that has it. */
  readonly where: string;
  readonly N: number;
  readonly K: number;
  readonly dtype: InName;
  readonly out: OutName;
}

/** Tokens of each case. */
export const tokenCounts = [1, 2, 4, 8, 16] as const;

/** Each shape once, in the order of the file. */
export function cases(): readonly Case[] {
  return (shapesRead ??= readShapes());
}

/** By `dtype,N,K,M`. Output types aren't told apart there. */
export function peers(): ReadonlyMap<string, Peer> {
  return (peersRead ??= readPeers());
}

let shapesRead: readonly Case[] | undefined;
let peersRead: ReadonlyMap<string, Peer> | undefined;

function readShapes(): readonly Case[] {
  const seen = new Map<string, Case>();
  for (const row of readCsv("shapes.csv")) {
    const { class: group = "", model = "", layer = "", N, K, weight_dtype: dtype, out_dtype: out } = row;
    if ((dtype !== "bf16" && dtype !== "e4m3" && dtype !== "f32") || (out !== "f32" && out !== "bf16")) continue;
    const key = [dtype, out, N, K].join();
    if (!seen.has(key)) seen.set(key, { group, where: `${model}, ${layer}`, N: Number(N), K: Number(K), dtype, out });
  }
  return [...seen.values()];
}

/** The fastest hand-written kernel of a cell; `ratio`: how often it fits into the time of cuBLAS beside it. */
export interface Peer {
  readonly name: string;
  readonly coldUs: number;
  readonly ratio: number;
}

function readPeers(): ReadonlyMap<string, Peer> {
  const rows = readCsv("peers.csv").map(({ dtype, N, K, M, ...row }) => {
    const [cublasUs, coldUs] = [Number(row["cublas_cold_us"]), Number(row["best_peer_cold_us"])];
    return [[dtype, N, K, M].join(), { name: row["best_peer"] ?? "", coldUs, ratio: cublasUs / coldUs }] as const;
  });
  return new Map(rows.filter(([, { coldUs }]) => coldUs > 0));
}

/** Rows by the names in the first line; no field holds a comma. */
function readCsv(name: string): readonly Readonly<Record<string, string>>[] {
  const [header = "", ...lines] = readFileSync(join(import.meta.dirname, name), "utf8")
    .trim()
    .split("\n");
  const names = header.split(",");
  return lines.map((line) => {
    const fields = line.split(",");
    if (fields.length !== names.length)
      throw new Error(`${name}: ${fields.length} fields instead of ${names.length} in "${line}"`);
    return Object.fromEntries(names.map((key, i) => [key, fields[i] ?? ""]));
  });
}
