/**
 * `npm run build`: the JavaScript that `npm pack` ships; .tsconfig.build.json adds the types. Node takes half a millisecond
 * for each file that it loads, so there is one for each entry of package.json, and a few for what these share. What comes
 * from dsl/ or backends/ stays there: that is how callers are told from Tegula itself.
 */
import { readFileSync } from "node:fs";
import { build } from "rolldown";

const { dependencies, engines, exports } = JSON.parse(readFileSync("package.json", "utf8"));
const entries = Object.values(exports).map((entry) => entry.default.replace("./dist/", "").replace(".js", ""));

await build({
  input: Object.fromEntries(entries.map((entry) => [entry, `${entry}.ts`])),
  platform: "node",
  external: [...Object.keys(dependencies), /^node:/],
  transform: { target: engines.node.replace(">=", "node") },
  output: {
    dir: process.argv[2] ?? "dist",
    cleanDir: true,
    sourcemap: true,
    entryFileNames: "[name].js",
    chunkFileNames: ({ name }) => (name === "dsl" ? "dsl/shared.js" : `backends/${name}.js`),
    codeSplitting: { groups: [{ name: "dsl", test: /\/dsl\// }] },
  },
});
