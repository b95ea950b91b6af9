/**
 * Compiled kernels on disk: one file per key in a folder that only this user can write to. There are no locks. An entry
 * comes into being by a rename, so that it is whole for every reader; what two processes compile at once is the same, and
 * the later one stays. Nothing that happens here stops a compilation: NODE_DEBUG=tegula prints it.
 */
import { randomUUID } from "node:crypto";
import * as fs from "node:fs";
import { join } from "node:path";
import { debuglog } from "node:util";
import { ArgumentError } from "../../dsl/errors.ts";
import { cacheFolder, makeFolder, whyNotPrivate } from "../cache-folder.ts";
import { type CachedCubin, decodeEntry, encodeEntry } from "./cache-entry.ts";

const debug = debuglog("tegula");

const defaultLimitMiB = 256;
const isEntry = /^[0-9a-f]{64}$/;
/** Beginning of the names of files that are still being written. */
const unfinished = "new-";
/** No write takes that long: what is older was left by a process that was killed. */
const abandonedMs = 3_600_000;

/** What `npm run doctor` shows. */
export interface DiskCacheState {
  readonly folder: string | undefined;
  /** Why nothing is kept; undefined when everything is well. */
  readonly problem: string | undefined;
  readonly entries: number;
  readonly bytes: number;
  readonly limitBytes: number;
}

/** The entry of a key; undefined when there is none, or none that passes every check. */
export function readEntry(key: string): CachedCubin | undefined {
  const place = usablePlace();
  if (place === undefined) return undefined;
  const path = join(place.folder, key);
  let file: number | undefined;
  try {
    // Neither follows a link nor waits for someone to write into a pipe.
    file = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK);
    requireOwnFile(file, place.limitBytes);
    const entry = decodeEntry(key, fs.readFileSync(file));
    touch(file);
    return entry;
  } catch (error) {
    if (codeOf(error) !== "ENOENT") debug("cache entry %s is not used, it is made anew: %s", path, messageOf(error));
    return undefined;
  } finally {
    if (file !== undefined) fs.closeSync(file);
  }
}

/** Keeps an entry, in place of one that there may be, and makes room for it. */
export function writeEntry(key: string, entry: CachedCubin): void {
  const place = usablePlace();
  if (place === undefined) return;
  const path = join(place.folder, key);
  try {
    const bytes = encodeEntry(key, entry);
    publish(place.folder, bytes, path);
    makeRoom(place, bytes.length);
  } catch (error) {
    debug("cache entry %s is not kept: %s", path, messageOf(error));
  }
}

/** Looks at the folder, and writes into it once. @throws ArgumentError for a wrong variable */
export function diskCacheState(): DiskCacheState {
  const place = findPlace();
  if (typeof place === "string") {
    return { folder: undefined, entries: 0, bytes: 0, limitBytes: sizeLimit(), problem: place };
  }
  const { folder, limitBytes } = place;
  let problem: string | undefined;
  try {
    publish(folder, new Uint8Array(4096), undefined);
  } catch (error) {
    problem = messageOf(error);
  }
  const files = list(folder).filter(({ name }) => isEntry.test(name));
  return { folder, problem, entries: files.length, bytes: sum(files), limitBytes };
}

/** Writes under a name of its own, then renames; without a `path`, removes again. @throws Error */
function publish(folder: string, bytes: Uint8Array, path: string | undefined): void {
  const fresh = join(folder, unfinished + randomUUID());
  try {
    const file = fs.openSync(fresh, "wx", 0o600);
    try {
      fs.writeFileSync(file, bytes);
      fs.fsyncSync(file);
    } finally {
      fs.closeSync(file);
    }
    if (path !== undefined) fs.renameSync(fresh, path);
  } finally {
    fs.rmSync(fresh, { force: true });
  }
}

/** A folder is read whole only now and then, not for each new entry. */
let bytesUntilCount = 0;

