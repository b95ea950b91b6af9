/** What scripts show while they work. */

/** A bar, on a terminal only; it goes when all is done. */
export function progress(what: string, done: number, all: number): void {
  if (!process.stderr.isTTY) return;
  const filled = Math.round((30 * done) / all);
  process.stderr.write(`\r\x1b[K${"#".repeat(filled)}${".".repeat(30 - filled)} ${done}/${all} ${what}`);
  if (done === all) process.stderr.write("\r\x1b[K");
}
