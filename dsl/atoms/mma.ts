/**
 * Matrix instructions as data. An atom multiplies an (M,K) by an (N,K) tile and adds to an (M,N) tile; its layouts say
 * which thread's which value is which element: (thread,value) -> index into the tile, counted column by column.
 *
 *   m16n8k16, A      k 0 1   2 3   4 5   6 7   8 9  ...          lane 0 holds (0,0) (0,1) (8,0) (8,1) (0,8) (0,9) (8,8) (8,9):
 *            row 0   lane 0  1     2     3     0   ...           layout ((4,8),(2,2,2)):((32,1),(16,8,128)),
 *            row 1   lane 4  5     6     7     4   ...           index = row + 16 * k
 *
 * Source: PTX ISA, "Warp-level matrix instructions" and "Asynchronous warpgroup level matrix instructions".
 */
import { describe, requireDType } from "../check.ts";
import { bf16, type DType, type DTypeName, e4m3, e5m2, f16, f32, i32, i8 } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { type Layout, parseLayout, rightInverse, size } from "../layout/index.ts";
import { callerLocation } from "../source.ts";

export interface MmaAtom<
  A extends DTypeName = DTypeName,
  B extends DTypeName = DTypeName,
  C extends "f32" | "i32" = "f32" | "i32",
  Name extends string = string,
> {
  /** mma: a warp, all operands in registers. wgmma: a warpgroup, A and B in shared memory. */
  readonly kind: "mma" | "wgmma";
  /** As a literal type it keeps tsc from mixing fragments of two instructions. */
  readonly name: Name;
  readonly M: number;
  readonly N: number;
  readonly K: number;
  readonly a: DType<A>;
  readonly b: DType<B>;
  readonly c: DType<C>;
  /** tf32: of each f32 only the upper 19 bits take part. */
  readonly tf32: boolean;
  /** 32, or 128 for wgmma. */
  readonly threads: number;
  readonly layoutA: Layout;
  readonly layoutB: Layout;
  readonly layoutC: Layout;
  /** The PTX instruction. */
  readonly ptx: string;
}

/** @throws Error when a layout of the table is not one-to-one onto its tile: checked when this file is loaded */
function checked<M extends MmaAtom>(atom: M): M {
  const tiles = [
    [atom.layoutA, atom.M * atom.K],
    [atom.layoutB, atom.N * atom.K],
    [atom.layoutC, atom.M * atom.N],
  ] as const;
  for (const [layout, count] of atom.kind === "wgmma" ? tiles.slice(2) : tiles) {
    // As many values as elements, and every element is reached.
    if (size(layout) !== count || size(rightInverse(layout)) !== count) {
      throw new Error(`${atom.name}: ${layout} is not one-to-one onto ${count} elements`);
    }
  }
  return Object.freeze(atom);
}

interface Shape {
  readonly M: number;
  readonly N: number;
  readonly K: number;
  readonly layoutA: Layout;
  readonly layoutB: Layout;
}

const layoutC = parseLayout("((4,8),(2,2)):((32,1),(16,8))");

/** 16 bytes of A's rows and columns a lane, 8 of B's. */
const k16: Shape = {
  ...{ M: 16, N: 8, K: 16 },
  layoutA: parseLayout("((4,8),(2,2,2)):((32,1),(16,8,128))"),
  layoutB: parseLayout("((4,8),(2,2)):((16,1),(8,64))"),
};
/** Half of that. */
const k8: Shape = {
  ...{ M: 16, N: 8, K: 8 },
  layoutA: parseLayout("((4,8),(2,2)):((32,1),(16,8))"),
  layoutB: parseLayout("((4,8),2):((16,1),8)"),
};
const k8Words: Shape = {
  ...{ M: 16, N: 8, K: 8 },
  layoutA: parseLayout("((4,8),(2,2)):((16,1),(8,64))"),
  layoutB: parseLayout("((4,8),2):((8,1),32)"),
};
/** In bytes the same fragments as k16. */
const k32: Shape = {
  ...{ M: 16, N: 8, K: 32 },
  layoutA: parseLayout("((4,8),(4,2,2)):((64,1),(16,8,256))"),
  layoutB: parseLayout("((4,8),(4,2)):((32,1),(8,128))"),
};

function warp<A extends DTypeName, B extends DTypeName, C extends "f32" | "i32", Name extends string>(
  name: Name,
  shape: Shape,
  [a, b, c]: readonly [DType<A>, DType<B>, DType<C>],
  ptxTypes: string,
): MmaAtom<A, B, C, Name> {
  const { M, N, K } = shape;
  return checked({
    kind: "mma",
    name,
    ...shape,
    ...{ a, b, c },
    tf32: ptxTypes.includes("tf32"),
    threads: 32,
    layoutC,
    ptx: `mma.sync.aligned.m${M}n${N}k${K}.row.col.${ptxTypes}`,
  });
}

