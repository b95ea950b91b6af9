/**
 * Low-latency GEMM on tensor cores: y[m,n] = sum over k of x[m,k] * w[n,k], for 1 to 16 tokens m.
 *
 * The weights are the instruction's 16-row operand, the tokens its 8-column one, so that few tokens waste little. A cluster
 * of blocks makes 16 columns n of y; K is dealt out to its warps:
 *
 *     gW[16 rows, :]   | warp 0 | warp 1 | ... | of block 0 | warp 0 | ... | of block 1 | ... | then all over again: turns
 *
 * In a warp's tile K is permuted, on both operands alike, so that what a lane holds of two instructions is 16 contiguous
 * bytes: weights go from memory straight into fragments, and are on their way before the kernel waits for the tokens.
 *
 *     lane   0 1 2 3 | 0 1 2 3 | ...   16 bytes each, rows lane / 4 and lane / 4 + 8
 *
 * What warps and blocks have of the same columns is then added up: split-k.ts.
 */
import {
  bf16,
  ceilDiv,
  dims,
  type DType,
  e4m3,
  f32,
  type Expr,
  type Fragment,
  type MmaAtom,
  mmaAtoms,
  type Params,
  ShapeError,
  type Thread,
  type Tile,
  tiledMma,
} from "../dsl/index.ts";
import { type Layout, makeLayout, parseLayout } from "../dsl/layout/index.ts";
import { maxOf } from "../dsl/size.ts";
import { callerOfKernels } from "./caller.ts";
import type { NoParams, WithEpilogue } from "./epilogue.ts";
import {
  type Gemm,
  type GemmSizes,
  inBf16,
  inE4m3,
  inF32,
  type InName,
  type OutName,
  requireConfig,
  requireCounts,
  rowAlignBytes,
} from "./ll-gemm.ts";
import { addPartials, partialSums, partialTile } from "./split-k.ts";

export interface LlGemmMmaConfig<Out extends OutName = OutName> extends GemmSizes<Out> {
  /** Warps per block, 1 to 16. Default: as many as K gives work to, at most 4. */
  readonly warps?: number;
  /** Columns of y that a cluster makes, 16, 32 or 64: rows of w. */
  readonly rows?: 16 | 32 | 64;
  /** Blocks that share these columns: 1, 2, 4 or 8. */
  readonly cluster?: 1 | 2 | 4 | 8;
  /** 64-byte pieces of each row of weights that a warp takes per turn, 1 to 16. Default: all there are, at most 8. */
  readonly pieces?: number;
  /** Turns that a warp has on their way to its registers: weights before the wait, both from then on. */
  readonly early?: number;
  /** Turns besides of which weights are on their way to shared memory. Default: none. */
  readonly parked?: number;
}

/** bf16 weights and tokens. */
export function llGemmMmaBf16<Out extends OutName, P extends Params = NoParams>(
  config: LlGemmMmaConfig<Out> & WithEpilogue<P>,
) {
  const plan = planOf(config, bf16);
  return inBf16("ll_gemm_mma", config, plan, (gemm) => multiply(gemm, mmaAtoms.m16n8k16.bf16, plan, addProducts));
}

/** e4m3 weights and tokens, with one scale each that is read from device memory. */
export function llGemmMmaE4m3<Out extends OutName, P extends Params = NoParams>(
  config: LlGemmMmaConfig<Out> & WithEpilogue<P>,
) {
  const plan = planOf(config, e4m3);
  return inE4m3("ll_gemm_mma", config, plan, (gemm) => multiply(gemm, mmaAtoms.m16n8k32.e4m3, plan, addProducts));
}

/** f32 weights and bf16 tokens: each weight is multiplied as the sum of three in bf16. Infinite weights make NaN. */
export function llGemmMmaF32<Out extends OutName, P extends Params = NoParams>(
  config: LlGemmMmaConfig<Out> & WithEpilogue<P>,
) {
  const plan = planOf(config, f32);
  return inF32("ll_gemm_mma", config, plan, (gemm) => multiply(gemm, mmaAtoms.m16n8k16.bf16, plan, addThreefold));
}

