/**
 * The emitted CUDA C, run on the CPU (cuda-host/run.ts): it computes what the simulator does, bit for bit, and does nothing that
 * C leaves undefined. What only a GPU has is left to cuda-gpu.test.ts and to the conformance tests there.
 */
import { describe, expect, test } from "vitest";
import { openSimulator } from "../backends/simulator/index.ts";
import {
  bf16,
  type DType,
  type DTypeName,
  dtypes,
  type Expr,
  f16,
  f32,
  frozen,
  HostTensor,
  i32,
  inout,
  input,
  kernel,
  type Kernel,
  type LaneCount,
  output,
  u32,
} from "../dsl/index.ts";
import { makeLayout } from "../dsl/layout/index.ts";
import { llGemmDotBf16, llGemmDotE4m3, llGemmDotF32, seededRandom } from "../kernels/index.ts";
import { operandsOf } from "../playground/record/data.ts";
import { instructions, matrixSpecimen } from "../playground/record/matrix.ts";
import { describeDifference } from "../playground/record/recording.ts";
import { outputsOf } from "../playground/record/replay.ts";
import { bitsOf, type Specimen, type Tensors, tensorOfBits } from "../playground/record/specimen.ts";
import { specimens } from "../playground/record/specimens.ts";
import { cppCompiler, type HostLaunch, runOnHost } from "./cuda-host/run.ts";

/** Runs all launches in one program; outputs must be the simulator's. */
async function agree(launches: readonly HostLaunch[]): Promise<void> {
  const simulator = await openSimulator();
  const results = runOnHost(launches);
  for (const [i, { kernel, args }] of launches.entries()) {
    const specimen = { name: kernel.name, kernel, args: () => args as Tensors, wgsl: "bits" } as const;
    const expected = await outputsOf(simulator, specimen);
    const wrong = Object.entries(expected).flatMap(([name, tensor]) => {
      const actual = results[i]?.[name];
      return (actual ? describeDifference(name, tensor, actual) : `${name} is missing`) ?? [];
    });
    expect(wrong, kernel.name).toEqual([]);
    expect(Object.keys(expected)).not.toEqual([]);
  }
}

/** About so many elements along the last dimension of each tensor: all have the same number there. */
function sampled({ kernel, args }: Specimen, count: number): HostLaunch {
  const all = args();
  const length = Object.values(all)[0]?.shape.at(-1) ?? 0;
  // Odd, so that every pattern of 8 bits is met where they repeat.
  const step = Math.floor(length / count) | 1;
  const chosen = Math.floor(length / step / 64) * 64;
  const few = Object.entries(all).map(([name, tensor]) => {
    const [bits, shape] = [bitsOf(tensor), [...tensor.shape.slice(0, -1), chosen]];
    const rows = bits.length / length;
    const kept = Array.from({ length: rows * chosen }, (_, i) => {
      return bits[Math.floor(i / chosen) * length + (i % chosen) * step] ?? 0;
    });
    return [name, tensorOfBits(tensor.dtype, shape, kept)] as const;
  });
  return { kernel, args: Object.fromEntries(few) };
}

const recorded = (names: RegExp, count = 1024): readonly HostLaunch[] =>
  specimens()
    .filter(({ name }) => names.test(name))
    .map((specimen) => sampled(specimen, count));

const one = <N extends DTypeName>(dtype: DType<N>, length: number, byte = 0xa5): HostTensor<N> =>
  HostTensor.filled(dtype, [length], byte);

/** Every pattern of a byte, again and again. */
function patterns<N extends DTypeName>(dtype: DType<N>, length: number): HostTensor<N> {
  const bytes = Uint8Array.from({ length: length * dtype.bytes }, (_, i) => i * 37 + (i >> 8));
  // Of bool only 0 and 1: any other byte would come back as 1.
  return new HostTensor(dtype, [length], dtype.name === "bool" ? bytes.map((byte) => byte & 1) : bytes);
}

