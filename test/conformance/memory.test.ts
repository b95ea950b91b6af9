/** Loads, stores, shared memory and atomics: every dtype, every width, guards, neighbours within a word. */
import { expect, test } from "vitest";
import { emitCuda } from "../../backends/cuda/emit.ts";
import {
  type CacheHint,
  type DType,
  type DTypeName,
  dtypes,
  type Expr,
  f32,
  frozen,
  HostTensor,
  i32,
  inout,
  input,
  kernel,
  type LaneCount,
  output,
  size,
  type Tensor,
  u32,
  u8,
} from "../../dsl/index.ts";
import { seededRandom } from "../../kernels/index.ts";
import { conformance } from "./backends.ts";

const all = Object.values(dtypes) as readonly DType[];
const hints: readonly CacheHint[] = ["normal", "stream", "evictFirst", "evictLast"];
const widths = (dtype: DType): readonly LaneCount[] =>
  ([1, 2, 4, 8, 16] as const).filter((lanes) => lanes * dtype.bytes <= 16);

const random = seededRandom(7);
function randomBytes(dtype: DType, shape: readonly number[]): HostTensor {
  const length = shape.reduce((a, b) => a * b, dtype.bytes);
  return new HostTensor(
    dtype,
    shape,
    Uint8Array.from({ length }, () => random() * 256),
  );
}

/** A bool is only true or false: which byte says true is not told apart. */
const content = ({ dtype, bytes }: HostTensor): readonly number[] =>
  [...bytes].map((byte) => (dtype.name === "bool" ? Number(byte !== 0) : byte));

