/** Findings about order: what runs beside the threads, barriers, the wait for the kernel before, other blocks' lifetime. */
import { describe, expect, test } from "vitest";
import { formatFinding, simulate } from "../../backends/simulator/index.ts";
import { bf16, f32, frozen, HostTensor, i32, input, kernel, output, tiledMma, wgmmaAtom } from "../../dsl/index.ts";
import type { IdName, Op } from "../../dsl/ir.ts";
import { composition, makeLayout, Swizzle } from "../../dsl/layout/index.ts";
import { findingsIn } from "./expect.ts";
import { rewritten, statements, without } from "./mutate.ts";

const { clean, faulty } = findingsIn(import.meta.url);
const range = (count: number): readonly number[] => Array.from({ length: count }, (_, i) => i);

/** What was decided by the block becomes decided by the warp or the lane. */
const decidedBy =
  (id: IdName) =>
  (op: Op): Op | undefined =>
    op.kind === "id" && op.id === "block.x" ? { ...op, id } : undefined;

describe("a barrier that is missing", () => {
  const reversed = kernel(
    { name: "reversed", grid: 1, block: 128, params: { x: input(f32, [128]), y: output(f32, [128]) } },
    (t) => {
      const { x, y } = t.pdl.wait();
      const s = t.shared(f32, [128]);
      s.store([t.thread], x.load([t.thread])); // early store
      t.barrier();
      y.store([t.thread], s.load([t.thread.neg().add(127)])); // early load
    },
  );
  const x = HostTensor.from(f32, [128], range(128));
  const broken = without(reversed, statements(reversed, "barrier")[0]);

  test("comes to the race of store and load first, and says what to write", () => {
    clean(reversed, { x });
    const says = /is read by .*, by which it was written/;
    faulty(broken, { x }, { kind: "race", at: "early load", other: "early store", says });
    for (const seed of [undefined, 1, 2, 3, 4]) {
      const [first, ...others] = simulate(broken, { x }, { seed }).findings;
      expect(first && formatFinding(first), `seed ${seed}`).toMatch(says);
      expect(first?.hint).toBe("Put t.barrier() between the two, and at the end of a loop around them");
      for (const other of others) expect(formatFinding(other)).toMatch(/nobody has written|by which it was read/);
    }
  });
});

describe("copies beside the threads", () => {
  const staged = kernel(
    { name: "staged", grid: 1, block: 64, params: { x: frozen(f32, [256], { alignBytes: 16 }), y: output(f32, [64]) } },
    (t, { x }) => {
      const { y } = t.pdl.wait();
      const landing = t.sharedTile(f32, makeLayout([256]));
      const mine = makeLayout([64, 4], [4, 1]);
      t.copyAsync(x.tile([256], [0]).partition(mine, t.thread), landing.partition(mine, t.thread)); // copy
      t.asyncCommit();
      t.asyncWait(0);
      t.barrier();
      y.store([t.thread], landing.tensor.load([t.thread.mul(3)])); // use
    },
  );
  const x = HostTensor.from(f32, [256], range(256));
  const [commit, wait] = statements(staged, "asyncCommit", "asyncWait");
  const [barrier] = statements(staged, "barrier");

  test("used before the wait: what was there before is seen, and found", () => {
    expect([...clean(staged, { x }).y.values()]).toEqual(range(64).map((i) => 3 * i));
    const says = /is read by warp \d, lane \d+: a copy may still write it/;
    const { y } = faulty(without(staged, wait), { x }, { kind: "in-flight", at: "use", other: "copy", says });
    expect(new Set(y.values())).toEqual(new Set([NaN]));
    faulty(without(staged, commit), { x }, { kind: "in-flight", at: "use", other: "copy" });
    faulty(
      without(staged, barrier),
      { x },
      { kind: "race", at: "use", other: "copy", says: /after warp \d, lane \d+/ },
    );
  });

  test("that nobody waits for", () => {
    faulty(without(staged, wait), { x }, { kind: "in-flight", at: "copy", says: /nobody waited for it/ });
  });

  const boxes = kernel(
    {
      name: "boxes",
      grid: 1,
      block: 64,
      params: { x: input(f32, [2, 64], { alignBytes: 16 }), y: output(f32, [2, 64]) },
    },
    (t) => {
      const { x, y } = t.pdl.wait();
      const s = t.shared(f32, [64], { alignBytes: 128 });
      const ring = t.pipeline(1, { producers: 1, consumers: 64 });
      for (const i of t.range(2)) {
        ring.acquire(i);
        t.when(t.thread.eq(0), () => {
          ring.full.arriveExpect(0, 256);
          t.copyBulk(x, [i, 0], s, [0], 64, ring.full); // fill
        });
        ring.wait(i);
        y.store([i, t.thread], s.load([t.thread])); // empty
        ring.release(i);
      }
    },
  );
  test("into memory that is still read", () => {
    const x = HostTensor.from(f32, [2, 64], range(128));
    const [acquire, wait] = statements(boxes, "await");
    expect([...clean(boxes, { x }).y.values()]).toEqual(range(128));
    faulty(
      without(boxes, acquire),
      { x },
      { kind: "race", at: "fill", other: "empty", says: /is written by warp 0, lane 0/ },
    );
    faulty(without(boxes, wait), { x }, { kind: "in-flight", at: "empty", other: "fill" });
  });

  test("more arrivals than the phase has, while bytes are to come", () => {
    const eager = (isMended: boolean) =>
      kernel(
        {
          name: "eager",
          grid: 1,
          block: 32,
          params: { x: input(f32, [32], { alignBytes: 16 }), y: output(f32, [32]) },
        },
        (t) => {
          const { x, y } = t.pdl.wait();
          const s = t.shared(f32, [32], { alignBytes: 128 });
          const full = t.mbarrier(1, isMended ? 2 : 1); // eager barrier
          t.when(t.lane.eq(0), () => {
            full.arriveExpect(0, 128);
            full.arrive(0); // eager arrival
            t.copyBulk(x, [0], s, [0], 32, full);
          });
          full.wait(0, 0);
          y.store([t.lane], s.load([t.lane]));
        },
      );
    const x = HostTensor.from(f32, [32], range(32));
    clean(eager(true), { x });
    faulty(
      eager(false),
      { x },
      { kind: "arrivals", at: "eager arrival", other: "eager barrier", says: /More than 1 arrivals at full\[0\]/ },
    );
  });
});

