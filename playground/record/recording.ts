/**
 * A recording: what a GPU made of each specimen, in one file. Small outputs are kept as they are, of large ones a digest for
 * each of up to 64 pieces, so that a difference has a place. A specimen's source and inputs are kept as hashes: once the
 * emitted CUDA C or the data is another, what was recorded proves nothing any more.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { f32, HostTensor, printKernel, TegulaError } from "../../dsl/index.ts";
import { isNaNBits } from "../../dsl/numerics.ts";
import { bitsOf, type Specimen, type Tensors } from "./specimen.ts";

/** A recording that can't be used: damaged, or of other kernels or data than today's. */
export class RecordingError extends TegulaError {}

/** Where tests look for recordings. */
export const recordingsFolder = join(import.meta.dirname, "..", "..", "test", "data", "recordings");

/** One file for each model of GPU. */
export function fileOf(device: string): string {
  const [model = ""] = device.split(" (");
  return `${model.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-")}.json`;
}

/** How to get another one. */
export const recordCommand = "On a machine with the GPU: npm run record";

/** Either the bits, in base64, or a digest for each piece. */
export interface RecordedOutput {
  /** E.g. "f32[64, 128]". */
  readonly type: string;
  readonly bits?: string;
  readonly pieces?: string;
}

export interface Recorded {
  /** Hash of what CUDA runs: the source and how it is launched. */
  readonly source: string;
  /** Hash of all tensors that go in. */
  readonly inputs: string;
  readonly outputs: Readonly<Record<string, RecordedOutput>>;
}

export interface Recording {
  /** As `cuda.device` says it. */
  readonly device: string;
  /** Version of the driver's part in the Linux kernel. */
  readonly driver: string;
  readonly compiler: string;
  /** Day. */
  readonly date: string;
  readonly specimens: Readonly<Record<string, Recorded>>;
}

const format = 1;
const mostPieces = 64;
const digestBytes = 6;
/** Outputs up to this size are kept whole. */
const mostBytes = 512;

const sha256 = (...parts: readonly (string | Uint8Array)[]): Buffer => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
};
const shortHash = (...parts: readonly (string | Uint8Array)[]): string => sha256(...parts).toString("hex", 0, 8);

/** The file's text: one line a specimen. */
export function formatRecording(recording: Recording): string {
  const { specimens, ...about } = recording;
  const head = JSON.stringify({ format, digest: digestOf(recording), ...about }).slice(0, -1);
  const lines = Object.entries(specimens).map(([name, one]) => `${JSON.stringify(name)}:${JSON.stringify(one)}`);
  return `${head},"specimens":{\n${lines.join(",\n")}\n}}\n`;
}

const digestOf = (recording: Recording): string => shortHash(JSON.stringify(recording));

/** @throws RecordingError for a file that is damaged, truncated or of another format */
export function parseRecording(text: string, file: string): Recording {
  const refuse = (why: string): never => {
    throw new RecordingError(`${file} is no recording: ${why}`, { hint: recordCommand });
  };
  let parsed: Partial<Recording> & { readonly format?: unknown; readonly digest?: unknown };
  try {
    parsed = JSON.parse(text);
  } catch {
    return refuse("it is truncated or damaged");
  }
  if (parsed?.format !== format) return refuse(`its format is ${String(parsed?.format)}, not ${format}`);
  const { device = "", driver = "", compiler = "", date = "", specimens = {} } = parsed;
  const recording = { device, driver, compiler, date, specimens };
  return parsed.digest === digestOf(recording) ? recording : refuse("its content is not what was written");
}

/** @throws RecordingError, and what Node throws for a file that can't be read */
export function readRecording(file: string): Recording {
  return parseRecording(readFileSync(file, "utf8"), file);
}

/** Changes with what the kernel does. Names, lines and how it is emitted make no difference: the right bits stay the same. */
export function sourceHash({ ir }: Specimen["kernel"]): string {
  return shortHash(printKernel(ir, { names: false }));
}

export function inputsHash({ kernel: { ir } }: Specimen, args: Tensors): string {
  const inputs = ir.tensors.filter(({ role }) => role !== "output");
  return shortHash(...inputs.flatMap(({ name }) => [`${name} ${args[name]}`, args[name]?.bytes ?? ""]));
}

