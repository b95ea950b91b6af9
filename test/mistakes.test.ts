/** What users do wrong while they write a kernel: JavaScript on run-time values, scopes, types. */
import { expect, test } from "vitest";
import {
  bf16,
  bool,
  DTypeError,
  type Expr,
  f32,
  i32,
  input,
  kernel,
  output,
  type RegArray,
  scalar,
  ScopeError,
  ShapeError,
  size,
  StagingError,
  type Thread,
  u32,
  UnsupportedError,
} from "../dsl/index.ts";
import { caught, mistakesIn, traced, untyped } from "./mistake.ts";

const mistake = mistakesIn(import.meta.url);
const y = output(f32, [64]);

// JavaScript on run-time values.

mistake("!c in when", StagingError, /operand of when is false[^]*condition before it[^]*x\.not\(\)/, () =>
  traced((t) => {
    const c = t.lane.lt(3); // cause
    t.when(untyped(!c), () => t.barrier()); // wrong
  }),
);

mistake("if (!c)", StagingError, /condition made here is never used[^]*t\.when\(c\.not\(\)/, () =>
  traced((t, { y }) => {
    const c = t.lane.lt(3); // wrong
    if (!untyped<boolean>(c)) y.store([t.lane], 1);
  }),
);

mistake("c && d", StagingError, /condition made here is never used/, () =>
  traced((t, { y }) => {
    const c = t.lane.lt(3); // wrong
    const d = t.lane.gt(1);
    t.when(untyped(untyped<boolean>(c) && d), () => y.store([t.lane], 1));
  }),
);

mistake(
  "a === b in when",
  StagingError,
  /operand of when is false[^]*x\.eq\(y\)/,
  () => traced((t) => t.when(untyped(untyped<number>(t.lane) === 0), () => t.barrier())), // wrong
);

mistake("if (t.warpAny(c))", StagingError, /condition made here is never used/, () =>
  traced((t, { y }) => {
    const any = t.warpAny(t.lane.lt(3)); // wrong
    if (untyped<boolean>(any)) y.store([t.lane], 1);
  }),
);

mistake("a + b", StagingError, /JavaScript arithmetic[^]*i32 was made[^]*a\.add\(b\)/, () =>
  traced((t) => {
    const a = t.lane.mul(2); // cause
    untyped<number>(a) + 1; // wrong
  }),
);

mistake(
  "a < b",
  StagingError,
  /JavaScript arithmetic, comparison/,
  () => traced((t) => untyped<number>(t.lane) < 4), // wrong
);

mistake(
  "a template string",
  StagingError,
  /or text/,
  () => traced((t) => `${untyped<string>(t.lane)}`), // wrong
);

mistake("size + 1", ShapeError, /M is known only at launch[^]*dims\.add/, () => {
  const M = size("M");
  return untyped<number>(M) + 1; // wrong
});

mistake("break in a traced loop", StagingError, /left before its end[^]*last line recorded in it[^]*t\.when/, () =>
  traced((t, { y }) => {
    // prettier-ignore
    for (const i of t.range(4)) { // wrong
      y.store([i], 1); // cause
      break;
    }
  }),
);

mistake("return in a traced loop", StagingError, /left before its end/, () =>
  traced((t) => {
    for (const _ of t.range(4)) return; // wrong
  }),
);

mistake("for (... in range)", StagingError, /nothing iterates it[^]*`of`/, () =>
  traced((t) => {
    for (const _ in t.range(4)) t.barrier(); // wrong
  }),
);

mistake("while (c)", UnsupportedError, /more than 200000 statements[^]*t\.range/, () =>
  traced((t) => {
    const i = t.reg(i32, 0);
    while (untyped<boolean>(t.lane.add(1))) i.set(1); // wrong
  }),
);

mistake(
  "an async body",
  StagingError,
  /can't be async/,
  () =>
  kernel({ name: "late", grid: 1, block: 32, params: { y } }, async (t) => { // wrong
    await Promise.resolve();
    t.pdl.wait();
  }), // prettier-ignore
);

mistake(
  "an async branch",
  StagingError,
  /can't be async/,
  () => traced((t) => t.when(t.lane.eq(0), async () => t.barrier())), // wrong
);

mistake(
  "a generator as body",
  StagingError,
  /can't be a generator/,
  () => kernel({ name: "generator", grid: 1, block: 32, params: { y } }, function* () {}), // wrong
);

mistake(
  "a statement instead of a branch",
  StagingError,
  /branch is a function, not undefined[^]*=>/,
  () => traced((t, { y }) => t.when(t.lane.eq(0), untyped(y.store([0], 1)))), // wrong
);

mistake(
  "a value instead of an update",
  StagingError,
  /update takes a function, not an Expr/,
  () => traced((t) => t.reg(f32, 0).update(untyped(t.lane))), // wrong
);

mistake(
  "an update that returns nothing",
  StagingError,
  /operand of set is undefined[^]*return/,
  () => traced((t) => t.reg(f32, 0).update(untyped(() => undefined))), // wrong
);

mistake(
  "a method without its object",
  StagingError,
  /barrier was called without its Thread/,
  () => traced(({ barrier }) => barrier()), // wrong
);

// Scopes.

mistake("a value used outside its loop", ScopeError, /outside the loop or branch[^]*t\.reg\(f32, 0\) before/, () =>
  traced((t, { y }) => {
    let last: Expr<"i32"> = t.lane;
    for (const i of t.range(4)) last = i.add(1); // cause
    y.store([last], 1); // wrong
  }),
);

mistake("a value used outside its branch", ScopeError, /outside the loop or branch/, () =>
  traced((t, { y }) => {
    let value: Expr<"f32"> = t.const(f32, 0);
    t.when(t.lane.eq(0), () => void (value = t.lane.to(f32))); // cause
    y.store([0], value); // wrong
  }),
);

mistake("a register used outside its branch", ScopeError, /A register is used outside/, () =>
  traced((t) => {
    const made: { set(value: number): void }[] = [];
    t.when(t.lane.eq(0), () => void made.push(t.reg(f32, 0))); // cause
    made.forEach((reg) => reg.set(1)); // wrong
  }),
);

mistake("[...t.range()]", ScopeError, /outside the loop/, () =>
  traced((t, { y }) => {
    const all = [...t.range(4)]; // cause
    all.forEach((i) => y.store([i], 1)); // wrong
  }),
);

mistake("a value of another kernel", ScopeError, /A value belongs to the kernel traced, not to other/, () =>
  traced((t) => {
    const mine = t.lane.add(1); // cause
    kernel({ name: "other", grid: 1, block: 32, params: { y } }, (other) => {
      other.lane.add(mine); // wrong
    });
  }),
);

mistake("t after its kernel is finished", ScopeError, /kernel traced is finished[^]*it began/, () => {
  const kept: Thread[] = [];
  traced((t) => void kept.push(t));
  kept.forEach((t) => t.barrier()); // wrong
});

mistake("a value after its kernel is finished", ScopeError, /kernel traced is finished/, () => {
  const kept: Expr<"i32">[] = [];
  traced((t) => void kept.push(t.lane));
  kept.forEach((lane) => lane.add(1)); // wrong
});

// Types.

mistake("f32 + i32", DTypeError, /Add takes f32 here, not i32[^]*\.to\(f32\)/, () =>
  traced((t, { x }) => {
    const i = t.lane.add(1); // cause
    x.load([t.lane]).add(untyped(i)); // wrong
  }),
);

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
  /When takes bool here, not i32/,
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

// Register arrays.

const array = (t: Thread): RegArray<"f32"> => t.array(f32, 4);

mistake(
  "a register beyond the array",
  ShapeError,
  /has 4 registers; there is none at 4/,
  () => traced((t) => array(t).set(4, 0)), // wrong
);

mistake(
  "an array whose length is known at run time",
  ShapeError,
  /fixed length[^]*not an Expr/,
  () => traced((t) => t.array(f32, untyped(t.lane))), // wrong
);

mistake(
  "a step that isn't positive",
  ShapeError,
  /step of a loop is a positive/,
  () => traced((t) => t.range(4, { step: 0 })), // wrong
);

mistake("unrolling an unknown count", StagingError, /bounds are TypeScript numbers/, () =>
  traced((t, { n }) => {
    for (const _ of t.range(n, { unroll: true })) t.warpBarrier(); // wrong
  }),
);
