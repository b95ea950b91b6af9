/** What users do wrong with tiles: shapes and layouts, copies, matrix instructions, barriers, clusters. */
import { expect, test } from "vitest";
import {
  AlignmentError,
  bf16,
  DivergenceError,
  DTypeError,
  e4m3,
  f32,
  i32,
  input,
  kernel,
  type KernelIR,
  mmaAtoms,
  OutOfBoundsError,
  output,
  RoleError,
  scalar,
  ScopeError,
  ShapeError,
  size,
  StagingError,
  type Tensor,
  TegulaError,
  type Thread,
  type Tile,
  tiledMma,
  VerifyError,
  wgmmaAtom,
} from "../dsl/index.ts";
import type { Stmt } from "../dsl/ir.ts";
import type { TileStmt } from "../dsl/ir-tile.ts";
import { composition, Layout, LayoutError, makeLayout, parseLayout, Swizzle } from "../dsl/layout/index.ts";
import { verify } from "../dsl/verify/verify.ts";
import { llGemmDotBf16, llGemmMmaE4m3 } from "../kernels/index.ts";
import { caught, mistakesIn, untyped } from "./mistake.ts";

const mistake = mistakesIn(import.meta.url);
const atom = mmaAtoms.m16n8k16.bf16;
const mma = tiledMma(atom);
const rows = size("rows", { max: 64 });

const params = {
  n: scalar(i32),
  a: input(bf16, [64, 64], { alignBytes: 16 }),
  b: input(bf16, [64, 64], { alignBytes: 16 }),
  e: input(e4m3, [64, 64], { alignBytes: 16 }),
  line: input(bf16, [64], { alignBytes: 16 }),
  ragged: input(bf16, [64, 63], { alignBytes: 16 }),
  open: input(bf16, [rows, 64], { alignBytes: 16 }),
  c: output(f32, [64, 64], { alignBytes: 16 }),
};

interface Tensors {
  readonly a: Tensor<"bf16", 2, "input">;
  readonly b: Tensor<"bf16", 2, "input">;
  readonly e: Tensor<"e4m3", 2, "input">;
  readonly line: Tensor<"bf16", 1, "input">;
  readonly ragged: Tensor<"bf16", 2, "input">;
  readonly open: Tensor<"bf16", 2, "input">;
  readonly c: Tensor<"f32", 2, "output">;
}

/** A kernel of two clusters of 4 blocks of 128 threads; its body comes after the wait. */
function traced(body: (t: Thread, tensors: Tensors) => void, more: { cluster?: number; block?: number } = {}) {
  return kernel({ name: "traced", grid: 8, block: 128, cluster: 4, params, ...more }, (t) => body(t, t.pdl.wait()));
}

// The launch.

const small = { name: "small", grid: 8, block: 32, params: { x: input(f32, [32]) } } as const;

mistake(
  "a cluster of three",
  ShapeError,
  /cluster has 1, 2, 4 or 8 blocks, not 3/,
  () => kernel({ ...small, cluster: 3 }, (t) => void t.pdl.wait()), // wrong
);

mistake(
  "a grid that isn't whole clusters",
  ShapeError,
  /grid has 12 blocks along x[^]*clusters of 8[^]*dims\.mul\(ceilDiv\(n, tile\), 8\)/,
  () => kernel({ ...small, grid: 12, cluster: 8 }, (t) => void t.pdl.wait()), // wrong
);

mistake(
  "a grid of unknown clusters",
  ShapeError,
  /grid has rows blocks along x/,
  () => kernel({ ...small, grid: rows, cluster: 2, params: { x: input(f32, [rows]) } }, (t) => void t.pdl.wait()), // wrong
);

// Tiles.

mistake(
  "a tile of another rank",
  ShapeError,
  /tile of a has 2 extents[^]*and 1 coordinates[^]*a was declared[^]*a\.tile\(\[16, 16\], \[i, j\]\)/,
  () => traced((_t, { a }) => a.tile([16, 16], [0])), // wrong
);

