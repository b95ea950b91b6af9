/** Tile operations, clusters and barriers of some warps, against plain TypeScript. */
import { describe, expect } from "vitest";
import { type MmaAtom, mmaAtoms, valuesOf, wgmmaAtom } from "../../dsl/atoms/mma.ts";
import {
  bf16,
  type DType,
  type Expr,
  f16,
  f32,
  frozen,
  HostTensor,
  i32,
  tiledMma,
  input,
  kernel,
  output,
  u32,
} from "../../dsl/index.ts";
import type { LaneCount } from "../../dsl/ir.ts";
import { composition, crd2idx, makeLayout, parseLayout, Swizzle } from "../../dsl/layout/index.ts";
import { conformance } from "./backends.ts";

const range = (count: number): readonly number[] => Array.from({ length: count }, (_, i) => i);

/** Small whole numbers and quarters, exact in every dtype; sums of their products are exact in f32. */
const pattern = (dtype: DType, count: number, seed: number): HostTensor =>
  HostTensor.from(
    dtype,
    [count],
    range(count).map((i) => (((i * 7 + seed * 3) % 13) - 6) * (dtype.kind === "float" ? 0.25 : 1)),
  );

conformance((target, on) => {
  describe("warp-wide matrix operations", () => {
    const atoms: readonly MmaAtom[] = Object.values(mmaAtoms).flatMap((atoms) => Object.values<MmaAtom>(atoms));
    on.each(atoms.map((atom) => [atom.name, atom] as const))("%s", async (_, atom) => {
      const counts = (["A", "B", "C"] as const).map((operand) => valuesOf(atom, operand));
      const [na, nb, nc] = counts as [LaneCount, LaneCount, LaneCount];
      const multiply = kernel(
        {
          name: "multiply",
          grid: 1,
          block: 32,
          params: {
            a: frozen(atom.a, [32 * na], { alignBytes: 16 }),
            b: frozen(atom.b, [32 * nb], { alignBytes: 16 }),
            c: frozen(atom.c, [32 * nc], { alignBytes: 16 }),
            d: output(atom.c, [32 * nc], { alignBytes: 16 }),
          },
        },
        (t, { a, b, c }) => {
          const { d } = t.pdl.wait();
          const [x, y, z] = [
            a.loadVec([t.lane.mul(na)], na),
            b.loadVec([t.lane.mul(nb)], nb),
            c.loadVec([t.lane.mul(nc)], nc),
          ];
          d.storeVec([t.lane.mul(nc)], t.mmaVectors(atom, x, y, t.mmaVectors(atom, x, y, z)));
        },
      );
      const data = {
        a: pattern(atom.a, 32 * na, 1),
        b: pattern(atom.b, 32 * nb, 2),
        c: pattern(atom.c, 32 * nc, 3),
      };
      const result = await target.run(multiply, data as never);
      const [a, b, c] = [data.a.values(), data.b.values(), data.c.values()];
      const tile = (values: Float64Array, count: number, layout: typeof atom.layoutA): Map<number, number> =>
        new Map(
          range(32).flatMap((lane) =>
            range(count).map((v) => [crd2idx([lane, v], layout), values[lane * count + v] ?? NaN] as const),
          ),
        );
      const [ta, tb] = [tile(a, na, atom.layoutA), tile(b, nb, atom.layoutB)];
      const expected = range(32 * nc).map((i) => {
        const place = crd2idx([Math.floor(i / nc), i % nc], atom.layoutC);
        const [m, n] = [place % atom.M, Math.floor(place / atom.M)];
        const products = range(atom.K).map((k) => (ta.get(m + k * atom.M) ?? NaN) * (tb.get(n + k * atom.N) ?? NaN));
        return (c[i] ?? NaN) + 2 * products.reduce((x, y) => x + y, 0);
      });
      expect([...(result["d" as never] as HostTensor).values()]).toEqual(expected);
    });

    on("fragments whose vectors are cut and joined", async () => {
      const product = kernel(
        {
          name: "product",
          grid: 1,
          block: 32,
          params: {
            a: frozen(bf16, [16, 32], { alignBytes: 16 }),
            b: frozen(bf16, [8, 32], { alignBytes: 16 }),
            c: output(f32, [16, 8], { alignBytes: 16 }),
          },
        },
        (t, { a, b }) => {
          const { c } = t.pdl.wait();
          const permute = [null, null, parseLayout("(2,4,2,2):(1,8,2,4)")] as const;
          const mma = tiledMma(mmaAtoms.m16n8k16.bf16, { permute }).slice(t.lane);
          const [ga, gb, gc] = [mma.partitionA(t.tileOf(a)), mma.partitionB(t.tileOf(b)), mma.partitionC(t.tileOf(c))];
          const [ra, rb, rc] = [t.fragment(ga), t.fragment(gb), t.fragment(gc)];
          t.copy(ga, ra);
          t.copy(gb, rb);
          t.mma(rc, ra, rb);
          t.copy(rc, gc);
        },
      );
      const a = HostTensor.from(bf16, [16, 32], pattern(bf16, 16 * 32, 1).values());
      const b = HostTensor.from(bf16, [8, 32], pattern(bf16, 8 * 32, 2).values());
      const { c } = await target.run(product, { a, b });
      const [x, y] = [a.values(), b.values()];
      const expected = range(128).map((i) =>
        range(32).reduce((sum, k) => sum + (x[Math.floor(i / 8) * 32 + k] ?? NaN) * (y[(i % 8) * 32 + k] ?? NaN), 0),
      );
      expect(
        product.ir.body.filter((stmt) => stmt.kind === "let" && /slice|join/.test(stmt.value.op.kind)).length,
      ).toBeGreaterThan(0);
      expect([...c.values()]).toEqual(expected);
    });

    on("tf32 takes part without the low 13 bits", async () => {
      const atom = mmaAtoms.m16n8k8.tf32;
      const ones = kernel({ name: "ones", grid: 1, block: 32, params: { d: output(f32, [32]) } }, (t) => {
        const { d } = t.pdl.wait();
        const lanes = (x: number, count: number): Expr<"f32", LaneCount> =>
          t.pack(...range(count).map(() => t.const(f32, x)));
        const sums = t.mmaVectors(atom, lanes(1 + 2 ** -11, 4), lanes(1, 2), lanes(0, 4));
        d.store([t.lane], sums.lane(0) as Expr<"f32">);
      });
      const { d } = await target.run(ones, {});
      expect(new Set(d.values())).toEqual(new Set([8]));
    });

    on.each([1, 2, 4] as const)("ldmatrix and stmatrix of %d matrices, straight and transposed", async (matrices) => {
      const rows = 8 * matrices;
      const transposing = kernel(
        {
          name: "transposing",
          grid: 1,
          block: 32,
          params: {
            x: frozen(f16, [rows, 8], { alignBytes: 16 }),
            straight: output(f16, [rows, 8], { alignBytes: 16 }),
            turned: output(f16, [rows, 8], { alignBytes: 16 }),
            alsoTurned: output(f16, [rows, 8], { alignBytes: 16 }),
          },
        },
        (t, { x }) => {
          const { straight, turned, alsoTurned } = t.pdl.wait();
          const from = t.shared(f16, [32, 8]);
          const to = t.shared(f16, [32, 8]);
          const row = t.lane.rem(rows);
          from.storeVec([row, 0], x.loadVec([row, 0], 8));
          t.warpBarrier();
          t.stmatrix(to, [row, 0], t.ldmatrix(from, [row, 0], matrices));
          t.warpBarrier();
          straight.storeVec([row, 0], to.loadVec([row, 0], 8));
          t.warpBarrier();
          t.stmatrix(to, [row, 0], t.ldmatrix(from, [row, 0], matrices, { transposed: true }));
          t.warpBarrier();
          turned.storeVec([row, 0], to.loadVec([row, 0], 8));
          t.warpBarrier();
          t.stmatrix(to, [row, 0], t.ldmatrix(from, [row, 0], matrices), { transposed: true });
          t.warpBarrier();
          alsoTurned.storeVec([row, 0], to.loadVec([row, 0], 8));
        },
      );
      const values = range(rows * 8);
      const { straight, turned, alsoTurned } = await target.run(transposing, {
        x: HostTensor.from(f16, [rows, 8], values),
      });
      expect([...straight.values()]).toEqual(values);
      const expected = values.map((i) => i - (i % 64) + (i % 8) * 8 + (Math.floor(i / 8) % 8));
      expect([...turned.values()]).toEqual(expected);
      expect([...alsoTurned.values()]).toEqual(expected);
    });
  });

  describe("clusters", () => {
    on.each([
      ["workgroup memory", 64, 2],
      ["scratch", 58_112, 8],
    ] as const)("blocks read each other's shared memory, in %s", async (_, words, cluster) => {
      const threads = cluster === 8 ? 1024 : 64;
      const blocks = 2 * cluster;
      const neighbours = kernel(
        {
          name: "neighbours",
          grid: [blocks, 2],
          block: threads,
          cluster,
          params: { y: output(i32, [2, blocks, threads]), z: output(i32, [2, blocks, threads]) },
        },
        (t) => {
          const { y, z } = t.pdl.wait();
          const mine = t.shared(u32, [words]);
          const value = t.block.y.mul(1_000_000).add(t.block.x.mul(1024)).add(t.thread);
          mine.store([words - threads + 0], t.const(u32, 0));
          t.barrier();
          mine.store([t.thread.add(words - threads)], value.to(u32));
          t.cluster.barrier();
          const peer = t.cluster.rank.add(1).rem(cluster);
          y.store([t.block.y, t.block.x, t.thread], mine.load([t.thread.add(words - threads)], { peer }).to(i32));
          t.cluster.barrier();
          mine.store([t.thread.add(words - threads)], value.add(5).to(u32), { peer });
          t.cluster.arrive();
          t.cluster.wait();
          z.store([t.block.y, t.block.x, t.thread], mine.load([t.thread.add(words - threads)]).to(i32));
        },
      );
      const { y, z } = await target.run(neighbours, {});
      const expected = (by: number, plus: number): readonly number[] =>
        range(2).flatMap((row) =>
          range(blocks).flatMap((block) => {
            const other = block - (block % cluster) + ((block + by) % cluster);
            return range(threads).map((thread) => row * 1_000_000 + other * 1024 + thread + plus);
          }),
        );
      expect([...y.values()]).toEqual(expected(1, 0));
      expect([...z.values()]).toEqual(expected(cluster - 1, 5));
    });

    on("arrivals at another block's mbarrier, and blocks that go different ways", async () => {
      const relay = kernel({ name: "relay", grid: 4, block: 64, cluster: 4, params: { y: output(i32, [4]) } }, (t) => {
        const { y } = t.pdl.wait();
        const box = t.shared(i32, [1]);
        const turn = t.mbarrier(1, 1);
        const { rank } = t.cluster;
        t.cluster.barrier();
        t.when(rank.ne(0), () => {
          turn.wait(0, 0);
          t.barrier();
        });
        t.when(t.thread.eq(0), () => {
          const sum = t.reg(i32, 100);
          t.when(rank.gt(0), () => sum.set(box.load([0]).mul(2).add(rank)));
          y.store([rank], sum);
          t.when(rank.lt(3), () => {
            box.store([0], sum, { peer: rank.add(1) });
            turn.arrive(0, { peer: rank.add(1) });
          });
        });
        t.cluster.barrier();
      });
      const { y } = await target.run(relay, {});
      expect([...y.values()]).toEqual([100, 201, 404, 811]);
    });
  });

  describe("barriers of some warps", () => {
    on("a producer warp fills a ring by bulk copies, consumer warps empty it", async () => {
      const [tiles, size, stages] = [7, 64, 2];
      const ring = kernel(
        {
          name: "ring",
          grid: 3,
          block: 96,
          params: { x: input(f32, [3, tiles, size], { alignBytes: 16 }), y: output(f32, [3, tiles, size]) },
        },
        (t) => {
          const { x, y } = t.pdl.wait();
          const buffer = t.shared(f32, [stages, size], { alignBytes: 128 });
          const pipe = t.pipeline(stages, { producers: 1, consumers: 64 });
          t.when(
            t.warp.eq(2),
            () => {
              for (const i of t.range(tiles)) {
                pipe.acquire(i);
                t.when(t.lane.eq(0), () => {
                  const stage = pipe.stage(i);
                  pipe.full.arriveExpect(stage, size * 4);
                  t.copyBulk(x, [t.block.x, i, 0], buffer, [stage, 0], size, pipe.full, stage);
                });
              }
            },
            () => {
              const sum = t.reg(f32, 0);
              for (const i of t.range(tiles)) {
                pipe.wait(i);
                sum.set(buffer.load([pipe.stage(i), t.thread]).add(sum));
                pipe.release(i);
                y.store([t.block.x, i, t.thread], sum);
                t.namedBarrier(3, 64);
              }
            },
          );
        },
      );
      const x = HostTensor.from(
        f32,
        [3, tiles, size],
        range(3 * tiles * size).map((i) => (i * 37) % 101),
      );
      const { y } = await target.run(ring, { x });
      const values = x.values();
      const expected = range(3 * tiles * size).map((at) => {
        let sum = 0;
        for (let tile = at; tile >= Math.floor(at / (tiles * size)) * tiles * size; tile -= size)
          sum += values[tile] ?? 0;
        return sum;
      });
      expect([...y.values()]).toEqual(expected);
    });

    on("named barriers order two pairs of warps; arrivals that don't wait", async () => {
      const handover = kernel({ name: "handover", grid: 1, block: 64, params: { y: output(i32, [8, 32]) } }, (t) => {
        const { y } = t.pdl.wait();
        const box = t.shared(i32, [32]);
        t.when(
          t.warp.eq(0),
          () => {
            for (const i of t.range(8)) {
              t.namedBarrier(2, 64);
              box.store([t.lane], i.mul(100).add(t.lane));
              t.namedArrive(1, 64);
            }
          },
          () => {
            t.namedArrive(2, 64);
            for (const i of t.range(8)) {
              t.namedBarrier(1, 64);
              y.store([i, t.lane], box.load([t.lane]));
              t.when(i.lt(7), () => t.namedArrive(2, 64));
            }
          },
        );
      });
      const { y } = await target.run(handover, {});
      expect([...y.values()]).toEqual(range(256).map((i) => Math.floor(i / 32) * 100 + (i % 32)));
    });

    on("clusters take turns with scratch when there is not room for all", async () => {
      const [cluster, clusters, words] = [8, 80, 58_096];
      const turns = kernel(
        {
          name: "turns",
          grid: cluster * clusters,
          block: 32,
          cluster,
          params: { y: output(i32, [cluster * clusters]) },
        },
        (t) => {
          const { y } = t.pdl.wait();
          const mine = t.shared(i32, [words]);
          const ready = t.mbarrier(1, 1);
          const { rank } = t.cluster;
          const next = rank.add(1).rem(cluster);
          t.cluster.barrier();
          t.when(t.lane.eq(0), () => {
            mine.store([words - 1], t.block.x, { peer: next });
            ready.arrive(0, { peer: next });
          });
          ready.wait(0, 0);
          y.store([t.block.x], mine.load([words - 1]));
          t.cluster.barrier();
        },
      );
      const { y } = await target.run(turns, {});
      expect([...y.values()]).toEqual(
        range(cluster * clusters).map((i) => i - (i % cluster) + ((i + cluster - 1) % cluster)),
      );
    });

    on.each([1, 2, 4])("asynchronous copies of %i words, in groups of which one may go on", async (words) => {
      const size = 64 * words;
      const copies = kernel(
        {
          name: "groups",
          grid: 1,
          block: 64,
          params: { x: frozen(f32, [3, size], { alignBytes: 16 }), y: output(f32, [3, size]) },
        },
        (t, { x }) => {
          for (const row of range(3)) t.prefetch(x, [row, t.thread.mul(words)]);
          const { y } = t.pdl.wait();
          const landings = range(3).map(() => t.sharedTile(f32, makeLayout([1, size])));
          const mine = makeLayout([64, words], [words, 1]);
          for (const [row, landing] of landings.entries()) {
            const from = x.tile([1, size], [row, 0]).partition(mine, t.thread);
            t.copyAsync(from, landing.partition(mine, t.thread));
            t.asyncCommit();
          }
          const give = (row: number) => {
            const landing = landings[row]?.tensor;
            for (const i of t.range(words)) {
              const at = i.mul(64).add(t.thread.xor(63));
              if (landing) y.store([row, at], landing.load([at]));
            }
          };
          t.asyncWait(1);
          t.barrier();
          for (const row of [0, 1]) give(row);
          t.asyncWait(0);
          t.barrier();
          give(2);
        },
      );
      const x = HostTensor.from(f32, [3, size], range(3 * size));
      const { y } = await target.run(copies, { x });
      expect([...y.values()]).toEqual(range(3 * size));
    });

    on("a warpgroup takes the registers that another gave back", async () => {
      const uneven = kernel({ name: "uneven", grid: 2, block: 384, params: { y: output(i32, [768]) } }, (t) => {
        const { y } = t.pdl.wait();
        const i = t.block.x.mul(384).add(t.thread);
        t.when(
          t.warp.lt(4),
          () => {
            t.setRegisters("decrease", 40);
            y.store([i], i);
          },
          () => {
            t.setRegisters("increase", 232);
            y.store([i], i.mul(2));
          },
        );
      });
      const { y } = await target.run(uneven, {});
      expect([...y.values()]).toEqual(range(768).map((i) => (i % 384 < 128 ? i : 2 * i)));
    });

    on("asynchronous copies arrive by themselves, zeros where the guard is false", async () => {
      const copies = kernel(
        {
          name: "copies",
          grid: 1,
          block: 64,
          params: { x: frozen(f32, [100], { alignBytes: 16 }), y: output(f32, [128]) },
        },
        (t, { x }) => {
          const { y } = t.pdl.wait();
          const landing = t.sharedTile(f32, makeLayout([128]));
          const full = t.mbarrier(1, 64);
          const mine = makeLayout([64, 2], [2, 1]);
          const from = x.tile([128], [0]).partition(mine, t.thread);
          t.copyAsync(from, landing.partition(mine, t.thread), { guard: "edges" });
          full.arriveAfterCopies(0);
          full.wait(0, 0);
          for (const i of [0, 1]) y.store([t.thread.add(64 * i)], landing.tensor.load([t.thread.add(64 * i)]));
        },
      );
      const x = HostTensor.from(f32, [100], range(100));
      const { y } = await target.run(copies, { x });
      expect([...y.values()]).toEqual(range(128).map((i) => (i < 100 ? i : 0)));
    });
  });

  describe("boxes and warpgroups", () => {
    on.each([0, 32, 64, 128] as const)(
      "a box swizzled by %d bytes, zeros outside of the tensor",
      async (swizzleBytes) => {
        const columns = (swizzleBytes || 64) / 2;
        const bits = Math.log2((swizzleBytes || 16) / 16);
        const boxes = kernel(
          {
            name: "boxes",
            grid: 1,
            block: 32,
            params: {
              x: input(f16, [20, 72], { alignBytes: 16 }),
              plain: output(f16, [2, 16 * columns]),
              seen: output(f16, [2, 16 * columns]),
            },
          },
          (t) => {
            const { x, plain, seen } = t.pdl.wait();
            const layout = composition(
              new Swizzle(bits, 3, 3),
              makeLayout([16, columns, 2], [columns, 1, 16 * columns]),
            );
            const tile = t.sharedTile(f16, layout, { alignBytes: 1024 });
            const map = t.tensorMap(x, [16, columns], { swizzleBytes });
            const full = t.mbarrier(2, 1);
            t.when(t.lane.eq(0), () => {
              for (const i of [0, 1]) {
                full.arriveExpect(i, map.bytes);
                map.copy([7 * i - 1, 8 * i], tile.slice([null, null, i]), full, i, "stream", tile.at);
              }
            });
            for (const i of [0, 1]) full.wait(i, 0);
            for (const i of [0, 1]) {
              for (const at of t.range(t.lane, 16 * columns, { step: 32 })) {
                plain.store([i, at], tile.tensor.load([at.add(i * 16 * columns)]));
                const unit = at.add(i * 16 * columns);
                const place = swizzleBytes === 0 ? unit : unit.xor(unit.shr(3).and(8 * (2 ** bits - 1)));
                seen.store([i, at], tile.tensor.load([place]));
              }
            }
          },
        );
        const x = HostTensor.from(
          f16,
          [20, 72],
          range(20 * 72).map((i) => 1 + (i % 500)),
        );
        const { plain, seen } = await target.run(boxes, { x });
        const expected = range(2 * 16 * columns).map((at) => {
          const i = Math.floor(at / (16 * columns));
          const row = (Math.floor(at / columns) % 16) + 7 * i - 1;
          const column = (at % columns) + 8 * i;
          return row < 0 || row >= 20 || column >= 72 ? 0 : 1 + ((row * 72 + column) % 500);
        });
        expect([...seen.values()]).toEqual(expected);
        if (swizzleBytes > 0) expect([...plain.values()]).not.toEqual(expected);
      },
    );

    on.each([
      ["f16, 128-byte swizzle", f16, 128, 16],
      ["bf16, 64-byte swizzle", bf16, 64, 8],
      ["f16, no swizzle", f16, 0, 24],
    ] as const)("wgmma of %s", async (_, dtype, swizzleBytes, N) => {
      const K = swizzleBytes ? swizzleBytes / 2 : 32;
      const atom = wgmmaAtom(N, dtype, dtype);
      const bits = Math.log2((swizzleBytes || 16) / 16);
      const layoutOf = (rows: number) =>
        swizzleBytes
          ? composition(new Swizzle(bits, 3, 3), makeLayout([rows, K], [K, 1]))
          : makeLayout(
              [
                [8, rows / 8],
                [8, K / 8],
              ],
              [
                [8, 64],
                [1, rows * 8],
              ],
            );
      const product = kernel(
        {
          name: "product",
          grid: 1,
          block: 128,
          params: { a: frozen(dtype, [64, K]), b: frozen(dtype, [N, K]), c: output(f32, [64, N]) },
        },
        (t, { a, b }) => {
          const { c } = t.pdl.wait();
          const [sa, sb] = [
            t.sharedTile(dtype, layoutOf(64), { alignBytes: 1024 }),
            t.sharedTile(dtype, layoutOf(N), { alignBytes: 1024 }),
          ];
          const rows = makeLayout([64, K], [1, 64]);
          for (const k of range(K)) {
            t.when(t.thread.lt(64), () => sa.partition(rows, t.thread).store(k, a.load([t.thread, k])));
            t.when(t.thread.lt(N), () =>
              sb.partition(makeLayout([N, K], [1, N]), t.thread).store(k, b.load([t.thread, k])),
            );
          }
          t.asyncFence();
          t.barrier();
          const mma = tiledMma(atom).slice(t.thread);
          const gc = mma.partitionC(t.tileOf(c));
          const sums = t.fragment(gc);
          t.wgmmaFence();
          t.wgmma(sums, sa, sb, { accumulate: false });
          t.wgmma(sums, sa, sb);
          t.wgmmaCommit();
          t.wgmmaWait(0);
          t.copy(sums, gc);
        },
      );
      const data = {
        a: HostTensor.from(dtype, [64, K], pattern(dtype, 64 * K, 1).values()),
        b: HostTensor.from(dtype, [N, K], pattern(dtype, N * K, 4).values()),
      };
      const { c } = await target.run(product, data);
      const [a, b] = [data.a.values(), data.b.values()];
      const expected = range(64 * N).map((i) => {
        const [m, n] = [Math.floor(i / N), i % N];
        return 2 * range(K).reduce((sum, k) => sum + (a[m * K + k] ?? NaN) * (b[n * K + k] ?? NaN), 0);
      });
      expect([...c.values()]).toEqual(expected);
    });
  });
});
