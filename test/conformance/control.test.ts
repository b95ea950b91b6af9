/** Registers, loops, branches, warp-wide operations, barriers and the grid, against the evaluator. */
import { expect } from "vitest";
import type { HostArguments } from "../../backends/run.ts";
import {
  bool,
  dtypes,
  type Expr,
  f32,
  frozen,
  HostTensor,
  i32,
  inout,
  input,
  type Kernel,
  kernel,
  output,
  type Params,
  scalar,
  size,
  type Thread,
  u32,
} from "../../dsl/index.ts";
import { seededRandom } from "../../kernels/index.ts";
import { conformance, type Target } from "./backends.ts";
import { evaluate, patterns } from "./evaluate.ts";

/** Runs on the target and on the evaluator, and compares bits. */
async function agrees<P extends Params>(target: Target, device: Kernel<P>, args: HostArguments<P>): Promise<void> {
  const expected: Readonly<Record<string, HostTensor>> = evaluate(device, args);
  const actual: Readonly<Record<string, HostTensor>> = await target.run(device, args);
  for (const [name, tensor] of Object.entries(expected)) {
    const result = actual[name];
    expect(result && patterns(result), name).toEqual(patterns(tensor));
  }
}

const random = seededRandom(11);
const integers = (count: number, low = -50, high = 50): HostTensor<"i32"> =>
  HostTensor.from(
    i32,
    [count],
    Array.from({ length: count }, () => low + Math.floor(random() * (high - low))),
  );
const floats = (count: number): HostTensor<"f32"> =>
  HostTensor.from(
    f32,
    [count],
    Array.from({ length: count }, () => Math.fround((random() - 0.5) * 2 ** (20 * random()))),
  );
const empty = (count: number): HostTensor<"i32"> => HostTensor.filled(i32, [count], 0x7f);

type Body = (t: Thread, x: (i: Expr<"i32">) => Expr<"i32">, put: (value: Expr<"i32">) => void) => void;

/** A kernel with one input x[threads] and several results per thread. */
async function perThread(target: Target, name: string, block: number, results: number, body: Body): Promise<void> {
  const blocks = 2;
  const threads = block * blocks;
  const device = kernel(
    { name, grid: blocks, block, params: { x: input(i32, [threads]), y: output(i32, [results, threads]) } },
    (t) => {
      const { x, y } = t.pdl.wait();
      const id = t.block.x.mul(block).add(t.thread);
      let row = 0;
      body(
        t as Thread,
        (i) => x.load([i.add(t.block.x.mul(block))]),
        (value) => y.store([row++, id], value),
      );
      expect(row).toBe(results);
    },
  );
  await agrees(target, device, { x: integers(threads), y: HostTensor.filled(i32, [results, threads], 0x7f) });
}