/** Loads a vector, frozen and not, with hints and guards; stores its lanes in reverse, as it is, and one by one. */
function copies(of: DType, lanes: LaneCount): HostLaunch {
  // To tsc all are alike.
  const dtype = of as DType<"f32">;
  const length = 64 * lanes;
  const aligned = { alignBytes: dtype.bytes * lanes };
  const params = {
    w: frozen(dtype, [length], aligned),
    x: input(dtype, [length], aligned),
    reversed: output(dtype, [length], aligned),
    whole: output(dtype, [length], aligned),
    single: output(dtype, [length]),
  };
  const traced = kernel({ name: `copies_of_${dtype.name}_x${lanes}`, grid: 1, block: 64, params }, (t, { w }) => {
    const first = t.thread.mul(lanes);
    const early = w.loadVec([first], lanes, { cache: "stream", guard: t.thread.lt(40) });
    const { x, reversed, whole, single } = t.pdl.wait();
    const late = x.loadVec([first], lanes, { cache: "evictFirst", guard: t.thread.ge(30) });
    const at = (vector: Expr<"f32", LaneCount>, i: number) => (lanes === 1 ? vector : lane(vector, i)) as Expr<"f32">;
    const packed = Array.from({ length: lanes }, (_, i) => at(early, lanes - 1 - i));
    const turned = lanes === 1 ? packed[0] : t.pack(...packed);
    reversed.storeVec([first], turned as Expr<"f32", LaneCount>, { cache: "stream" });
    whole.storeVec([first], late);
    for (let i = 0; i < lanes; i++) single.store([first.add(i)], at(late, i));
  });
  const [w, x] = [patterns(dtype, length), patterns(dtype, length)];
  const outputs = { reversed: one(dtype, length), whole: one(dtype, length), single: one(dtype, length) };
  return { kernel: traced as unknown as Kernel, args: { w, x, ...outputs } };
}

const lane = (vector: Expr<DTypeName, LaneCount>, i: number): Expr<DTypeName> => (vector as Expr<DTypeName, 2>).lane(i);

/** Warps that are late: who reads what others store must wait for them. */
function lateWarp(): HostLaunch {
  const params = { y: output(i32, [64]), sums: inout(i32, [2]) };
  const traced = kernel({ name: "late_warp", grid: 3, block: 64, params }, (t) => {
    const { y, sums } = t.pdl.wait();
    const box = t.shared(i32, [64]);
    box.store([t.thread], -1);
    t.barrier();
    t.when(t.warp.eq(1), () => t.sleep(1_000_000));
    box.store([t.thread], t.thread.mul(3));
    t.barrier();
    const other = box.load([t.thread.xor(32)]);
    t.when(t.block.x.eq(2), () => y.store([t.thread], other));
    sums.atomicAdd([t.warp], other.add(t.block.x));
  });
  return { kernel: traced as unknown as Kernel, args: { y: one(i32, 64), sums: one(i32, 2, 0) } };
}

/** Registers and arrays with every kind of start, written and read by constant and run-time indices, in loops and branches. */
function registers(): HostLaunch {
  const params = { x: input(f32, [64]), y: output(f32, [6, 64]), z: output(i32, [4, 64]) };
  const traced = kernel({ name: "registers", grid: 1, block: 64, params }, (t) => {
    const { x, y, z } = t.pdl.wait();
    const value = x.load([t.thread]);
    const [zeros, negative] = [t.array(f32, 4, { init: 0 }), t.array(f32, 3, { init: -0 })];
    zeros.set(t.thread.rem(4), value);
    const sum = t.reg(f32, value);
    for (const i of t.range(4)) sum.update((s) => s.mul(0.5).add(zeros.get(i)));
    const count = t.reg(i32, 0);
    for (const i of t.range(3, t.thread.rem(9), { step: 2 })) {
      t.when(
        i.lt(6),
        () => count.update((c) => c.add(i)),
        () => count.update((c) => c.sub(i.sub(1).sub(c))),
      );
    }
    for (let i = 0; i < 2; i++) y.store([i, t.thread], zeros.get(i));
    y.store([2, t.thread], negative.get(1));
    y.store([3, t.thread], sum);
    y.store([4, t.thread], value.sub(sum.get().sub(value)));
    y.store([5, t.thread], t.thread.lt(32).select(value, sum).neg());
    z.store([0, t.thread], count);
    z.store([1, t.thread], t.thread.sub(t.thread.sub(7).sub(t.lane.sub(1))));
    z.store([2, t.thread], t.thread.div(t.lane.rem(5).add(1)).mul(t.thread.rem(7)));
    const [low, odd] = [t.thread.lt(40), t.thread.rem(2).eq(1)];
    const either = low.xor(odd).or(low.and(odd.not()));
    z.store([3, t.thread], low.not().select(t.thread, t.lane).add(either.select(t.lane, t.thread)));
  });
  const x = HostTensor.from(
    f32,
    [64],
    Array.from({ length: 64 }, (_, i) => (i - 20) / 3),
  );
  const outputs = { y: HostTensor.filled(f32, [6, 64], 0xff), z: HostTensor.filled(i32, [4, 64], 0xa5) };
  return { kernel: traced as unknown as Kernel, args: { x, ...outputs } };
}