mistake(
  "a tile of a run-time extent",
  ShapeError,
  /extents, TypeScript numbers[^]*a\.tile/,
  () => traced((t, { a }) => a.tile(untyped([16, t.lane]), [0, 0])), // wrong
);

mistake(
  "a tile without coordinates",
  ShapeError,
  /a\.tile\(\[16, 16\], \[i, j\]\)/,
  () => traced((_t, { a }) => a.tile([16, 16], untyped(undefined))), // wrong
);

mistake("a sub-tile of another rank", ShapeError, /chosen by 2 numbers, not 1/, () =>
  traced((_t, { a }) => {
    const gA = a.tile([16, 16], [0, 0]);
    gA.tile([4, 4], [0]); // wrong
  }),
);

mistake("a sub-tile that doesn't divide its tile", ShapeError, /was made/, () =>
  traced((_t, { a }) => {
    const gA = a.tile([16, 16], [0, 0]); // cause
    gA.tile([5, 4], [0, 0]); // wrong
  }),
);

mistake("a slice with too few modes", ShapeError, /\(16,16\):\(1@0,1@1\) has 2 modes; the slice names 1/, () =>
  traced((_t, { a }) => {
    const gA = a.tile([16, 16], [0, 0]);
    gA.slice([null]); // wrong
  }),
);

mistake("a slice of one element", ShapeError, /keeps at least one mode[^]*tile\.load/, () =>
  traced((_t, { a }) => {
    const gA = a.tile([16, 16], [0, 0]);
    gA.slice([0, 0]); // wrong
  }),
);

mistake("a partition for more elements", ShapeError, /\(32,16\):\(16,1\)[^]*of 256 elements[^]*up to 511[^]*made/, () =>
  traced((t, { a }) => {
    const gA = a.tile([16, 16], [0, 0]); // cause
    gA.partition(parseLayout("(32,16):(16,1)"), t.lane); // wrong
  }),
);

mistake("a partition that steps outside", ShapeError, /numbers up to/, () =>
  traced((t, { a }) => {
    const gA = a.tile([16, 16], [0, 0]); // cause
    gA.partition(parseLayout("(32,4):(16,1)"), t.lane); // wrong
  }),
);

mistake("a partition without values", ShapeError, /has 1 modes/, () =>
  traced((t, { a }) => {
    const gA = a.tile([16, 16], [0, 0]); // cause
    gA.partition(parseLayout("32:1"), t.lane); // wrong
  }),
);

mistake("a map that the algebra refuses", ShapeError, /was made/, () =>
  traced((_t, { a }) => {
    const gA = a.tile([16, 16], [0, 0]); // cause
    gA.map((layout) => composition(layout, parseLayout("(3,2):(5,7)"))); // wrong
  }),
);

mistake("a whole tensor of run-time shape as tile", ShapeError, /open has the dimension rows[^]*tensor\.tile/, () =>
  traced((t, { open }) => {
    t.tileOf(open); // wrong
  }),
);

mistake("a load outside the tensor", OutOfBoundsError, /Index 0 of a is 64/, () =>
  traced((_t, { a }) => {
    a.tile([16, 16], [4, 0]).load([0, 0]); // wrong
  }),
);

mistake("a load from an output's tile", RoleError, /load of c, which is output/, () =>
  traced((_t, { c }) => {
    untyped<Tile<"f32", "inout">>(c.tile([16, 16], [0, 0])).load([0, 0]); // wrong
  }),
);

mistake("a layout that isn't shared memory's", ShapeError, /layout, or a swizzle of one, not/, () =>
  traced((t) => {
    t.sharedTile(bf16, untyped([16, 16])); // wrong
  }),
);

mistake("shared memory with too little alignment", ShapeError, /power of two from 16 to 1,024 bytes, not 8/, () =>
  traced((t) => {
    t.sharedTile(bf16, makeLayout([16, 16]), { alignBytes: 8 }); // wrong
  }),
);

