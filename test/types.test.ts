/**
 * What tsc refuses and what types it infers. These functions are checked by `tsc`, not run: each `@ts-expect-error` fails
 * the build where the line below it compiles.
 */
import { describe, expectTypeOf, test } from "vitest";
import {
  bf16,
  bool,
  ceilDiv,
  type Dim,
  e4m3,
  type Expr,
  f16,
  f32,
  type Fragment,
  frozen,
  i32,
  inout,
  input,
  kernel,
  type Kernel,
  type LaneCount,
  mmaAtoms,
  output,
  type Reg,
  scalar,
  type Size,
  size,
  type Tensor,
  type TensorSpec,
  type Thread,
  type Tile,
  tiledMma,
  u32,
  wgmmaAtom,
} from "../dsl/index.ts";
import { parseLayout } from "../dsl/layout/index.ts";
import { gemmBf16, llGemmDotE4m3, llGemmMmaBf16 } from "../kernels/index.ts";

/** Values of the types under test; never called. */
interface Values {
  readonly t: Thread;
  readonly f: Expr<"f32">;
  readonly i: Expr<"i32">;
  readonly u: Expr<"u32">;
  readonly b: Expr<"bf16">;
  readonly c: Expr<"bool">;
  readonly f4: Expr<"f32", 4>;
  readonly b8: Expr<"bf16", 8>;
  readonly e8: Expr<"e4m3", 8>;
  readonly sum: Reg<"f32">;
  readonly count: Reg<"i32">;
  readonly M: Size;
  readonly x: Tensor<"f32", 2, "input">;
  readonly w: Tensor<"bf16", 2, "frozen">;
  readonly y: Tensor<"f32", 1, "output">;
  readonly flags: Tensor<"i32", 1, "inout">;
  readonly weights: Tensor<"bf16", 1, "inout">;
  readonly e: Tensor<"e4m3", 2, "frozen">;
  readonly cube: Tensor<"f32", 3, "shared">;
}

/** A test whose body is only compiled. */
function compiles(title: string, _body: (values: Values) => void): void {
  test(title, () => {});
}

describe("operands", () => {
  compiles("keep their dtype", ({ f, i, c, f4 }) => {
    expectTypeOf(f.add(f)).toEqualTypeOf<Expr<"f32">>();
    expectTypeOf(f4.mul(2)).toEqualTypeOf<Expr<"f32", 4>>();
    expectTypeOf(i.lt(4)).toEqualTypeOf<Expr<"bool">>();
    expectTypeOf(f4.lt(f)).toEqualTypeOf<Expr<"bool", 4>>();
    expectTypeOf(c.select(f, 0)).toEqualTypeOf<Expr<"f32">>();
    expectTypeOf(i.to(f32)).toEqualTypeOf<Expr<"f32">>();
    expectTypeOf(i.bitcast(u32)).toEqualTypeOf<Expr<"u32">>();
    expectTypeOf(f4.lane(0)).toEqualTypeOf<Expr<"f32", 1>>();
  });
  compiles("are Exprs, registers, numbers, and sizes for i32", ({ t, f, i, f4, sum, count, M }) => {
    f.add(sum);
    f4.add(f);
    expectTypeOf(t.pack(f, f)).toEqualTypeOf<Expr<"f32", 2>>();
    expectTypeOf(t.pack(...[f, f].map((lane) => lane.neg()))).toEqualTypeOf<Expr<"f32", LaneCount>>();
    i.add(count).add(1).add(M);
  });
  compiles("of different dtypes don't mix", ({ f, i, u, b, count, M }) => {
    // @ts-expect-error f32 + u32
    f.add(u);
    // @ts-expect-error i32 + u32
    i.add(u);
    // @ts-expect-error f32 + bf16
    f.add(b);
    // @ts-expect-error f32 + an i32 register
    f.add(count);
    // @ts-expect-error f32 + a size, which is an i32
    f.add(M);
    // @ts-expect-error a string
    f.add("1");
    // @ts-expect-error nothing
    f.add();
  });
  compiles("of different lanes don't mix", ({ f, f4, b8, t }) => {
    // @ts-expect-error a vector added to a scalar
    f.add(f4);
    // @ts-expect-error lanes and dtype
    f4.add(b8);
    // @ts-expect-error lanes of another dtype
    expectTypeOf(t.pack(f, t.lane)).toEqualTypeOf<Expr<"f32", 2>>();
  });
  compiles("of narrow types have no arithmetic", ({ b, e8 }) => {
    // @ts-expect-error bf16 is for storage
    b.add(b);
    // @ts-expect-error e4m3 is for storage
    e8.mul(e8);
    // @ts-expect-error nor comparison
    b.lt(b);
  });
  compiles("have the operations of their dtype only", ({ f, i, u, c }) => {
    // @ts-expect-error remainder of floats
    f.rem(f);
    // @ts-expect-error bits of floats
    f.and(f);
    // @ts-expect-error exponential of an integer
    i.exp();
    // @ts-expect-error negative of an unsigned number
    u.neg();
    // @ts-expect-error sum of conditions
    c.add(c);
    // @ts-expect-error logical not of a float
    f.not();
    // @ts-expect-error fma of integers
    i.fma(i, i);
  });
});

