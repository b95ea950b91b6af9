/**
 * Which configurations of which family may serve a product y[M,N] = x[M,K] w[N,K]^T of few tokens: what `npm run tune`
 * tries, and from what `linear` chooses. A configuration is written as text, which tables keep:
 *
 *     "mma rows=16 cluster=8 warps=4 pieces=4 early=2"
 */
import { bf16, type Dim, type DType, e4m3, f32, type Kernel, UnsupportedError } from "../dsl/index.ts";
import { llGemmDotBf16, llGemmDotE4m3, llGemmDotF32 } from "./ll-gemm-dot.ts";
import { llGemmMmaBf16, llGemmMmaE4m3, llGemmMmaF32 } from "./ll-gemm-mma.ts";
import { llGemmStreamBf16, llGemmStreamE4m3 } from "./ll-gemm-stream.ts";
import type { InName, OutName } from "./ll-gemm.ts";

export type Family = "dot" | "mma" | "stream";

/** A configuration of a family. */
export interface Choice {
  readonly family: Family;
  readonly options: Readonly<Record<string, number>>;
}

/** The sizes of a product, and the type of its weights. */
export interface Product {
  readonly M: number;
  readonly N: number;
  readonly K: number;
  readonly dtype: InName;
}

export interface KernelOptions {
  readonly M: Dim;
  readonly N: Dim;
  readonly K: Dim;
  readonly dtype: InName;
  readonly out: DType<OutName>;
  readonly epilogue?: unknown;
}

type Maker = (config: Omit<KernelOptions, "dtype">) => Kernel;

const families = {
  dot: { bf16: llGemmDotBf16, e4m3: llGemmDotE4m3, f32: llGemmDotF32 },
  mma: { bf16: llGemmMmaBf16, e4m3: llGemmMmaE4m3, f32: llGemmMmaF32 },
  stream: { bf16: llGemmStreamBf16, e4m3: llGemmStreamE4m3 },
} as unknown as Readonly<Record<Family, Readonly<Partial<Record<InName, Maker>>>>>;

const bytesOf = { bf16: bf16.bytes, e4m3: e4m3.bytes, f32: f32.bytes } as const;

/**
 * The kernel of a choice.
 * @throws ShapeError for sizes that the family does not serve
 */
export function kernelOf({ family, options }: Choice, { dtype, ...sizes }: KernelOptions): Kernel {
  const make = families[family][dtype];
  if (!make) throw new UnsupportedError(`The family ${family} has no weights of ${dtype}`);
  return make({ ...sizes, ...options });
}

export function formatChoice({ family, options }: Choice): string {
  return [family, ...Object.entries(options).map(([name, value]) => `${name}=${value}`)].join(" ");
}

/** Of what formatChoice wrote. */
export function parseChoice(text: string): Choice {
  const [family = "", ...options] = text.split(" ");
  if (!Object.hasOwn(families, family)) throw new Error(`"${text}" names no family`);
  const parsed = options.map((option) => /^([a-zA-Z]+)=(\d+)$/.exec(option));
  if (parsed.includes(null)) throw new Error(`"${text}" is not written as name=number`);
  return {
    family: family as Family,
    options: Object.fromEntries(parsed.map((match) => [match?.[1], Number(match?.[2])])),
  };
}

/** All that may be worth trying. */
export function choicesFor(product: Product): readonly Choice[] {
  return [...dots(product), ...mmas(product), ...streams(product)];
}