// Fragments and copies.

mistake("a copy between shapes that differ", ShapeError, /copy: [^]* differ in shape[^]*Partition both/, () =>
  traced((t, { a }) => {
    const gA = a.tile([16, 8], [0, 0]); // cause
    const rA = t.fragment(a.tile([16, 16], [0, 0]));
    t.copy(gA, rA); // wrong
  }),
);

mistake("a copy between dtypes", DTypeError, /moves bits: one side is bf16, the other e4m3[^]*\.to\(\.\.\.\)/, () =>
  traced((t, { a, e }) => {
    const rE = t.fragment(e.tile([16, 8], [0, 0])); // cause
    t.copy(a.tile([16, 8], [0, 0]), untyped(rE)); // wrong
  }),
);

mistake("a copy from tile to tile", StagingError, /from a tile to a fragment or back[^]*t\.copyAsync/, () =>
  traced((t, { a }) => {
    const sA = t.sharedTile(bf16, makeLayout([16, 8]));
    t.copy(untyped(a.tile([16, 8], [0, 0])), untyped(sA)); // wrong
  }),
);

mistake("a copy with an unknown option", ShapeError, /Options here are { cache, guard }, not { gaurd }/, () =>
  traced((t, { a }) => {
    const gA = a.tile([16, 8], [0, 0]);
    t.copy(gA, t.fragment(gA), untyped({ gaurd: "edges" })); // wrong
  }),
);

mistake("a copy with an unknown guard", StagingError, /guard of a copy is "edges", not "inside"/, () =>
  traced((t, { a }) => {
    const gA = a.tile([16, 8], [0, 0]);
    t.copy(gA, t.fragment(gA), { guard: untyped("inside") }); // wrong
  }),
);

mistake(
  "a copy with an unknown cache hint",
  StagingError,
  /cache is "normal", "stream", "evictFirst" or "evictLast", not "fast"/,
  () =>
    traced((t, { a }) => {
      const gA = a.tile([16, 8], [0, 0]);
      t.copy(gA, t.fragment(gA), { cache: untyped("fast") }); // wrong
    }),
);

mistake("a store with a load's hint", StagingError, /cache is "normal" or "stream", not "evictLast"/, () =>
  traced((t, { c }) => {
    const gC = c.tile([4, 4], [0, 0]);
    const rC = t.fragment(gC);
    t.copy(rC, gC, { cache: "evictLast" }); // wrong
  }),
);

mistake("a copy from an output", RoleError, /load of c, which is output/, () =>
  traced((t, { c }) => {
    const gC = c.tile([4, 4], [0, 0]);
    t.copy(untyped<Tile<"f32", "inout">>(gC), t.fragment(gC)); // wrong
  }),
);

mistake("a copy to an input", RoleError, /store to a, which is input/, () =>
  traced((t, { a }) => {
    const gA = a.tile([4, 4], [0, 0]);
    t.copy(t.fragment(gA), untyped<Tile<"bf16", "inout">>(gA)); // wrong
  }),
);

mistake("a fragment outside its branch", ScopeError, /fragment is used outside the loop or branch/, () =>
  traced((t, { a }) => {
    const gA = a.tile([4, 4], [0, 0]);
    const kept: (() => void)[] = [];
    t.when(t.warp.eq(0), () => {
      const rA = t.fragment(gA); // cause
      kept.push(() => t.copy(gA, rA)); // wrong
    });
    kept[0]?.();
  }),
);

mistake("an asynchronous copy from registers' side", ShapeError, /copyAsync goes from global to shared memory/, () =>
  traced((t) => {
    const sA = t.sharedTile(bf16, makeLayout([16, 8]));
    t.copyAsync(untyped(sA), sA); // wrong
  }),
);