conformance((target, on) => {
  for (const dtype of all) {
    on(`copies of ${dtype.name}: every width, role and cache hint, guarded and not`, async () => {
      const count = 1024;
      const rows = (["frozen", "input"] as const).flatMap((role) =>
        widths(dtype).flatMap((lanes) => [
          ...hints.map((cache) => ({ role, lanes, cache, guarded: false })),
          { role, lanes, cache: "normal" as const, guarded: true },
          { role, lanes, cache: "stream" as const, guarded: true },
        ]),
      );
      const device = kernel(
        {
          name: `copy_${dtype.name}`,
          grid: 2,
          block: 128,
          params: {
            early: frozen(dtype, [count], { alignBytes: 16 }),
            late: input(dtype, [count], { alignBytes: 16 }),
            y: output(dtype, [rows.length, count], { alignBytes: 16 }),
          },
        },
        (t, { early }) => {
          const { late, y } = t.pdl.wait();
          const first = t.block.x.mul(128).add(t.thread);
          for (const [row, { role, lanes, cache, guarded }] of rows.entries()) {
            const x = (role === "frozen" ? early : late) as Tensor<DTypeName, 1, "input">;
            for (const i of t.range(first, count / lanes, { step: 256 })) {
              const options = guarded ? { cache, guard: i.and(1).eq(0) } : { cache };
              const value = x.loadVec([i.mul(lanes)], lanes, options);
              y.storeVec([row, i.mul(lanes)], value, { cache: row % 2 === 0 ? "normal" : "stream" });
            }
          }
        },
      );
      const [early, late] = [randomBytes(dtype, [count]), randomBytes(dtype, [count])];
      const { y } = await target.run(device, {
        early,
        late,
        y: HostTensor.filled(dtype, [rows.length, count], 0xa5),
      });
      const actual = content(y);
      for (const [row, { role, lanes, guarded, cache }] of rows.entries()) {
        const expected = content(role === "frozen" ? early : late).map((byte, i) =>
          guarded && Math.floor(i / dtype.bytes / lanes) % 2 === 1 ? 0 : byte,
        );
        const bytes = count * dtype.bytes;
        expect(actual.slice(row * bytes, (row + 1) * bytes), `${role} x${lanes} ${cache} ${guarded}`).toEqual(expected);
      }
    });
  }

  on("threads that store to parts of one word don't disturb each other, nor what nobody stores to", async () => {
    const count = 4096;
    const { bf16, e4m3, i8, bool, f16 } = dtypes;
    const device = kernel(
      {
        name: "neighbours",
        grid: 4,
        block: 1024,
        params: {
          a: output(u8, [count]),
          b: output(bf16, [count]),
          c: output(i8, [count]),
          d: output(bool, [count]),
          e: output(e4m3, [count], { alignBytes: 2 }),
          f: output(f16, [count]),
        },
      },
      (t) => {
        const { a, b, c, d, e, f } = t.pdl.wait();
        const thread = t.block.x.mul(1024).add(t.thread);
        const i = thread.mul(1667).rem(count); // 1667 is odd: a permutation
        a.store([i], i.to(u8));
        t.when(i.rem(3).ne(0), () => {
          b.store([i], i.rem(251).to(f32).to(bf16));
          c.store([i], i.to(i8));
          d.store([i], i.rem(2).eq(0));
          f.store([i], i.rem(251).to(f32).to(f16));
        });
        t.when(i.rem(2).eq(0), () => {
          const one = i.rem(13).to(f32).to(e4m3);
          e.storeVec([i.div(2).mul(2)], t.pack(one, one));
        });
      },
    );
    const old = 0x33;
    const out = await target.run(device, {
      a: HostTensor.filled(u8, [count], old),
      b: HostTensor.filled(bf16, [count], old),
      c: HostTensor.filled(i8, [count], old),
      d: HostTensor.filled(bool, [count], 1),
      e: HostTensor.filled(e4m3, [count], old),
      f: HostTensor.filled(f16, [count], old),
    });
    const indices = Array.from({ length: count }, (_, i) => i);
    const oldOf = (dtype: DType): number => HostTensor.filled(dtype, [1], old).values()[0] ?? 0;
    const kept = (dtype: DType, stored: (i: number) => number) =>
      indices.map((i) => (i % 3 === 0 ? oldOf(dtype) : stored(i)));
    expect([...out.a.values()]).toEqual(indices.map((i) => i % 256));
    expect([...out.b.values()]).toEqual(kept(bf16, (i) => i % 251));
    expect([...out.c.values()]).toEqual(kept(i8, (i) => (i << 24) >> 24));
    expect([...out.d.values()]).toEqual(kept(bool, (i) => 1 - (i % 2)));
    expect([...out.e.values()]).toEqual(indices.map((i) => (i - (i % 2)) % 13));
    expect([...out.f.values()]).toEqual(kept(f16, (i) => i % 251));
  });

  on("shared memory of every dtype, scalars and vectors of every width", async () => {
    const n = 128;
    const rows = all.flatMap((dtype) => widths(dtype).map((lanes) => ({ dtype, lanes })));
    const device = kernel(
      {
        name: "shared_memory",
        grid: 1,
        block: n,
        params: { x: input(u8, [n]), y: output(u32, [rows.length, n]) },
      },
      (t) => {
        const { x, y } = t.pdl.wait();
        const value = x.load([t.thread]);
        for (const [row, { dtype, lanes }] of rows.entries()) {
          const s = t.shared(dtype, [2, n]) as Tensor<DTypeName, 2, "shared">;
          s.store([0, t.thread], value.to(u32).to(f32).to(dtype) as never);
          t.barrier();
          t.when(t.thread.lt(n / lanes), () => {
            const i = t.thread.mul(lanes);
            s.storeVec([1, i], s.loadVec([0, i], lanes));
          });
          t.barrier();
          y.store(
            [row, t.thread],
            s
              .load([1, t.thread.xor(99)])
              .to(f32)
              .to(u32),
          );
        }
      },
    );
    const values = Array.from({ length: n }, (_, i) => i % 9);
    const { y } = await target.run(device, {
      x: HostTensor.from(u8, [n], values),
      y: HostTensor.filled(u32, [rows.length, n], 0xa5),
    });
    const actual = [...y.values()];
    for (const [row, { dtype, lanes }] of rows.entries()) {
      const held = values.map((value) => (dtype.name === "bool" ? Number(value !== 0) : value));
      const permuted = held.map((_, i) => held[i ^ 99]);
      expect(actual.slice(row * n, (row + 1) * n), `${dtype.name} x${lanes}`).toEqual(permuted);
    }
  });

  for (const dtype of [i32, u32, f32]) {
    on(`atomics on ${dtype.name}, in global and shared memory`, async () => {
      const [blocks, block] = [4, 256];
      const integer = dtype !== f32;
      const device = kernel(
        {
          name: `atomics_${dtype.name}`,
          grid: blocks,
          block,
          params: {
            g: inout(dtype, [8]),
            s: output(dtype, [blocks, 8]),
            winners: inout(u32, [2]),
            tickets: output(i32, [blocks * block]),
            hits: inout(i32, [blocks * block]),
          },
        },
        (t) => {
          const { g, s, winners, tickets, hits } = t.pdl.wait();
          const sCells = t.shared(dtype, [8]);
          t.when(t.thread.lt(8), () => sCells.store([t.thread], t.const(dtype, 0)));
          t.barrier();
          const id = t.block.x.mul(block).add(t.thread);
          const value = id.to(dtype);
          for (const [memory, winner] of [
            [g, 0],
            [sCells, 1],
          ] as const) {
            const cells = memory as unknown as Tensor<"i32", 1, "inout">;
            const x = value as unknown as Expr<"i32">;
            cells.atomicAdd([0], x);
            cells.atomicExchange([1], x);
            if (integer) {
              cells.atomicMin([2], x.sub(5));
              cells.atomicMax([3], x);
              cells.atomicAnd([4], x.or(12));
              cells.atomicOr([5], x);
              cells.atomicXor([6], x.mul(77));
              const old = cells.atomicCompareExchange([7], 0, x.add(1));
              t.when(old.eq(0), () => {
                winners.atomicAdd([winner], 1);
              });
            }
          }
          // The old value has no name here; the atomic still happens once.
          tickets.store([id], hits.atomicAdd([0], 1).add(0));
          t.barrier();
          t.when(t.thread.lt(8), () => s.store([t.block.x, t.thread], sCells.load([t.thread])));
        },
      );
      const { g, s, winners, tickets } = await target.run(device, {
        g: HostTensor.from(dtype, [8], new Array<number>(8).fill(0)),
        s: HostTensor.filled(dtype, [blocks, 8], 0xa5),
        winners: HostTensor.from(u32, [2], [0, 0]),
        tickets: HostTensor.filled(i32, [blocks * block], 0xa5),
        hits: HostTensor.from(i32, [blocks * block], new Array<number>(blocks * block).fill(0)),
      });
      const check = (cells: readonly number[], ids: readonly number[]): void => {
        const wrap = (x: number): number => (dtype === u32 ? x >>> 0 : x | 0);
        expect(cells[0]).toBe(ids.reduce((a, b) => a + b));
        expect(ids).toContain(cells[1]);
        if (!integer) return;
        // 0 - 5 is the smallest i32 of them; of u32, the 0 that was there.
        expect(cells[2]).toBe(dtype === u32 ? 0 : Math.min(0, (ids[0] ?? 0) - 5));
        expect(cells[3]).toBe(Math.max(...ids));
        expect(cells[4]).toBe(0);
        expect(cells[5]).toBe(wrap(ids.reduce((a, b) => a | b)));
        expect(cells[6]).toBe(wrap(ids.reduce((a, b) => a ^ (b * 77), 0)));
        expect(ids).toContain((cells[7] ?? 0) - 1);
      };
      const ids = Array.from({ length: blocks * block }, (_, i) => i);
      check([...g.values()], ids);
      for (let b = 0; b < blocks; b++)
        check([...s.values()].slice(8 * b, 8 * b + 8), ids.slice(b * block, (b + 1) * block));
      if (integer) expect([...winners.values()]).toEqual([1, blocks]);
      expect([...tickets.values()].sort((a, b) => a - b)).toEqual(ids);
    });
  }

  on("sizes known at launch in shapes, strides and the grid; the same kernel with other sizes", async () => {
    const [M, N] = [size("M"), size("N")];
    const device = kernel(
      {
        name: "transpose",
        grid: [N, M],
        block: 32,
        params: { x: input(f32, [2, M, N]), y: output(f32, [N, 2, M]) },
      },
      (t) => {
        const { x, y } = t.pdl.wait();
        t.when(t.lane.lt(2), () => {
          y.store([t.block.x, t.lane, t.block.y], x.load([t.lane, t.block.y, t.block.x]));
        });
      },
    );
    for (const [m, n] of [
      [3, 5],
      [1, 1],
      [17, 4],
      [2, 129],
    ] as const) {
      const values = Array.from({ length: 2 * m * n }, (_, i) => i);
      const { y } = await target.run(device, {
        x: HostTensor.from(f32, [2, m, n], values),
        y: HostTensor.filled(f32, [n, 2, m], 0xff),
      });
      const expected = [...y.values()].map((_, i) => {
        const [row, half, column] = [Math.floor(i / (2 * m)), Math.floor(i / m) % 2, i % m];
        return half * m * n + column * n + row;
      });
      expect([...y.values()]).toEqual(expected);
    }
  });
});

test("CUDA: offsets take 64 bits where a tensor may have 2^31 elements, and 32 where not", () => {
  const emit = (n: number, m: ReturnType<typeof size> | number): string =>
    emitCuda(
      kernel({ name: "wide", grid: 1, block: 32, params: { x: input(f32, [n, m]), y: output(f32, [32]) } }, (t) => {
        const { x, y } = t.pdl.wait();
        y.store([t.lane], x.load([t.lane, 1]));
      }).ir,
      { lineDirectives: false },
    ).source;
  expect(emit(2 ** 16, 2 ** 14)).toContain("y[lane] = x[lane * 16384 + 1];");
  expect(emit(2 ** 16, 2 ** 15)).toContain("y[lane] = x[(long long)lane * 32768 + (long long)1];");
  expect(emit(64, size("N", { min: 2 }))).toContain("y[lane] = x[(long long)lane * N + (long long)1];");
  expect(emit(64, size("N", { min: 2, max: 4096 }))).toContain("y[lane] = x[lane * N + 1];");
});