describe("conditions", () => {
  compiles("are Expr<bool>", ({ t, f, i, c }) => {
    t.when(c, () => {});
    // @ts-expect-error a JavaScript boolean
    t.when(true, () => {});
    // @ts-expect-error `!c` is a JavaScript boolean
    t.when(!c, () => {});
    // @ts-expect-error a number
    t.when(i, () => {});
    // @ts-expect-error no function
    t.when(c);
    // @ts-expect-error a float chooses nothing
    f.select(f, 0);
    // @ts-expect-error both sides of select have one dtype
    c.select(f, i);
    // @ts-expect-error a JavaScript boolean
    c.and(true);
    // @ts-expect-error a guard that is a number
    t.shared(f32, [4]).load([0], { guard: i });
  });
  compiles("are not JavaScript's", ({ t, f, c }) => {
    // @ts-expect-error if (expr)
    if (c) t.barrier();
    // @ts-expect-error expr ? a : b
    void (c ? f : f.neg());
    // @ts-expect-error expr && a
    void (c && f);
    // @ts-expect-error expr + 1
    void (f + 1);
    // @ts-expect-error expr < 1
    void (f < 1);
    // @ts-expect-error expr === number
    void (f === 1);
    // @ts-expect-error an Expr as a JavaScript index
    void [1, 2][f];
  });
  compiles("count to TypeScript numbers only where TypeScript loops", ({ t, i }) => {
    // @ts-expect-error a JavaScript loop over a run-time bound
    for (let k = 0; k < i; k++) t.barrier();
    // @ts-expect-error lanes are known while tracing
    t.reg(f32, 0, i);
    // @ts-expect-error so is the length of a register array
    t.array(f32, i);
    // @ts-expect-error and a step
    t.range(0, 8, { step: i });
    // @ts-expect-error and the dimensions of the host's arithmetic
    ceilDiv(i, 4);
    expectTypeOf(ceilDiv(7, 4)).toEqualTypeOf<number>();
    expectTypeOf(ceilDiv(size("K"), 4)).toEqualTypeOf<Dim>();
  });
});

