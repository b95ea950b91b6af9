/** What users do wrong in a kernel's declaration: names, sizes, shapes, grid, parameters and their roles. */
import { inspect } from "node:util";
import { expect, test } from "vitest";
import {
  bf16,
  ceilDiv,
  dims,
  f32,
  frozen,
  input,
  kernel,
  NameError,
  output,
  PdlError,
  ShapeError,
  size,
  StagingError,
  type Thread,
} from "../dsl/index.ts";
import { caught, mistakesIn, traced, untyped } from "./mistake.ts";

const mistake = mistakesIn(import.meta.url);
const y = output(f32, [64]);
const config = { name: "configured", grid: 1, block: 32, params: { y } } as const;
const waits = (t: Thread): void => void t.pdl.wait();

test("what Node prints of an uncaught error has each line once", () => {
  const error = caught(() => kernel({ ...config, block: 33 }, waits)) as ShapeError;
  const text = inspect(caught(() => kernel(config, untyped(undefined))));
  expect(text).toMatch(/^StagingError: A kernel's body is a function/);
  expect(text.match(/Write kernel\(/g)).toHaveLength(1);
  expect(text).not.toMatch(/\b(at|hint): /);
  expect(Object.keys(error as object)).toEqual([]);
});

mistake(
  "a name that is code",
  NameError,
  /kernel's name is an identifier[^]*not "a\(\){}"/,
  () => kernel({ ...config, name: "a(){}" }, waits), // wrong
);

mistake(
  "a parameter's name that is code",
  NameError,
  /parameter's name[^]*"x;y"/,
  () => kernel({ ...config, params: { "x;y": input(f32, [1]) } }, waits), // wrong
);

mistake("a size's name that is code", NameError, /size's name[^]*"N\*\/"/, () => {
  const N = size("N*/"); // wrong
  kernel({ ...config, params: { x: input(f32, [N]) } }, waits);
});

mistake(
  "a block that isn't whole warps",
  ShapeError,
  /multiple of 32 threads, 32 to 1,024, not 48/,
  () => kernel({ ...config, block: 48 }, waits), // wrong
);

mistake(
  "a fraction of a block",
  ShapeError,
  /grid has 2\.5 blocks along x[^]*ceilDiv/,
  () => kernel({ ...config, grid: 5 / 2 }, waits), // wrong
);

mistake(
  "too many blocks along y",
  ShapeError,
  /65536 blocks along y/,
  () => kernel({ ...config, grid: [1, 65_536] }, waits), // wrong
);

mistake(
  "no grid",
  ShapeError,
  /grid is a number of blocks or an array of one to three, not undefined/,
  () => kernel(untyped({ ...config, grid: undefined }), waits), // wrong
);

mistake("a size that no shape names", ShapeError, /No parameter's shape contains the size M[^]*scalar\(i32\)/, () => {
  const M = size("M"); // wrong
  kernel({ ...config, grid: M }, waits);
});

mistake("two sizes of one name", ShapeError, /name M stands for two things/, () => {
  const [one, other] = [size("M"), size("M", { max: 8 })]; // wrong
  kernel({ ...config, params: { a: input(f32, [one]), b: input(f32, [other]) } }, waits);
});

mistake("a second size used in the body only", ShapeError, /name M stands for two things/, () => {
  const M = size("M"); // cause
  const again = size("M"); // wrong
  kernel({ ...config, params: { a: input(f32, [M]) } }, (t) => {
    t.pdl.wait();
    for (const dim of [again, M]) t.dim(dim);
  });
});

mistake("a parameter named like a size", ShapeError, /name y stands for two things/, () => {
  const s = size("y"); // wrong
  kernel({ ...config, params: { y, x: input(f32, [s]) } }, waits);
});

mistake(
  "a computed dimension",
  ShapeError,
  /dimension \(M \+ 1\) is computed/,
  () => input(f32, [dims.add(size("M"), 1)]), // wrong
);

mistake(
  "a kernel made at no place",
  ShapeError,
  /A kernel's at is a place, not "here\.ts"[^]*at: { file, line, column }/,
  () => kernel({ ...config, at: untyped("here.ts") }, waits), // wrong
);

test("a kernel may be made at another's line, which its messages then name", () => {
  const at = { file: "author.ts", line: 7, column: 3 };
  expect(kernel({ ...config, at }, waits).ir.at).toEqual(at);
  expect(String(caught(() => kernel({ ...config, at, block: 33 }, waits)))).toContain("\n  at author.ts:7:3");
});

mistake("a dimension of zero", ShapeError, /from 1 to 2\^31 - 1, not 0/, () => input(f32, [0])); // wrong

mistake(
  "a shape that is a number",
  ShapeError,
  /shape is an array[^]*input\(f32, \[M, N\]\)/,
  () => input(f32, untyped(4)), // wrong
);

mistake(
  "a parameter that is a shape",
  ShapeError,
  /parameter x is an array[^]*x: input\(/,
  () => kernel(untyped({ ...config, params: { x: [4, 4] } }), waits), // wrong
);

mistake(
  "no body",
  StagingError,
  /body is a function, not undefined/,
  () => kernel(config, untyped(undefined)), // wrong
);

mistake(
  "ceilDiv of a run-time value",
  ShapeError,
  /ceilDiv takes whole numbers and sizes, not an Expr/,
  () => traced((t) => ceilDiv(untyped(t.lane), 4)), // wrong
);

mistake("a divisor that may be zero", ShapeError, /which may be zero/, () => ceilDiv(4, size("M", { min: 0 }))); // wrong

mistake(
  "a size without values",
  ShapeError,
  /no multiple of 8 lies between 9 and 15/,
  () => size("M", { min: 9, max: 15, multipleOf: 8 }), // wrong
);

mistake(
  "an alignment that isn't a power of two",
  ShapeError,
  /power of two from 2 to 256, not 12/,
  () => frozen(bf16, [64], { alignBytes: 12 }), // wrong
);

mistake(
  "an input taken from the arguments",
  PdlError,
  /^x is an input: it exists only after t\.pdl\.wait\(\)\n[^]*{ x } =/,
  () =>
    kernel({ ...config, params: { x: input(f32, [4]) } }, (_t, early) => {
      untyped<{ x: unknown }>(early).x; // wrong
    }),
);

mistake("a frozen tensor taken from the wait", PdlError, /w is frozen[^]*\(t, { w }\)/, () =>
  kernel({ ...config, params: { w: frozen(f32, [4]) } }, (t) => {
    untyped<{ w: unknown }>(t.pdl.wait()).w; // wrong
  }),
);
