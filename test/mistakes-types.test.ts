/** What users do wrong with dtypes and lanes where tsc does not stop them: casts, plain JavaScript. */
import { expect, test } from "vitest";
import { bf16, bool, DTypeError, type Expr, f32, input, scalar, size, StagingError, u32 } from "../dsl/index.ts";
import { caught, mistakesIn, traced, untyped } from "./mistake.ts";

const mistake = mistakesIn(import.meta.url);

mistake("f32 + i32", DTypeError, /^add takes f32 here, not i32[^]*\.to\(f32\)/, () =>
  traced((t, { x }) => {
    const i = t.lane.add(1); // cause
    x.load([t.lane]).add(untyped(i)); // wrong
  }),
);

test("what is wrong with a lane's number has no line where it was made", () => {
  const message = (body: Parameters<typeof traced>[0]) => String(caught(() => traced(body)));
  const wrong = [
    message((t, { x }) => x.load([0]).add(untyped(t.lane))),
    message((t) => untyped<Expr<"f32">>(t.thread).exp()),
    message((t, { x }) => x.load([0]).fma(2, untyped(t.warp))),
  ];
  for (const said of wrong) {
    expect(said).toMatch(/^DTypeError: (add|exp|fma) .* i32/);
    expect(said).not.toMatch(/\b(value|operand|i32) was made/);
  }
});

mistake("bf16 arithmetic", DTypeError, /mul doesn't take bf16[^]*\.to\(f32\) first/, () =>
  traced((t, { w }) => {
    const a = w.load([0, t.lane]); // cause
    untyped<Expr<"f32">>(a).mul(untyped(a)); // wrong
  }),
);

mistake(
  "a bf16 stored where f32 is wanted",
  DTypeError,
  /A store to y takes f32 here, not bf16[^]*\.to\(f32\)/,
  () => traced((t, { w, y }) => y.store([t.lane], untyped(w.load([0, 0])))), // wrong
);

mistake(
  "a fraction as an integer",
  DTypeError,
  /1\.5 is not an i32[^]*\.to\(f32\)/,
  () => traced((t) => t.lane.add(1.5)), // wrong
);

mistake(
  "a negative u32",
  DTypeError,
  /-1 is not a u32[^]*0 to 4294967295/,
  () => traced((t) => t.const(u32, -1)), // wrong
);

mistake(
  "a Size where f32 is wanted",
  StagingError,
  /operand of div is a Size[^]*t\.dim\(size\)/,
  () => traced((t, { x }) => x.load([t.lane]).div(untyped(size("M")))), // wrong
);

mistake(
  "a tensor as operand",
  StagingError,
  /operand of add is a Tensor[^]*load\(\[i\]\)/,
  () => traced((t, { x, y }) => x.load([t.lane]).add(untyped(y))), // wrong
);

mistake(
  "lanes that don't match",
  DTypeError,
  /dot of f32x2 and f32x4/,
  () => traced((t, { x }) => t.reg(f32, 0).addDot(x.loadVec([0], 2), untyped(x.loadVec([0], 4)))), // wrong
);

mistake(
  "a lane that isn't there",
  DTypeError,
  /f32x4 has no lane 4[^]*0 to 3/,
  () => traced((_t, { x }) => x.loadVec([0], 4).lane(4)), // wrong
);

mistake(
  "a lane chosen at run time",
  DTypeError,
  /no lane an Expr[^]*TypeScript number/,
  () => traced((t, { x }) => x.loadVec([0], 4).lane(untyped(t.lane))), // wrong
);

mistake(
  "three lanes",
  DTypeError,
  /2, 4, 8 or 16 lanes, not 3/,
  () => traced((_t, { x }) => x.loadVec([0], untyped(3))), // wrong
);

mistake(
  "a dtype by name",
  DTypeError,
  /dtype is needed here[^]*not "f32"[^]*the dtype itself/,
  () => input(untyped("f32"), [4]), // wrong
);

mistake("a scalar of a narrow type", DTypeError, /f32, i32, u32; not bf16/, () => scalar(untyped(bf16))); // wrong

mistake(
  "bits of another size",
  DTypeError,
  /Can't reinterpret bool as u32/,
  () => traced((t) => t.lane.lt(1).bitcast(u32)), // wrong
);

mistake(
  "a condition that is a number",
  DTypeError,
  /^when takes bool here, not i32/,
  () => traced((t) => t.when(untyped(t.lane), () => t.barrier())), // wrong
);

mistake(
  "a boolean constant where a condition is wanted",
  StagingError,
  /is true; a run-time value is needed/,
  () => traced((t) => t.when(untyped(true), () => t.barrier())), // wrong
);

mistake(
  "select of two numbers",
  StagingError,
  /operand of select is 1[^]*t\.const\(f32, 1\)/,
  () => traced((t) => t.lane.lt(1).select(untyped(1), 0)), // wrong
);

test("a boolean constant is t.const(bool, 1)", () => {
  expect(caught(() => traced((t) => t.when(t.const(bool, 1), () => t.barrier())))).toBeUndefined();
});
