/** Findings about memory: each in a small kernel with one mistake, by both lines, and in none where the mistake is mended. */
import { describe, expect, test } from "vitest";
import { simulate } from "../../backends/simulator/index.ts";
import { f32, frozen, HostTensor, i32, inout, input, kernel, output, scalar } from "../../dsl/index.ts";
import { findingsIn } from "./expect.ts";
import { rewritten, statements, without } from "./mutate.ts";

const { clean, faulty } = findingsIn(import.meta.url);
const range = (count: number): readonly number[] => Array.from({ length: count }, (_, i) => i);
const numbers = HostTensor.from(i32, [32], range(32));

describe("out of bounds", () => {
  const gather = (isGuarded: boolean) =>
    kernel(
      {
        name: "gather",
        grid: 1,
        block: 32,
        params: {
          i: frozen(i32, [32]),
          x: input(f32, [2, 8]), // gathered
          y: output(f32, [32]),
        },
      },
      (t, { i }) => {
        const { x, y } = t.pdl.wait();
        const k = i.load([t.lane]);
        const value = x.load([0, k], isGuarded ? { guard: k.lt(8) } : {}); // gather
        y.store([t.lane], value);
      },
    );
  const x = HostTensor.from(f32, [2, 8], range(16));

  test("a load gives NaN instead of the next row", () => {
    const says = /x\[0, 8\] is outside of its shape \[2, 8\]/;
    const { y } = faulty(
      gather(false),
      { i: numbers, x },
      { kind: "out-of-bounds", at: "gather", other: "gathered", says },
    );
    expect([...y.values()].map((value, k) => (k < 8 ? value === k : Number.isNaN(value)))).not.toContain(false);
    expect([...clean(gather(true), { i: numbers, x }).y.values()]).toEqual(range(32).map((k) => (k < 8 ? k : 0)));
  });

  test("a store does nothing", () => {
    const scatter = (most: number) =>
      kernel(
        { name: "scatter", grid: 1, block: 32, params: { i: frozen(i32, [32]), y: output(i32, [32]) } },
        (t, { i }) => {
          const { y } = t.pdl.wait();
          const s = t.shared(i32, [16]); // scattered
          const k = i.load([t.lane]).min(most);
          t.when(t.lane.lt(20), () => s.store([k], t.lane)); // scatter
          t.warpBarrier();
          y.store([t.lane], s.load([t.lane.and(15)]));
        },
      );
    const { y } = faulty(scatter(31), { i: numbers }, { kind: "out-of-bounds", at: "scatter", other: "scattered" });
    expect([...y.values()]).toEqual(range(32).map((k) => k % 16));
    const few = HostTensor.from(
      i32,
      [32],
      range(32).map((k) => k % 16),
    );
    const { findings } = simulate(scatter(31), { i: few });
    expect(findings.map(({ kind }) => kind)).toEqual(["race"]); // 16 to 19 store where 0 to 3 do
  });

  test("of registers, mbarriers, the cluster, and by copies", () => {
    const made = kernel(
      {
        name: "beyond",
        grid: 2,
        block: 32,
        cluster: 2,
        params: { n: scalar(i32), x: input(i32, [64], { alignBytes: 16 }), y: output(i32, [2, 32]) },
      },
      (t, { n }) => {
        const { x, y } = t.pdl.wait();
        const a = t.array(i32, 4, { init: 3 }); // registers
        const ready = t.mbarrier(2, 1); // barriers
        const s = t.shared(i32, [64], { alignBytes: 128 });
        s.store([t.lane], t.lane);
        t.cluster.barrier();
        t.when(t.lane.eq(0), () => {
          ready.arriveExpect(0, 32);
          t.copyBulk(x, [56], s, [32], 8, ready);
          ready.arrive(n); // arrive
        });
        ready.wait(0, 0);
        const value = a.get(n).add(s.load([t.lane], { peer: n })); // index and peer
        t.cluster.barrier();
        y.store([t.cluster.rank, t.lane], value);
      },
    );
    const longer = rewritten(made, (op) => (op.kind === "const" && op.value === 8 ? { ...op, value: 16 } : undefined));
    const x = HostTensor.from(i32, [64], range(64));
    clean(made, { n: 1, x });
    faulty(
      made,
      { n: 5, x },
      { kind: "out-of-bounds", at: "index and peer", other: "registers", says: /a\[5\] is outside of its 4/ },
    );
    faulty(made, { n: 5, x }, { kind: "out-of-bounds", at: "index and peer", says: /Block 5 of a cluster of 2/ });
    faulty(
      made,
      { n: 5, x },
      { kind: "out-of-bounds", at: "arrive", other: "barriers", says: /ready\[5\]: there are 2/ },
    );
    expect(simulate(longer, { n: 1, x }).findings.map(({ message }) => message)).toContain(
      "A copy of 16 elements where x or s has only 8",
    );
  });
});

