/**
 * Tiles, partitions, fragments and copies against plain enumeration: what each thread of a block touches is read off the
 * recorded IR, with the index values worked out on the host.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { computeInteger } from "../../dsl/fold.ts";
import {
  bf16,
  type DType,
  type DTypeName,
  e4m3,
  f32,
  i32,
  input,
  kernel,
  type KernelIR,
  type MmaAtom,
  mmaAtoms,
  output,
  type Tensor,
  type Thread,
  tiledMma,
} from "../../dsl/index.ts";
import type { Memory, Register, Value } from "../../dsl/ir.ts";
import {
  type AnyLayout,
  applySwizzle,
  composition,
  crd2idx,
  Layout,
  makeLayout,
  size,
  Swizzle,
} from "../../dsl/layout/index.ts";

// A thread's run: straight lines, branches, loads and registers; an element of memory is its own flat index.

interface Touched {
  readonly kind: "load" | "store" | "copyAsync";
  readonly memory: Memory;
  readonly offsets: readonly number[];
  /** Of copyAsync, where in shared memory; of a store, the stored values. */
  readonly to: readonly number[];
}

function touchedBy(ir: KernelIR, thread: number, block = 0): readonly Touched[] {
  const known = new Map<Value, readonly number[]>();
  const registers = new Map<Register, (readonly number[])[]>();
  const touched: Touched[] = [];
  const one = (value: Value): number => of(value)[0] ?? NaN;
  const flat = (memory: Memory, index: readonly Value[]): number =>
    index.reduce((offset, value, axis) => offset * Number(memory.shape[axis]) + one(value), 0);
  const run = (first: number, lanes: number): readonly number[] => Array.from({ length: lanes }, (_, i) => first + i);
  const of = (value: Value): readonly number[] => {
    const { op, type } = value;
    if (op.kind === "const") return [op.value];
    if (op.kind === "id") {
      const ids = { thread, warp: thread >> 5, lane: thread & 31, rank: 0, "block.y": 0, "block.z": 0 };
      return [{ ...ids, "block.x": block }[op.id]];
    }
    const before = known.get(value);
    if (before) return before;
    const compute = (): readonly number[] => {
      switch (op.kind) {
        case "binary":
          return [Number(computeInteger(op.fn, one(op.a), one(op.b), op.a.type.dtype === i32))];
        case "pack":
          return op.lanes.map(one);
        case "join":
          return op.parts.flatMap(of);
        case "extract":
          return [of(op.a)[op.lane] ?? NaN];
        case "slice":
          return of(op.a).slice(op.first, op.first + op.lanes);
        case "read":
          return registers.get(op.register)?.[op.index ? one(op.index) : 0] ?? [];
        case "load": {
          if (op.guard && !one(op.guard)) return new Array<number>(op.lanes).fill(-1);
          const offsets = run(flat(op.memory, op.index), op.lanes);
          touched.push({ kind: "load", memory: op.memory, offsets, to: [] });
          return offsets;
        }
        default:
          throw new Error(`${op.kind} of ${type.dtype.name} is not for this test`);
      }
    };
    const result = compute();
    known.set(value, result);
    return result;
  };
  const visit = (body: KernelIR["body"]): void => {
    for (const stmt of body) {
      if (stmt.kind === "let") of(stmt.value);
      else if (stmt.kind === "declare") registers.set(stmt.register, []);
      else if (stmt.kind === "write") {
        const content = registers.get(stmt.register) ?? [];
        content[stmt.index ? one(stmt.index) : 0] = of(stmt.value);
      } else if (stmt.kind === "if") visit(one(stmt.condition) ? stmt.then : stmt.otherwise);
      else if (stmt.kind === "store") {
        const { memory } = stmt;
        const offsets = run(flat(memory, stmt.index), stmt.value.type.lanes);
        touched.push({ kind: "store", memory, offsets, to: of(stmt.value) });
      } else if (stmt.kind === "copyAsync" && !(stmt.guard && !one(stmt.guard))) {
        const [from, to] = [flat(stmt.memory, stmt.index), flat(stmt.to, stmt.toIndex)];
        const { memory, lanes } = stmt;
        touched.push({ kind: "copyAsync", memory, offsets: run(from, lanes), to: run(to, lanes) });
      }
    }
  };
  visit(ir.body);
  return touched;
}

