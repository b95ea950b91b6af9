/** Every public operation has a worked example in its documentation, and each example is true. */
import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import * as algebra from "../../dsl/layout/index.ts";

const folder = new URL("../../dsl/layout/", import.meta.url);

/** Lines ` * expression // result` within ```ts blocks of doc comments. */
function examples() {
  return readdirSync(folder).flatMap((file) => {
    const source = readFileSync(new URL(file, folder), "utf8");
    const blocks = [...source.matchAll(/```ts\n([^`]*) \* ```/g)].map(([, block = ""]) => block);
    return blocks.flatMap((block) =>
      [...block.matchAll(/^ \* (.+?) \/\/ (.+)$/gm)].map(([, code = "", result = ""]) => ({ file, code, result })),
    );
  });
}

test.each(examples())("$file: $code // $result", ({ code, result }) => {
  // eslint-disable-next-line no-new-func
  const run = () => new Function(...Object.keys(algebra), `return ${code};`)(...Object.values(algebra)) as unknown;
  if (!result.startsWith("LayoutError: ")) {
    expect(algebra.print(run() as algebra.IntTuple)).toBe(result);
    return;
  }
  expect(run).toThrow(algebra.LayoutError);
  expect(run).toThrow(result.slice("LayoutError: ".length));
});

test("every exported function has an example", () => {
  const codes = examples().map(({ code }) => code);
  const classes = [algebra.Layout, algebra.ComposedLayout, algebra.Swizzle, algebra.ScaledBasis, algebra.LayoutError];
  const without = Object.entries(algebra)
    .filter(([, value]) => typeof value === "function" && !classes.some((one) => one === value))
    .filter(([name]) => !codes.some((code) => code.startsWith(`${name}(`)));
  expect(without.map(([name]) => name)).toEqual([]);
});