describe("memory", () => {
  compiles("is indexed once per dimension", ({ t, x, y, w, cube, f, i, u, M }) => {
    expectTypeOf(x.load([i, 0])).toEqualTypeOf<Expr<"f32">>();
    expectTypeOf(w.loadVec([M, t.lane], 8)).toEqualTypeOf<Expr<"bf16", 8>>();
    cube.store([0, i, M], 1);
    // @ts-expect-error one index of two
    x.load([i]);
    // @ts-expect-error three of two
    x.load([i, i, i]);
    // @ts-expect-error two of three
    cube.load([i, i]);
    // @ts-expect-error no brackets
    y.store(i, 0);
    // @ts-expect-error a float index
    y.store([f], 0);
    // @ts-expect-error an unsigned index
    y.store([u], 0);
    // @ts-expect-error lanes
    x.loadVec([i, 0], 3);
    // @ts-expect-error a hint that does not exist
    x.load([i, 0], { cache: "fast" });
  });
  compiles("has peers where it is shared", ({ t, x, w, y, cube, f4 }) => {
    cube.load([0, 0, 0], { peer: t.cluster.rank.xor(1) });
    cube.store([0, 0, 0], 1, { peer: 0 });
    cube.tile([2, 2, 2], [0, 0, 0]).load(0, { peer: 0 });
    // @ts-expect-error every block sees the same global memory
    x.load([0, 0], { peer: 1 });
    // @ts-expect-error also a vector of it
    w.loadVec([0, 0], 8, { peer: 1 });
    // @ts-expect-error also for stores
    y.store([0], 1, { peer: 1 });
    // @ts-expect-error also of vectors
    y.storeVec([0], f4, { peer: 1 });
    // @ts-expect-error a tile of global memory
    x.tile([4, 4], [0, 0]).load(0, { peer: 1 });
    // @ts-expect-error a store to one
    y.tile([4], [0]).store(0, 1, { peer: 1 });
  });
  compiles("stores its own dtype", ({ t, y, flags, b, f, i, f4, b8 }) => {
    y.store([0], f);
    // @ts-expect-error bf16 where f32 is wanted
    y.store([0], b);
    // @ts-expect-error i32 where f32 is wanted
    y.store([0], i);
    // @ts-expect-error f32 where i32 is wanted
    flags.store([0], f);
    // @ts-expect-error a vector needs storeVec
    y.store([0], f4);
    // @ts-expect-error bf16 lanes where f32 is wanted
    y.storeVec([0], b8);
    // @ts-expect-error a number in a narrow type must say how it is rounded
    t.shared(bf16, [4]).store([0], 1);
  });
  compiles("has roles", ({ x, w, y, flags, f, i, b }) => {
    flags.store([0], flags.load([0]));
    // @ts-expect-error a store to an input
    x.store([0, 0], f);
    // @ts-expect-error a store to a frozen tensor
    w.store([0, 0], b);
    // @ts-expect-error a load from an output
    y.load([0]);
    // @ts-expect-error an atomic on an output
    y.atomicAdd([0], f);
    // @ts-expect-error an atomic on an input
    x.atomicAdd([0, 0], f);
    // @ts-expect-error the wrong operand
    flags.atomicAdd([0], f);
    expectTypeOf(flags.atomicCompareExchange([0], 0, i)).toEqualTypeOf<Expr<"i32">>();
  });
  compiles("has atomics on numbers only", ({ t, weights, b }) => {
    // @ts-expect-error atomics on bf16
    weights.atomicAdd([0], b);
    // @ts-expect-error minimum of f32
    t.shared(f32, [4]).atomicMin([0], 1);
    expectTypeOf(t.shared(f32, [4]).atomicAdd([0], 1)).toEqualTypeOf<Expr<"f32">>();
  });
});

describe("registers", () => {
  compiles("keep dtype and lanes", ({ t, f, i, b8 }) => {
    expectTypeOf(t.reg(f32, 0)).toEqualTypeOf<Reg<"f32">>();
    expectTypeOf(t.reg(bf16, b8)).toEqualTypeOf<Reg<"bf16", 8>>();
    const sum = t.reg(f32, f);
    sum.set(1);
    sum.update((now) => now.add(1));
    // @ts-expect-error i32 into f32
    sum.set(i);
    // @ts-expect-error from a function of the wrong result
    sum.update(() => i);
    // @ts-expect-error initial value of another dtype
    t.reg(f32, i);
    // @ts-expect-error initial value of another dtype
    t.array(f32, 4, { init: i });
  });
  compiles("add dot products", ({ t, sum, count, b8, e8, f4 }) => {
    sum.addDot(b8, e8);
    // @ts-expect-error lanes differ
    sum.addDot(b8, f4);
    // @ts-expect-error an i32 register
    count.addDot(b8, b8);
    // @ts-expect-error a vector register
    t.reg(f32, f4).addDot(b8, b8);
  });
});

describe("the warp", () => {
  compiles("exchanges numbers and sums them", ({ t, f, c, b, f4 }) => {
    expectTypeOf(t.warpSum(f)).toEqualTypeOf<Expr<"f32">>();
    expectTypeOf(t.warpAny(c)).toEqualTypeOf<Expr<"bool">>();
    // @ts-expect-error bf16
    t.shuffleXor(b, 1);
    // @ts-expect-error a vector
    t.warpSum(f4);
    // @ts-expect-error a sum of conditions
    t.warpSum(c);
    // @ts-expect-error any of numbers
    t.warpAny(f);
  });
});

