/** The folder of this user for what backends keep from one process to the next, and who else could have put something there. */
import { existsSync, lstatSync, mkdirSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, isAbsolute, join, resolve } from "node:path";

/** $TEGULA_CACHE_DIR, $XDG_CACHE_HOME/tegula or ~/.cache/tegula; undefined for a user without a home folder. */
export function cacheFolder(): string | undefined {
  const { TEGULA_CACHE_DIR: own, XDG_CACHE_HOME: xdg } = process.env;
  if (own) return resolve(own);
  // The XDG specification wants relative paths ignored, too.
  const parent = xdg && isAbsolute(xdg) ? xdg : join(homeFolder(), ".cache");
  return isAbsolute(parent) ? join(parent, "tegula") : undefined;
}

/** Why this is not a folder that only this user can have written to; undefined when it is one. A symbolic link is none. */
export function whyNotPrivate(folder: string): string | undefined {
  try {
    const stat = lstatSync(folder);
    if (!stat.isDirectory()) return `${folder} is not a folder`;
    if (stat.uid !== process.getuid?.()) return `${folder} belongs to someone else`;
    return (stat.mode & 0o022) === 0 ? undefined : `${folder} can be written to by others`;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/**
 * Makes a folder for this user alone, and its parents where they are missing. Node's recursive mkdir never returns where
 * mkdir answers ENOENT though the parent is there, as in /proc (seen with Node 20.20).
 * @throws Error
 */
export function makeFolder(folder: string): void {
  if (existsSync(folder)) return;
  makeFolder(dirname(folder));
  try {
    mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    if (!existsSync(folder)) throw error; // otherwise another process was faster
  }
}

/** Empty for a user without one. */
export function homeFolder(): string {
  try {
    return homedir();
  } catch {
    return ""; // no HOME, and a user id that the system doesn't know
  }
}