conformance((target, on) => {
  on("reads see the register as it was, however late their value is used", async () => {
    await perThread(target, "read_order", 64, 12, (t, x, put) => {
      const r = t.reg(i32, x(t.thread));
      const before = r.get();
      r.set(before.mul(3));
      const between = r.get().add(1);
      r.update((now) => now.sub(100));
      put(before);
      put(between);
      put(r.get());

      // Swapped through reads alone.
      const p = t.reg(i32, 1);
      const q = t.reg(i32, t.thread);
      const [oldP, oldQ] = [p.get(), q.get()];
      p.set(oldQ);
      q.set(oldP);
      put(p.get().mul(1000).add(q.get()));

      // A load whose index was read from a register that changes before the load's value is used.
      const at = t.reg(i32, t.thread);
      const loaded = x(at.get());
      at.set(0);
      put(loaded);
      const a = t.array(i32, 4, { init: 7 });
      const where = t.reg(i32, 2);
      const element = a.get(where.get());
      where.set(3);
      a.set(3, 9);
      put(element);
      put(a.get(where.get()));

      // Into a branch, and into a loop that changes what was read.
      const c = t.reg(i32, 5);
      const five = c.get();
      t.when(
        x(t.thread).gt(0),
        () => {
          c.set(6);
          put(five.add(0).mul(2));
        },
        () => c.set(8),
      );
      put(c.get());
      const n = t.reg(i32, 4);
      const runs = t.reg(i32, 0);
      for (const i of t.range(n.get())) {
        n.set(i);
        runs.update((k) => k.add(n.get()));
      }
      put(runs.get());
      const held = n.get();
      for (const _ of t.range(3)) n.update((k) => k.add(held));
      put(n.get());
      put(held);
    });
  });

  on("loads see memory as it was before later stores to it", async () => {
    const count = 64;
    const device = kernel(
      { name: "load_order", grid: 1, block: count, params: { x: inout(i32, [count]), y: output(i32, [4, count]) } },
      (t) => {
        const { x, y } = t.pdl.wait();
        const i = t.thread;
        const old = x.load([i]);
        x.store([i], old.add(1));
        y.store([0, i], old);
        const next = x.load([i]).mul(2);
        t.when(i.rem(2).eq(0), () => x.store([i], 77));
        y.store([1, i], next);
        const third = x.load([i]);
        const sum = t.reg(i32, 0);
        for (const k of t.range(3)) {
          x.store([i], k);
          sum.update((s) => s.add(third).add(x.load([i])));
        }
        y.store([2, i], sum.get());
        const fourth = x.load([i]);
        x.atomicAdd([i], 5);
        y.store([3, i], fourth);
      },
    );
    await agrees(target, device, { x: integers(count), y: HostTensor.filled(i32, [4, count], 0x7f) });
  });

  on("register arrays: static, unrolled and run-time index; vectors in registers", async () => {
    await perThread(target, "register_arrays", 32, 8, (t, x, put) => {
      const a = t.array(i32, 8, { init: 3 });
      for (let i = 0; i < 4; i++) a.set(i, x(t.thread).add(i));
      for (const i of t.range(4, 8, { unroll: true })) a.set(i, a.get(i.sub(4)).mul(i));
      put(a.get(5));
      put(a.get(x(t.thread).and(7)));
      a.set(t.lane.rem(8), t.lane);
      const sum = t.reg(i32, 0);
      for (const i of t.range(8)) sum.update((s) => s.mul(3).add(a.get(i)));
      put(sum.get());
      const pairs = t.array(i32, 2, { lanes: 2 });
      pairs.set(0, t.pack(x(t.thread), t.lane));
      pairs.set(1, pairs.get(0).mul(pairs.get(0)));
      put(pairs.get(1).lane(0).add(pairs.get(1).lane(1)));
      const v = t.reg(i32, t.pack(t.lane, x(t.thread), t.warp, t.thread));
      v.update((w) => w.add(w).sub(1));
      for (let lane = 0; lane < 4; lane++) put(v.get().lane(lane));
    });
  });

  on("comparisons as operands of calls, guards and selects", async () => {
    await perThread(target, "comparisons", 64, 7, (t, x, put) => {
      const [a, b, c] = [x(t.thread), x(t.thread.xor(1)), x(t.thread.xor(2))];
      put(a.lt(b).select(b.lt(c), c.gt(a)).to(i32));
      put(t.pack(a.lt(b), b.gt(c)).lane(1).to(i32));
      put(a.lt(b).xor(b.gt(c)).or(a.le(c)).and(c.ge(b).not()).to(i32));
      put(a.lt(b).eq(c.gt(b)).select(a.lt(c).select(a, b), a.gt(c).select(b, c)));
      // One condition for all lanes of a vector.
      const chosen = (a.lt(b) as unknown as Expr<"bool", 2>).select(t.pack(a, b), t.pack(b, c));
      put(chosen.lane(0).sub(chosen.lane(1)));
      t.warpBarrier();
      t.sleep(10);
      put(t.warpAny(a.lt(b.shr(1))).select(a.shl(1), b.shr(2)));
      put(t.warpSum(a.lt(b).to(i32)).min(t.warpAll(a.gt(c)).to(i32)));
    });
  });

  on("loops: nested, with steps, zero trips, run-time bounds, divergent", async () => {
    await perThread(target, "loops", 96, 6, (t, x, put) => {
      const count = t.reg(i32, 0);
      for (const i of t.range(2, 20, { step: 5 })) {
        for (const j of t.range(i)) count.update((c) => c.add(i.mul(j)).xor(x(t.thread)));
        for (const j of t.range(i, i)) count.update((c) => c.add(j).add(1_000_000));
        for (const j of t.range(5, 2)) count.update((c) => c.add(j).add(1_000_000));
      }
      put(count.get());
      const own = t.reg(i32, 0);
      for (const i of t.range(x(t.thread), t.lane, { step: 3 })) {
        t.when(
          i.rem(2).eq(0),
          () => own.update((s) => s.add(i)),
          () => {
            for (const j of t.range(t.warp.add(1))) own.update((s) => s.sub(j));
          },
        );
      }
      put(own.get());
      const kept = t.reg(i32, -1);
      for (const i of t.range(t.lane)) {
        const fresh = t.reg(i32, i);
        fresh.update((f) => f.mul(f));
        t.when(fresh.get().rem(7).eq(2), () => kept.set(i));
      }
      put(kept.get());
      t.when(
        t.thread.lt(40),
        () => {
          t.when(
            x(t.thread).lt(0),
            () => kept.set(1),
            () =>
              t.when(
                t.lane.eq(5),
                () => kept.set(2),
                () => kept.set(3),
              ),
          );
        },
        () => kept.update((k) => k.neg()),
      );
      put(kept.get());
      const flag = t.reg(bool, t.lane.lt(16));
      flag.update((f) => f.not().or(x(t.thread).eq(0)));
      put(flag.get().select(t.lane, x(t.thread)));
      put(flag.get().to(i32));
    });
  });

  on("shuffles of every mode, in and out of range, by constants and by run-time amounts", async () => {
    const amounts = [0, 1, 5, 16, 31, 32, 33, 47, 63];
    await perThread(target, "shuffles", 64, 4 * amounts.length + 5, (t, x, put) => {
      const value = x(t.thread);
      for (const by of amounts) {
        put(t.shuffleXor(value, by));
        put(t.shuffleUp(value, by));
        put(t.shuffleDown(value, by));
        put(t.shuffle(value, by));
      }
      put(t.shuffle(value, t.lane.mul(7).add(3)));
      put(t.shuffle(value, x(t.thread)));
      put(t.shuffleXor(value, t.warp.add(1)));
      put(t.shuffleUp(value.mul(2), t.lane.rem(4)));
      put(t.shuffle(t.shuffleDown(value, 3).add(t.lane), t.lane.xor(1)));
    });
  });

  on("warp reductions of every dtype; sums of f32 in the order of a butterfly", async () => {
    const count = 128;
    const device = kernel(
      {
        name: "reductions",
        grid: 1,
        block: count,
        params: {
          x: input(f32, [count]),
          n: input(i32, [count]),
          f: output(f32, [3, count]),
          i: output(i32, [5, count]),
          u: output(u32, [5, count]),
          b: output(bool, [4, count]),
        },
      },
      (t) => {
        const { x, n, f, i, u, b } = t.pdl.wait();
        const id = t.thread;
        const [real, integer] = [x.load([id]), n.load([id])];
        f.store([0, id], t.warpSum(real));
        f.store([1, id], t.warpMin(real));
        f.store([2, id], t.warpMax(real));
        i.store([0, id], t.warpSum(integer));
        i.store([1, id], t.warpMin(integer));
        i.store([2, id], t.warpMax(integer));
        i.store([3, id], t.warpSum(integer.mul(100_000_000)));
        i.store([4, id], t.warpSum(t.lane));
        const natural = integer.to(u32);
        u.store([0, id], t.warpSum(natural));
        u.store([1, id], t.warpMin(natural));
        u.store([2, id], t.warpMax(natural));
        u.store([3, id], t.warpMax(natural).sub(t.warpMin(natural)));
        u.store([4, id], t.warpSum(t.const(u32, 3)));
        const condition = integer.gt(0);
        b.store([0, id], t.warpAny(condition));
        b.store([1, id], t.warpAll(condition));
        b.store([2, id], t.warpAny(integer.eq(1000)));
        b.store([3, id], t.warpAll(t.lane.lt(32).or(condition)));
      },
    );
    for (let round = 0; round < 3; round++) {
      const n = integers(count);
      await agrees(target, device, {
        x: floats(count),
        n: HostTensor.from(
          i32,
          [count],
          n.values().map((value, k) => (k >= 64 ? Math.abs(value) + 1 : value)),
        ),
        f: HostTensor.filled(f32, [3, count], 0xff),
        i: HostTensor.filled(i32, [5, count], 0xff),
        u: HostTensor.filled(u32, [5, count], 0xff),
        b: HostTensor.filled(bool, [4, count], 1),
      });
    }
  });

  on("values of every kind cross warp-wide operations, barriers and loops that contain them", async () => {
    await perThread(target, "crossing", 128, 12, (t, x, put) => {
      const own = x(t.thread); // a load
      const twice = own.mul(2); // pure, of a load
      const uniform = t.block.x.mul(3).add(t.warp); // the same in the warp
      const vector = t.pack(own, t.lane, uniform, twice);
      const flag = own.gt(0);
      const r = t.reg(i32, own.add(t.lane));
      const array = t.array(i32, 3, { init: 1 });
      array.set(1, own);
      const late = t.reg(i32, 0);

      const sum = t.warpSum(r.get());
      put(sum.add(twice));
      put(vector.lane(1).add(uniform));
      const s = t.shared(i32, [128]);
      s.store([t.thread], own);
      t.barrier();
      const other = s.load([t.thread.xor(100)]);
      t.barrier();
      put(other.add(vector.lane(3)));
      put(flag.select(own, other));
      for (const i of t.range(3)) {
        const fromNext = t.shuffleDown(r.get(), 1);
        const here = own.add(i);
        const most = t.warpMax(fromNext.add(here));
        t.when(flag, () => late.update((l) => l.add(most).add(here)));
        r.set(fromNext.add(uniform));
        array.set(i, array.get(i).add(most));
        s.store([t.thread], r.get());
        t.barrier();
        late.update((l) => l.xor(s.load([t.thread.xor(33)])));
        t.barrier();
      }
      put(r.get());
      put(late.get());
      for (let i = 0; i < 3; i++) put(array.get(i));
      put(twice.add(sum));
      const chained = t.warpSum(t.shuffleXor(t.warpSum(own).add(own), 3));
      put(chained);
      put(t.warpSum(t.warpMax(own).mul(t.lane)));
    });
  });

  on("warp-uniform branches and loops around warp-wide operations, nested", async () => {
    await perThread(target, "warp_uniform", 256, 5, (t, x, put) => {
      const own = x(t.thread);
      const result = t.reg(i32, 0);
      t.when(
        t.warp.rem(2).eq(0),
        () => {
          const total = t.warpSum(own);
          t.when(
            t.warp.gt(3),
            () => result.set(t.shuffleXor(own, 7).add(total)),
            () => result.set(total),
          );
          t.when(t.lane.eq(3), () => result.update((r) => r.add(1000)));
        },
        () => {
          for (const i of t.range(t.warp)) result.update((r) => r.add(t.warpMax(own.xor(i))));
        },
      );
      put(result.get());
      // Decided by what a reduction found.
      const any = t.warpAny(own.gt(48));
      t.when(any, () => result.set(t.warpMin(own)));
      put(result.get());
      const rounds = t.warpMax(own).rem(4).max(0);
      for (const i of t.range(rounds)) result.update((r) => t.warpSum(r.rem(1000)).add(i));
      put(result.get());
      const counter = t.reg(i32, t.warp);
      t.when(counter.get().lt(4), () => {
        counter.update((c) => c.add(10));
        result.set(t.warpSum(counter.get()));
      });
      put(counter.get());
      put(result.get());
    });
  });

  on(
    "block-uniform loops and branches around barriers: bounds from numbers, scalars, sizes, inputs, registers",
    async () => {
      const N = size("N");
      const block = 64;
      const device = kernel(
        {
          name: "block_uniform",
          grid: 3,
          block,
          params: {
            bounds: input(i32, [3]),
            early: frozen(i32, [2]),
            x: input(i32, [N]),
            rounds: scalar(i32),
            y: output(i32, [3, block]),
          },
        },
        (t, { early, rounds }) => {
          const { bounds, x, y } = t.pdl.wait();
          const s = t.shared(i32, [block]);
          const sum = t.reg(i32, t.thread);
          const exchange = (salt: Expr<"i32">): void => {
            s.store([t.thread], sum.get().add(salt));
            t.barrier();
            sum.update((now) => now.mul(3).add(s.load([t.thread.xor(37)])));
            t.barrier();
          };
          for (const i of t.range(2)) exchange(i);
          for (const i of t.range(rounds)) exchange(i);
          for (const i of t.range(t.dim(N).div(5))) exchange(i.add(x.load([i])));
          for (const i of t.range(bounds.load([t.block.x]))) exchange(i);
          for (const i of t.range(early.load([0]), early.load([1]))) exchange(i);
          const count = t.reg(i32, 1);
          count.update((c) => c.add(rounds));
          for (const i of t.range(count.get())) exchange(i);
          t.when(
            t.block.x.eq(1),
            () => exchange(t.block.x),
            () => t.when(bounds.load([1]).gt(0), () => exchange(t.lane)),
          );
          y.store([t.block.x, t.thread], sum.get());
        },
      );
      for (const [n, rounds] of [
        [12, 3],
        [5, 0],
      ] as const) {
        await agrees(target, device, {
          bounds: HostTensor.from(i32, [3], [2, 0, 4]),
          early: HostTensor.from(i32, [2], [1, 3]),
          x: integers(n),
          rounds,
          y: HostTensor.filled(i32, [3, block], 0x7f),
        });
      }
    },
  );

  for (const block of [32, 64, 1024]) {
    on(`blocks of ${block} threads: ids, and a sum over the block`, async () => {
      const device = kernel(
        {
          name: `ids_${block}`,
          grid: [3, 2, 2],
          block,
          params: { y: output(i32, [12, block, 8]) },
        },
        (t) => {
          const { y } = t.pdl.wait();
          const blockId = t.block.z.mul(t.grid.y).add(t.block.y).mul(t.grid.x).add(t.block.x);
          const parts = t.shared(i32, [t.warps]);
          const warpSum = t.warpSum(t.thread.add(blockId));
          t.when(t.lane.eq(0), () => parts.store([t.warp], warpSum));
          t.barrier();
          const total = t.reg(i32, 0);
          for (const warp of t.range(t.warps)) total.update((sum) => sum.add(parts.load([warp])));
          const ids = [t.block.x, t.block.y, t.block.z, t.thread, t.warp, t.lane, t.grid.z, total.get()];
          for (const [i, id] of ids.entries()) y.store([blockId, t.thread, i], id);
        },
      );
      await agrees(target, device, { y: HostTensor.filled(i32, [12, block, 8], 0x7f) });
    });
  }

  on("more than 65,535 blocks along x", async () => {
    const blocks = 70_001;
    const device = kernel(
      { name: "many_blocks", grid: blocks, block: 32, params: { y: output(i32, [blocks]) } },
      (t) => {
        const { y } = t.pdl.wait();
        t.when(t.lane.eq(0), () => y.store([t.block.x], t.block.x.mul(3)));
      },
    );
    const { y } = await target.run(device, { y: empty(blocks) });
    expect(y.values().findIndex((value, i) => value !== 3 * i)).toBe(-1);
  });

  on("grids of three run-time dimensions whose product is over 65,535", async () => {
    const [X, Y, Z] = [size("X"), size("Y", { max: 1000 }), size("Z", { max: 1000 })];
    const device = kernel(
      { name: "three_dimensions", grid: [X, Y, Z], block: 32, params: { y: inout(i32, [Z, Y, X]) } },
      (t) => {
        const { y } = t.pdl.wait();
        const { x: i, y: j, z: k } = t.block;
        t.when(t.lane.eq(31), () => y.atomicAdd([k, j, i], i.add(j.mul(1000)).add(k.mul(1_000_000))));
      },
    );
    for (const [x, y, z] of [
      [73, 31, 37],
      [1, 2, 3],
      [5, 1, 1],
    ] as const) {
      const zeros = HostTensor.filled(i32, [z, y, x], 0);
      const { y: result } = await target.run(device, { y: zeros });
      const expected = Array.from({ length: x * y * z }, (_, i) => {
        return (i % x) + 1000 * (Math.floor(i / x) % y) + 1_000_000 * Math.floor(i / x / y);
      });
      expect([...result.values()]).toEqual(expected);
    }
  });

  on("scalars of every dtype and size arithmetic", async () => {
    const [N, M] = [size("N"), size("M", { multipleOf: 4 })];
    const device = kernel(
      {
        name: "scalars",
        grid: 1,
        block: 32,
        params: {
          x: input(i32, [N, M]),
          f: scalar(f32),
          i: scalar(i32),
          u: scalar(u32),
          yF: output(f32, [32]),
          yI: output(i32, [4, 32]),
          yU: output(u32, [32]),
        },
      },
      (t, { f, i, u }) => {
        const { x, yF, yI, yU } = t.pdl.wait();
        yF.store([t.lane], f.mul(t.lane.to(f32)));
        yI.store([0, t.lane], i.mul(t.lane));
        yI.store([1, t.lane], t.dim(N).mul(t.lane).add(M));
        yI.store([2, t.lane], t.lane.rem(N).add(x.load([t.dim(N).sub(1), t.dim(M).sub(1)])));
        yI.store([3, t.lane], t.lane.min(M).max(N));
        yU.store([t.lane], u.add(t.lane.to(u32)));
      },
    );
    for (const [n, m, f, i, u] of [
      [3, 8, 0.1, -7, 2 ** 32 - 3],
      [1, 4, -1e30, 2 ** 31 - 1, 0],
      [2, 12, Infinity, -(2 ** 31), 5],
    ] as const) {
      await agrees(target, device, {
        x: HostTensor.from(i32, [n, m], integers(n * m).values()),
        f,
        i,
        u,
        yF: HostTensor.filled(f32, [32], 0xff),
        yI: HostTensor.filled(i32, [4, 32], 0x7f),
        yU: HostTensor.filled(u32, [32], 0x7f),
      });
    }
  });

  on("dot products of all float dtypes and some mixtures", async () => {
    const { bf16, f16, e4m3, e5m2 } = dtypes;
    const pairs = [
      ...[f32, bf16, f16, e4m3, e5m2].flatMap((dtype) => [[dtype, dtype] as const, [dtype, f32] as const]),
      [bf16, e4m3],
      [e5m2, f16],
    ] as const;
    const device = kernel(
      {
        name: "dots",
        grid: 1,
        block: 32,
        params: { x: input(f32, [32, 8]), y: output(f32, [4 * pairs.length, 32]) },
      },
      (t) => {
        const { x, y } = t.pdl.wait();
        const scalars = Array.from({ length: 8 }, (_, k) => x.load([t.lane, k]));
        const [s0, s1, s2, s3, s4, s5, s6, s7] = scalars as [
          Expr<"f32">,
          Expr<"f32">,
          Expr<"f32">,
          Expr<"f32">,
          Expr<"f32">,
          Expr<"f32">,
          Expr<"f32">,
          Expr<"f32">,
        ];
        for (const [row, [a, b]] of pairs.entries()) {
          const sums = [1, 2, 3, 4].map((start) => t.reg(f32, start));
          sums[0]?.addDot(s0.to(a), s1.to(b));
          sums[1]?.addDot(t.pack(s0, s1).to(a), t.pack(s6, s7).to(b));
          sums[2]?.addDot(t.pack(s0, s1, s2, s3).to(a), t.pack(s4, s5, s6, s7).to(b));
          const eight = t.pack(s0, s1, s2, s3, s4, s5, s6, s7);
          sums[3]?.addDot(eight.to(a), eight.to(b));
          for (const [i, sum] of sums.entries()) y.store([4 * row + i, t.lane], sum.get());
        }
      },
    );
    // Small whole numbers: exact whether or not the device fuses.
    await agrees(target, device, {
      x: HostTensor.from(
        f32,
        [32, 8],
        Array.from({ length: 256 }, (_, i) => (i % 9) - 4),
      ),
      y: HostTensor.filled(f32, [4 * pairs.length, 32], 0xff),
    });
  });
});