mistake("an asynchronous copy of too few bytes", AlignmentError, /at least 4 bytes; 2 are proved[^]*registers/, () =>
  traced((t, { ragged }) => {
    const sA = t.sharedTile(bf16, makeLayout([16, 8], [8, 1]));
    t.copyAsync(ragged.tile([16, 8], [0, 0]), sA); // wrong
  }),
);

mistake("groups that aren't a number", ShapeError, /asyncWait takes the number of groups[^]*not -1/, () =>
  traced((t) => {
    t.asyncWait(-1); // wrong
  }),
);

mistake("a bulk copy that isn't global to shared", ShapeError, /from a global tensor to shared memory/, () =>
  traced((t) => {
    const s = t.shared(bf16, [64]);
    t.copyBulk(untyped(s), [0], s, [0], 64, t.mbarrier(1, 1)); // wrong
  }),
);

mistake("a bulk copy of 8 bytes", AlignmentError, /multiple of 16 bytes; the count is known for 8 only/, () =>
  traced((t, { line }) => {
    t.copyBulk(line, [0], t.shared(bf16, [64]), [0], 4, t.mbarrier(1, 1)); // wrong
  }),
);

mistake("a box of another rank", ShapeError, /box of a has 2 extents from 1 to 256, not \[8\]/, () =>
  traced((t, { a }) => {
    t.tensorMap(a, [8]); // wrong
  }),
);

mistake("a box with narrow rows", ShapeError, /multiple of 16 bytes[^]*these have 8/, () =>
  traced((t, { a }) => {
    t.tensorMap(a, [8, 4]); // wrong
  }),
);

mistake("a box for another tile", ShapeError, /box \[8, 64\] swizzled by 128 bytes doesn't fit[^]*map was made/, () =>
  traced((t, { a }) => {
    const map = t.tensorMap(a, [8, 64], { swizzleBytes: 128 }); // cause
    const sA = t.sharedTile(bf16, makeLayout([8, 64], [64, 1]));
    t.copyTensor(map, [0, 0], sA, t.mbarrier(1, 1)); // wrong
  }),
);

mistake("a tensor copy with too few coordinates", ShapeError, /a takes 2 coordinates, not 1/, () =>
  traced((t, { a }) => {
    const map = t.tensorMap(a, [8, 64]);
    const sA = t.sharedTile(bf16, makeLayout([8, 64], [64, 1]));
    t.copyTensor(map, [0], sA, t.mbarrier(1, 1)); // wrong
  }),
);

mistake(
  "a tensor copy with options for a slot",
  StagingError,
  /come after the slot\n[^]*barrier, 0, { cache: "stream" }/,
  () =>
    traced((t, { a }) => {
      const map = t.tensorMap(a, [8, 64]);
      const sA = t.sharedTile(bf16, makeLayout([8, 64], [64, 1]));
      t.copyTensor(map, [0, 0], sA, t.mbarrier(1, 1), untyped({ cache: "stream" })); // wrong
    }),
);

const swizzled = composition(new Swizzle(3, 3, 3), makeLayout([8, 64], [64, 1]));

mistake(
  "a swizzled box in memory aligned to less",
  AlignmentError,
  /TMA can't fill sA: it is aligned to 128 bytes only[^]*map was made[^]*alignBytes: 1024/,
  () =>
    traced((t, { a }) => {
      const map = t.tensorMap(a, [8, 64], { swizzleBytes: 128 });
      const sA = t.sharedTile(bf16, swizzled); // cause
      t.copyTensor(map, [0, 0], sA, t.mbarrier(1, 1)); // wrong
    }),
);

mistake(
  "boxes out of step with the swizzle",
  AlignmentError,
  /TMA can't fill ring: the box begins at a multiple of 1280 bytes only[^]*Make stages a multiple of 1024 bytes/,
  () =>
    traced((t, { a }) => {
      const map = t.tensorMap(a, [8, 64], { swizzleBytes: 128 }); // cause
      const layout = composition(new Swizzle(3, 3, 3), makeLayout([8, 64, 4], [64, 1, 640]));
      const ring = t.sharedTile(bf16, layout, { alignBytes: 1024 });
      t.copyTensor(map, [0, 0], ring.slice([null, null, t.warp]), t.mbarrier(1, 1)); // wrong
    }),
);