/** Atomics of every kind on counters that all threads share. */
function counters(): HostLaunch {
  const params = { i: inout(i32, [6]), u: inout(u32, [7]), f: inout(f32, [1]) };
  const traced = kernel({ name: "counters", grid: 2, block: 64, params }, (t) => {
    const { i, u, f } = t.pdl.wait();
    const [own, word] = [t.thread.sub(30), t.thread.mul(0x1010101).to(u32)];
    i.atomicAdd([0], own);
    i.atomicMin([1], own);
    i.atomicMax([2], own);
    i.atomicAnd([3], own.or(3));
    i.atomicOr([4], own.and(12));
    i.atomicXor([5], own);
    u.atomicAdd([0], word);
    u.atomicMin([1], word);
    u.atomicMax([2], word);
    u.atomicAnd([3], word.or(0xf0));
    u.atomicOr([4], word);
    u.atomicXor([5], word);
    t.when(t.thread.eq(7).and(t.block.x.eq(0)), () => {
      u.atomicCompareExchange([6], 5, 77);
      u.atomicCompareExchange([6], 6, 78);
    });
    f.atomicAdd([0], own.to(f32));
  });
  const [i, u] = [
    HostTensor.from(i32, [6], [1, 2, 3, -1, 0, 5]),
    HostTensor.from(u32, [7], [1, 2, 3, 2 ** 32 - 1, 0, 5, 5]),
  ];
  return { kernel: traced as unknown as Kernel, args: { i, u, f: HostTensor.from(f32, [1], [0.5]) } };
}

/** cp.async with a guard, ldmatrix and stmatrix of 1, 2 and 4 matrices, straight and transposed. */
function matrices(count: 1 | 2 | 4): HostLaunch {
  const rows = 8 * count;
  const aligned = { alignBytes: 16 };
  const names = ["straight", "turned", "alsoTurned"] as const;
  const params = {
    x: frozen(f16, [rows - 1, 8], aligned),
    straight: output(f16, [rows, 8], aligned),
    turned: output(f16, [rows, 8], aligned),
    alsoTurned: output(f16, [rows, 8], aligned),
  };
  const traced = kernel({ name: `matrices_x${count}`, grid: 1, block: 32, params }, (t, { x }) => {
    const late = t.pdl.wait();
    const rowOf = makeLayout([32, 8], [1, 32]);
    const landing = t.sharedTile(f16, makeLayout([32, 8], [8, 1]), aligned).partition(rowOf, t.lane);
    const [from, to] = [t.shared(f16, [32, 8], aligned), t.shared(f16, [32, 8], aligned)];
    t.copyAsync(x.tile([32, 8], [0, 0]).partition(rowOf, t.lane), landing, { guard: "edges" });
    t.asyncCommit();
    t.asyncWait(0);
    for (let k = 0; k < 8; k++) from.store([t.lane, k], landing.load(k));
    t.warpBarrier();
    const row = t.lane.rem(rows);
    for (const [i, name] of names.entries()) {
      const loaded = t.ldmatrix(from, [row, 0], count, { transposed: i === 1 });
      t.stmatrix(to, [row, 0], loaded, { transposed: i === 2 });
      t.warpBarrier();
      t.when(t.lane.lt(rows), () => late[name].storeVec([t.lane, 0], to.loadVec([t.lane, 0], 8)));
      t.warpBarrier();
    }
  });
  const x = tensorOfBits(
    f16,
    [rows - 1, 8],
    Array.from({ length: (rows - 1) * 8 }, (_, i) => i + 1),
  );
  const outputs = names.map((name) => [name, HostTensor.filled(f16, [rows, 8], 0xff)] as const);
  return { kernel: traced as unknown as Kernel, args: { x, ...Object.fromEntries(outputs) } };
}