describe("wgmma", () => {
  const [N, K] = [16, 32];
  const product = kernel(
    {
      name: "product",
      grid: 1,
      block: 128,
      params: { a: frozen(bf16, [64, K]), b: frozen(bf16, [N, K]), c: output(f32, [64, N]) },
    },
    (t, { a, b }) => {
      const { c } = t.pdl.wait();
      const tile = (rows: number) =>
        t.sharedTile(bf16, composition(new Swizzle(2, 3, 3), makeLayout([rows, K], [K, 1])), { alignBytes: 1024 });
      const [sa, sb] = [tile(64), tile(N)];
      for (const k of range(K)) {
        const [rows, columns] = [makeLayout([64, K], [1, 64]), makeLayout([N, K], [1, N])];
        t.when(t.thread.lt(64), () => sa.partition(rows, t.thread).store(k, a.load([t.thread, k]))); // fill a
        t.when(t.thread.lt(N), () => sb.partition(columns, t.thread).store(k, b.load([t.thread, k])));
      }
      t.asyncFence();
      t.barrier();
      const mma = tiledMma(wgmmaAtom(N, bf16, bf16)).slice(t.thread);
      const gc = mma.partitionC(t.tileOf(c));
      const sums = t.fragment(gc); // zeros
      t.when(t.block.x.eq(0), () => {
        t.wgmmaFence();
        t.wgmma(sums, sa, sb); // multiply
        t.wgmmaCommit();
        t.wgmmaWait(0);
      });
      t.barrier();
      t.copy(sums, gc); // take
      sa.partition(makeLayout([64, K], [1, 64]), t.thread.rem(64)).store(0, a.load([0, 0])); // fill again
    },
  );
  const data = (rows: number) =>
    HostTensor.from(
      bf16,
      [rows, K],
      range(rows * K).map((i) => (i % 7) - 3),
    );
  const args = { a: data(64), b: data(N) };
  const drop = (kind: Parameters<typeof statements>[1]) => without(product, statements(product, kind)[0]);

  test("is right, and its mistakes are found", () => {
    const [a, b] = [args.a.values(), args.b.values()];
    const { c } = clean(product, args);
    const expected = range(64 * N).map((i) =>
      range(K).reduce((sum, k) => sum + (a[Math.floor(i / N) * K + k] ?? 0) * (b[(i % N) * K + k] ?? 0), 0),
    );
    expect([...c.values()]).toEqual(expected);

    faulty(drop("wgmmaFence"), args, {
      kind: "in-flight",
      at: "multiply",
      other: "zeros",
      says: /a wgmmaFence is missing/,
    });
    faulty(drop("asyncFence"), args, { kind: "in-flight", at: "multiply", other: "fill a", says: /t\.asyncFence\(\)/ });
    faulty(drop("wgmmaCommit"), args, { kind: "in-flight", at: "multiply", says: /nobody waited/ });
    const late = faulty(drop("wgmmaWait"), args, {
      kind: "in-flight",
      at: "take",
      other: "multiply",
      says: /sums is touched/,
    });
    expect(new Set(late.c.values())).toEqual(new Set([0]));
    faulty(drop("wgmmaWait"), args, {
      kind: "in-flight",
      at: "fill again",
      other: "multiply",
      says: /a wgmma may still read it/,
    });
    faulty(drop("barrier"), args, { kind: "race", at: "multiply", other: "fill a", says: /is read by a wgmma/ });
  });

  test("by some warps of a warpgroup", () => {
    const some = rewritten(product, decidedBy("warp"));
    faulty(some, args, { kind: "divergence", at: "multiply", says: /Not all four warps/ });
  });
});

