/**
 * Copy instructions as data: between which memories, how many bytes at once, and for those of a whole warp which lane's
 * which 4-byte word comes from where. Source: PTX ISA, "Data movement and conversion instructions".
 */
import { type Layout, parseLayout } from "../layout/index.ts";

type Space = "global" | "shared" | "registers";

export interface CopyAtom {
  readonly name: string;
  readonly from: Space;
  readonly to: Space;
  /** Widths that exist, in bytes per thread; of bulk copies the unit of the whole copy's size. */
  readonly bytes: readonly number[];
  /** Threads that act together. */
  readonly threads: 1 | 32;
  /**
   * Of ldmatrix and stmatrix, (lane, word) -> word of the matrices, 4 words to a row, 32 to a matrix: which words a lane
   * holds. Lane l gives the address of row l.
   */
  readonly registers: Layout | undefined;
  readonly ptx: string;
}

const thread = (name: string, from: Space, to: Space, bytes: readonly number[], ptx: string): CopyAtom =>
  Object.freeze({ name, from, to, bytes: Object.freeze(bytes), threads: 1, registers: undefined, ptx });

const matrices = (name: "ldmatrix" | "stmatrix", count: 1 | 2 | 4): CopyAtom =>
  Object.freeze({
    name: `${name}.x${count}`,
    from: name === "ldmatrix" ? "shared" : "registers",
    to: name === "ldmatrix" ? "registers" : "shared",
    bytes: Object.freeze([4 * count]),
    threads: 32,
    registers: parseLayout(`(32,${count}):(1,32)`),
    ptx: `${name}.sync.aligned.m8n8.x${count}`,
  });

const upTo16 = [1, 2, 4, 8, 16];

/**
 * Every copy that kernels can make.
 * ```ts
 * copyAtoms.cpAsync.bytes // (4,8,16)
 * copyAtoms.ldmatrix.x4.registers // (32,4):(1,32)
 * ```
 */
export const copyAtoms = Object.freeze({
  loadGlobal: thread("load", "global", "registers", upTo16, "ld.global"),
  loadShared: thread("load", "shared", "registers", upTo16, "ld.shared"),
  storeGlobal: thread("store", "registers", "global", upTo16, "st.global"),
  storeShared: thread("store", "registers", "shared", upTo16, "st.shared"),
  cpAsync: thread("cp.async", "global", "shared", [4, 8, 16], "cp.async.{ca,cg}.shared.global"),
  bulk: thread("bulk copy", "global", "shared", [16], "cp.async.bulk.shared::cluster.global"),
  tensor: thread("TMA", "global", "shared", [16], "cp.async.bulk.tensor.shared::cluster.global"),
  ldmatrix: Object.freeze({ x1: matrices("ldmatrix", 1), x2: matrices("ldmatrix", 2), x4: matrices("ldmatrix", 4) }),
  stmatrix: Object.freeze({ x1: matrices("stmatrix", 1), x2: matrices("stmatrix", 2), x4: matrices("stmatrix", 4) }),
});