const all = (ir: KernelIR, threads: number): readonly Touched[] =>
  Array.from({ length: threads }, (_, thread) => touchedBy(ir, thread)).flat();
const sorted = (numbers: Iterable<number>): readonly number[] => [...numbers].toSorted((a, b) => a - b);
const upTo = (count: number): readonly number[] => [...Array(count).keys()];

type X<N extends DTypeName> = Tensor<N, 2, "input">;
type Y<N extends DTypeName> = Tensor<N, 2, "output">;

function traced<N extends DTypeName>(
  dtype: DType<N>,
  shape: readonly [number, number],
  body: (t: Thread, x: X<N>, y: Y<N>) => void,
  { block = 32, alignBytes = 16 } = {},
): KernelIR {
  const params = { x: input(dtype, shape, { alignBytes }), y: output(dtype, shape, { alignBytes }) };
  return kernel({ name: "tiles", grid: 1, block, params }, (t) => {
    const { x, y } = t.pdl.wait();
    body(t, x as unknown as X<N>, y as unknown as Y<N>);
  }).ir;
}

/** A (thread,value) layout of `count` elements, the modes of which come from a random bijection of 32 * v numbers. */
const shuffled = fc
  .tuple(fc.constantFrom(1, 2, 4, 8, 16), fc.shuffledSubarray([0, 1, 2, 3, 4, 5, 6, 7, 8], { minLength: 9 }))
  .map(([values, order]) => {
    const bits = 5 + Math.log2(values);
    const strides = order.filter((bit) => bit < bits).map((bit) => 2 ** bit);
    const [threads, rest] = [strides.slice(0, 5), strides.slice(5)];
    const twos = (list: readonly number[]) => list.map(() => 2);
    const layout =
      rest.length === 0
        ? new Layout([twos(threads), 1], [threads, 0])
        : new Layout([twos(threads), twos(rest)], [threads, rest]);
    return { layout, count: 32 * values };
  });

describe("partition", () => {
  test("gives each element of a tile to one thread, once, wherever the tile lies", () => {
    fc.assert(
      fc.property(shuffled, fc.nat(3), fc.nat(1), ({ layout, count }, wide, tile) => {
        const [rows, columns] = [2 ** Math.min(wide, Math.log2(count)), count / 2 ** Math.min(wide, Math.log2(count))];
        const ir = traced(f32, [2 * rows, 2 * columns], (t, x) => {
          const mine = x.tile([rows, columns], [tile, 1]).partition(layout, t.lane);
          for (let i = 0; i < mine.size(); i++) mine.load(i);
        });
        const expected = upTo(rows * columns).map((i) => {
          const [row, column] = [tile * rows + (i % rows), columns + Math.floor(i / rows)];
          return row * 2 * columns + column;
        });
        expect(sorted(all(ir, 32).flatMap(({ offsets }) => offsets))).toEqual(sorted(expected));
      }),
      { numRuns: 60 },
    );
  });

  test("of swizzled shared memory, too", () => {
    fc.assert(
      fc.property(shuffled, fc.nat(3), fc.nat(2), fc.nat(1), ({ layout, count }, bits, base, more) => {
        const swizzle = new Swizzle(bits, base, bits + more);
        const ir = traced(f32, [1, 1], (t) => {
          const whole = new Layout(512, 1);
          const tile = t.sharedTile(f32, composition(swizzle, whole)).tile([count], [0]);
          const mine = tile.partition(layout, t.lane);
          for (let i = 0; i < mine.size(); i++) mine.load(i);
        });
        const expected = upTo(count).map((i) => applySwizzle(swizzle, i));
        expect(sorted(all(ir, 32).flatMap(({ offsets }) => offsets))).toEqual(sorted(expected));
      }),
      { numRuns: 60 },
    );
  });

  test("tiles of tiles cover a tile once", () => {
    fc.assert(
      fc.property(fc.constantFrom(1, 2, 4), fc.constantFrom(1, 2, 4, 8), (rows, columns) => {
        const ir = traced(f32, [8, 8], (_t, x) => {
          for (let i = 0; i < 4 / rows; i++) {
            for (let j = 0; j < 8 / columns; j++) {
              const part = x.tile([4, 8], [1, 0]).tile([rows, columns], [i, j]);
              for (let e = 0; e < part.size(); e++) part.load(e);
            }
          }
        });
        expect(sorted(touchedBy(ir, 0).flatMap(({ offsets }) => offsets))).toEqual(upTo(32).map((i) => 32 + i));
      }),
      { numRuns: 20 },
    );
  });
});