describe("parameters", () => {
  const params = {
    w: frozen(e4m3, [16, 64]),
    n: scalar(i32),
    x: input(f32, [size("M"), 4, 4]),
    y: output(bf16, [8]),
    state: inout(u32, [1]),
  };
  test("are early or late by their role", () => {
    const traced = kernel({ name: "roles", grid: 1, block: 32, params }, (t, early) => {
      expectTypeOf(early.w).toEqualTypeOf<Tensor<"e4m3", 2, "frozen">>();
      expectTypeOf(early.n).toEqualTypeOf<Expr<"i32">>();
      expectTypeOf<keyof typeof early>().toEqualTypeOf<"w" | "n">();
      const late = t.pdl.wait();
      expectTypeOf(late.x).toEqualTypeOf<Tensor<"f32", 3, "input">>();
      expectTypeOf(late.state).toEqualTypeOf<Tensor<"u32", 1, "inout">>();
      expectTypeOf<keyof typeof late>().toEqualTypeOf<"x" | "y" | "state">();
    });
    expectTypeOf(traced).toExtend<Kernel>();
    expectTypeOf(traced.params.y).toEqualTypeOf<TensorSpec<"output", "bf16", 1>>();
  });
  compiles("exist no earlier and under no other name", () => {
    kernel({ name: "roles", grid: 1, block: 32, params }, (t, early) => {
      // @ts-expect-error an input before the wait
      early.x.load([0, 0, 0]);
      // @ts-expect-error a frozen tensor is not what the wait yields
      t.pdl.wait().w.load([0, 0]);
      // @ts-expect-error no such parameter
      early.v;
    });
    // @ts-expect-error no name
    kernel({ grid: 1, block: 32, params }, (t) => void t.pdl.wait());
    // @ts-expect-error a shape where a parameter is wanted
    kernel({ name: "k", grid: 1, block: 32, params: { x: [4, 4] } }, (t) => void t.pdl.wait());
    // @ts-expect-error four axes
    kernel({ name: "k", grid: [1, 1, 1, 1], block: 32, params }, (t) => void t.pdl.wait());
    // @ts-expect-error threads that are known at launch only
    kernel({ name: "k", grid: 1, block: size("B"), params }, (t) => void t.pdl.wait());
    // @ts-expect-error no dimension
    input(f32, []);
    // @ts-expect-error a shape that is a number
    input(f32, 4);
    // @ts-expect-error a dtype by its name
    input("f32", [4]);
    // @ts-expect-error a scalar of a narrow type
    scalar(bf16);
    // @ts-expect-error a boolean scalar
    scalar(bool);
    // @ts-expect-error arithmetic on a size
    void (size("M") * 2);
  });
});

