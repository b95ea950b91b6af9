/** What scripts show while they work, and when they can't. */
import { readFileSync } from "node:fs";
import { TegulaError } from "../dsl/index.ts";

/** For -h and --help: prints the comment at the script's head, which says how to call it, and ends the script. */
export function showHelp(script: string): void {
  if (!process.argv.slice(2).some((argument) => argument === "-h" || argument === "--help")) return;
  const [, head = ""] = /^\/\*\*\n(.*?)\n \*\/$/ms.exec(readFileSync(script, "utf8")) ?? [];
  console.log(head.replaceAll(/^ \* ?/gm, ""));
  process.exit(0);
}

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
