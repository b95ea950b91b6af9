import { defineConfig } from "vitest/config";

const source = (path: string): string => new URL(`../${path}`, import.meta.url).pathname;

export default defineConfig({
  root: new URL("..", import.meta.url).pathname,
  resolve: {
    // What the package's exports map to after `npm run build`, tests take from the sources.
    alias: [
      { find: /^tegula$/, replacement: source("dsl/index.ts") },
      { find: /^tegula\/kernels$/, replacement: source("kernels/index.ts") },
      { find: /^tegula\/cuda$/, replacement: source("backends/cuda/index.ts") },
      { find: /^tegula\/wgsl$/, replacement: source("backends/wgsl/index.ts") },
    ],
  },
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 60_000,
    // A warm shader cache would hide use of Dawn objects after they are freed.
    env: { MESA_SHADER_CACHE_DISABLE: "true" },
    reporters: ["default", "./test/summary-reporter.ts"],
  },
});