describe("tiles", () => {
  const small = mmaAtoms.m16n8k16.bf16;
  compiles("keep dtype, access, role and atom", ({ t, w, x }) => {
    const mma = tiledMma(small).slice(t.lane);
    expectTypeOf(w.tile([16, 16], [0, 0])).toEqualTypeOf<Tile<"bf16", "frozen">>();
    expectTypeOf(t.fragment(x.tile([4, 4], [0, 0]))).toEqualTypeOf<Fragment<"f32", "none">>();
    const rA = t.fragment(mma.partitionA(w.tile([16, 16], [0, 0])));
    expectTypeOf(rA).toEqualTypeOf<Fragment<"bf16", "A", typeof small>>();
    expectTypeOf(t.fragment(mma.partitionC(x.tile([16, 8], [0, 0])))).toEqualTypeOf<
      Fragment<"f32", "C", typeof small>
    >();
  });
  compiles("fit their instruction", ({ t, w, x, e }) => {
    const mma = tiledMma(small).slice(t.lane);
    const [rA, rB] = [
      t.fragment(mma.partitionA(w.tile([16, 16], [0, 0]))),
      t.fragment(mma.partitionB(w.tile([8, 16], [0, 0]))),
    ];
    const rC = t.fragment(mma.partitionC(x.tile([16, 8], [0, 0])));
    t.mma(rC, rA, rB);
    // @ts-expect-error A where B is wanted
    t.mma(rC, rA, rA);
    // @ts-expect-error an operand where the accumulator is wanted
    t.mma(rA, rA, rB);
    // @ts-expect-error an e4m3 fragment, cut as a bf16 instruction wants it, but not converted
    t.mma(rC, t.fragment(mma.partitionA(e.tile([16, 16], [0, 0]))), rB);
    t.mma(
      rC,
      t.fragment(mma.partitionA(e.tile([16, 16], [0, 0]))).map((v) => v.to(bf16)),
      rB,
    );
    const other = tiledMma(mmaAtoms.m16n8k32.e4m3).slice(t.lane);
    const rE = t.fragment(other.partitionA(e.tile([16, 32], [0, 0])));
    // @ts-expect-error an e4m3 fragment for a bf16 instruction
    t.mma(rC, rE, rB);
    const sums = t.fragment(
      tiledMma(mmaAtoms.m16n8k32.s8)
        .slice(t.lane)
        .partitionC(x.tile([16, 8], [0, 0])),
    );
    // @ts-expect-error the i32 accumulators of another instruction
    t.mma(sums, rA, rB);
    const narrow = tiledMma(mmaAtoms.m16n8k8.bf16).slice(t.lane);
    // @ts-expect-error a bf16 fragment of an instruction with another K
    t.mma(rC, rA, t.fragment(narrow.partitionB(w.tile([8, 8], [0, 0]))));
    // @ts-expect-error the accumulator of that one: of the same shape, but not the same instruction
    t.mma(t.accumulator(narrow, [16, 8]), rA, rB);
    const [wide, wider] = [wgmmaAtom(64, bf16, bf16), wgmmaAtom(128, bf16, bf16)];
    expectTypeOf(wide).not.toExtend<typeof wider>();
    // @ts-expect-error a plain fragment is no operand
    t.mma(rC, t.fragment(w.tile([16, 16], [0, 0])), rB);
  });
  compiles("are copied where they may be", ({ t, w, x, y, e }) => {
    const gX = x.tile([4, 4], [0, 0]);
    const rX = t.fragment(gX);
    t.copy(gX, rX);
    // @ts-expect-error a store to an input
    t.copy(rX, gX);
    // @ts-expect-error a load from an output
    t.copy(y.tile([4], [0]), t.fragment(y.tile([4], [0])));
    // @ts-expect-error between dtypes
    t.copy(e.tile([4, 4], [0, 0]), rX);
    // @ts-expect-error from tile to tile
    t.copy(gX, t.sharedTile(f32, parseLayout("(4,4):(4,1)")));
    // @ts-expect-error asynchronously from shared memory
    t.copyAsync(t.sharedTile(f32, parseLayout("4:1")), t.sharedTile(f32, parseLayout("4:1")));
    // @ts-expect-error ldmatrix from global memory
    t.ldmatrix(w, [0, 0], 4);
    // @ts-expect-error a load of an output's tile
    y.tile([4], [0]).load(0);
    // @ts-expect-error an unknown guard
    t.copy(gX, rX, { guard: "inside" });
  });
});

describe("shipped kernels", () => {
  compiles("know their parameters", ({ M }) => {
    const { params } = llGemmMmaBf16({ M, N: 256, K: 7168, out: f32 });
    expectTypeOf(params.w).toEqualTypeOf<TensorSpec<"frozen", "bf16", 2>>();
    expectTypeOf(params.y).toEqualTypeOf<TensorSpec<"output", "f32", 2>>();
    expectTypeOf<keyof typeof params>().toEqualTypeOf<"w" | "x" | "y">();
    const scaled = llGemmDotE4m3({ M: 1, N: 256, K: 64, out: bf16 }).params;
    expectTypeOf(scaled.xScale).toEqualTypeOf<TensorSpec<"input", "f32", 1>>();
    expectTypeOf(scaled.y).toEqualTypeOf<TensorSpec<"output", "bf16", 2>>();
    expectTypeOf(gemmBf16({ M, N: 1, K: 1, out: bf16 }).params.y).toEqualTypeOf<TensorSpec<"output", "bf16", 2>>();
    // @ts-expect-error no results in f16
    llGemmMmaBf16({ M, N: 256, K: 7168, out: f16 });
  });
});
