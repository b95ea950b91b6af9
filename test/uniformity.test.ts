/** What is said to be the same in a warp or a block is; and where all are said to come, all come together. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { run as runOn } from "../backends/run.ts";
import { openWgsl } from "../backends/wgsl/index.ts";
import { type Expr, f32, HostTensor, i32, inout, kernel, type Reg } from "../dsl/index.ts";
import { type Stmt, type Value, walk } from "../dsl/ir.ts";
import { Uniformity, UniformityAnalysis } from "../dsl/verify/uniformity.ts";
import { build, launches, M, type Observe, type Recipe, recipe, run, threadsOf, traceBody } from "./threads.ts";

type Step =
  | { readonly kind: "set"; readonly register: number; readonly to: Recipe }
  | {
      readonly kind: "load";
      readonly register: number;
      readonly from: number;
      readonly at: Recipe;
      readonly guard: Recipe;
    }
  | { readonly kind: "if"; readonly a: Recipe; readonly then: readonly Step[]; readonly otherwise: readonly Step[] }
  | { readonly kind: "for"; readonly from: Recipe; readonly to: Recipe; readonly body: readonly Step[] };

const { steps } = fc.letrec<{ steps: readonly Step[]; step: Step }>((tie) => ({
  steps: fc.array(tie("step"), { minLength: 1, maxLength: 3 }),
  step: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.record({ kind: fc.constant("set" as const), register: fc.nat(2), to: recipe }),
    fc.record({
      kind: fc.constant("load" as const),
      register: fc.nat(2),
      from: fc.nat(2),
      at: recipe,
      guard: recipe,
    }),
    fc.record({ kind: fc.constant("if" as const), a: recipe, then: tie("steps"), otherwise: tie("steps") }),
    fc.record({ kind: fc.constant("for" as const), from: recipe, to: recipe, body: tie("steps") }),
  ),
}));

/** Threads of a block that are together at this level. */
const partOf = (level: number): number =>
  level === Uniformity.warp ? 32 : level === Uniformity.warpgroup ? 128 : 1024;

test("uniformity holds in random programs with registers, loops and branches", () => {
  fc.assert(
    fc.property(steps, fc.constantFrom(32, 64, 96, 160, 256), fc.boolean(), (program, block, stores) => {
      const ir = traceBody((t, { table, board }) => {
        const registers = [0, 1, 2].map((value) => t.reg(i32, value));
        const unset = t.array(i32, 1).reg(0);
        const leaves = [...registers, ...registers, unset, t.thread, t.lane, t.warp, t.block.x, t.dim(M)];
        const sBoard = t.shared(i32, [64]);
        const emit = (list: readonly Step[], scope: readonly (Expr<"i32"> | Reg<"i32">)[]): void => {
          for (const step of list) {
            if (step.kind === "set") registers[step.register]?.set(build(t, scope, step.to));
            if (step.kind === "load") {
              const guard = build(t, scope, step.guard).and(3).ne(0);
              const memory = [table, board, sBoard][step.from] ?? table;
              registers[step.register]?.set(memory.load([build(t, scope, step.at).and(63)], { guard }));
            }
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
        if (stores) board.store([t.lane], 0);
        sBoard.store([t.lane], 0);
      }, block);
      const uniformity = new UniformityAnalysis(ir);
      const results = new Map<string, number>();
      const arrivals = new Map<string, number>();
      const wrong: unknown[] = [];
      const ids = new Map<Stmt, number>();
      walk(ir.body, (stmt) => void ids.set(stmt, ids.size));
      for (const [launch, sizes] of launches.entries()) {
        for (const thread of threadsOf(sizes, block).filter(({ row }) => row === 0)) {
          const part = (level: number): number => Math.floor(thread.thread / partOf(level));
          const group = (level: number): string => `${launch} ${thread.block} ${part(level)}`;
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
            const whole = Math.min(partOf(level), block - part(level) * partOf(level));
            const key = `${whole} ${ids.get(stmt)} ${turn} ${level} ${group(level)}`;
            arrivals.set(key, (arrivals.get(key) ?? 0) + 1);
          });
        }
      }
      for (const [key, count] of arrivals) {
        if (count !== parseInt(key, 10)) wrong.push({ key, count });
      }
      expect(wrong.slice(0, 3)).toEqual([]);
    }),
    { numRuns: 200 },
  );
});