/**
 * The `mma.sync` atoms, by shape and element types. e4m3 and e5m2 add with fewer bits than f32 has: 25 fraction bits, truncated.
 * ```ts
 * mmaAtoms.m16n8k16.bf16.layoutA // ((4,8),(2,2,2)):((32,1),(16,8,128))
 * ```
 */
export const mmaAtoms = Object.freeze({
  m16n8k8: Object.freeze({
    f16: warp("mma_m16n8k8_f16", k8, [f16, f16, f32], "f32.f16.f16.f32"),
    bf16: warp("mma_m16n8k8_bf16", k8, [bf16, bf16, f32], "f32.bf16.bf16.f32"),
    tf32: warp("mma_m16n8k8_tf32", k8Words, [f32, f32, f32], "f32.tf32.tf32.f32"),
  }),
  m16n8k16: Object.freeze({
    f16: warp("mma_m16n8k16_f16", k16, [f16, f16, f32], "f32.f16.f16.f32"),
    bf16: warp("mma_m16n8k16_bf16", k16, [bf16, bf16, f32], "f32.bf16.bf16.f32"),
  }),
  m16n8k32: Object.freeze({
    e4m3: warp("mma_m16n8k32_e4m3", k32, [e4m3, e4m3, f32], "f32.e4m3.e4m3.f32"),
    e5m2: warp("mma_m16n8k32_e5m2", k32, [e5m2, e5m2, f32], "f32.e5m2.e5m2.f32"),
    e4m3_e5m2: warp("mma_m16n8k32_e4m3_e5m2", k32, [e4m3, e5m2, f32], "f32.e4m3.e5m2.f32"),
    e5m2_e4m3: warp("mma_m16n8k32_e5m2_e4m3", k32, [e5m2, e4m3, f32], "f32.e5m2.e4m3.f32"),
    s8: warp("mma_m16n8k32_i8", k32, [i8, i8, i32], "s32.s8.s8.s32"),
  }),
});

type WgmmaInput = "f16" | "bf16" | "e4m3" | "e5m2";

/**
 * The `wgmma` atom m64 x `N` x k16 (f16, bf16) or k32 (e4m3, e5m2), accumulating in f32; N a multiple of 8 up to 256. Both
 * operands lie in shared memory, K contiguous. Of e4m3 and e5m2 the sums keep 13 bits only.
 * ```ts
 * wgmmaAtom(64, bf16, bf16).layoutC.shape // ((4,8,4),(2,2,8))
 * ```
 */
export function wgmmaAtom<const N extends number, A extends WgmmaInput, B extends WgmmaInput>(
  N: N,
  a: DType<A>,
  b: DType<B>,
): MmaAtom<A, B, "f32", `wgmma_m64n${N}k${number}_${string}`> {
  if (!Number.isInteger(N) || N < 8 || N > 256 || N % 8 !== 0) {
    throw new ShapeError(`wgmma has N from 8 to 256 in steps of 8, not ${describe(N)}`, { at: callerLocation() });
  }
  const at = callerLocation();
  requireDType(a, at, ["f16", "bf16", "e4m3", "e5m2"]);
  requireDType(b, at, ["f16", "bf16", "e4m3", "e5m2"]);
  const K = 32 / a.bytes;
  const inputs = (a.name as string) === b.name ? a.name : `${a.name}_${b.name}`;
  return checked({
    kind: "wgmma",
    name: `wgmma_m64n${N}k${K}_${inputs}` as const,
    M: 64,
    ...{ N, K, a, b },
    c: f32,
    tf32: false,
    threads: 128,
    layoutA: parseLayout(`(128,(64,${K})):(0,(1,64))`),
    layoutB: parseLayout(`(128,(${N},${K})):(0,(1,${N}))`),
    layoutC: parseLayout(`((4,8,4),(2,2,${N / 8})):((128,1,16),(64,8,512))`),
    ptx: `wgmma.mma_async.sync.aligned.m64n${N}k${K}.f32.${a.name}.${b.name}`,
  });
}

/** All values of a fragment: of A, B, C. */
export function valuesOf(atom: MmaAtom, operand: "A" | "B" | "C"): number {
  return size({ A: atom.layoutA, B: atom.layoutB, C: atom.layoutC }[operand], 1);
}