const atoms: readonly MmaAtom[] = Object.values(mmaAtoms).flatMap((byType) => Object.values(byType) as MmaAtom[]);

describe.each(atoms)("$name", (atom) => {
  test("the product through partitions is the plain product, for any warps and any K", () => {
    const bits = Math.log2(2 * atom.K);
    const order = fc.shuffledSubarray(upTo(bits) as number[], { minLength: bits });
    fc.assert(
      fc.property(fc.constantFrom(1, 2), fc.constantFrom(1, 2), fc.option(order), (m, n, permuted) => {
        const permuteK =
          permuted &&
          new Layout(
            upTo(bits).map(() => 2),
            permuted.map((bit) => 2 ** bit),
          );
        const mma = tiledMma(atom, { warps: [m, n], permute: [null, null, permuteK] });
        const [M, N, K] = [2 * m * atom.M, 2 * n * atom.N, 2 * atom.K];
        const a = mma.threadValue("A", makeLayout([M, K]));
        const b = mma.threadValue("B", makeLayout([N, K]));
        const c = mma.threadValue("C", makeLayout([M, N]));
        const at = (layout: typeof a, thread: number, value: number, i: number, j: number): number =>
          Number(crd2idx([thread, [value, i, j]], layout));
        const [x, y] = [
          (i: number, k: number) => ((i * 7 + k * 5) % 11) - 5,
          (j: number, k: number) => ((j * 3 + k) % 7) - 3,
        ];
        const seen = new Set<number>();
        for (let warp = 0; warp < m * n; warp++) {
          for (let i = 0; i < 2; i++) {
            for (let j = 0; j < 2; j++) {
              // The instruction's tiles, filled as its layouts say.
              const sums = new Float64Array(atom.M * atom.N);
              for (let k = 0; k < 2; k++) {
                const [rows, columns] = [new Float64Array(atom.M * atom.K), new Float64Array(atom.N * atom.K)];
                for (let lane = 0; lane < 32; lane++) {
                  for (let v = 0; v < size(atom.layoutA, 1); v++) {
                    const e = at(a, warp * 32 + lane, v, i, k);
                    rows[Number(crd2idx([lane, v], atom.layoutA))] = x(e % M, Math.floor(e / M));
                  }
                  for (let v = 0; v < size(atom.layoutB, 1); v++) {
                    const e = at(b, warp * 32 + lane, v, j, k);
                    columns[Number(crd2idx([lane, v], atom.layoutB))] = y(e % N, Math.floor(e / N));
                  }
                }
                for (let r = 0; r < atom.M; r++)
                  for (let s = 0; s < atom.N; s++)
                    for (let q = 0; q < atom.K; q++)
                      sums[r + atom.M * s]! += rows[r + atom.M * q]! * columns[s + atom.N * q]!;
              }
              for (let lane = 0; lane < 32; lane++) {
                for (let v = 0; v < size(atom.layoutC, 1); v++) {
                  const e = at(c, warp * 32 + lane, v, i, j);
                  seen.add(e);
                  let plain = 0;
                  for (let k = 0; k < K; k++) plain += x(e % M, k) * y(Math.floor(e / M), k);
                  expect(sums[Number(crd2idx([lane, v], atom.layoutC))]).toBe(plain);
                }
              }
            }
          }
        }
        expect(seen.size).toBe(M * N);
      }),
      { numRuns: 6 },
    );
  });
});

