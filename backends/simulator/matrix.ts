/**
 * Matrix instructions of a warp: mma, ldmatrix, stmatrix; and how a Hopper tensor core adds.
 *
 * Of f16, bf16 and tf32 an instruction adds all its K products and c at once: all are aligned to the largest exponent (a
 * product's is the sum of its factors'; subnormals have that of the smallest normals) and cut off 25 bits below; their sum is
 * exact, and cut off to an f32. wgmma of fp8 keeps 13 bits in both places. Hopper has no mma.sync of fp8: the assembler makes
 * f16 of both operands and two instructions of 16 products each, and adds c as any f32. Any NaN makes the NaN 0x7fffffff. i8
 * is exact, and wraps.
 *
 * Source: P. Xie et al., "MMA-Sim: Bit-Accurate Reference Model of Tensor Cores and Matrix Cores" (2025), but for mma.sync of
 * fp8, which we read from results of an H200. All of it agrees with the recordings in test/data.
 */
import type { MmaAtom } from "../../dsl/atoms/mma.ts";
import { type DType, f16, f32 } from "../../dsl/dtype.ts";
import type { TileStmt } from "../../dsl/ir-tile.ts";
import type { Pinned, Value } from "../../dsl/ir.ts";
import { encode } from "../../dsl/numerics.ts";
import { crd2idx, type Layout } from "../../dsl/layout/index.ts";
import type { Context, Step } from "./context.ts";
import { Locator, storeElements } from "./memory.ts";
import { exponentOf, exponentTable, truncatedBits, valueTable } from "./numbers.ts";

/** Rows of K elements, as values and exponents. */
export class Operand {
  readonly values: Float64Array;
  readonly exponents: Int32Array;
  private readonly read: (at: number, bits: number) => void;

  /** `multiplied`: the type that fp8 is made before the hardware multiplies, if another. */
  constructor(count: number, dtype: DType, multiplied = dtype) {
    const [values, exponents] = [new Float64Array(count), new Int32Array(count)];
    this.values = values;
    this.exponents = exponents;
    if (dtype.kind === "signed") {
      this.read = (at, bits) => (values[at] = (bits << 24) >> 24);
    } else if (dtype === f32) {
      const [word, float] = [word32, float32];
      this.read = (at, bits) => {
        word[0] = bits & 0xffffe000; // tf32
        values[at] = float[0] ?? 0;
        exponents[at] = exponentOf(word[0] ?? 0);
      };
    } else {
      const valueOf = valueTable(dtype);
      const own = exponentTable(multiplied);
      const exponentAt =
        multiplied === dtype ? own : Int16Array.from(valueOf, (value) => own[encode(multiplied, value, "nosat")] ?? 0);
      this.read = (at, bits) => {
        values[at] = valueOf[bits] ?? 0;
        exponents[at] = exponentAt[bits] ?? 0;
      };
    }
  }

  set(at: number, bits: number): void {
    this.read(at, bits);
  }
}

const word32 = new Int32Array(1);
const float32 = new Float32Array(word32.buffer);

/** 2^(i - 512). */
const powers = Float64Array.from({ length: 1024 }, (_, i) => 2 ** (i - 512));

/** Bits of c + the products of `count` elements of a from `i` on and of b from `j` on. c is the bits of an f32. */
export function addProducts(a: Operand, i: number, b: Operand, j: number, count: number, c: number, keptBits: 13 | 25) {
  const [as, bs, ea, eb] = [a.values, b.values, a.exponents, b.exponents];
  let top = Math.max(exponentOf(c), -126);
  for (let k = 0; k < count; k++) {
    const exponent = (ea[i + k] ?? 0) + (eb[j + k] ?? 0);
    if (exponent > top) top = exponent;
  }
  const scale = powers[512 + keptBits - top] ?? 0;
  word32[0] = c;
  let sum = Math.trunc((float32[0] ?? 0) * scale);
  for (let k = 0; k < count; k++) sum += Math.trunc((as[i + k] ?? 0) * (bs[j + k] ?? 0) * scale);
  if (Number.isNaN(sum)) return 0x7fffffff;
  const bits = truncatedBits(sum / scale, keptBits === 13 ? 13 : 23);
  return bits === -(2 ** 31) ? 0 : bits; // what is cut off to nothing is +0
}

/** mma.sync of fp8 as f16, rows of 32 elements in the order of `place8`: 16 products, the other 16 upon them, then c. */
export function addProducts8(a: Operand, i: number, b: Operand, j: number, c: number): number {
  const sum = addProducts(a, i + 16, b, j + 16, 16, addProducts(a, i, b, j, 16, 0, 25), 25);
  word32[0] = sum;
  const products = float32[0] ?? 0;
  word32[0] = c;
  float32[0] = products + (float32[0] ?? 0);
  return Number.isNaN(float32[0]) ? 0x7fffffff : (word32[0] ?? 0);
}

/** Of the 32 elements of a row: of each four the first two come first, as they lie in the lower halves of registers. */
export const place8 = (k: number): number => (k & 2) * 8 + (k >> 2) * 2 + (k & 1);

/** The same of i8. */
export function addIntegers(a: Operand, i: number, b: Operand, j: number, count: number, c: number): number {
  let sum = c;
  for (let k = 0; k < count; k++) sum += (a.values[i + k] ?? 0) * (b.values[j + k] ?? 0);
  return sum | 0;
}