test("what is the same in a warp or warpgroup", () => {
  const { lane, warp, warpgroup, cluster } = Uniformity;
  const levels = (threads: number): Record<string, unknown> => {
    const noted: Record<string, Value> = {};
    const ir = traceBody((t, { table, board }) => {
      const note = (name: string, made: Expr<"i32"> | Expr<"bool">): void => {
        noted[name] = made.value;
        // A condition must be used.
        if (made.dtype.name === "bool") t.when(made as Expr<"bool">, () => {});
      };
      note("thread < 32", t.thread.lt(32));
      note("thread >= 64", t.thread.ge(64));
      note("64 > thread", t.const(i32, 64).gt(t.thread));
      note("thread <= 31", t.thread.le(31));
      note("thread / 32", t.thread.div(32));
      note("thread / 64 * 3 + 1", t.thread.div(64).mul(3).add(1));
      note("thread >> 6", t.thread.shr(6));
      note("thread & -32", t.thread.and(-32));
      note("thread < 256", t.thread.lt(256));
      note("thread / 128", t.thread.div(128));
      note("warp < 8", t.warp.lt(8));
      note("4 <= warp", t.const(i32, 4).le(t.warp));
      note("warp / 4 + 1", t.warp.div(4).add(1));
      note("warp < 6", t.warp.lt(6));
      note("warp % 4", t.warp.rem(4));
      note("0.0 < 1.0", t.const(f32, 0).lt(t.const(f32, 1)));
      note("thread < 33", t.thread.lt(33));
      note("thread <= 32", t.thread.le(32));
      note("thread / 48", t.thread.div(48));
      note("thread >> 4", t.thread.shr(4));
      note("thread % 32", t.thread.rem(32));
      note("never set", t.array(i32, 2).get(1));
      note("read only", table.load([t.block.x]));
      note("read only, by lane", table.load([t.lane]));
      note("read only, guarded by lane", table.load([0], { guard: t.lane.eq(0) }));
      const loaded = board.load([0]);
      note("written", loaded);
      note("shuffled", t.shuffle(loaded, 0));
      board.store([t.lane], 0);
    }, threads);
    const uniformity = new UniformityAnalysis(ir);
    return Object.fromEntries(Object.entries(noted).map(([name, value]) => [name, uniformity.of(value)]));
  };
  const [inWarp, perLane] = [
    ["thread < 32", "thread >= 64", "64 > thread", "thread <= 31", "thread / 32", "thread / 64 * 3 + 1", "thread >> 6"],
    ["thread < 33", "thread <= 32", "thread / 48", "thread >> 4", "thread % 32", "never set", "written"],
  ];
  const inWarpgroup = ["thread < 256", "thread / 128", "warp < 8", "4 <= warp", "warp / 4 + 1"];
  const expected = (warpLevel: number, warpgroupLevel: number) => ({
    ...Object.fromEntries(inWarpgroup.map((name) => [name, warpgroupLevel])),
    ...Object.fromEntries(["warp < 6", "warp % 4"].map((name) => [name, warpLevel])),
    ...Object.fromEntries([...inWarp, "thread & -32", "shuffled"].map((name) => [name, warpLevel])),
    ...Object.fromEntries([...perLane, "read only, by lane", "read only, guarded by lane"].map((name) => [name, lane])),
    "read only": cluster,
    "0.0 < 1.0": cluster,
  });
  expect(levels(256)).toEqual(expected(warp, warpgroup));
  // One warpgroup or one warp is the whole block, one block the whole cluster.
  expect(levels(128)).toEqual(expected(warp, cluster));
  expect(levels(32)).toEqual(expected(cluster, cluster));
});

test("WGSL: branches on parts of the block that are whole warps contain warp-wide operations", async () => {
  const parts = kernel({ name: "parts", grid: 2, block: 128, params: { y: inout(i32, [2, 128]) } }, (t) => {
    const { y } = t.pdl.wait();
    const [place, sum] = [[t.block.x, t.thread] as const, t.reg(i32, 0)];
    const own = y.load(place);
    t.when(
      t.thread.lt(32),
      () => sum.set(t.warpSum(own)),
      () => t.when(t.thread.ge(96), () => sum.set(t.shuffle(own, 5))),
    );
    for (const i of t.range(t.thread.shr(5))) sum.update((s) => s.add(t.warpMax(own).mul(i)));
    // Decided by what one lane found in memory that others write.
    t.when(t.shuffle(y.load([t.block.x, t.warp]), 0).gt(1), () => sum.update((s) => s.add(t.warpSum(t.lane))));
    // Written only by the warp's own lanes, after all of them have loaded.
    t.barrier();
    y.store(place, sum);
  });
  const values = Array.from({ length: 256 }, (_, i) => (i * 37) % 101);
  const expected = values.map((_, i) => {
    const [row, warp] = [i - (i % 128), (i % 128) >> 5];
    const lanes = values.slice(row + warp * 32, row + warp * 32 + 32);
    const most = Math.max(...lanes);
    const first = warp === 0 ? lanes.reduce((a, b) => a + b) : warp === 3 ? (lanes[5] ?? 0) : 0;
    const turns = (most * warp * (warp - 1)) / 2;
    return first + turns + ((values[row + warp] ?? 0) > 1 ? 496 : 0);
  });
  const backend = await openWgsl();
  try {
    const { y } = await runOn(backend, parts, { y: HostTensor.from(i32, [2, 128], values) });
    expect([...y.values()]).toEqual(expected);
  } finally {
    backend.dispose();
  }
});

test("what is the same in a cluster", () => {
  const noted: Record<string, Value> = {};
  const { ir } = kernel(
    { name: "clusters", grid: [4, 2], block: 64, cluster: 2, params: { y: inout(i32, [64]) } },
    (t) => {
      noted["block.x"] = t.block.x.value;
      noted["block.y"] = t.block.y.value;
      noted["rank"] = t.cluster.rank.value;
      noted["warp"] = t.warp.value;
      const { y } = t.pdl.wait();
      y.store([t.thread], t.block.x.add(t.block.y).add(t.cluster.rank).add(t.warp));
    },
  );
  const uniformity = new UniformityAnalysis(ir);
  const levels = Object.fromEntries(Object.entries(noted).map(([name, value]) => [name, uniformity.of(value)]));
  const { block, cluster, warp } = Uniformity;
  expect(levels).toEqual({ "block.x": block, "block.y": cluster, rank: block, warp });
});