/**
 * K of two instructions as memory has it: of weights of 2 bytes a lane's 16 bytes are 4 + 4 elements of each, of one byte 8 + 8;
 * 4 of one instruction where they have 4 bytes.
 */
const permuteK: Readonly<Record<number, Layout>> = {
  4: parseLayout("(2,4,2):(1,4,2)"),
  2: parseLayout("(2,4,2,2):(1,8,2,4)"),
  1: parseLayout("(4,4,2,2):(1,16,4,8)"),
};

/** rC += rA * rB */
type AddProducts<W extends InName, X extends InName, M extends MmaAtom = MmaAtom<X, X, "f32">> = (
  t: Thread,
  rC: Fragment<"f32", "C", M>,
  rA: Fragment<W, "A", M>,
  rB: Fragment<X, "B", M>,
) => void;

const addProducts = <X extends "bf16" | "e4m3">(...[t, rC, rA, rB]: Parameters<AddProducts<X, X>>) => t.mma(rC, rA, rB);

/** 24 bits of a weight are three times 8, which are exact in bf16. Uses up rA. */
const addThreefold: AddProducts<"f32", "bf16"> = (t, rC, rA, rB) => {
  for (const _ of t.range(3, { unroll: true })) {
    const rPart = rA.map((v) => v.to(bf16));
    t.mma(rC, rPart, rB);
    rA.update((v) => v.sub(v.to(bf16).to(f32)));
  }
};

function multiply<W extends InName, X extends InName>(
  { t, w, storeOf, M, N }: Gemm<W, X>,
  atom: MmaAtom<X, X, "f32">,
  { cluster, rows, warps, turnK, rounds, early, parked, tokens }: ReturnType<typeof planOf>,
  add: AddProducts<W, X>,
): void {
  type Weights = Fragment<W, "A", MmaAtom<X, X, "f32">>;
  type Tokens = Fragment<X, "B", MmaAtom<X, X, "f32">>;
  type Parked = Tile<W, "shared">;
  const splitK = { M, N, columns: rows, tokens, parts: warps };
  const sums = partialSums(t, splitK);
  t.cluster.arrive();

  const mma = tiledMma(atom, { permute: [null, null, permuteK[w.dtype.bytes] ?? null] }).slice(t.lane);
  const tileN = t.block.x.div(cluster);
  const slice = t.cluster.rank.mul(warps).add(t.warp);
  const tileK = (turn: Expr<"i32"> | number) =>
    t
      .dim(cluster * warps)
      .mul(turn)
      .add(slice);
  const gA = (turn: Expr<"i32"> | number) => mma.partitionA(w.tile([rows, turnK], [tileN, tileK(turn)])); // (value, rows / 16, turnK / atom.K)
  const loadWeights = (turn: Expr<"i32"> | number, rA: Weights) =>
    t.copy(gA(turn), rA, { cache: "stream", guard: "edges" });
  const rAs = Array.from({ length: early }, () => t.fragment(gA(0)));
  for (const [turn, rA] of rAs.entries()) loadWeights(turn, rA);
  const parkings = parked > 0 ? [t.sharedTile(w.dtype, parkingOf(w.dtype, rows, turnK, warps, parked))] : [];
  const sAs = parkings.flatMap((sW) =>
    Array.from({ length: parked }, (_, i) => mma.partitionA(sW.slice([null, null, t.warp, i]))),
  );
  const parkWeights = (turn: Expr<"i32"> | number, sA: Parked) => {
    t.copyAsync(gA(turn), sA, { guard: "edges" });
    t.asyncCommit();
  };
  for (const [i, sA] of sAs.entries()) parkWeights(early + i, sA);
  t.pdl.launchDependents();
  const dependent = t.pdl.wait();
  const { x } = dependent; // (M, K)
  const storeSum = storeOf(dependent);

  const gB = (turn: Expr<"i32"> | number) => mma.partitionB(x.tile([tokens, turnK], [0, tileK(turn)])); // (value, tokens / 8, turnK / atom.K)
  const loadTokens = (turn: Expr<"i32"> | number, rB: Tokens) => t.copy(gB(turn), rB, { guard: "edges" });
  const rBs = Array.from({ length: early + parked }, () => t.fragment(gB(0)));
  for (const [turn, rB] of rBs.entries()) loadTokens(turn, rB);
  const sC = mma.partitionC(partialTile(splitK, sums, t.warp, rows, 0));
  const rC = t.fragment(sC); // (4, rows / 16, tokens / 8)
  /** All turns of a round; if there is a next one, it takes their places. */
  const multiplyTurns = (next?: Expr<"i32">) => {
    for (const [i, rB] of rBs.entries()) {
      const turn = next?.mul(early + parked).add(i);
      const [rA, sA] = [rAs[i], sAs[i - early]];
      if (rA) {
        add(t, rC, rA, rB);
        if (turn) loadWeights(turn, rA);
      } else if (sA) {
        t.asyncWait(next ? parked - 1 : early + parked - 1 - i);
        const rA = t.fragment(gA(0));
        t.copy(sA, rA);
        add(t, rC, rA, rB);
        if (turn) parkWeights(turn, sA);
      }
      if (turn) loadTokens(turn, rB);
    }
  };
  if (maxOf(rounds) > 1) for (const round of t.range(1, rounds)) multiplyTurns(round);
  multiplyTurns();

  t.copy(rC, sC);
  t.barrier();
  t.cluster.wait(); // the other blocks have started: their memory is there
  addPartials(t, splitK, sums, tileN, storeSum);
}