/** A block for each row, or for a few, which then share the tokens that it loads: each token costs the same again. */
function dots({ M, K, dtype }: Product): Choice[] {
  if (M > (dtype === "f32" ? 8 : 4)) return [];
  const turnOf = (warps: number) => (warps * 512) / bytesOf[dtype];
  const idle = (warps: number) => (Math.ceil(K / turnOf(warps)) * turnOf(warps)) / K;
  const least = Math.min(...[16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2].map(idle));
  const shares: readonly { readonly rows?: number; readonly prefetch: number }[] = [
    { prefetch: 8 },
    { rows: 2, prefetch: 8 },
    { rows: 2, prefetch: 4 },
    ...(M === 1 ? [] : [{ rows: 4, prefetch: 4 }]),
  ];
  return [16, 14, 12, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    .filter((warps) => idle(warps) < least * 1.15 && Math.ceil(K / turnOf(warps)) <= 16)
    .flatMap((warps) => shares.filter(({ rows = 1 }) => rows === 1 || warps <= 8).map((more) => ({ warps, ...more })))
    .map((options): Choice => ({ family: "dot", options }));
}

/**
 * Weights in registers: all, or as many as there is room for. Blocks that take all registers of a multiprocessor leave none
 * for those of the next kernel: hence a second, smaller measure.
 */
function mmas({ M, N, K, dtype }: Product): Choice[] {
  const all = Math.ceil((K * bytesOf[dtype]) / 64);
  const parks = (K * bytesOf[dtype]) % 16 === 0 && dtype !== "f32";
  const found = new Map<string, Choice>();
  for (const rows of [16, 32, 64]) {
    const registers = rows / 2 + (M <= 8 ? 4 : 8); // of a piece, of weights and tokens
    for (const cluster of [1, 2, 4, 8]) {
      const blocks = Math.ceil(N / rows) * cluster;
      if (blocks > (cluster === 1 ? Infinity : cluster === 2 ? 1100 : 700)) continue;
      if (blocks < 64 && cluster < (N <= 384 ? 2 : 8) && cluster * 8 <= all) continue;
      if (rows === 64 && (cluster < 4 || blocks < 128)) continue;
      for (let warps = 2; warps <= 16; warps++) {
        const each = Math.ceil(all / (cluster * warps));
        const isPower = Number.isInteger(Math.log2(warps));
        const rooms = roomsOf(warps);
        // Other numbers of warps where they divide K without a rest, and all of it fits.
        const fits = all === each * cluster * warps && each <= 8 && each * registers <= (rooms[0] ?? 0);
        if (!isPower && !fits) continue;
        if (cluster * (warps / 2) >= all || (warps < 4 && each > 8)) continue;
        for (const room of rooms) {
          const most = Math.min(Math.floor(room / registers), each);
          const pieces = each <= most && each <= 8 ? each : 2;
          const early = Math.floor(most / pieces);
          if (early < 1) continue;
          const halves = cluster === 1 && early === 1 && pieces > 2 ? [pieces, Math.ceil(pieces / 2)] : [pieces];
          for (const pieces of halves) {
            const choice: Choice = { family: "mma", options: { rows, cluster, warps, pieces, early } };
            found.set(formatChoice(choice), choice);
          }
        }
        if (parks) {
          for (const options of parkeds({ rows, tokens: M <= 8 ? 8 : 16, warps, each })) {
            const choice: Choice = { family: "mma", options: { rows, cluster, warps, ...options } };
            found.set(formatChoice(choice), choice);
          }
        }
      }
    }
  }
  return [...found.values()];
}

/**
 * Weights in registers and in shared memory, of which a block takes half, or all. `each`: pieces of a row that a warp has.
 */
function* parkeds({ rows, tokens, warps, each }: Readonly<Record<"rows" | "tokens" | "warps" | "each", number>>) {
  const sumBytes = warps * tokens * (rows + 4) * 4;
  for (const kilobytes of [104, 208]) {
    for (const pieces of [1, 2]) {
      const turns = Math.ceil(each / pieces);
      const most = Math.min(Math.floor((kilobytes * 1024 - sumBytes) / (rows * warps * pieces * 64)), turns - 1, 16);
      if (most < 1 || (pieces > 1 && turns < 2)) continue;
      for (const room of roomsOf(warps)) {
        const registers = (early: number) =>
          (early * rows * pieces) / 2 + Math.min(turns, early + most) * pieces * (tokens / 2);
        let early = Math.min(turns - 1, 16);
        while (early > 1 && registers(early) > room) early--;
        const parked = Math.min(most, turns - early);
        const all = early + parked === turns;
        if (registers(early) <= room && (warps >= 8 || all)) yield { pieces, early, parked };
      }
    }
  }
}

/** Registers for weights and tokens that a thread may hold, so that one block fits into a multiprocessor, or two. */
function roomsOf(warps: number): readonly number[] {
  if (warps < 4) return [160];
  if (warps === 4) return [160, 96];
  return warps <= 8 ? [120, 64] : [80, 48];
}

/** A ring in shared memory, for megabytes of weights. */
function streams({ M, N, K, dtype }: Product): Choice[] {
  const rowBytes = K * bytesOf[dtype];
  if (dtype === "f32" || N * rowBytes < 2.5e6 || rowBytes % 16 !== 0) return [];
  const found = new Map<string, Choice>();
  for (const [rows, boxes, groups] of rings) {
    const tiles = Math.ceil(N / rows);
    const stageBytes = (rows + (M <= 8 ? 8 : 16)) * boxes * 128;
    for (const cluster of [1, 2, 4, 8]) {
      const blocks = tiles * cluster;
      if ((cluster > 1 && blocks > 700) || (blocks < 100 && cluster < 8) || boxes * cluster * 128 > rowBytes) continue;
      const steps = Math.ceil(rowBytes / (boxes * 128 * cluster));
      for (const kilobytes of [36, 48, 60, 72, 104, 208]) {
        const stages = Math.max(2, Math.min(steps, Math.floor((kilobytes * 1024) / stageBytes)));
        if (stages * stageBytes > 208 * 1024) continue;
        const choice: Choice = { family: "stream", options: { rows, cluster, boxes, stages, groups } };
        found.set(formatChoice(choice), choice);
      }
    }
  }
  return [...found.values()];
}

/** Rows, boxes of 128 bytes of each in a stage, groups of warps: fewer rows are longer. */
const rings = [
  [64, 2, 2],
  [32, 4, 4],
  [32, 8, 4],
  [16, 4, 4],
  [16, 8, 4],
] as const;
