/**
 * The mutants themselves; `npm run mutants` tests the suite by them. Here: each still fits its file and names tests that are there,
 * and the script says right about killed and surviving ones, without touching the working tree.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parseSync } from "rolldown/experimental";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { mutants } from "../playground/mutants/all.ts";
import { faultClasses, type Mutant, mutated, StaleMutantError } from "../playground/mutants/mutant.ts";
import { Workspace } from "../playground/mutants/workspace.ts";

test("there are 40 of them at least, of every class, with names of their own", () => {
  expect(mutants.length).toBeGreaterThanOrEqual(40);
  expect(new Set(mutants.map(({ name }) => name)).size).toBe(mutants.length);
  for (const of of faultClasses) expect(mutants.filter((mutant) => mutant.class === of).length, of).toBeGreaterThan(2);
  const folders = ["backends/cuda/", "backends/wgsl/", "backends/lowering/", "backends/simulator/", "dsl/layout/"];
  for (const folder of [...folders, "dsl/verify/", "dsl/tile/", "kernels/"]) {
    expect(mutants.filter(({ file }) => file.startsWith(folder)).length, folder).toBeGreaterThan(1);
  }
});

test.each(mutants.map((mutant) => [mutant.name, mutant] as const))("%s fits its file", (_, mutant) => {
  const text = readFileSync(mutant.file, "utf8");
  const changed = mutated(mutant, text);
  expect(changed).not.toBe(text);
  expect(parseSync(mutant.file, changed).errors.map(({ message }) => message)).toEqual([]);
  expect(mutant.tests.filter((file) => !existsSync(file))).toEqual([]);
  expect(mutant.why).toMatch(/.{20,}[^.]$/);
  const { named } = mutant;
  if (named === undefined) return;
  // As vitest takes it; what it matches is known only when tests run.
  expect(() => new RegExp(named)).not.toThrow();
});

describe("a mutant", () => {
  const mutant: Mutant = {
    name: "example",
    class: "IR",
    why: "an example",
    file: "a.ts",
    find: "1 + 1",
    replace: "$& + $1",
    tests: [],
  };

  test("replaces one text by another, as it stands", () => {
    expect(mutated(mutant, "const x = 1 + 1;")).toBe("const x = $& + $1;");
  });

  test.each([
    ["const x = 2;", "nowhere"],
    ["const x = 1 + 1, y = 1 + 1;", "twice"],
    ["const x = 1 + 1 + 1;", "twice"],
  ])("is stale in %s", (text, where) => {
    expect(() => mutated(mutant, text)).toThrow(StaleMutantError);
    expect(() => mutated(mutant, text)).toThrow(`The mutant example is stale: its text occurs ${where} in a.ts\n`);
  });
});

describe("in a repository of its own", { timeout: 60_000 }, () => {
  let root = "";
  beforeAll(() => {
    root = mkdtempSync(join(tmpdir(), "tegula-mutants-test-"));
    const files = {
      ".gitignore": "node_modules\nignored.ts\n",
      "package.json": '{ "type": "module" }',
      "double.ts": "export const double = (x: number) => x * 2;\nexport const half = (x: number) => x / 2;\n",
      "test/vitest.config.ts": 'export default { test: { include: ["test/**/*.test.ts"] } };\n',
      "test/double.test.ts":
        'import { expect, test } from "vitest";\nimport { double } from "../double.ts";\n' +
        'test("doubles", () => expect(double(3)).toBe(6));\ntest("keeps zero", () => expect(double(0)).toBe(0));\n',
      "ignored.ts": "",
    };
    for (const [file, text] of Object.entries(files)) {
      mkdirSync(dirname(join(root, file)), { recursive: true });
      writeFileSync(join(root, file), text);
    }
    symlinkSync(join(process.cwd(), "node_modules"), join(root, "node_modules"));
    execFileSync("git", ["init", "--quiet"], { cwd: root });
  });
  afterAll(() => rmSync(root, { recursive: true, force: true }));

  const fault = (find: string, replace: string, named?: string): Mutant => ({
    name: "fault",
    class: "numerics",
    why: "a fault",
    file: "double.ts",
    find,
    replace,
    tests: ["test/double.test.ts"],
    ...(named === undefined ? {} : { named }),
  });

  test("a fault that a test notices is killed, by its name; one that none notices survives", async () => {
    using workspace = new Workspace(root);
    expect(existsSync(join(workspace.folder, "ignored.ts"))).toBe(false);
    expect(await workspace.run({ tests: ["test/double.test.ts"] })).toMatchObject({ verdict: "survived" });
    expect(await workspace.test(fault("x * 2", "x * 3"))).toMatchObject({ verdict: "killed", by: "doubles" });
    expect(await workspace.test(fault("x * 2", "x * 3", "zero"))).toMatchObject({ verdict: "survived" });
    expect(await workspace.test(fault("x / 2", "x / 3"))).toMatchObject({ verdict: "survived" });
    const broken = await workspace.test(fault("export const double", "export const triple"));
    expect(broken).toMatchObject({ verdict: "killed" });
    // Each begins from the sources as they are.
    expect(await workspace.run({ tests: ["test/double.test.ts"] })).toMatchObject({ verdict: "survived" });
    expect(readFileSync(join(root, "double.ts"), "utf8")).toContain("x * 2");
    const { folder } = workspace;
    workspace[Symbol.dispose]();
    expect(existsSync(folder)).toBe(false);
  });

  test("no test that runs is no survivor", async () => {
    using workspace = new Workspace(root);
    await expect(workspace.run({ tests: ["test/none.test.ts"] })).rejects.toThrow("no test ran");
    await expect(workspace.test(fault("x * 2", "x * 3", "no such name"))).rejects.toThrow("no test ran");
  });
});