/** (rows, turnK, warps, turns): 16 bytes of each lane of a warp after the other. */
function parkingOf(dtype: DType, rows: number, turnK: number, warps: number, turns: number): Layout {
  const unit = 16 / dtype.bytes;
  const [ofRows, ofPieces] = [rows / 8, turnK / (4 * unit)];
  return makeLayout(
    [[8, ofRows], [unit, 4, ofPieces], warps, turns],
    [[4 * unit, 32 * unit], [1, unit, 32 * unit * ofRows], rows * turnK, rows * turnK * warps],
  );
}

function planOf(config: LlGemmMmaConfig, dtype: DType) {
  requireConfig("llGemmMma", config, ["warps", "rows", "cluster", "pieces", "early", "parked"]);
  const { M, N, K, rows = 16, cluster = 8, parked = 0, ...given } = config;
  const piece = 64 / dtype.bytes;
  const perBlock = Math.ceil(maxOf(K) / (cluster * piece));
  const { warps = Math.min(4, perBlock) } = given;
  const { pieces = typeof K === "number" ? Math.min(8, Math.ceil(perBlock / warps)) : 4 } = given;
  const turns = ceilDiv(K, cluster * warps * pieces * piece);
  const { early = Math.min(pieces > 4 || typeof K !== "number" ? 1 : 2, maxOf(turns)) } = given;
  requireCounts("llGemmMma", { warps, pieces, early }, 16);
  if (parked > 0) {
    requireCounts("llGemmMma", { parked }, 16);
    if (rowAlignBytes(K, dtype) !== 16) {
      throw new ShapeError(`parked takes rows of whole 16 bytes, not of ${K} ${dtype.name}`, {
        at: callerOfKernels(),
        hint: `K a multiple of ${16 / dtype.bytes}, promised for a Size by { multipleOf }; others with parked: 0`,
      });
    }
  }
  return {
    ...{ grid: dims.mul(ceilDiv(N, rows), cluster), cluster, block: warps * 32, warps, rows },
    /** Elements of K that a warp takes per turn. */
    turnK: pieces * piece,
    early,
    parked,
    /** Each of `early + parked` turns. */
    rounds: ceilDiv(turns, early + parked),
    /** 8 or 16 columns of the instruction. */
    tokens: maxOf(M) <= 8 ? 8 : 16,
  };
}
