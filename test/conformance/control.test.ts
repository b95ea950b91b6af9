/** Registers, loops, branches, the order of reads and writes, and the grid, against the evaluator. */
import { expect } from "vitest";
import {
  bool,
  dims,
  dtypes,
  encode,
  type Expr,
  f32,
  HostTensor,
  i32,
  inout,
  input,
  kernel,
  output,
  scalar,
  size,
  u32,
} from "../../dsl/index.ts";
import { agrees, integers, perThread } from "./agreement.ts";
import { conformance } from "./backends.ts";

conformance((target, on) => {
  on("scalars and sizes reach every thread, bit for bit", async () => {
    const [M, N] = [size("M"), size("N")];
    const device = kernel(
      {
        name: "numbers",
        grid: 2,
        block: 64,
        params: {
          f: scalar(f32),
          i: scalar(i32),
          u: scalar(u32),
          x: input(f32, [M, N]),
          y: output(u32, [5, 128]),
        },
      },
      (t, { f, i, u }) => {
        const { y } = t.pdl.wait();
        const at = t.block.x.mul(64).add(t.thread);
        const numbers = [f.bitcast(u32), i.bitcast(u32), u, t.dim(M).to(u32), t.dim(dims.mul(N, 3)).to(u32)];
        for (const [row, number] of numbers.entries()) y.store([row, at], number);
      },
    );
    for (const [f, i, u] of [
      [Math.PI, -1, 2 ** 32 - 1],
      [-0, -(2 ** 31), 2 ** 31],
      [-Infinity, 2 ** 31 - 1, 0],
      [Math.fround(1e-37), 0, 1],
    ] as const) {
      const x = HostTensor.filled(f32, [7, 11], 0);
      const { y } = await target.run(device, { f, i, u, x });
      const expected = [encode(f32, f, "nosat"), i >>> 0, u, 7, 33];
      expect([...y.values()]).toEqual(expected.flatMap((bits) => new Array<number>(128).fill(bits)));
    }
  });

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

  on("the same for values that have no name of their own, and so are written where they are used", async () => {
    await perThread(target, "unnamed_order", 64, 8, (t, x, put) => {
      const held: Expr<"i32">[] = [];
      const next = (): Expr<"i32"> => held.shift() ?? t.lane;
      const r = t.reg(i32, x(t.thread));
      held.push(r.get());
      r.set(5);
      put(next());
      held.push(r.get().add(t.lane));
      r.set(6);
      put(next().mul(2));

      // The index of a load, of an element, and of an element by an element.
      const at = t.reg(i32, t.thread);
      held.push(x(at.get()));
      at.set(0);
      put(next());
      const a = t.array(i32, 4, { init: 1 });
      a.set(2, 3);
      at.set(2);
      held.push(a.get(at.get()), a.get(a.get(at.get())));
      at.set(0);
      a.set(2, 0);
      a.set(3, 9);
      put(next());
      put(next());

      // Across a reduction, into a branch, into a loop.
      held.push(r.get());
      r.set(t.warpSum(r.get()));
      put(next());
      held.push(r.get());
      t.when(t.lane.gt(3), () => {
        r.set(1);
        r.update((now) => now.add(next()));
      });
      put(r.get());
      held.push(r.get());
      for (const _ of t.range(3)) r.set(r.get().mul(2));
      put(next().sub(r.get()));
    });
  });

  on("loads see memory as it was before later stores to it", async () => {
    const count = 64;
    const device = kernel(
      { name: "load_order", grid: 1, block: count, params: { x: inout(i32, [count]), y: output(i32, [8, count]) } },
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

        // The same for loads that have no name of their own.
        const held: Expr<"i32">[] = [];
        const unnamed = (): Expr<"i32"> => held.shift() ?? i;
        held.push(x.load([i]));
        x.store([i], 11);
        y.store([4, i], unnamed());
        held.push(x.load([i]).add(1));
        x.atomicAdd([i], 5);
        y.store([5, i], unnamed());
        t.barrier();
        held.push(x.load([i.xor(1)]));
        t.barrier();
        t.when(i.lt(40), () => x.store([i], i));
        y.store([6, i], unnamed());
        held.push(x.load([i]).mul(x.load([i])));
        for (const k of t.range(2)) x.store([i], k);
        y.store([7, i], unnamed());
      },
    );
    await agrees(target, device, { x: integers(count), y: HostTensor.filled(i32, [8, count], 0x7f) });
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
    await perThread(target, "comparisons", 64, 6, (t, x, put) => {
      const [a, b, c] = [x(t.thread), x(t.thread.xor(1)), x(t.thread.xor(2))];
      put(a.lt(b).select(b.lt(c), c.gt(a)).to(i32));
      put(a.lt(b).select(b.gt(c), c.lt(a)).to(i32));
      put(t.pack(a.lt(b), b.gt(c)).lane(1).to(i32));
      put(a.lt(b).xor(b.gt(c)).or(a.le(c)).and(c.ge(b).not()).to(i32));
      put(a.lt(b).eq(c.gt(b)).select(a.lt(c).select(a, b), a.gt(c).select(b, c)));
      // One condition for all lanes of a vector.
      const chosen = (a.lt(b) as unknown as Expr<"bool", 2>).select(t.pack(a, b), t.pack(b, c));
      put(chosen.lane(0).sub(chosen.lane(1)));
    });
    await perThread(target, "comparisons_across_the_warp", 64, 2, (t, x, put) => {
      const [a, b, c] = [x(t.thread), x(t.thread.xor(1)), x(t.thread.xor(2))];
      t.warpBarrier();
      t.pdl.launchDependents();
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

  on("more than 65,535 blocks along x", async () => {
    const blocks = 70_001;
    const device = kernel(
      { name: "many_blocks", grid: blocks, block: 32, params: { y: output(i32, [blocks]) } },
      (t) => {
        const { y } = t.pdl.wait();
        t.when(t.lane.eq(0), () => y.store([t.block.x], t.block.x.mul(3)));
      },
    );
    const { y } = await target.run(device, { y: HostTensor.filled(i32, [blocks], 0x7f) });
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
        yF.store([t.lane], f.mul(t.lane.add(1).to(f32))); // no -0: WGSL devices may drop its sign
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