/** By lane and value: the element in a tile of `columns`, row-major, of which the layout numbers columns of `rows`. */
export function rowMajor(layout: Layout, values: number, rows: number, columns: number): Int32Array {
  return Int32Array.from({ length: 32 * values }, (_, i) => {
    const element = crd2idx([Math.floor(i / values), i % values], layout);
    return (element % rows) * columns + Math.floor(element / rows);
  });
}

export function compileMma(context: Context, op: Extract<Pinned, { kind: "mma" }>, to: number, site: number): Step {
  const { atom } = op;
  const { M, N, K } = atom;
  const isInteger = atom.c.kind === "signed";
  const isFp8 = atom.a.bytes === 1 && !isInteger;
  const operand = (value: Value, layout: Layout, rows: number) => ({
    place: context.place(value),
    bytes: value.type.dtype.bytes,
    elements: rowMajor(layout, value.type.lanes, rows, K).map((i) => (isFp8 ? i - (i % K) + place8(i % K) : i)),
    filled: new Operand(rows * K, value.type.dtype, isFp8 ? f16 : value.type.dtype),
  });
  const a = operand(op.a, atom.layoutA, M);
  const b = operand(op.b, atom.layoutB, N);
  const placeC = context.place(op.c);
  const sums = rowMajor(atom.layoutC, op.c.type.lanes, M, N);
  return (warp) => {
    const { frame } = warp;
    context.together(warp, site, atom.name);
    for (const { place, elements, filled, bytes } of [a, b]) {
      const bits = frame.bits(bytes);
      for (let i = 0; i < elements.length; i++) filled.set(elements[i] ?? 0, bits[place + i] ?? 0);
    }
    const { words } = frame;
    for (let i = 0; i < sums.length; i++) {
      const [row, column] = [Math.floor((sums[i] ?? 0) / N) * K, ((sums[i] ?? 0) % N) * K];
      const c = words[placeC + i] ?? 0;
      if (isInteger) words[to + i] = addIntegers(a.filled, row, b.filled, column, K, c);
      else if (isFp8) words[to + i] = addProducts8(a.filled, row, b.filled, column, c);
      else words[to + i] = addProducts(a.filled, row, b.filled, column, K, c, 25);
    }
    countMma(context, site, atom, M);
  };
}

/** `rows` of the instruction's. */
export function countMma(context: Context, site: number, { M, N, K }: MmaAtom, rows: number): void {
  context.counters.add(site, "mmas", rows / M);
  context.counters.add(site, "flops", 2 * rows * N * K);
}

/**
 * Of 8x8 matrices of 16-byte rows: which row, given by which lane, and which of its elements are value `i` of `lane`. PTX ISA,
 * "ldmatrix".
 */
function matrixElement(
  lane: number,
  i: number,
  perWord: number,
  transposed: boolean,
): readonly [lane: number, e: number] {
  const matrix = Math.floor(i / perWord) * 8;
  const along = (lane % 4) * perWord + (i % perWord);
  return transposed ? [matrix + along, lane >> 2] : [matrix + (lane >> 2), along];
}

/** Where each value of each lane comes from or goes to. */
function matrixElements(values: number, bytes: number, transposed: boolean) {
  return Array.from({ length: 32 * values }, (_, k) =>
    matrixElement(Math.floor(k / values), k % values, 4 / bytes, transposed),
  );
}

/** The lanes that give addresses. */
const rowLanes = (matrices: number): number => (matrices === 4 ? -1 : 2 ** (8 * matrices) - 1);

export function compileLdmatrix(
  context: Context,
  op: Extract<Pinned, { kind: "ldmatrix" }>,
  to: number,
  site: number,
): Step {
  const { memory, matrices } = op;
  const { bytes } = memory.dtype;
  const locator = new Locator(context, memory, op.index, 16 / bytes, site);
  const elements = matrixElements((4 * matrices) / bytes, bytes, op.transposed);
  const storageOf = context.storageOf(memory);
  return (warp) => {
    context.together(warp, site, "ldmatrix");
    const { bits: content, shadow } = storageOf(warp);
    const bits = warp.frame.bits(bytes);
    const inside = locator.locate(warp, warp.mask & rowLanes(matrices));
    elements.forEach(([lane, e], k) => {
      bits[to + k] = (inside >>> lane) & 1 ? (content[(locator.offsets[lane] ?? 0) + e] ?? 0) : -1;
    });
    for (let lane = 0; shadow && lane < 32; lane++) {
      if (((inside >>> lane) & 1) === 0) continue;
      for (let e = 0; e < 16 / bytes; e++) shadow.read(warp, lane, (locator.offsets[lane] ?? 0) + e, site);
    }
    locator.count("Load", inside);
  };
}

export function compileStmatrix(context: Context, stmt: Extract<TileStmt, { kind: "stmatrix" }>, site: number): Step {
  const { memory, value } = stmt;
  const { bytes } = memory.dtype;
  const { lanes } = value.type;
  const matrices = (lanes * bytes) / 4;
  const locator = new Locator(context, memory, stmt.index, 16 / bytes, site);
  const elements = matrixElements(lanes, bytes, stmt.transposed);
  const [from, storageOf] = [context.place(value), context.storageOf(memory)];
  return (warp) => {
    context.together(warp, site, "stmatrix");
    const storage = storageOf(warp);
    const bits = warp.frame.bits(bytes);
    const inside = locator.locate(warp, warp.mask & rowLanes(matrices));
    elements.forEach(([lane, e], k) => {
      if (((inside >>> lane) & 1) === 0) return;
      storeElements(storage, (locator.offsets[lane] ?? 0) + e, bits, from + k, 1, warp, lane, site);
    });
    locator.count("Store", inside);
  };
}
