/** A run of three small tests with the project's reporter, which is told to expect $EXPECTED: "ran,skipped". */
import { defineConfig } from "vitest/config";

const [ran = 0, nothing = 0] = (process.env["EXPECTED"] ?? "").split(",").map(Number);
const counts = { ran, skipped: { GPU: 0, nvcc: 0, nothing } };

export default defineConfig({
  root: new URL(".", import.meta.url).pathname,
  test: { include: ["*.child.ts"], reporters: [["../../summary-reporter.ts", { counts }]] },
});
