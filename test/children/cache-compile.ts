/**
 * Compiles kernels 0 to `count`, `byteLength` each, and prints how many came from where, as JSON. Says "ready" to its parent, if it has one that
 * listens, and waits for an answer: so that several begin at once.
 */
import { compileNth } from "./cache-support.ts";

const [count = 1, byteLength = 0] = process.argv.slice(2).map(Number);

if (process.send) {
  const go = new Promise((resolve) => process.once("message", resolve));
  process.send("ready");
  await go;
}
const counts: Record<string, number> = {};
for (let n = 0; n < count; n++) {
  const { from = "wrong" } = compileNth(n, byteLength);
  counts[from] = (counts[from] ?? 0) + 1;
}
console.log(JSON.stringify(counts));
if (process.connected) process.disconnect();
