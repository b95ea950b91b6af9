/**
 * Proves the narrow float conversions of dsl/numerics.ts on every one of the 2^32 f32 bit patterns.
 *
 *     npx tsx playground/verify-conversions.ts                  all 256 chunks
 *     npx tsx playground/verify-conversions.ts --chunks 0x40..0x4f
 *
 * A chunk is the 2^24 inputs that share their top byte. The outputs of each conversion over a chunk are hashed and compared
 * with the vectors in test/data/numerics. Exits with 1 and names the first bad chunk if any hash differs.
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { bf16, type DType, e4m3, e5m2, f16, type FloatName } from "../dsl/dtype.ts";
import { encodeF32Bits, type Saturation } from "../dsl/numerics.ts";

/** A conversion from f32, under its name in the vectors. */
export interface Conversion {
  readonly name: string;
  readonly dtype: DType<FloatName>;
  readonly saturation: Saturation;
}

export const conversions: readonly Conversion[] = [
  { name: "e4m3fn_satfinite", dtype: e4m3, saturation: "satfinite" },
  { name: "e4m3fn_nosat", dtype: e4m3, saturation: "nosat" },
  { name: "e5m2_satfinite", dtype: e5m2, saturation: "satfinite" },
  { name: "e5m2_nosat", dtype: e5m2, saturation: "nosat" },
  { name: "bf16_rne", dtype: bf16, saturation: "nosat" },
  { name: "f16_rne", dtype: f16, saturation: "nosat" },
];

const chunkCount = 256;
const chunkSize = 2 ** 24;

/** FNV-1a 64, as 16 hexadecimal digits, of the little-endian outputs for f32 bits `chunk << 24` to `chunk << 24 | 0xffffff`. */
export function hashChunk({ dtype, saturation }: Conversion, chunk: number): string {
  let high = 0xcbf29ce4;
  let low = 0x84222325;
  for (let i = 0; i < chunkSize; i++) {
    const code = encodeF32Bits(dtype, (chunk << 24) | i, saturation);
    for (let shift = 0; shift < 8 * dtype.bytes; shift += 8) {
      // (high, low) times the prime 2^40 + 0x1b3, modulo 2^64; the low half by 16-bit digits, to see its carry.
      low ^= (code >>> shift) & 0xff;
      const digit0 = (low & 0xffff) * 0x1b3;
      const digit1 = (low >>> 16) * 0x1b3 + (digit0 >>> 16);
      high = (Math.imul(high, 0x1b3) + (low << 8) + (digit1 >>> 16)) | 0;
      low = (digit1 << 16) | (digit0 & 0xffff);
    }
  }
  return [high, low].map((half) => (half >>> 0).toString(16).padStart(8, "0")).join("");
}

/** The hash that the vectors have for a conversion and a chunk. */
export function expectedHash(name: string, chunk: number): string {
  for (const { order, chunks } of vectors) {
    const hash = chunks[chunk]?.[order.indexOf(name)];
    if (hash !== undefined) return hash;
  }
  throw new Error(`No hash of ${name} for chunk ${chunk}`);
}

interface Vectors {
  readonly order: readonly string[];
  /** Hash by chunk, then by place in `order`. */
  readonly chunks: readonly (readonly string[])[];
}

const vectors = ["exhaustive_f32_fnv1a64.json", "exhaustive_f32_to_16bit_fnv1a64.json"].map((file): Vectors => {
  const { order, chunks }: Vectors = JSON.parse(
    readFileSync(new URL(`../test/data/numerics/${file}`, import.meta.url), "utf8"),
  );
  return { order, chunks };
});

/** What a worker found: the conversions whose hash of this chunk differs. */
interface Verdict {
  readonly chunk: number;
  readonly mismatches: readonly string[];
}

const thisFile = fileURLToPath(import.meta.url);

function runWorker(): void {
  process.on("message", (chunk: number) => {
    const mismatches = conversions.flatMap((conversion) => {
      const [actual, expected] = [hashChunk(conversion, chunk), expectedHash(conversion.name, chunk)];
      return actual === expected ? [] : [`${conversion.name}: hash ${actual}, expected ${expected}`];
    });
    process.send?.({ chunk, mismatches } satisfies Verdict);
  });
}

/**
 * Hands the chunks to one worker per core, one at a time each, and collects their verdicts. Workers are processes, as
 * tsx passes itself on to those but not, on Node 20, to worker threads.
 */
async function verify(chunks: readonly number[], report: (done: number) => void): Promise<readonly Verdict[]> {
  const verdicts: Verdict[] = [];
  const waiting = chunks.values();
  const runs = Array.from({ length: Math.min(availableParallelism(), chunks.length) }, async () => {
    const worker = fork(thisFile, ["--worker"]);
    const died = once(worker, "exit").then(([code, signal]) => {
      throw new Error(`A worker ended early, exit code ${code ?? signal}`);
    });
    died.catch(() => {}); // it ends at the end, too
    try {
      for (const chunk of waiting) {
        const answer = once(worker, "message");
        worker.send(chunk);
        const [verdict]: Verdict[] = await Promise.race([answer, died]);
        if (verdict) report(verdicts.push(verdict));
      }
    } finally {
      worker.kill();
    }
  });
  await Promise.all(runs);
  return verdicts.sort((a, b) => a.chunk - b.chunk);
}

/** `a..b`, both inclusive, decimal or 0x; or one number. */
function parseChunks(text: string): readonly number[] {
  const [first = NaN, last = first] = text.split("..").map(Number);
  if (!(Number.isInteger(first) && Number.isInteger(last) && 0 <= first && first <= last && last < chunkCount)) {
    throw new RangeError(`--chunks ${text}: write a..b with 0 <= a <= b <= ${chunkCount - 1}, such as 0x40..0x4f`);
  }
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { chunks: { type: "string", default: `0..${chunkCount - 1}` }, worker: { type: "boolean" } },
  });
  if (values.worker) return runWorker();
  const chunks = parseChunks(values.chunks);
  const start = performance.now();
  const seconds = (): string => ((performance.now() - start) / 1000).toFixed(1);

  const verdicts = await verify(chunks, (done) => {
    const line = `${done}/${chunks.length} chunks, ${seconds()} s`;
    if (process.stdout.isTTY) process.stdout.write(`\r${line}`);
    else if (done % 16 === 0) console.log(line);
  });
  if (process.stdout.isTTY) console.log();

  const bad = verdicts.filter((verdict) => verdict.mismatches.length > 0);
  const [first] = bad;
  if (first) {
    const bits = `0x${first.chunk.toString(16).padStart(2, "0")}`;
    console.error(`${bad.length} chunks differ; the first is ${bits}, f32 bits ${bits}000000 to ${bits}ffffff:`);
    for (const mismatch of first.mismatches) console.error(`  ${mismatch}`);
    process.exitCode = 1;
  } else {
    const inputs = chunks.length === chunkCount ? "2^32" : `${chunks.length} x 2^24`;
    console.log(`${conversions.map(({ name }) => name).join(", ")}: right on ${inputs} f32 inputs, ${seconds()} s`);
  }
}

// The tests import hashChunk, which must not start anything.
if (process.argv[1] === thisFile) await main();