describe.skipIf(!cppCompiler)("the emitted CUDA C on the CPU", { timeout: 120_000 }, () => {
  test("converts", () => agree(recorded(/^(f32|floats|integers) to /)));
  test("computes", () => agree(recorded(/ arithmetic$/)));
  test("exchanges between lanes", () => agree(recorded(/^exchanges/, 256)));

  test("loads and stores vectors of every dtype and width", () =>
    agree(
      Object.values<DType>(dtypes).flatMap((dtype) =>
        ([1, 2, 4, 8, 16] as const).filter((lanes) => lanes * dtype.bytes <= 16).map((lanes) => copies(dtype, lanes)),
      ),
    ));

  test("keeps registers, waits at barriers, counts by atomics", () => agree([registers(), lateWarp(), counters()]));
  test("copies beside the thread, and moves matrices", () => agree(([1, 2, 4] as const).map(matrices)));

  test("multiplies matrices", () => {
    const mmas = instructions().filter(({ atom }) => atom.kind === "mma");
    return agree(
      mmas
        .map((instruction) => matrixSpecimen(instruction, "integers", 3, 5))
        .map((one) => ({ ...one, args: one.args() })),
    );
  });

  test("finds what C leaves undefined", () => {
    const double = kernel(
      { name: "double_it", grid: 2, block: 32, params: { x: input(i32, [64]), y: output(i32, [64]) } },
      (t) => {
        const { x, y } = t.pdl.wait();
        const i = t.block.x.mul(32).add(t.lane);
        y.store([i], x.load([i]).mul(2));
      },
    ) as unknown as Kernel;
    const [x, y] = [HostTensor.filled(i32, [64], 0x7f), one(i32, 64)];
    // As it is emitted nothing overflows, for it is computed without a sign.
    expect(() => runOnHost([{ kernel: double, args: { x, y } }])).not.toThrow();
    const short = HostTensor.filled(i32, [63], 1);
    expect(() => runOnHost([{ kernel: double, args: { x: short, y } }])).toThrow(
      /heap-buffer-overflow[^]*READ of size 4/,
    );
    expect(() => runOnHost([{ kernel: double, args: { x, y: short } }])).toThrow(
      /heap-buffer-overflow[^]*WRITE of size 4/,
    );
  });

  test("sums up dot products in the declared order, of 32 warps too", () => {
    const gemm = (kernel: unknown, M: number, N: number, K: number): HostLaunch => {
      const { ir } = kernel as Kernel;
      const typeOf = (name: string) => ir.tensors.find((tensor) => tensor.name === name)?.dtype ?? f32;
      const types = { a: typeOf("x"), b: typeOf("w"), c: f32 };
      const { a, b } = operandsOf({ M, N, K, ...types }, "normal", seededRandom(3));
      const scale = HostTensor.from(f32, [1], [0.75]);
      const args = {
        w: tensorOfBits(types.b, [N, K], b),
        x: tensorOfBits(types.a, [M, K], a),
        y: HostTensor.filled(typeOf("y"), [M, N], 0xff),
        ...(types.b.bytes === 1 ? { wScale: scale, xScale: scale } : {}),
      };
      return { kernel: kernel as Kernel, args };
    };
    return agree([
      gemm(llGemmDotBf16({ M: 3, N: 3, K: 1000, out: f32, warps: 3 }), 3, 3, 1000),
      gemm(llGemmDotE4m3({ M: 2, N: 2, K: 528, out: bf16, warps: 2 }), 2, 2, 528),
      gemm(llGemmDotF32({ M: 2, N: 2, K: 4101, out: f32, warps: 32, prefetch: 2 }), 2, 2, 4101),
    ]);
  });
});
