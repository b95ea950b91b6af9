/** The JavaScript that `npm pack` ships, built by .build.mjs into a folder of its own: bundled, it means what the sources mean. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

/** In package.json's words, of what lies in the sources as `<path>.ts` and in the package as `<path>.js`. */
const entries = {
  tegula: "dsl/index",
  "tegula/layout": "dsl/layout/index",
  "tegula/kernels": "kernels/index",
  "tegula/cuda": "backends/cuda/index",
  "tegula/wgsl": "backends/wgsl/index",
  "tegula/simulator": "backends/simulator/index",
} as const;
type Entry = keyof typeof entries;
const names = Object.keys(entries) as Entry[];

/** What authors write, beside the package; the lines that it must know are marked. */
const program = `
import { rmdirSync } from "node:fs";
import { f32, kernel, output } from "./dist/dsl/index.js";
import { llGemmDotBf16 } from "./dist/kernels/index.js";
import { DeviceTensor } from "./dist/backends/wgsl/index.js";
const found = {};
const fill = (index) =>
  kernel({ name: "fill", grid: 1, block: 32, params: { y: output(f32, [32]) } }, (t) => { // the kernel
    const { y } = t.pdl.wait();
    y.store([index(t)], 1); // the statement
  });
const own = fill((t) => t.lane).ir;
found["the kernel"] = own.at;
found["the statement"] = own.body.at(-1).at;
try {
  fill(() => ({})); // the mistake
} catch (error) {
  found["the statement at fault"] = error.at;
}
const storage = { byteLength: 4, freeze: (at) => (found["the freezing"] = at) };
new DeviceTensor(storage, f32, [1]).freeze(); // the freezing
const { ir } = llGemmDotBf16({ M: 1, N: 32, K: 256, out: f32 }); // the shipped kernel
found["the shipped kernel"] = ir.at;
found.ours = ir.body.at(-1).at;
process.chdir(process.argv[2]);
rmdirSync(process.argv[2]);
found["in a folder that is gone"] = kernel({ name: "none", grid: 1, block: 32, params: {} }, (t) => t.pdl.wait()).ir.at; // gone
console.log(JSON.stringify(found));
`;

describe("the package's JavaScript", () => {
  let folder = "";
  beforeAll(() => {
    mkdirSync(".out", { recursive: true });
    folder = mkdtempSync(join(process.cwd(), ".out", "package-")); // where the dependencies are found
    execFileSync(process.execPath, [".build.mjs", join(folder, "dist")]);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  /** Everything that importing an entry loads: our files, and names of what isn't ours. */
  function loaded(entry: Entry): { readonly files: ReadonlySet<string>; readonly others: ReadonlySet<string> } {
    const [files, others] = [new Set<string>(), new Set<string>()];
    const visit = (file: string): void => {
      if (files.has(file)) return;
      files.add(file);
      for (const [, target = ""] of readFileSync(file, "utf8").matchAll(/^(?:import|export) .*?from "(.*)";$/gm)) {
        if (target.startsWith(".")) visit(join(dirname(file), target));
        else others.add(target);
      }
    };
    visit(join(folder, "dist", `${entries[entry]}.js`));
    return { files, others };
  }

  it("has every entry of package.json", () => {
    const { exports } = JSON.parse(readFileSync("package.json", "utf8")) as { exports: Record<string, object> };
    const expected = names.map((name) => [
      name.replace("tegula", "."),
      { types: `./dist/${entries[name]}.d.ts`, default: `./dist/${entries[name]}.js` },
    ]);
    expect(exports).toEqual(Object.fromEntries(expected));
  });

  it.each(names)("%s exports what the sources export", async (name) => {
    const [packed, source] = (await Promise.all([
      import(/* @vite-ignore */ join(folder, "dist", `${entries[name]}.js`)),
      import(/* @vite-ignore */ `../${entries[name]}.ts`),
    ])) as Record<string, unknown>[];
    expect(Object.keys(packed ?? {}).sort()).toEqual(Object.keys(source ?? {}).sort());
    for (const [key, value] of Object.entries(source ?? {})) {
      const ours = packed?.[key];
      expect(typeof ours).toBe(typeof value);
      // Messages name classes.
      if (/^[A-Z]/.test(key) && typeof ours === "function") expect(ours.name).toBe(key);
    }
  });

  it("loads few files, and in browsers nothing of Node", () => {
    for (const name of names) expect(loaded(name).files.size).toBeLessThanOrEqual(4);
    for (const name of ["tegula", "tegula/layout", "tegula/kernels", "tegula/simulator"] as const) {
      expect([...loaded(name).others]).toEqual([]);
    }
    expect([...loaded("tegula/cuda").others]).toContain("koffi");
    expect([...loaded("tegula/cuda").others]).not.toContain("webgpu");
    expect([...loaded("tegula/wgsl").others]).not.toContain("koffi");
  });

  it("tells the author's lines from its own", () => {
    writeFileSync(join(folder, "author.mjs"), program);
    const gone = mkdtempSync(join(folder, "gone-"));
    const output = execFileSync(process.execPath, ["author.mjs", gone], { cwd: folder, encoding: "utf8" });
    const { ours, ...found } = JSON.parse(output) as Record<string, { file: string; line: number }>;
    const line = (marker: string) => program.split("\n").findIndex((text) => text.includes(`// ${marker}`)) + 1;
    const at = (marker: string, file = "author.mjs") => ({ file, line: line(marker), column: expect.any(Number) });
    expect(found).toEqual({
      "the kernel": at("the kernel"),
      "the statement": at("the statement"),
      "the statement at fault": at("the statement"),
      "the freezing": at("the freezing"),
      "the shipped kernel": at("the shipped kernel"),
      "in a folder that is gone": at("gone", join(folder, "author.mjs")),
    });
    expect(ours?.file).toBe("dist/kernels/index.js");
  });
});
