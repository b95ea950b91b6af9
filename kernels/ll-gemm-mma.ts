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
 * Each warp then hands its partial sums to the block that owns them, through distributed shared memory; each block adds up
 * what it owns and stores it.
 */
import { bf16, ceilDiv, dims, type DType, e4m3, type Expr, type MmaAtom, mmaAtoms, tiledMma } from "../dsl/index.ts";
import { parseLayout, select } from "../dsl/layout/index.ts";
import { maxOf } from "../dsl/size.ts";
import { type Gemm, type GemmSizes, inBf16, inE4m3, type InName, type OutName, requireCounts } from "./ll-gemm.ts";
import { addPartials, partialSums, sendPartials } from "./split-k.ts";

export interface LlGemmMmaConfig<Out extends OutName = OutName> extends GemmSizes<Out> {
  /** Warps per block, 1 to 16. Default: as many as K gives work to, at most 4. */
  readonly warps?: number;
  /** Blocks that share 16 columns: 1, 2, 4 or 8. */
  readonly cluster?: 1 | 2 | 4 | 8;
  /** 64-byte pieces of each row of weights that a warp takes per turn, 1 to 16. Default: all there are, at most 8. */
  readonly pieces?: number;
  /** Turns of weights that are on their way before the wait. */
  readonly early?: number;
}

/** bf16 weights and tokens. */
export function llGemmMmaBf16<Out extends OutName>(config: LlGemmMmaConfig<Out>) {
  const plan = planOf(config, bf16);
  return inBf16("ll_gemm_mma", config, plan, (gemm) => multiply(gemm, mmaAtoms.m16n8k16.bf16, plan));
}

/** e4m3 weights and tokens, with one scale each that is read from device memory. */
export function llGemmMmaE4m3<Out extends OutName>(config: LlGemmMmaConfig<Out>) {
  const plan = planOf(config, e4m3);
  return inE4m3("ll_gemm_mma", config, plan, (gemm) => multiply(gemm, mmaAtoms.m16n8k32.e4m3, plan));
}

/** K of two instructions as memory has it: a lane's 16 bytes are 4 + 4 of each (8 + 8 of one byte). */
const permuteK = { 2: parseLayout("(2,4,2,2):(1,8,2,4)"), 1: parseLayout("(4,4,2,2):(1,16,4,8)") } as const;

function multiply<In extends InName, Out extends OutName>(
  { t, w, scaleOf, M, N, out }: Gemm<In, Out>,
  atom: MmaAtom<In, In, "f32">,
  { cluster, warps, turnK, turns, early, tokens }: ReturnType<typeof planOf>,
): void {
  const splitK = { M, N, out, columns: 16, tokens, slices: cluster * warps };
  const sPart = partialSums(t, splitK);
  t.cluster.arrive();

  const mma = tiledMma(atom, { permute: [null, null, permuteK[atom.a.bytes as 1 | 2]] }).slice(t.lane);
  const tileN = t.block.x.div(cluster);
  const slice = t.cluster.rank.mul(warps).add(t.warp);
  const tileK = (turn: Expr<"i32"> | number) =>
    t
      .dim(cluster * warps)
      .mul(turn)
      .add(slice);
  const weights = (turn: Expr<"i32"> | number) => {
    const gA = mma.partitionA(w.tile([16, turnK], [tileN, tileK(turn)])); // (value, 1, turnK / atom.K)
    const rA = t.fragment(gA);
    t.copy(gA, rA, { cache: "stream", guard: "edges" });
    return rA;
  };
  const rEarly = Array.from({ length: early }, (_, turn) => weights(turn));
  t.pdl.launchDependents();
  const late = t.pdl.wait();
  const { x, y } = late; // (M, K), (M, N)
  const scale = scaleOf(late);

  const gY = y.tile([tokens, 16], [0, tileN]).map((layout) => select(layout, 1, 0)); // (16, tokens)
  const gC = mma.partitionC(gY);
  const rC = t.fragment(gC); // (4, 1, tokens / 8)
  const addTurn = (turn: Expr<"i32"> | number, rA: ReturnType<typeof weights>) => {
    const gB = mma.partitionB(x.tile([tokens, turnK], [0, tileK(turn)])); // (value, tokens / 8, turnK / atom.K)
    const rB = t.fragment(gB);
    t.copy(gB, rB, { guard: "edges" });
    t.mma(rC, rA, rB);
  };
  for (const [turn, rA] of rEarly.entries()) addTurn(turn, rA);
  if (maxOf(turns) > early) for (const turn of t.range(early, turns)) addTurn(turn, weights(turn));

  t.cluster.wait(); // the other blocks have started: their memory is there
  sendPartials(t, splitK, sPart, slice, rC, gC);
  t.cluster.barrier();
  addPartials(t, splitK, sPart, tileN, y, scale);
}

function planOf({ M, N, K, cluster = 8, ...given }: LlGemmMmaConfig, dtype: DType) {
  const piece = 64 / dtype.bytes;
  const perBlock = Math.ceil(maxOf(K) / (cluster * piece));
  const { warps = Math.min(4, perBlock) } = given;
  const { pieces = typeof K === "number" ? Math.min(8, Math.ceil(perBlock / warps)) : 4 } = given;
  const { early = pieces > 4 || typeof K !== "number" ? 1 : 2 } = given;
  requireCounts("llGemmMma", { warps, pieces }, 16);
  const turns = ceilDiv(K, cluster * warps * pieces * piece);
  return {
    ...{ grid: dims.mul(ceilDiv(N, 16), cluster), cluster, block: warps * 32, warps, turns },
    /** Elements of K that a warp takes per turn. */
    turnK: pieces * piece,
    early: Math.min(early, maxOf(turns)),
    /** 8 or 16 columns of the instruction. */
    tokens: maxOf(M) <= 8 ? 8 : 16,
  };
}
