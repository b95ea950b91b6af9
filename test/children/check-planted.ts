/** For the tests of `npm run check`: one kernel that is right, and others with one mistake each. */
import { bf16, f32, frozen, HostTensor, i32, input, kernel, output, scalar, size } from "../../dsl/index.ts";
import type { IdName, Op } from "../../dsl/ir.ts";
import { makeLayout } from "../../dsl/layout/index.ts";
import { rewritten, statements, without } from "../simulator/mutate.ts";

const N = size("N", { max: 100_000 });
const K = size("K", { multipleOf: 4 });

/** y[n] = sum over k of x[n,k]; a block of two warps per row. */
export const right = kernel(
  { name: "row_sums", grid: N, block: 64, params: { x: input(f32, [N, K], { alignBytes: 16 }), y: output(f32, [N]) } },
  (t) => {
    const { x, y } = t.pdl.wait();
    const sum = t.reg(f32, 0);
    for (const k of t.range(t.thread.mul(4), K, { step: 256 })) {
      const part = x.loadVec([t.block.x, k], 4);
      for (const i of [0, 1, 2, 3]) sum.update((s) => s.add(part.lane(i as 0)));
    }
    const sums = t.shared(f32, [2]);
    const total = t.warpSum(sum);
    t.when(t.lane.eq(0), () => sums.store([t.warp], total));
    t.barrier();
    t.when(t.thread.eq(0), () => y.store([t.block.x], sums.load([0]).add(sums.load([1]))));
  },
);

export const noBarrier = without(right, statements(right, "barrier")[0]);

export const halfWritten = kernel(
  { name: "half_written", grid: 1, block: 64, params: { x: input(f32, [64]), y: output(f32, [64]) } },
  (t) => {
    const { x, y } = t.pdl.wait();
    t.when(t.thread.lt(32), () => y.store([t.thread], x.load([t.thread])));
  },
);

export const tooFar = kernel(
  { name: "too_far", grid: 1, block: 32, params: { by: scalar(i32), x: input(f32, [32]), y: output(f32, [32]) } },
  (t, { by }) => {
    const { x, y } = t.pdl.wait();
    y.store([t.lane], x.load([t.lane.add(by)]));
  },
);

const vectors = kernel(
  { name: "vectors", grid: 1, block: 32, params: { x: input(f32, [256], { alignBytes: 16 }), y: output(f32, [32]) } },
  (t) => {
    const { x, y } = t.pdl.wait();
    const four = x.loadVec([t.lane.mul(4)], 4);
    y.store([t.lane], four.lane(0));
  },
);
export const crooked = rewritten(vectors, (op) =>
  op.kind === "const" && op.value === 4 ? { ...op, value: 6 } : undefined,
);

export const unfilled = kernel({ name: "unfilled", grid: 1, block: 64, params: { y: output(i32, [64]) } }, (t) => {
  const { y } = t.pdl.wait();
  const s = t.shared(i32, [64]);
  t.when(t.thread.lt(32), () => s.store([t.thread], t.thread));
  t.barrier();
  y.store([t.thread], s.load([t.thread]));
});

/** What was decided by the block becomes decided by the lane. */
const byLane = (op: Op): Op | undefined =>
  op.kind === "id" && op.id === "block.x" ? { ...op, id: "lane" satisfies IdName } : undefined;
export const divergent = rewritten(
  kernel({ name: "divergent", grid: 1, block: 64, params: { y: output(i32, [64]) } }, (t) => {
    const { y } = t.pdl.wait();
    t.when(t.block.x.eq(0), () => t.barrier());
    y.store([t.thread], t.thread);
  }),
  byLane,
);

export const stuck = kernel({ name: "stuck", grid: 1, block: 64, params: { y: output(i32, [64]) } }, (t) => {
  const { y } = t.pdl.wait();
  const never = t.mbarrier(1, 2);
  t.when(t.thread.eq(0), () => never.arrive(0));
  never.wait(0, 0);
  y.store([t.thread], t.thread);
});

export const hurried = (() => {
  const patient = kernel(
    { name: "hurried", grid: 1, block: 64, params: { x: input(f32, [64]), y: output(f32, [64]) } },
    (t) => {
      t.when(t.warp.eq(0), () => void t.pdl.wait());
      t.barrier();
      const { x, y } = t.pdl.afterBarrier();
      y.store([t.thread], x.load([t.thread]));
    },
  );
  return without(patient, statements(patient, "barrier")[0]);
})();

export const impatient = (() => {
  const patient = kernel(
    {
      name: "impatient",
      grid: 1,
      block: 64,
      params: { x: frozen(f32, [256], { alignBytes: 16 }), y: output(f32, [64]) },
    },
    (t, { x }) => {
      const { y } = t.pdl.wait();
      const landing = t.sharedTile(f32, makeLayout([256]));
      const mine = makeLayout([64, 4], [4, 1]);
      t.copyAsync(x.tile([256], [0]).partition(mine, t.thread), landing.partition(mine, t.thread));
      t.asyncCommit();
      t.asyncWait(0);
      t.barrier();
      y.store([t.thread], landing.tensor.load([t.thread.mul(3)]));
    },
  );
  return without(patient, statements(patient, "asyncWait")[0]);
})();

/** Reads a table through indices, so that it needs to be told which: `given`, at the end. */
export const gather = kernel(
  {
    name: "gather",
    grid: 1,
    block: 32,
    params: {
      scale: scalar(f32),
      index: frozen(i32, [32]),
      table: input(bf16, [N]),
      y: output(f32, [32]),
    },
  },
  (t, { index, scale }) => {
    const { table, y } = t.pdl.wait();
    y.store(
      [t.lane],
      table
        .load([index.load([t.lane])])
        .to(f32)
        .mul(scale)
        .exp(),
    );
  },
);

/** The last elements of the table, whatever its size. */
export const given = ({ N = 0 }: Readonly<Record<string, number>>) => ({
  scale: 0.25,
  index: HostTensor.from(i32, [32], new Array<number>(32).fill(N - 1)),
});
