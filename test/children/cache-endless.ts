/** Compiles kernel after kernel, beginning with `first`, `byteLength` each, until its parent kills it. */
import { compileNth } from "./cache-support.ts";

const [first = 0, byteLength = 0] = process.argv.slice(2).map(Number);

compileNth(first, byteLength); // so that the parent finds it at work
process.send?.("ready");
for (let n = first + 1; ; n++) compileNth(n, byteLength);
