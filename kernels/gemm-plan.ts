/** How the general GEMM cuts its sizes: tiles, stages, blocks, and who copies. */
import { bf16, ceilDiv, type Dim, powerOfTwoDivisor, ShapeError } from "../dsl/index.ts";
import { maxOf } from "../dsl/size.ts";
import { type GemmSizes, type OutName, rowAlignBytes } from "./ll-gemm.ts";

export interface GemmConfig<Out extends OutName = OutName> extends GemmSizes<Out> {
  /** Rows and columns of y that a block makes. Default: what gives the shortest schedule on 132 multiprocessors. */
  readonly tileM?: 64 | 128;
  readonly tileN?: 32 | 64 | 128 | 256;
  /** Stages of the ring. Default: what shared memory has room for, at most 8. */
  readonly stages?: number;
}

/** Columns of K in a stage: 128 bytes, the longest rows that TMA and wgmma swizzle. */
export const tileK = 64;

export function planOf({ M, N, K, out, ...given }: GemmConfig) {
  const alignBytes = rowAlignBytes(K, bf16);
  const byTma = alignBytes === 16; // which takes rows of whole 16 bytes
  const [tileM, tileN] = shortest(M, N, given, byTma);
  const tilesM = ceilDiv(M, tileM);
  const groups = ceilDiv(tilesM, 8);
  const consumers = tileM / 64;
  const lanesY = powerOfTwoDivisor(N, 2);
  const stageBytes = (tileM + tileN) * tileK * 2;
  const { stages = Math.min(8, Math.floor((192 * 1024) / stageBytes)) } = given;
  if (!(Number.isInteger(stages) && stages >= 2)) throw new ShapeError(`A ring has 2 stages or more, not ${stages}`);
  return {
    grid: [ceilDiv(tilesM, groups), ceilDiv(N, tileN), groups] as const,
    block: (consumers + 1) * 128,
    ...{ tileM, tileN, tilesM, stages, byTma, alignBytes },
    /** Warpgroups that multiply. */
    consumers,
    /** Whether accumulators need more registers than an equal share. */
    movesRegisters: byTma && consumers === 2 && tileN === 256,
    /** Neighbours in a row of y that are stored together. */
    lanesY,
    alignBytesY: lanesY * out.bytes,
  };
}

/**
 * Of the tiles that may be chosen those with the shortest schedule: waves of 132 blocks, each as long as a step takes to
 * multiply (2,048 products a clock) or to come from L2 (about 32 bytes a clock), whichever is longer.
 */
function shortest(M: Dim, N: Dim, { tileM, tileN }: Pick<GemmConfig, "tileM" | "tileN">, byTma: boolean) {
  const rows = tileM ? [tileM] : maxOf(M) <= 64 ? [64] : [128, 64];
  const columns = tileN ? [tileN] : byTma ? [256, 128, 64] : [128, 64];
  const cost = ([m, n]: readonly [number, number]) =>
    Math.ceil((Math.ceil(maxOf(M) / m) * Math.ceil(maxOf(N) / n)) / 132) * Math.max((m * n) / 32, (m + n) * 4);
  const all = rows.flatMap((m) => columns.map((n) => [m, n] as const));
  return all.reduce((best, tiles) => (cost(tiles) < cost(best) ? tiles : best));
}
