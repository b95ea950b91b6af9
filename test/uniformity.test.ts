/** What is said to be the same in a warp or a block is; and where all are said to come, all come together. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { type Expr, i32, type Reg } from "../dsl/index.ts";
import { type Stmt, walk } from "../dsl/ir.ts";
import { Uniformity, UniformityAnalysis } from "../dsl/verify/uniformity.ts";
import { build, launches, M, type Observe, type Recipe, recipe, run, threadsOf, traceBody } from "./threads.ts";

type Step =
  | { readonly kind: "set"; readonly register: number; readonly to: Recipe }
  | { readonly kind: "if"; readonly a: Recipe; readonly then: readonly Step[]; readonly otherwise: readonly Step[] }
  | { readonly kind: "for"; readonly from: Recipe; readonly to: Recipe; readonly body: readonly Step[] };

const { steps } = fc.letrec<{ steps: readonly Step[]; step: Step }>((tie) => ({
  steps: fc.array(tie("step"), { minLength: 1, maxLength: 3 }),
  step: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.record({ kind: fc.constant("set" as const), register: fc.nat(2), to: recipe }),
    fc.record({ kind: fc.constant("if" as const), a: recipe, then: tie("steps"), otherwise: tie("steps") }),
    fc.record({ kind: fc.constant("for" as const), from: recipe, to: recipe, body: tie("steps") }),
  ),
}));

test("uniformity holds in random programs with registers, loops and branches", () => {
  fc.assert(
    fc.property(steps, (program) => {
      const ir = traceBody((t) => {
        const registers = [0, 1, 2].map((value) => t.reg(i32, value));
        const leaves = [...registers, ...registers, t.lane, t.warp, t.block.x, t.dim(M)];
        const emit = (list: readonly Step[], scope: readonly (Expr<"i32"> | Reg<"i32">)[]): void => {
          for (const step of list) {
            if (step.kind === "set") registers[step.register]?.set(build(t, scope, step.to));
            if (step.kind === "if")
              t.when(
                build(t, scope, step.a).and(1).eq(0),
                () => emit(step.then, scope),
                () => emit(step.otherwise, scope),
              );
            if (step.kind === "for")
              for (const i of t.range(build(t, scope, step.from).and(1), build(t, scope, step.to).and(3)))
                emit(step.body, [...scope, i]);
          }
        };
        emit(program, leaves);
      });
      const uniformity = new UniformityAnalysis(ir);
      const results = new Map<string, number>();
      const arrivals = new Map<string, number>();
      const wrong: unknown[] = [];
      const ids = new Map<Stmt, number>();
      walk(ir.body, (stmt) => void ids.set(stmt, ids.size));
      for (const [launch, sizes] of launches.entries()) {
        for (const thread of threadsOf(sizes).filter(({ row }) => row === 0)) {
          const group = (level: number): string =>
            `${launch} ${thread.block} ${level === Uniformity.warp ? thread.thread >> 5 : "all"}`;
          const observe: Observe = (value, result, turn) => {
            const level = uniformity.of(value);
            if (level === Uniformity.lane) return;
            const key = `${value.id} ${turn} ${group(level)}`;
            const before = results.get(key) ?? result;
            results.set(key, before);
            if (before !== result) wrong.push({ op: value.op, level, before, result });
          };
          run(ir, thread, observe, (stmt, turn) => {
            const level = uniformity.controlOf(stmt);
            if (level === Uniformity.lane) return;
            const key = `${level} ${ids.get(stmt)} ${turn} ${group(level)}`;
            arrivals.set(key, (arrivals.get(key) ?? 0) + 1);
          });
        }
      }
      for (const [key, count] of arrivals) {
        if (count !== (key.startsWith(`${Uniformity.warp} `) ? 32 : 64)) wrong.push({ key, count });
      }
      expect(wrong.slice(0, 3)).toEqual([]);
    }),
    { numRuns: 100 },
  );
});
