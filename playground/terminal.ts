/** What scripts show while they work, and when they can't. */
import { TegulaError } from "../dsl/index.ts";

/** A bar, on a terminal only; it goes when all is done. */
export function progress(what: string, done: number, all: number): void {
  if (!process.stderr.isTTY) return;
  const filled = Math.round((30 * done) / all);
  process.stderr.write(`\r\x1b[K${"#".repeat(filled)}${".".repeat(30 - filled)} ${done}/${all} ${what}`);
  if (done === all) process.stderr.write("\r\x1b[K");
}

/** Ends the script with the message of an error that its user can do something about; any other keeps its stack. */
export function fail(error: unknown): never {
  if (!(error instanceof TegulaError)) throw error;
  console.error(error.message);
  process.exit(1);
}