test("misaligned vectors, rows and copies", () => {
  const vectors = kernel(
    {
      name: "vectors",
      grid: 1,
      block: 32,
      params: {
        n: scalar(i32),
        x: input(f32, [256], { alignBytes: 16 }), // narrow
        y: output(f32, [32]),
      },
    },
    (t, { n }) => {
      const { x, y } = t.pdl.wait();
      const s = t.shared(f32, [64], { alignBytes: 128 });
      const ready = t.mbarrier(1, 1);
      const v = x.loadVec([t.lane.mul(4)], 4); // wide
      t.when(t.lane.eq(0), () => {
        ready.arriveExpect(0, n.mul(32));
        t.copyBulk(x, [0], s, [0], n.mul(8), ready); // bulk
      });
      ready.wait(0, 0);
      y.store([t.lane], v.lane(0).add(s.load([0])));
    },
  );
  const x = HostTensor.from(f32, [256], range(256));
  const changed = (change: Readonly<Record<number, number>>) =>
    rewritten(vectors, (op) => (op.kind === "const" ? { ...op, value: change[op.value] ?? op.value } : undefined));
  clean(vectors, { n: 1, x });
  const says = /byte 24, needs a multiple of 16/;
  faulty(changed({ 4: 6 }), { n: 1, x }, { kind: "misaligned", at: "wide", other: "narrow", says });
  faulty(changed({ 8: 7, 32: 28 }), { n: 1, x }, { kind: "misaligned", at: "bulk", other: "narrow", says: /not 28/ });
});

describe("uninitialised", () => {
  test("shared memory and registers", () => {
    const half = (isWhole: boolean) =>
      kernel({ name: "half", grid: 1, block: 64, params: { y: output(i32, [2, 64]) } }, (t) => {
        const { y } = t.pdl.wait();
        const s = t.shared(i32, [64]); // half of it
        const a = t.array(i32, 2); // one of them
        t.when(t.thread.lt(isWhole ? 64 : 32), () => {
          s.store([t.thread], t.thread);
          a.set(1, t.thread);
        });
        t.barrier();
        y.store([0, t.thread], s.load([t.thread.xor(32)])); // shared read
        y.store([1, t.thread], a.get(1)); // register read
      });
    clean(half(true), {});
    faulty(
      half(false),
      {},
      { kind: "uninitialised", at: "shared read", other: "half of it", says: /s\[32\] is read.*nobody/ },
    );
    faulty(
      half(false),
      {},
      { kind: "uninitialised", at: "register read", other: "one of them", says: /a\[1\] is read before/ },
    );
  });

  test("an output read before it is written", () => {
    const copy = kernel(
      {
        name: "copy",
        grid: 1,
        block: 32,
        params: {
          x: input(i32, [32]),
          y: output(i32, [32]), // fresh
        },
      },
      (t) => {
        const { x, y } = t.pdl.wait();
        const value = x.load([t.lane]); // stale
        y.store([t.lane], value);
      },
    );
    const [, y] = copy.ir.tensors;
    const own = rewritten(copy, (op) => (op.kind === "load" && y ? { ...op, memory: y } : undefined));
    clean(copy, { x: numbers });
    faulty(own, { x: numbers }, { kind: "uninitialised", at: "stale", other: "fresh" });
  });

  test("what nobody wrote of an output is listed by itself", () => {
    const odd = kernel({ name: "odd", grid: 1, block: 32, params: { y: output(i32, [4, 32]) } }, (t) => {
      const { y } = t.pdl.wait();
      t.when(t.lane.rem(2).eq(1), () => y.store([2, t.lane], t.lane));
    });
    const { findings, unwritten } = simulate(odd, {});
    expect(findings).toEqual([]);
    expect(unwritten).toMatchObject([{ tensor: "y", count: 112, first: [0, 0] }]);
  });
});

