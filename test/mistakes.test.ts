/** What users do wrong while they write a kernel: JavaScript on run-time values, scopes, registers. */
import {
  type Expr,
  f32,
  i32,
  kernel,
  output,
  type RegArray,
  ScopeError,
  ShapeError,
  size,
  StagingError,
  type Thread,
  UnsupportedError,
} from "../dsl/index.ts";
import { mistakesIn, traced, untyped } from "./mistake.ts";

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
