/**
 * Proves the narrow float conversions of dsl/numerics.ts, or of a device, on every one of the 2^32 f32 bit patterns.
 *
 *     npx tsx playground/verify-conversions.ts                  all 256 chunks
 *     npx tsx playground/verify-conversions.ts --chunks 0x40..0x4f
 *     npx tsx playground/verify-conversions.ts --device cuda    what a kernel makes of them; or wgsl, or simulator
 *
 * A chunk is the 2^24 inputs that share their top byte. The outputs of each conversion over a chunk are hashed and compared
 * with the vectors in test/data/numerics. A device converts single numbers and vectors of them; the first output that differs
 * from dsl/numerics.ts is shown. Exits with 1 and names the first bad chunk if any hash differs.
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { bf16, type DType, e4m3, e5m2, f16, type FloatName } from "../dsl/dtype.ts";
import { ArgumentError } from "../dsl/errors.ts";
import { encodeF32Bits, type Saturation } from "../dsl/numerics.ts";
import {
  chunkSize,
  type DeviceCodes,
  type DeviceConverter,
  deviceConversions,
  openConverter,
} from "./prove/conversions.ts";
import { deviceNamed, type DeviceName, openDevice } from "./prove/devices.ts";
import { fail, progress } from "./terminal.ts";

/** A conversion from f32, under its name in the vectors. */
interface Conversion {
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

/** The little-endian outputs for f32 bits `chunk << 24` to `chunk << 24 | 0xffffff`. */
export function codesOf({ dtype, saturation }: Conversion, chunk: number): Uint8Array {
  const codes = dtype.bytes === 1 ? new Uint8Array(chunkSize) : new Uint16Array(chunkSize);
  for (let i = 0; i < chunkSize; i++) codes[i] = encodeF32Bits(dtype, (chunk << 24) | i, saturation);
  return new Uint8Array(codes.buffer);
}

/** FNV-1a 64, as 16 hexadecimal digits. */
function hashBytes(bytes: Uint8Array): string {
  let high = 0xcbf29ce4;
  let low = 0x84222325;
  for (const byte of bytes) {
    // (high, low) times the prime 2^40 + 0x1b3, modulo 2^64; the low half by 16-bit digits, to see its carry.
    low ^= byte;
    const digit0 = (low & 0xffff) * 0x1b3;
    const digit1 = (low >>> 16) * 0x1b3 + (digit0 >>> 16);
    high = (Math.imul(high, 0x1b3) + (low << 8) + (digit1 >>> 16)) | 0;
    low = (digit1 << 16) | (digit0 & 0xffff);
  }
  return [high, low].map((half) => (half >>> 0).toString(16).padStart(8, "0")).join("");
}

export const hashChunk = (conversion: Conversion, chunk: number): string => hashBytes(codesOf(conversion, chunk));

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

/** What a worker found. */
interface Verdict {
  readonly chunk: number;
  /** What converted. */
  readonly device: string;
  readonly mismatches: readonly string[];
}

const thisFile = fileURLToPath(import.meta.url);

async function runWorker(device: DeviceName | undefined): Promise<void> {
  const converter = device === undefined ? undefined : await openConverter(device);
  process.on("message", (chunk: number) => {
    void mismatchesIn(converter, chunk).then((mismatches) =>
      process.send?.({ chunk, device: converter?.device ?? "TypeScript", mismatches } satisfies Verdict),
    );
  });
  process.once("disconnect", () => process.exit()); // its parent is gone
}

async function mismatchesIn(converter: DeviceConverter | undefined, chunk: number): Promise<readonly string[]> {
  if (converter) return mismatchesOf(await converter.convert(chunk), chunk);
  return conversions.flatMap((conversion) => {
    const [actual, expected] = [hashChunk(conversion, chunk), expectedHash(conversion.name, chunk)];
    return actual === expected ? [] : [`${conversion.name}: hash ${actual}, expected ${expected}`];
  });
}

/** What is wrong with a device's codes for a chunk, with the first input on which they differ from dsl/numerics.ts. */
export function mismatchesOf(codes: readonly DeviceCodes[], chunk: number): readonly string[] {
  return codes.flatMap(({ name, single, vector }) => {
    const [actual, expected] = [hashBytes(single), expectedHash(name, chunk)];
    if (actual === expected && Buffer.compare(single, vector) === 0) return [];
    const conversion = conversions.find((each) => each.name === name);
    if (!conversion) throw new RangeError(`there are no vectors of ${name}`);
    const right = codesOf(conversion, chunk);
    const width = conversion.dtype.bytes;
    const differences = Object.entries({ single, vector }).flatMap(([what, bytes]) => {
      const i = right.findIndex((byte, at) => byte !== bytes[at]);
      if (i < 0) return [];
      const at = Math.floor(i / width);
      const code = (of: Uint8Array): string =>
        hex(width === 1 ? (of[at] ?? 0) : (of[2 * at] ?? 0) + 256 * (of[2 * at + 1] ?? 0), 2 * width);
      const input = hex(((chunk << 24) | at) >>> 0, 8);
      return [`${name}, ${what}: f32 bits ${input} become ${code(bytes)}, not ${code(right)}`];
    });
    // dsl/numerics.ts may be as wrong as the device.
    return differences.length > 0 ? differences : [`${name}: hash ${actual}, expected ${expected}`];
  });
}

const hex = (bits: number, digits: number): string => `0x${bits.toString(16).padStart(digits, "0")}`;

/**
 * Hands the chunks to one worker per core, one at a time each, and collects their verdicts. Workers are processes, as
 * tsx passes itself on to those but not, on Node 20, to worker threads.
 */
async function verify(
  chunks: readonly number[],
  device: DeviceName | undefined,
  report: (done: number) => void,
): Promise<readonly Verdict[]> {
  const verdicts: Verdict[] = [];
  const waiting = chunks.values();
  const runs = Array.from({ length: Math.min(availableParallelism(), chunks.length) }, async () => {
    const worker = fork(thisFile, ["--worker", ...(device === undefined ? [] : ["--device", device])]);
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
      worker.kill("SIGKILL"); // one under tsx, which takes the other signals for itself, would run on for ever
    }
  });
  await Promise.all(runs);
  return verdicts.sort((a, b) => a.chunk - b.chunk);
}