mistake("a box by columns", ShapeError, /rows are not one after the other/, () =>
  traced((t, { a }) => {
    const map = t.tensorMap(a, [8, 64]);
    const sA = t.sharedTile(bf16, makeLayout([8, 64]));
    t.copyTensor(map, [0, 0], sA, t.mbarrier(1, 1)); // wrong
  }),
);

mistake("a box with a swizzle of other units", ShapeError, /Sw<3,4,3> is not TMA's swizzle[^]*Swizzle\(3, 3, 3\)/, () =>
  traced((t, { a }) => {
    const map = t.tensorMap(a, [8, 64], { swizzleBytes: 128 });
    const layout = composition(new Swizzle(3, 4, 3), makeLayout([8, 64], [64, 1]));
    const sA = t.sharedTile(bf16, layout, { alignBytes: 1024 });
    t.copyTensor(map, [0, 0], sA, t.mbarrier(1, 1)); // wrong
  }),
);

mistake("an mbarrier that is not there", OutOfBoundsError, /Index 0 of done is 5[^]*has 2 elements/, () =>
  traced((t) => {
    const done = t.mbarrier(2, 32);
    done.arrive(5); // wrong
  }),
);

mistake("a prefetch of shared memory", ShapeError, /Shared memory needs no prefetch/, () =>
  traced((t) => {
    t.prefetch(untyped(t.shared(bf16, [8])), untyped([0])); // wrong
  }),
);

// Matrix instructions.

mistake("no warps along N", ShapeError, /warps along M and N/, () => {
  tiledMma(atom, { warps: untyped([2]) }); // wrong
});

mistake("a wgmma that doesn't exist", ShapeError, /N from 8 to 256 in steps of 8, not 12/, () => {
  wgmmaAtom(12, bf16, bf16); // wrong
});