describe("copies", () => {
  test("a fragment's offsets are one-to-one, and registers hold the tile's elements", () => {
    fc.assert(
      fc.property(shuffled, fc.nat(3), fc.constantFrom<DType>(f32, bf16, e4m3), ({ layout, count }, wide, dtype) => {
        const rows = 2 ** Math.min(wide, 4);
        const columns = count / rows;
        const ir = traced(dtype, [rows, columns], (t, x, y) => {
          const mine = x.tile([rows, columns], [0, 0]).partition(layout, t.lane);
          const kept = t.fragment(mine);
          const offsets = upTo(kept.size()).map((i) => kept.offset(i));
          expect(sorted(offsets)).toEqual(upTo(kept.size()));
          expect(t.copy(mine, kept).bytes).toBeGreaterThanOrEqual(dtype.bytes);
          t.copy(kept, y.tile([rows, columns], [0, 0]).partition(layout, t.lane));
          // One by one: what was loaded from where it is now stored.
          for (let i = 0; i < kept.size(); i++)
            y.tile([rows, columns], [0, 0]).partition(layout, t.lane).store(i, kept.get(i));
        });
        for (const [kind, times] of [
          ["load", 1],
          ["store", 2],
        ] as const) {
          const found = all(ir, 32).filter((touched) => touched.kind === kind);
          const offsets = found.flatMap((touched) => touched.offsets);
          expect(sorted(offsets)).toEqual(sorted(upTo(count).flatMap((i) => new Array<number>(times).fill(i))));
          // An element is its own index: what goes to y[i] came from x[i].
          if (kind === "store") for (const { offsets, to } of found) expect(to).toEqual(offsets);
        }
      }),
      { numRuns: 60 },
    );
  });

  test("copyAsync brings each element to its place, once, or zeros outside", () => {
    const cases = fc.tuple(fc.constantFrom(0, 1, 2, 3), fc.constantFrom(8, 5, 16), fc.constantFrom(64, 60, 56));
    fc.assert(
      fc.property(cases, ([bits, rows, columns]) => {
        const swizzle = new Swizzle(bits, 3, 3);
        const place: AnyLayout = composition(swizzle, makeLayout([16, 64], [64, 1]));
        const ir = traced(bf16, [rows, columns], (t, x) => {
          const lanes = new Layout(
            [
              [8, 4],
              [8, 4],
            ],
            [
              [128, 1],
              [16, 4],
            ],
          );
          const to = t.sharedTile(bf16, place).partition(lanes, t.lane);
          const plan = t.copyAsync(x.tile([16, 64], [0, 0]).partition(lanes, t.lane), to, { guard: "edges" });
          t.asyncCommit();
          t.asyncWait(0);
          expect(plan.bytes).toBe(columns % 8 === 0 ? 16 : 8);
        });
        const moved = all(ir, 32).flatMap(({ offsets, to }) => offsets.map((offset, i) => [offset, to[i]] as const));
        expect(sorted(moved.map(([from]) => from))).toEqual(upTo(rows * columns));
        for (const [from, to] of moved) {
          const flat = Math.floor(from / columns) * 64 + (from % columns);
          expect(to).toBe(applySwizzle(swizzle, flat));
        }
      }),
      { numRuns: 20 },
    );
  });

  const widths: readonly [string, DType, readonly [number, number], number, "edges" | undefined, number, RegExp][] = [
    ["16 bytes promised", bf16, [16, 64], 16, undefined, 16, /16 bytes are the widest/],
    ["8 bytes promised", bf16, [16, 64], 8, undefined, 8, /x is promised to be aligned to 8 bytes/],
    ["nothing promised", bf16, [16, 64], 2, undefined, 2, /aligned to 2 bytes/],
    ["rows of odd length", bf16, [16, 63], 16, "edges", 2, /rows of x are only known to be multiples of 1/],
    ["rows of 4 elements more", bf16, [16, 68], 16, undefined, 8, /multiples of 4 elements apart/],
    ["rows of 4 elements more, guarded", bf16, [16, 60], 16, "edges", 8, /multiples of 4 elements apart/],
    ["bytes", e4m3, [16, 64], 16, undefined, 16, /16 bytes are the widest/],
    ["floats", f32, [16, 64], 16, undefined, 16, /16 bytes are the widest/],
  ];
  test.each(widths)("are as wide as is proved: %s", (_, dtype, shape, alignBytes, guard, bytes, says) => {
    traced(
      dtype,
      shape,
      (t, x) => {
        const gX = x.tile([1, 16], [0, 0]);
        const plan = t.copy(gX, t.fragment(gX), guard ? { guard } : {});
        expect(plan.bytes).toBe(bytes);
        expect(plan.accesses * bytes).toBe(16 * dtype.bytes);
        expect(plan.explain()).toMatch(says);
      },
      { alignBytes },
    );
  });

  test("a swizzle keeps only its base's neighbours together", () => {
    traced(bf16, [16, 64], (t) => {
      for (const [base, bytes] of [
        [0, 2],
        [1, 4],
        [2, 8],
        [3, 16],
        [4, 16],
      ] as const) {
        const sX = t.sharedTile(bf16, composition(new Swizzle(2, base, 3), makeLayout([16, 64], [64, 1])));
        const row = sX.tile([1, 16], [0, 0]);
        expect(t.copy(row, t.fragment(row)).bytes).toBe(bytes);
      }
    });
  });

  test("plans explain themselves", () => {
    const told: string[] = [];
    traced(bf16, [16, 60], (t, x, y) => {
      const gX = x.tile([1, 16], [0, 0]);
      const rX = t.fragment(gX);
      told.push(t.copy(gX, rX).explain());
      told.push(t.copy(rX, y.tile([1, 16], [0, 0]), { guard: "edges" }).explain());
      const sX = t.sharedTile(bf16, composition(new Swizzle(2, 2, 3), makeLayout([16, 16], [16, 1])));
      told.push(t.copyAsync(gX, sX.tile([1, 16], [0, 0])).explain());
      t.asyncCommit();
      t.asyncWait(0);
    });
    expect(told[0]).toMatchInlineSnapshot(`
      "bf16 tile (1,16):(1@0,1@1) of x -> bf16 fragment (1,16):(0,1), 8 to a register: 4 x 8 bytes per thread by load (ld.global)
        not wider: rows of x are only known to be multiples of 4 elements apart"
    `);
    expect(told[1]).toMatchInlineSnapshot(`
      "bf16 fragment (1,16):(0,1), 8 to a register -> bf16 tile (1,16):(1@0,1@1) of y: 4 x 8 bytes per thread by store (st.global)
        not wider: rows of y are only known to be multiples of 4 elements apart
        not wider: the last dimension of y, 60, is guarded in steps of 4"
    `);
    expect(told[2]).toMatchInlineSnapshot(`
      "bf16 tile (1,16):(1@0,1@1) of x -> bf16 tile Sw<2,2,3> o (1,16):(0,1) of sX: 4 x 8 bytes per thread by cp.async (cp.async.{ca,cg}.shared.global)
        not wider: rows of x are only known to be multiples of 4 elements apart
        not wider: Sw<2,2,3> keeps 4 neighbours together"
    `);
  });
});