/** `a..b`, both inclusive, decimal or 0x; or one number. @throws ArgumentError */
function parseChunks(text: string): readonly number[] {
  const [first = NaN, last = first] = text.split("..").map(Number);
  if (!(Number.isInteger(first) && Number.isInteger(last) && 0 <= first && first <= last && last < chunkCount)) {
    throw new ArgumentError(`--chunks ${text}: write a..b with 0 <= a <= b <= ${chunkCount - 1}, such as 0x40..0x4f`);
  }
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      chunks: { type: "string", default: `0..${chunkCount - 1}` },
      device: { type: "string" },
      worker: { type: "boolean" },
    },
  });
  const device = values.device === undefined ? undefined : deviceNamed(values.device);
  if (values.worker) return runWorker(device);
  const chunks = parseChunks(values.chunks);
  if (device !== undefined) await (await openDevice(device)).dispose(); // refused once, not by each worker
  const start = performance.now();
  const seconds = (): string => ((performance.now() - start) / 1000).toFixed(1);

  const verdicts = await verify(chunks, device, (done) => {
    progress(`chunks, ${seconds()} s`, done, chunks.length);
    if (!process.stderr.isTTY && done % 16 === 0) console.log(`${done}/${chunks.length} chunks, ${seconds()} s`);
  });

  const bad = verdicts.filter((verdict) => verdict.mismatches.length > 0);
  const [first] = bad;
  const on = verdicts[0]?.device ?? "";
  if (first) {
    const bits = hex(first.chunk, 2);
    console.error(`${on}: ${bad.length} chunks differ; the first is ${bits}, f32 bits ${bits}000000 to ${bits}ffffff:`);
    for (const mismatch of first.mismatches) console.error(`  ${mismatch}`);
    process.exitCode = 1;
  } else {
    const inputs = chunks.length === chunkCount ? "2^32" : `${chunks.length} x 2^24`;
    const names = device === undefined ? conversions.map(({ name }) => name) : deviceConversions;
    console.log(`${on}: ${names.join(", ")}: right on ${inputs} f32 inputs, ${seconds()} s`);
  }
}

// The tests import hashChunk, which must not start anything.
if (process.argv[1] === thisFile) await main().catch(fail);
