/** Callers without tsc: whatever they pass, what comes back is a value or a TegulaError, never a TypeError from deep inside. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import * as tegula from "../dsl/index.ts";
import { bf16, bool, f32, i32, input, kernel, size, TegulaError, type Thread } from "../dsl/index.ts";
import { caught, traced } from "./mistake.ts";

type Callable = (...args: readonly unknown[]) => unknown;

const foreign: unknown[] = [];
traced((t, { x }) => void foreign.push(t.lane, x, t.reg(f32, 0)));

/** What a confused caller may pass. */
const garbage: readonly unknown[] = [
  ...[undefined, null, NaN, 1.5, -1, 0, 4, 2 ** 40, Infinity, 10n, true, "x", Symbol("s"), {}, [], [0], [0, 0]],
  ...[() => undefined, () => 1, f32, bf16, "f32", size("S"), { step: 2 }, { cache: 3 }, { guard: 1 }, { lanes: 3 }],
  ...foreign,
];
const anything = fc.constantFrom(...garbage);

/** For the DSL's own files. */
const internal = ["constructor", "read", "write", "reduce", "exchange", "named", "namedMbarrier"];

function methods(target: object): readonly [string, Callable][] {
  const prototype: object = Object.getPrototypeOf(target);
  if (prototype === Object.prototype) return [];
  const own = Object.entries<PropertyDescriptor>(Object.getOwnPropertyDescriptors(prototype));
  const inherited = methods(prototype);
  return own
    .flatMap(([name, { value }]): [string, Callable][] =>
      typeof value === "function" && !internal.includes(name) ? [[name, value as Callable]] : [],
    )
    .concat(inherited);
}

function onlyTegulaErrors(call: () => unknown): void {
  const error = caught(call);
  if (error !== undefined && !(error instanceof TegulaError)) throw error;
}

/** What an author holds, by name. */
const things: { readonly [name: string]: (t: Thread, tensors: Parameters<Parameters<typeof traced>[0]>[1]) => object } =
  {
    Thread: (t) => t,
    Expr: (t) => t.lane,
    "Expr of f32": (t) => t.const(f32, 1),
    "Expr of bool": (t) => t.const(bool, 1),
    Reg: (t) => t.reg(f32, 0),
    RegArray: (t) => t.array(i32, 4),
    "input Tensor": (_, { x }) => x,
    "inout Tensor": (_, { acc }) => acc,
    "shared Tensor": (t) => t.shared(f32, [4, 4]),
  };

describe.each(Object.entries(things))("the methods of a %s", (_, make) => {
  const names: string[] = [];
  traced((t, tensors) => void names.push(...methods(make(t, tensors)).map(([name]) => name)));

  test.each(names)("%s", (name) => {
    fc.assert(
      fc.property(fc.array(fc.nat(), { maxLength: 4 }), (picks) => {
        // What is traced may well be refused in the end; here only the calls count.
        onlyTegulaErrors(() =>
          traced((t, tensors) => {
            const target = make(t, tensors);
            const method = new Map(methods(target)).get(name);
            const { x, w } = tensors;
            const own = [t.lane, t.const(f32, 1), t.reg(f32, 0), t.array(f32, 4), x, w.loadVec([0, 0], 4), [t.lane]];
            const pool = [...garbage, ...own, ...own, ...own];
            const args = picks.map((pick) => pool[pick % pool.length]);
            onlyTegulaErrors(() => method?.apply(target, args));
            onlyTegulaErrors(() => method?.apply(undefined, args));
          }),
        );
      }),
      { numRuns: 60 },
    );
  });
});

test.each(["frozen", "input", "output", "inout", "scalar", "size", "ceilDiv", "floorDiv"] as const)("%s()", (name) => {
  const declare = tegula[name] as Callable;
  fc.assert(fc.property(fc.array(anything, { maxLength: 4 }), (args) => onlyTegulaErrors(() => declare(...args))));
});

test("kernel()", () => {
  const config = fc.record(
    {
      name: fc.oneof(fc.constant("k"), anything),
      grid: fc.oneof(fc.constant(1), anything, fc.array(anything, { maxLength: 4 })),
      block: fc.oneof(fc.constant(32), anything),
      params: fc.oneof(
        fc.dictionary(fc.constantFrom("x", "y", "a b"), fc.oneof(fc.constant(input(f32, [4])), anything)),
        anything,
      ),
    },
    { requiredKeys: [] },
  );
  const define = kernel as Callable;
  fc.assert(
    fc.property(
      fc.oneof(config, anything),
      fc.oneof(
        fc.constant((t: Thread) => void t.pdl.wait()),
        anything,
      ),
      (first, body) => onlyTegulaErrors(() => define(first, body)),
    ),
    { numRuns: 500 },
  );
});

test("an error names the author's line even below Array.map", () => {
  const error = caught(() => traced((t, { w }) => w.load([t.lane, foreign[0] as typeof t.lane])));
  expect(error).toBeInstanceOf(tegula.ScopeError);
  expect(error instanceof TegulaError && error.at?.file).toBe("test/mistakes-garbage.test.ts");
});