/** @throws RecordingError unless it was made of what the specimen is today */
export function requireFresh(
  { device, date, specimens }: Recording,
  specimen: Specimen,
  args: Tensors = specimen.args(),
): Recorded {
  const { name, kernel } = specimen;
  const recorded = specimens[name];
  const refuse = (why: string): never => {
    throw new RecordingError(`The recording of ${name} on ${device}, ${date}, is stale: ${why}`, {
      hint: recordCommand,
    });
  };
  if (!recorded) return refuse("it has none");
  if (recorded.source !== sourceHash(kernel)) return refuse("its kernel does something else today");
  if (recorded.inputs !== inputsHash(specimen, args)) return refuse("its data is another today");
  return recorded;
}

/** Bytes with every NaN of f32 alike: which one it is, is open. */
function canonical(tensor: HostTensor): Uint8Array {
  const { dtype, bytes } = tensor;
  if (dtype !== f32) return bytes;
  const bits = Uint32Array.from(bitsOf(tensor), (pattern) => (isNaNBits(dtype, pattern) ? 0x7fffffff : pattern));
  return new Uint8Array(bits.buffer);
}

/** Elements of each piece of an output. */
function pieceOf({ shape }: HostTensor): number {
  return Math.ceil(shape.reduce((a, b) => a * b, 1) / mostPieces);
}

/** What is kept of an output. */
export function recordedOutput(tensor: HostTensor): RecordedOutput {
  const [type, bytes] = [String(tensor), canonical(tensor)];
  if (bytes.length <= mostBytes) return { type, bits: Buffer.from(bytes).toString("base64") };
  const pieceBytes = pieceOf(tensor) * tensor.dtype.bytes;
  const digests: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    digests.push(sha256(bytes.subarray(at, at + pieceBytes)).subarray(0, digestBytes));
  }
  return { type, pieces: Buffer.concat(digests).toString("base64") };
}

/** Where an output is not what was recorded, in words; undefined where it is. */
export function difference(name: string, recorded: RecordedOutput | undefined, tensor: HostTensor): string | undefined {
  const now = recordedOutput(tensor);
  if (recorded?.type !== now.type) return `${name} is ${now.type}, recorded was ${recorded?.type ?? "none"}`;
  if (recorded.bits === now.bits && recorded.pieces === now.pieces) return undefined;
  if (now.bits !== undefined) {
    const before = HostTensor.filled(tensor.dtype, tensor.shape, 0);
    before.bytes.set(Buffer.from(recorded.bits ?? "", "base64").subarray(0, before.bytes.length));
    return describeDifference(name, before, tensor);
  }
  const [old, own] = [recorded.pieces, now.pieces].map((text) => Buffer.from(text ?? "", "base64"));
  const digest = (all: Buffer | undefined, i: number): string =>
    all?.toString("hex", i * digestBytes, (i + 1) * digestBytes) ?? "";
  const count = (own?.length ?? 0) / digestBytes;
  const wrong = Array.from({ length: count }, (_, i) => i).filter((i) => digest(old, i) !== digest(own, i));
  const [first = 0] = wrong;
  const piece = pieceOf(tensor);
  return `${wrong.length} of ${count} pieces of ${name}, ${now.type}, differ; first elements ${first * piece} to ${(first + 1) * piece - 1}`;
}

/** Elements in which two outputs differ. */
export function differingElements(a: HostTensor, b: HostTensor): readonly number[] {
  const patterns = (tensor: HostTensor) =>
    bitsOf(new HostTensor(tensor.dtype, tensor.shape, canonical(tensor).slice()));
  const [x, y] = [patterns(a), patterns(b)];
  const wrong: number[] = [];
  for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) wrong.push(i);
  return wrong;
}

/** The first of them, in bits. */
export function describeDifference(name: string, recorded: HostTensor, tensor: HostTensor): string | undefined {
  const wrong = differingElements(recorded, tensor);
  const [first] = wrong;
  if (first === undefined) return undefined;
  const [was, is] = [recorded, tensor].map((one) => {
    const pattern = (bitsOf(one)[first] ?? 0).toString(16).padStart(2 * one.dtype.bytes, "0");
    return `0x${pattern} (${one.values()[first]})`;
  });
  return `${wrong.length} elements of ${name}, ${tensor}, differ; first element ${first}: ${is}, recorded was ${was}`;
}