describe("races in shared memory", () => {
  const exchange = kernel({ name: "exchange", grid: 1, block: 64, params: { y: output(i32, [64]) } }, (t) => {
    const { y } = t.pdl.wait();
    const s = t.shared(i32, [64]);
    s.store([t.thread], t.thread); // first store
    t.barrier();
    const other = s.load([t.thread.xor(33)]); // load
    t.barrier();
    s.store([t.thread], other.add(1)); // second store
    t.barrier();
    y.store([t.thread], s.load([t.thread.xor(1)]));
  });
  const [before, after] = statements(exchange, "barrier");

  test("a load after a store, a store after a load", () => {
    clean(exchange, {});
    const says =
      /s\[\d+\] is read by warp \d, lane \d+: nothing orders this after warp \d, lane \d+, by which it was written/;
    faulty(without(exchange, before), {}, { kind: "race", at: "load", other: "first store", says });
    faulty(without(exchange, after), {}, { kind: "race", at: "second store", other: "load" });
  });

  test("lanes of one warp are threads too", () => {
    const turn = (isOrdered: boolean) =>
      kernel({ name: "turn", grid: 1, block: 32, params: { y: output(i32, [32]) } }, (t) => {
        const { y } = t.pdl.wait();
        const s = t.shared(i32, [32]);
        s.store([t.lane], t.lane); // lane's store
        if (isOrdered) t.warpBarrier();
        y.store([t.lane], s.load([t.lane.xor(1)])); // lane's load
      });
    clean(turn(true), {});
    faulty(turn(false), {}, { kind: "race", at: "lane's load", other: "lane's store" });
  });

  test("two stores, unless they store the same", () => {
    const flag = (isSame: boolean) =>
      kernel({ name: "flag", grid: 1, block: 64, params: { y: output(i32, [64]) } }, (t) => {
        const { y } = t.pdl.wait();
        const s = t.shared(i32, [1]);
        s.store([0], isSame ? t.dim(7) : t.warp); // all store
        t.barrier();
        y.store([t.thread], s.load([0]));
      });
    clean(flag(true), {});
    faulty(flag(false), {}, { kind: "race", at: "all store", other: "all store" });
  });

  test("an atomic and a load", () => {
    const count = kernel({ name: "count", grid: 1, block: 64, params: { y: output(i32, [64]) } }, (t) => {
      const { y } = t.pdl.wait();
      const s = t.shared(i32, [1]);
      t.when(t.thread.eq(0), () => s.store([0], 0));
      t.barrier();
      s.atomicAdd([0], 1); // count
      t.barrier();
      y.store([t.thread], s.load([0])); // look
    });
    const [, last] = statements(count, "barrier");
    expect(new Set(clean(count, {}).y.values())).toEqual(new Set([64]));
    faulty(without(count, last), {}, { kind: "race", at: "look", other: "count", says: /changed by an atomic/ });
  });

  test("a warp whose first lane arrives for all of them", () => {
    const relay = (isOrdered: boolean) =>
      kernel({ name: "relay", grid: 1, block: 64, params: { y: output(i32, [32]) } }, (t) => {
        const { y } = t.pdl.wait();
        const s = t.shared(i32, [32]);
        const full = t.mbarrier(1, 1);
        t.when(
          t.warp.eq(0),
          () => {
            s.store([t.lane], t.lane); // produce
            if (isOrdered) t.warpBarrier();
            t.when(t.lane.eq(0), () => full.arrive(0));
          },
          () => {
            full.wait(0, 0);
            y.store([t.lane], s.load([t.lane])); // consume
          },
        );
      });
    clean(relay(true), {});
    faulty(relay(false), {}, { kind: "race", at: "consume", other: "produce", says: /after warp 0, lane 1,/ });
  });

  test("of a cluster, and named barriers", () => {
    const ring = kernel({ name: "ring", grid: 4, block: 64, cluster: 4, params: { y: output(i32, [4, 32]) } }, (t) => {
      const { y } = t.pdl.wait();
      const box = t.shared(i32, [32]);
      const next = t.cluster.rank.add(1).rem(4);
      t.cluster.barrier();
      t.when(
        t.warp.eq(0),
        () => {
          box.store([t.lane], t.block.x, { peer: next }); // send
          t.namedArrive(3, 64);
        },
        () => t.namedBarrier(3, 64),
      );
      t.cluster.barrier();
      y.store([t.cluster.rank, t.lane], box.load([t.lane])); // receive
    });
    const [, , arrival, wait] = statements(ring, "clusterArrive", "clusterWait");
    clean(ring, {});
    faulty(without(without(ring, arrival), wait), {}, { kind: "race", at: "receive", other: "send" });
  });
});

describe("races in global memory", () => {
  test("blocks that store to one element, each something else", () => {
    const vote = (isOwn: boolean) =>
      kernel({ name: "vote", grid: 4, block: 32, params: { y: output(i32, [4]) } }, (t) => {
        const { y } = t.pdl.wait();
        t.when(t.lane.eq(0), () => y.store([isOwn ? t.block.x : 0], t.block.x)); // vote
      });
    clean(vote(true), {});
    const says = /by a? ?(warp 0, lane 0): nothing orders this after a thread of another cluster/;
    faulty(vote(false), {}, { kind: "race", at: "vote", other: "vote", says });
  });

  test("blocks that read what others change, unless by atomics", () => {
    const shift = (isAtomic: boolean) =>
      kernel({ name: "shift", grid: 4, block: 32, params: { x: inout(i32, [128]), y: output(i32, [128]) } }, (t) => {
        const { x, y } = t.pdl.wait();
        const i = t.block.x.mul(32).add(t.lane);
        const next = i.add(32).rem(128);
        const value = isAtomic ? x.atomicAdd([next], 0) : x.load([next]); // their element
        if (isAtomic) x.atomicExchange([i], value);
        else x.store([i], value.add(1)); // own element
        y.store([i], value);
      });
    const x = HostTensor.from(i32, [128], range(128));
    clean(shift(true), { x });
    const { findings } = simulate(shift(false), { x });
    expect(new Set(findings.map(({ kind }) => kind))).toEqual(new Set(["race"]));
    const lines = findings.map(({ at, other }) => [at.line, other?.at.line].toSorted());
    expect(lines[0]).toEqual(lines.at(-1));
  });
});
