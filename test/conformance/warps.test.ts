/** Warp-wide operations, barriers, and what crosses them, against the evaluator. */
import { expect } from "vitest";
import {
  bool,
  type Expr,
  f32,
  frozen,
  HostTensor,
  i32,
  input,
  kernel,
  output,
  scalar,
  size,
  u32,
} from "../../dsl/index.ts";
import { agrees, floats, integers, perThread } from "./agreement.ts";
import { conformance } from "./backends.ts";

conformance((target, on) => {
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

  on("shuffles of every dtype keep all bits", async () => {
    const device = kernel(
      {
        name: "shuffled_bits",
        grid: 1,
        block: 32,
        params: { x: input(i32, [32]), y: output(u32, [3, 4, 32]) },
      },
      (t) => {
        const { x, y } = t.pdl.wait();
        const bits = x.load([t.lane]);
        for (const [row, dtype] of [i32, u32, f32].entries()) {
          const value = bits.bitcast(dtype) as Expr<"i32">;
          const exchanged = [
            t.shuffleXor(value, 9),
            t.shuffleUp(value, 5),
            t.shuffleDown(value, 7),
            t.shuffle(value, 3),
          ];
          for (const [column, result] of exchanged.entries()) y.store([row, column, t.lane], result.bitcast(u32));
        }
      },
    );
    const bits = Array.from({ length: 32 }, (_, i) => Math.imul(i + 1, 0x9e3779b1));
    bits[0] = 0x7f800001; // a signalling NaN
    const { y } = await target.run(device, { x: HostTensor.from(i32, [32], bits) });
    const from = (source: (lane: number) => number) => bits.map((own, lane) => (bits[source(lane)] ?? own) >>> 0);
    const expected = [from((l) => l ^ 9), from((l) => l - 5), from((l) => l + 7), from(() => 3)].flat();
    expect([...y.values()]).toEqual([...expected, ...expected, ...expected]);
  });

  on("warps whose lanes meet see each other's stores", async () => {
    await perThread(target, "meetings", 128, 3, (t, x, put) => {
      const s = t.shared(i32, [128]);
      for (const distance of [1, 7, 31]) {
        s.store([t.thread], x(t.thread).mul(distance));
        t.warpBarrier();
        put(s.load([t.thread.xor(distance)]));
        t.warpBarrier();
      }
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
});
