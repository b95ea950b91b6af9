import { defineConfig } from "vitest/config";

export default defineConfig({
  root: new URL("..", import.meta.url).pathname,
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 60_000,
    // Tests mostly wait for one compiler or another.
    maxWorkers: "100%",
    // A warm shader cache would hide use of Dawn objects after they are freed.
    env: { MESA_SHADER_CACHE_DISABLE: "true" },
    reporters: ["default", "./test/summary-reporter.ts"],
  },
});
