/**
 * A compiled kernel as one file, which is whole or worth nothing:
 *
 *   magic (8 bytes) | format (u32) | bytes of the header (u32) | header, JSON | cubin | SHA-256 of all before (32 bytes)
 */
import { createHash } from "node:crypto";

/** What is kept of a compilation. */
export interface CachedCubin {
  readonly cubin: Uint8Array<ArrayBuffer>;
  /** What the compiler printed. */
  readonly log: string;
  /** E.g. "NVRTC 13.0". */
  readonly compiler: string;
}

/** Grows with every change of the layout above or of what the header says. */
export const entryFormat = 1;

const magic = Buffer.from("TGLCUBIN");
const prefixBytes = magic.length + 8;
const digestBytes = 32;

/** @throws Error for a cubin that isn't an ELF file */
export function encodeEntry(key: string, { cubin, log, compiler }: CachedCubin): Uint8Array {
  requireElf(cubin);
  const header = Buffer.from(JSON.stringify({ key, compiler, log, cubinBytes: cubin.length } satisfies Header));
  const prefix = Buffer.alloc(prefixBytes);
  prefix.set(magic);
  prefix.writeUInt32LE(entryFormat, magic.length);
  prefix.writeUInt32LE(header.length, magic.length + 4);
  const body = Buffer.concat([prefix, header, cubin]);
  return Buffer.concat([body, sha256(body)]);
}

/** The inverse. @throws Error that says which check failed */
export function decodeEntry(key: string, bytes: Uint8Array<ArrayBuffer>): CachedCubin {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (file.length < prefixBytes + digestBytes) throw new Error("it is truncated");
  if (!file.subarray(0, magic.length).equals(magic)) throw new Error("it is no cache entry");
  const format = file.readUInt32LE(magic.length);
  if (format !== entryFormat) throw new Error(`its format is ${format}, not ${entryFormat}`);
  const body = file.subarray(0, -digestBytes);
  if (!sha256(body).equals(file.subarray(-digestBytes))) throw new Error("it is damaged or truncated");
  const cubinStart = prefixBytes + file.readUInt32LE(magic.length + 4);
  const header: unknown = JSON.parse(body.toString("utf8", prefixBytes, cubinStart));
  if (!isHeader(header)) throw new Error("its header is incomplete");
  if (header.key !== key) throw new Error("it belongs to another key");
  const cubin = new Uint8Array(body.subarray(cubinStart)); // a copy, aligned for its reader
  if (cubin.length !== header.cubinBytes) throw new Error("its length is wrong");
  requireElf(cubin);
  return { cubin, log: header.log, compiler: header.compiler };
}

interface Header {
  readonly key: string;
  readonly compiler: string;
  readonly log: string;
  readonly cubinBytes: number;
}

function isHeader(value: unknown): value is Header {
  const { key, compiler, log } = (value ?? {}) as Partial<Header>;
  return [key, compiler, log].every((text) => typeof text === "string");
}

function requireElf(cubin: Uint8Array): void {
  const isElf = [0x7f, 0x45, 0x4c, 0x46].every((byte, i) => cubin[i] === byte);
  if (!isElf) throw new Error("the cubin is no ELF file");
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash("sha256").update(bytes).digest();
}
