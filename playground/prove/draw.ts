/** Drawing cases: seeded chance; and sizes of products, at the edges of tiles, of models, and in between. */
import { seededRandom } from "../../kernels/index.ts";

export type Random = () => number;

export function pick<T>(from: readonly T[], random: Random): T {
  const one = from[Math.floor(random() * from.length)];
  if (one === undefined) throw new RangeError("there is nothing to pick from");
  return one;
}

export const chance = (share: number, random: Random): boolean => random() < share;

/** The generator of case or group `index` of a seed; `salt` tells the two, and other uses, apart. */
export function randomOf(seed: number, index: number, salt: number): Random {
  return seededRandom(Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b) ^ Math.imul(salt, 0xc2b2ae35));
}

const tileEdges: readonly number[] = [
  ...[1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 127, 128, 129, 255, 256, 257, 258, 511, 512, 513],
  ...[1023, 1024, 1025, 1040, 2047, 2048, 2049, 3072, 6144, 8192],
];
const ofModels = [2880, 7168, 14400];
const near4096 = [4088, 4090, 4092, 4094, 4095, 4096, 4097, 4098, 4100, 4104];
const edgesN = [1, 2, 3, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 32, 33, 40, 63, 64, 65, 72, 97, 127, 128, 129];
const manyTokens = [17, 33, 63, 64, 65, 100, 127, 128, 129, 200];

/** The sizes of a product y[M,N] = x[M,K] w[N,K]^T. */
export interface GemmSizes {
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** What sizes must keep to. */
export interface SizeRules {
  /** "many": more than 16. Else at most so many. */
  readonly tokens: "many" | number;
  /** Of K. */
  readonly multipleOf: number;
  /** Rows and columns of y that are computed together. */
  readonly tile: readonly [M: number, N: number];
  /** M * N * K at most, in whole tiles. */
  readonly products: number;
}

/** Draws K and M, then one of the N with which they keep to the rules; if there is none, all again. */
export function drawSizes(
  { tokens, multipleOf, tile: [tileM, tileN], products }: SizeRules,
  random: Random,
): GemmSizes {
  const upTo = (x: number, multiple: number) => Math.ceil(x / multiple) * multiple;
  for (;;) {
    const any = [1 + Math.floor(random() * 5000)];
    const K = upTo(pick(pick([tileEdges, ofModels, near4096, any], random), random), multipleOf);
    const M = tokens === "many" ? pick(manyTokens, random) : 1 + Math.floor(random() * tokens);
    const wide = pick([2624, 2624, 257 + Math.floor(random() * 1000)], random);
    const fitting = (chance(0.3, random) ? [wide] : edgesN).filter(
      (N) => upTo(M, tileM) * upTo(N, tileN) * K <= products,
    );
    if (fitting.length > 0) return { M, N: pick(fitting, random), K };
  }
}

/** The classes that sizes belong to. */
export function classesOf({ M, N, K }: GemmSizes): readonly string[] {
  const isEdge = (x: number, of: number) => [-1, 0, 1].some((off) => (x + off) % of === 0 && x + off > 0);
  return [
    M > 16 ? "M > 16" : `M ${M}`,
    ...(N === 24 || N === 2624 ? [`N ${N}`] : []),
    ...(N % 2 === 1 ? ["N odd"] : []),
    ...(isEdge(N, 16) ? ["N 16 i +- 1"] : []),
    ...(ofModels.includes(K) ? [`K ${K}`] : []),
    ...(Math.abs(K - 4096) <= 8 ? ["K 4096 +- 8"] : []),
    ...(isEdge(K, 64) ? ["K 64 i +- 1"] : []),
    ...(K < 32 ? ["K < 32"] : []),
    ...(K % 8 !== 0 ? ["K no whole vector"] : []),
  ];
}

/** Those that a campaign must cover; beside them "M > 16", of kernels that serve so many. */
export const sizeClasses: readonly string[] = [
  ...Array.from({ length: 16 }, (_, i) => `M ${i + 1}`),
  ...["N 24", "N 2624", "N odd", "N 16 i +- 1", ...ofModels.map((K) => `K ${K}`)],
  ...["K 4096 +- 8", "K 64 i +- 1", "K < 32", "K no whole vector"],
];