mistake("an operand of another dtype", DTypeError, /takes bf16 as A, not e4m3[^]*rA was made[^]*rA\.map\(/, () =>
  traced((t, { b, c, e }) => {
    const one = mma.slice(t.lane);
    const rC = t.fragment(one.partitionC(c.tile([16, 8], [0, 0])));
    const rA = t.fragment(one.partitionA(e.tile([16, 16], [0, 0]))); // cause
    const rB = t.fragment(one.partitionB(b.tile([8, 16], [0, 0])));
    t.mma(rC, untyped(rA), rB); // wrong
  }),
);

mistake("a fragment mapped to fewer lanes", ShapeError, /map makes 2 elements of 2, not/, () =>
  traced((t, { a }) => {
    const rA = t.fragment(mma.slice(t.lane).partitionA(a.tile([16, 16], [0, 0])));
    rA.map((two) => untyped(two.lane(0))); // wrong
  }),
);

mistake("a tile that holds no whole instruction", ShapeError, /holds no whole number of mma_m16n8k16[^]*was made/, () =>
  traced((t, { a }) => {
    const gA = a.tile([8, 16], [0, 0]); // cause
    mma.slice(t.lane).partitionA(gA); // wrong
  }),
);

mistake("fragments of different instructions", ShapeError, /belong to different matrix instructions/, () =>
  traced((t, { a, b, c }) => {
    const [one, other] = [mma.slice(t.lane), tiledMma(mmaAtoms.m16n8k8.bf16).slice(t.lane)];
    const rC = t.fragment(one.partitionC(c.tile([16, 8], [0, 0])));
    const rA = t.fragment(one.partitionA(a.tile([16, 16], [0, 0])));
    const rB = t.fragment(other.partitionB(b.tile([8, 16], [0, 0])));
    t.mma(rC, rA, untyped(rB)); // wrong
  }),
);

mistake("fragments whose K differs", ShapeError, /M, N or K differ[^]*fragment rB was made/, () =>
  traced((t, { a, b, c }) => {
    const one = mma.slice(t.lane);
    const rC = t.fragment(one.partitionC(c.tile([16, 8], [0, 0])));
    const rA = t.fragment(one.partitionA(a.tile([16, 32], [0, 0])));
    const rB = t.fragment(one.partitionB(b.tile([8, 16], [0, 0]))); // cause
    t.mma(rC, rA, rB); // wrong
  }),
);

mistake("bare vectors of another length", DTypeError, /m16n8k16_bf16 takes bf16x8 here, not bf16x4/, () =>
  traced((t, { a }) => {
    const half = a.loadVec([0, 0], 4);
    t.mmaVectors(atom, half, half, t.reg(f32, 0, 4).get()); // wrong
  }),
);

mistake("wgmma into an mma's accumulator", ShapeError, /accumulator is none of a wgmma/, () =>
  traced((t, { c }) => {
    const rC = t.fragment(mma.slice(t.lane).partitionC(c.tile([16, 8], [0, 0])));
    const s = t.sharedTile(bf16, makeLayout([64, 64], [64, 1]));
    t.wgmma(rC, s, s); // wrong
  }),
);

mistake("wgmma of unswizzled rows", ShapeError, /wgmma can't read[^]*Sw<3,4,3>/, () =>
  traced((t, { c }) => {
    const wide = tiledMma(wgmmaAtom(64, bf16, bf16)).slice(t.thread);
    const rC = t.fragment(wide.partitionC(c.tile([64, 64], [0, 0])));
    const s = t.sharedTile(bf16, makeLayout([64, 64], [64, 1])); // cause
    t.wgmma(rC, s, s); // wrong
  }),
);

mistake("wgmma of a matrix too little aligned", AlignmentError, /needs 1024-byte alignment; it has 128/, () =>
  traced((t, { c }) => {
    const wide = tiledMma(wgmmaAtom(64, bf16, bf16)).slice(t.thread);
    const rC = t.fragment(wide.partitionC(c.tile([64, 64], [0, 0])));
    const swizzled = composition(new Swizzle(3, 3, 3), makeLayout([64, 64], [64, 1]));
    const s = t.sharedTile(bf16, swizzled); // cause
    t.wgmma(rC, s, s); // wrong
  }),
);

mistake("wgmma of other sizes", ShapeError, /no whole number of wgmma_m64n64k16_bf16[^]*accumulator was made/, () =>
  traced((t, { c }) => {
    const wide = tiledMma(wgmmaAtom(64, bf16, bf16)).slice(t.thread);
    const rC = t.fragment(wide.partitionC(c.tile([64, 64], [0, 0]))); // cause
    const s = t.sharedTile(bf16, makeLayout([32, 64], [64, 1]));
    t.wgmma(rC, s, s); // wrong
  }),
);

mistake("matrices of global memory", ScopeError, /a is global memory; matrices are loaded from shared memory/, () =>
  traced((t, { a }) => {
    t.ldmatrix(untyped(a), untyped([0, 0]), 4); // wrong
  }),
);

mistake("ldmatrix into a fragment of another order", ShapeError, /fills a register of 8[^]*t\.matrixFragment/, () =>
  traced((t) => {
    const sA = t.sharedTile(bf16, makeLayout([16, 16], [16, 1]));
    const tA = mma.slice(t.lane).partitionA(sA);
    const rA = t.fragment(tA); // cause
    t.copyMatrix(tA, rA); // wrong
  }),
);

mistake("ldmatrix of columns", ShapeError, /rows of 16 contiguous bytes[^]*partition was made/, () =>
  traced((t) => {
    const sA = t.sharedTile(bf16, makeLayout([16, 16], [1, 16]));
    const tA = mma.slice(t.lane).partitionA(sA); // cause
    t.copyMatrix(tA, t.matrixFragment(tA)); // wrong
  }),
);

mistake("a matrix multiplication by some lanes", DivergenceError, /matrix multiplication stands where/, () =>
  traced((t, { a, b, c }) => {
    const one = mma.slice(t.lane);
    const rC = t.fragment(one.partitionC(c.tile([16, 8], [0, 0])));
    const rA = t.fragment(one.partitionA(a.tile([16, 16], [0, 0])));
    const rB = t.fragment(one.partitionB(b.tile([8, 16], [0, 0])));
    t.when(t.lane.lt(16), () => t.mma(rC, rA, rB)); // wrong
  }),
);

// Barriers and clusters.

mistake(
  "no mbarriers",
  ShapeError,
  /length of mbarriers is a whole number from 1 to 1024, not 0/,
  () => traced((t) => void t.mbarrier(0, 1)), // wrong
);

mistake(
  "no arrivals",
  ShapeError,
  /number of arrivals of mbarriers/,
  () => traced((t) => void t.mbarrier(1, 0.5)), // wrong
);

mistake(
  "a named barrier with number 0",
  ShapeError,
  /number from 1 to 15 and whole warps[^]*not 0 and 64/,
  () => traced((t) => t.namedBarrier(0, 64)), // wrong
);

mistake(
  "registers of a block without warpgroups",
  ShapeError,
  /whole warpgroups of 128 threads; the block has 96/,
  () => traced((t) => t.setRegisters("increase", 240), { block: 96 }), // wrong
);

mistake(
  "an odd number of registers",
  ShapeError,
  /24 to 256 registers in steps of 8, not 100/,
  () => traced((t) => t.setRegisters("decrease", 100)), // wrong
);

mistake(
  "registers that neither increase nor decrease",
  StagingError,
  /increase or decrease, not "more"/,
  () => traced((t) => t.setRegisters(untyped("more"), 104)), // wrong
);

mistake("a peer of global memory", DTypeError, /a is global memory: every block sees the same/, () =>
  traced((_t, { a }) => {
    a.load([0, 0], untyped({ peer: 1 })); // wrong
  }),
);

mistake("a peer of a tile of global memory", DTypeError, /a is global memory: every block sees the same/, () =>
  traced((_t, { a }) => {
    a.tile([16, 16], [0, 0]).load([0, 0], untyped({ peer: 1 })); // wrong
  }),
);

mistake("a store to a peer's global memory", DTypeError, /c is global memory[^]*peer is for shared memory/, () =>
  traced((_t, { c }) => {
    c.tile([16, 16], [0, 0]).store([0, 0], 1, untyped({ peer: 1 })); // wrong
  }),
);

mistake("an unknown option of a tile's load", ShapeError, /Options here are { peer }, not { guard }/, () =>
  traced((t, { a }) => {
    a.tile([16, 16], [0, 0]).load([0, 0], untyped({ guard: t.lane.eq(0) })); // wrong
  }),
);

mistake(
  "a peer without a cluster",
  ShapeError,
  /no other blocks[^]*cluster: 8/,
  () => traced((t) => void t.shared(f32, [4]).load([0], { peer: 0 }), { cluster: 1 }), // wrong
);

const notStarted = /other block may not have started yet[^]*before the first access/;
const ended = /other block may have ended already[^]*after the last access/;

mistake("a peer before it started", DivergenceError, notStarted, () =>
  traced((t) => {
    const s = t.shared(f32, [4]);
    s.store([0], 1, { peer: 1 }); // wrong
    t.cluster.barrier();
  }),
);

mistake("a peer before it started, the barrier in a branch", DivergenceError, notStarted, () =>
  traced((t) => {
    const s = t.shared(f32, [4]);
    t.when(t.block.y.eq(1), () => t.cluster.barrier());
    s.store([0], 1, { peer: 1 }); // wrong
    t.cluster.barrier();
  }),
);

mistake("a peer that ended", DivergenceError, ended, () =>
  traced((t) => {
    const s = t.shared(f32, [4]);
    t.cluster.barrier();
    s.store([0], 1, { peer: 1 }); // wrong
  }),
);

mistake("a peer between the halves of the last barrier", DivergenceError, ended, () =>
  traced((t) => {
    const s = t.shared(f32, [4]);
    t.cluster.barrier();
    t.cluster.arrive();
    s.store([0], 1, { peer: 1 }); // wrong
    t.cluster.wait();
  }),
);

mistake(
  "an arrival without a wait",
  DivergenceError,
  /Nothing waits for the cluster barrier[^]*alternate/,
  () => traced((t) => t.cluster.arrive()), // wrong
);

mistake(
  "a cluster wait without an arrival",
  DivergenceError,
  /at which nothing arrived/,
  () => traced((t) => t.cluster.wait()), // wrong
);

mistake("two arrivals", DivergenceError, /arrived at twice/, () =>
  traced((t) => {
    t.cluster.arrive(); // cause
    t.cluster.barrier(); // wrong
  }),
);

mistake("half a cluster barrier in a branch", DivergenceError, /Half a cluster barrier stands in a branch/, () =>
  traced((t, _tensors) => {
    t.when(t.block.y.eq(0), () => t.cluster.arrive()); // wrong
    t.cluster.wait();
  }),
);

mistake("a cluster barrier by some blocks", DivergenceError, /cluster barrier stands where[^]*cluster/, () =>
  traced((t) => {
    t.when(t.block.x.eq(0), () => t.cluster.barrier()); // wrong
  }),
);

test("peers between two cluster barriers, in loops too", () => {
  traced((t) => {
    const s = t.shared(f32, [4]);
    t.cluster.arrive();
    t.cluster.wait();
    for (const i of t.range(4)) {
      s.store([i], 1, { peer: t.cluster.rank.xor(1) });
      t.cluster.barrier();
    }
    t.when(t.warp.eq(0), () => void s.load([0], { peer: 0 }));
    t.cluster.arrive();
    t.cluster.wait();
  });
});

// What only hand-built IR can get wrong.

test.each<[string, new (what: string) => TegulaError, RegExp, (ir: KernelIR, stmt: TileStmt) => Stmt]>([
  ["an unknown mbarrier", VerifyError, /Unknown mbarrier/, (_, stmt) => ({ ...(stmt as object), barrier: {} }) as Stmt],
  [
    "a wait for an unknown mbarrier",
    VerifyError,
    /Unknown mbarrier/,
    (_, stmt) =>
      ({ ...(stmt as object), kind: "await", parity: (stmt as { slot: unknown }).slot, barrier: {} }) as Stmt,
  ],
])("the verifier refuses %s", (_, error, says, change) => {
  const { ir } = traced((t) => t.mbarrier(1, 1).arrive());
  const body = ir.body.map((stmt) => (stmt.kind === "arrive" ? change(ir, stmt) : stmt));
  const thrown = caught(() => verify({ ...ir, body }));
  expect(thrown).toBeInstanceOf(error);
  expect(String(thrown)).toMatch(says);
});

test("threadValue refuses by a LayoutError where no author's line is known", () => {
  expect(() => mma.threadValue("A", makeLayout([8, 16]))).toThrow(LayoutError);
  expect(mma.threadValue("A", new Layout([16, 16], [16, 1])).toString()).toContain(":");
});

test("options of the shipped kernels that are out of range", () => {
  const sizes = { M: 8, N: 16, K: 64, out: f32 } as const;
  expect(() => llGemmMmaE4m3({ ...sizes, warps: 17 })).toThrow(
    "warps of llGemmMma: a whole number from 1 to 16, not 17",
  );
  expect(() => llGemmMmaE4m3({ ...sizes, pieces: 0.5 })).toThrow("pieces of llGemmMma: a whole number");
  expect(() => llGemmDotBf16({ ...sizes, prefetch: 0 })).toThrow("prefetch of llGemmDot: a whole number from 1 to 64");
});