describe("barriers", () => {
  const branching = kernel({ name: "branching", grid: 1, block: 64, params: { y: output(i32, [64]) } }, (t) => {
    const { y } = t.pdl.wait();
    const value = t.reg(i32, t.thread);
    // prettier-ignore
    t.when(t.block.x.eq(0), () => { // branch
      value.set(t.shuffleXor(value, 1)); // exchange
      t.barrier(); // then
    }, () => t.barrier()); // else
    y.store([t.thread], value);
  });

  test("that some lanes don't come to, or some warps elsewhere", () => {
    clean(branching, {});
    const byLane = rewritten(branching, decidedBy("lane"));
    faulty(
      byLane,
      {},
      { kind: "divergence", at: "exchange", other: "branch", says: /Not all lanes .* come to this shuffle/ },
    );
    faulty(byLane, {}, { kind: "divergence", at: "then", other: "branch", says: /barrier of the block/ });
    const byWarp = rewritten(branching, decidedBy("warp"));
    const { findings } = simulate(byWarp, {});
    expect(findings.map(formatFinding).join()).toMatch(
      /^divergence: The warps of a block come to .* at different lines\n  at .*:\d+:\d+\n  another warp came at/,
    );
  });

  test("that nobody else comes to", () => {
    const alone = (threads: number) =>
      kernel({ name: "alone", grid: 1, block: 96, params: { y: output(i32, [96]) } }, (t) => {
        const { y } = t.pdl.wait();
        const never = t.mbarrier(2, 2);
        t.when(t.thread.lt(threads), () => never.arrive(1));
        t.when(
          t.warp.eq(0),
          () => never.wait(1, 0), // mbarrier
          () => t.when(t.warp.eq(1), () => t.namedBarrier(2, threads === 2 ? 32 : 64)), // named
        );
        y.store([t.thread], t.thread);
      });
    clean(alone(2), {});
    const says =
      /Deadlock in "alone": warp 0 waits for never\[1\], to whose phase 0 1 of 2 arrivals have come at line \d+; warp 1 waits for the named barrier 2, to which 1 of 2 warps have come at line \d+; 1 warps have ended/;
    const { findings } = simulate(alone(1), {});
    expect(findings.map(({ message }) => message).join()).toMatch(says);
    faulty(alone(1), {}, { kind: "deadlock", at: "mbarrier", other: "named", says });
  });

  test("a block's, where a warp has ended", () => {
    const early = kernel({ name: "early", grid: 2, block: 64, params: { y: output(i32, [1]) } }, (t) => {
      const { y } = t.pdl.wait();
      t.when(t.block.x.eq(0), () => {
        t.barrier(); // waiting
        t.when(t.thread.eq(0), () => y.store([0], 1));
      });
    });
    clean(early, {});
    const says =
      /warp 0 waits for the block's barrier, to which 1 of 2 warps have come at line \d+; 1 warps have ended/;
    faulty(rewritten(early, decidedBy("warp")), {}, { kind: "deadlock", at: "waiting", says });
  });
});

describe("the kernel before", () => {
  const consumer = kernel(
    { name: "consumer", grid: 2, block: 64, params: { x: input(f32, [64]), y: output(f32, [2, 64]) } },
    (t) => {
      // prettier-ignore
      t.when(t.warp.eq(0), () => void t.pdl.wait()); // the wait
      t.barrier();
      const { x, y } = t.pdl.afterBarrier();
      const value = x.load([t.thread]); // activation
      y.store([t.block.x, t.thread], value); // result
    },
  );
  const x = HostTensor.from(f32, [64], range(64));

  test("an input read, an output written by threads that are not ordered after the wait", () => {
    clean(consumer, { x });
    const hurried = without(consumer, statements(consumer, "barrier")[0]);
    const { y } = faulty(
      hurried,
      { x },
      { kind: "early-access", at: "activation", other: "the wait", says: /x is read by a thread/ },
    );
    // The warp that waits is right; the other sees poison.
    expect([...y.values()]).toEqual(range(128).map((i) => (i % 64 < 32 ? i % 64 : NaN)));
    faulty(hurried, { x }, { kind: "early-store", at: "result", other: "the wait", says: /y is written by a thread/ });
  });
});

describe("other blocks of a cluster", () => {
  const neighbours = kernel(
    { name: "neighbours", grid: 2, block: 32, cluster: 2, params: { y: output(i32, [2, 32]) } },
    (t) => {
      const { y } = t.pdl.wait();
      const s = t.shared(i32, [32]);
      const peer = t.cluster.rank.xor(1);
      t.cluster.barrier();
      s.store([t.lane], t.block.x, { peer }); // theirs
      t.cluster.barrier();
      y.store([t.cluster.rank, t.lane], s.load([t.lane]));
      const last = s.load([t.lane], { peer }); // last look
      y.store([t.cluster.rank, t.lane], last);
      t.cluster.barrier();
    },
  );
  const halves = statements(neighbours, "clusterArrive", "clusterWait");
  const dropping = (first: number) => without(without(neighbours, halves[first]), halves[first + 1]);

  test("that may not have started, or may have ended", () => {
    clean(neighbours, {});
    faulty(dropping(0), {}, { kind: "lifetime", at: "theirs", says: /may not have started/ });
    faulty(dropping(4), {}, { kind: "lifetime", at: "last look", says: /ended already/ });
  });
});
