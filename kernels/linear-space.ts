/**
 * Which configurations of which family may serve a product y[M,N] = x[M,K] w[N,K]^T of few tokens: what `npm run tune`
 * tries, and from what `linear` chooses. A configuration is written as text, which tables keep:
 *
 *     "mma rows=16 cluster=8 warps=4 pieces=4 early=2"
 */
import { bf16, type Dim, type DType, e4m3, f32, type Kernel, UnsupportedError } from "../dsl/index.ts";
import { llGemmDotBf16, llGemmDotE4m3, llGemmDotF32 } from "./ll-gemm-dot.ts";
import { llGemmMmaBf16, llGemmMmaE4m3 } from "./ll-gemm-mma.ts";
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
}

type Maker = (config: Omit<KernelOptions, "dtype">) => Kernel;

const families = {
  dot: { bf16: llGemmDotBf16, e4m3: llGemmDotE4m3, f32: llGemmDotF32 },
  mma: { bf16: llGemmMmaBf16, e4m3: llGemmMmaE4m3 },
  stream: { bf16: llGemmStreamBf16, e4m3: llGemmStreamE4m3 },
} as unknown as Readonly<Record<Family, Readonly<Partial<Record<InName, Maker>>>>>;

const bytesOf = { bf16: bf16.bytes, e4m3: e4m3.bytes, f32: f32.bytes } as const;

/**
 * The kernel of a choice. What a family does not know of `options` it refuses.
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

/** A block for each row: few tokens, since each of them costs the same again. */
function dots({ M, K, dtype }: Product): Choice[] {
  if (M > (dtype === "f32" ? 16 : 4)) return [];
  const turnOf = (warps: number) => (warps * 512) / bytesOf[dtype];
  const idle = (warps: number) => (Math.ceil(K / turnOf(warps)) * turnOf(warps)) / K;
  const least = Math.min(...[16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2].map(idle));
  return [16, 14, 12, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    .filter((warps) => idle(warps) < least * 1.15 && Math.ceil(K / turnOf(warps)) <= 16)
    .map((warps) => ({ family: "dot", options: { warps, prefetch: 8 } }));
}

/**
 * Weights in registers: all, or as many as there is room for, then with or without the rest asked for into L2. Blocks that
 * take all registers of a multiprocessor leave none for those of the next kernel: hence a second, smaller measure.
 */
function mmas({ M, N, K, dtype }: Product): Choice[] {
  if (dtype === "f32") return [];
  const all = Math.ceil((K * bytesOf[dtype]) / 64);
  const found = new Map<string, Choice>();
  for (const rows of [16, 32]) {
    const registers = rows / 2 + (M <= 8 ? 4 : 8); // of a piece, of weights and tokens
    for (const cluster of [1, 2, 4, 8]) {
      const blocks = Math.ceil(N / rows) * cluster;
      if ((cluster > 1 && blocks > 1100) || (cluster < 8 && blocks < 64 && cluster * 8 <= all)) continue;
      for (const [warps, ...rooms] of [
        [2, 160],
        [4, 160, 96],
        [8, 120, 64],
        [16, 80, 48],
      ] as const) {
        const each = Math.ceil(all / (cluster * warps));
        if (cluster * (warps / 2) >= all || (warps === 2 && each > 8)) continue;
        for (const room of rooms) {
          const most = Math.min(Math.floor(room / registers), each);
          for (const pieces of new Set(each <= most && each <= 8 ? [each] : [2, 4])) {
            const early = Math.floor(most / pieces);
            if (early < 1) continue;
            const rest = Math.ceil(each / pieces) - early;
            for (const ahead of rest > 0 ? [0, rest] : [0]) {
              const choice: Choice = { family: "mma", options: { rows, cluster, warps, pieces, early, ahead } };
              found.set(formatChoice(choice), choice);
            }
          }
        }
      }
    }
  }
  return [...found.values()];
}

/** A ring in shared memory, for megabytes of weights. */
function streams({ M, N, K, dtype }: Product): Choice[] {
  const rowBytes = K * bytesOf[dtype];
  if (dtype === "f32" || N * rowBytes < 2.5e6 || rowBytes % 16 !== 0) return [];
  const tiles = Math.ceil(N / 64);
  const found: Choice[] = [];
  for (const cluster of [1, 2, 4, 8]) {
    const blocks = tiles * cluster;
    if ((cluster > 1 && blocks > 700) || (blocks < 100 && cluster < 8)) continue;
    for (const [boxes, groups, rowsPerWarp] of [
      [2, 1, 16],
      [4, 1, 16],
      [2, 2, 16],
      [4, 2, 32],
    ] as const) {
      if (boxes * cluster * 128 > rowBytes) continue;
      const stageBytes = (64 + (M <= 8 ? 8 : 16)) * boxes * 128;
      const steps = Math.ceil(rowBytes / (boxes * 128 * cluster));
      for (const kilobytes of [48, 72, 104, 208]) {
        const stages = Math.max(2, Math.min(steps, Math.floor((kilobytes * 1024) / stageBytes)));
        const options = { cluster, boxes, stages, groups, rowsPerWarp };
        const same = found.some((other) => formatChoice(other) === formatChoice({ family: "stream", options }));
        if (!same) found.push({ family: "stream", options });
      }
    }
  }
  return found;
}