/** Removes what was not used for the longest time once there is too much, and what killed processes left. */
function makeRoom({ folder, limitBytes }: Place, addedBytes: number): void {
  bytesUntilCount -= addedBytes;
  if (bytesUntilCount > 0) return;
  bytesUntilCount = limitBytes / 16;
  const files = list(folder);
  for (const { name, usedMs } of files) {
    if (name.startsWith(unfinished) && Date.now() - usedMs > abandonedMs) remove(folder, name);
  }
  const entries = files.filter(({ name }) => isEntry.test(name)).sort((a, b) => a.usedMs - b.usedMs);
  let bytes = sum(entries);
  if (bytes <= limitBytes) return;
  for (const { name, size } of entries) {
    if (bytes <= limitBytes * 0.75) break;
    remove(folder, name);
    bytes -= size;
  }
  debug("cache %s had over %d bytes, now it has %d", folder, limitBytes, bytes);
}

interface ListedFile {
  readonly name: string;
  readonly size: number;
  readonly usedMs: number;
}

/** The folder's files. Other processes may remove some meanwhile. */
function list(folder: string): ListedFile[] {
  return fs.readdirSync(folder).flatMap((name) => {
    const stat = fs.lstatSync(join(folder, name), { throwIfNoEntry: false });
    return stat?.isFile() ? [{ name, size: stat.size, usedMs: stat.mtimeMs }] : [];
  });
}

function remove(folder: string, name: string): void {
  fs.rmSync(join(folder, name), { force: true });
}

function sum(files: readonly ListedFile[]): number {
  return files.reduce((bytes, { size }) => bytes + size, 0);
}

interface Place {
  readonly folder: string;
  readonly limitBytes: number;
}

const said = new Set<string>();

function usablePlace(): Place | undefined {
  const place = findPlace();
  if (typeof place !== "string") return place;
  if (!said.has(place)) debug("compiled kernels are not kept on disk: %s", place);
  said.add(place);
  return undefined;
}

/** The folder, made where it is missing, or why it can't be used. @throws ArgumentError for a wrong variable */
function findPlace(): Place | string {
  const limitBytes = sizeLimit();
  if (isOff()) return "TEGULA_CACHE is off";
  const root = cacheFolder();
  if (root === undefined) return "this user has no home folder; TEGULA_CACHE_DIR can name another";
  const folder = join(root, "cubin");
  try {
    makeFolder(folder);
  } catch (error) {
    return messageOf(error);
  }
  return whyNotPrivate(root) ?? whyNotPrivate(folder) ?? { folder, limitBytes };
}

/** @throws Error for what only someone else, or no cache, can have put there */
function requireOwnFile(file: number, limitBytes: number): void {
  const stat = fs.fstatSync(file);
  if (!stat.isFile()) throw new Error("it is no plain file");
  if (stat.uid !== process.getuid?.() || (stat.mode & 0o022) !== 0) throw new Error("others can have written it");
  if (stat.size > limitBytes) throw new Error("it is larger than the cache may be");
}

/** Used just now. On a read-only disk there is nothing to remember it for. */
function touch(file: number): void {
  try {
    const now = Date.now() / 1000;
    fs.futimesSync(file, now, now);
  } catch (error) {
    debug("cache entry can't be marked as used: %s", messageOf(error));
  }
}

/** @throws ArgumentError */
function isOff(): boolean {
  const text = process.env["TEGULA_CACHE"] || "on";
  if (text === "on" || text === "off") return text === "off";
  throw new ArgumentError(`TEGULA_CACHE is "${text}"`, {
    hint: "Write TEGULA_CACHE=off to keep nothing on disk, or on.",
  });
}

/** In bytes. @throws ArgumentError */
function sizeLimit(): number {
  const text = process.env["TEGULA_CACHE_SIZE"] || String(defaultLimitMiB);
  if (/^\d{1,9}(\.\d+)?$/.test(text)) return Number(text) * 2 ** 20;
  throw new ArgumentError(`TEGULA_CACHE_SIZE is "${text}"`, {
    hint: "Write a number of MiB, e.g. TEGULA_CACHE_SIZE=512.",
  });
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
