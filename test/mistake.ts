/** Helpers for tests of what users do wrong: the error's class, what it says, and the line that it names. */
import { readFileSync } from "node:fs";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import {
  bf16,
  type Dependent,
  type Early,
  f32,
  frozen,
  i32,
  inout,
  input,
  kernel,
  output,
  scalar,
  size,
  TegulaError,
  type Thread,
} from "../dsl/index.ts";

type ErrorClass = new (what: string) => TegulaError;
type Mistake = (title: string, error: ErrorClass, says: RegExp, body: () => unknown) => void;

/**
 * Declares tests of mistakes for one test file. The line at fault is the one marked `// wrong` after the test's title; a
 * line marked `// cause` must be named as well.
 */
export function mistakesIn(url: string): Mistake {
  const path = fileURLToPath(url);
  const file = relative(process.cwd(), path);
  const source = readFileSync(path, "utf8").split("\n");

  const markedLine = (title: string, marker: string): number | undefined => {
    const start = source.findIndex((text) => text.includes(JSON.stringify(title)));
    const length = source.slice(start + 1).findIndex((text) => /^\s*(mistake|test|describe)\(/.test(text));
    const found = source
      .slice(start, length < 0 ? undefined : start + 1 + length)
      .findIndex((text) => text.includes(marker));
    return found < 0 ? undefined : start + found + 1;
  };

  return (title, error, says, body) =>
    test(title, () => {
      const thrown = caught(body);
      expect(thrown).toBeInstanceOf(TegulaError);
      if (!(thrown instanceof TegulaError)) return;
      expect(thrown.name).toBe(error.name);
      expect(thrown.message).toMatch(says);
      expect(`${thrown.at?.file}:${thrown.at?.line}`).toBe(`${file}:${markedLine(title, "// wrong")}`);
      expect(thrown.message).toContain(`at ${file}:${thrown.at?.line}:`);
      const cause = markedLine(title, "// cause");
      if (cause !== undefined) expect(thrown.message).toContain(`${file}:${cause}:`);
    });
}

export function caught(body: () => unknown): unknown {
  try {
    body();
  } catch (error) {
    return error;
  }
  return undefined;
}

const M = size("M", { max: 64 });

function params() {
  return {
    w: frozen(bf16, [64, 64], { alignBytes: 16 }),
    n: scalar(i32),
    x: input(f32, [64], { alignBytes: 16 }),
    rows: input(f32, [M, 64]),
    y: output(f32, [64], { alignBytes: 16 }),
    acc: inout(i32, [64]),
  };
}

export type TestParams = ReturnType<typeof params>;

/** Traces a kernel of 2 blocks of 64 threads; its body comes after the wait. */
export function traced(
  body: (t: Thread<Dependent<TestParams>>, tensors: Early<TestParams> & Dependent<TestParams>) => void,
) {
  return kernel({ name: "traced", grid: 2, block: 64, params: params() }, (t, { w, n }) => {
    body(t, { ...t.pdl.wait(), w, n });
  });
}

/** For mistakes that tsc would catch. */
export function untyped<T = never>(value: unknown): T {
  return value as T;
}
