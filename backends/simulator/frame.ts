/**
 * A warp's values and registers, 32 lanes of each side by side, in one buffer. Element i of lane l of a vector with L lanes is
 * number 32 * ... + l * L + i. Narrow floats are kept as their bits, f32 and integers too: moving them changes none.
 */
import type { DType } from "../../dsl/dtype.ts";
import type { Type } from "../../dsl/ir.ts";

/** Unsigned for one and two bytes, signed for four. */
export type Words = Uint8Array | Uint16Array | Int32Array;

/** Bytes as the bits of elements of this size, at whose multiple they begin. */
export function wordsOf({ buffer, byteOffset, byteLength }: Uint8Array<ArrayBuffer>, bytes: 1 | 2 | 4): Words {
  const Kind = bytes === 4 ? Int32Array : bytes === 2 ? Uint16Array : Uint8Array;
  return new Kind(buffer, byteOffset, byteLength / bytes);
}

/** One buffer, seen as each type. Places are numbers of elements of the type's size. */
export class Frame {
  readonly bytes: Uint8Array;
  readonly signedBytes: Int8Array;
  readonly halves: Uint16Array;
  readonly words: Int32Array;
  readonly unsigned: Uint32Array;
  readonly floats: Float32Array;

  /** `byteLength`: a multiple of 4. */
  constructor(byteLength: number) {
    const buffer = new ArrayBuffer(byteLength);
    this.bytes = new Uint8Array(buffer);
    this.signedBytes = new Int8Array(buffer);
    this.halves = new Uint16Array(buffer);
    this.words = new Int32Array(buffer);
    this.unsigned = new Uint32Array(buffer);
    this.floats = new Float32Array(buffer);
  }

  /** Bits of elements of this size. */
  bits(bytes: 1 | 2 | 4): Words {
    return bytes === 4 ? this.words : bytes === 2 ? this.halves : this.bytes;
  }

  /** Elements as numbers: those of narrow floats are their bits. */
  numbers({ name, kind, bytes }: DType): Words | Int8Array | Uint32Array | Float32Array {
    if (name === "f32") return this.floats;
    if (bytes === 4) return kind === "unsigned" ? this.unsigned : this.words;
    return kind === "signed" ? this.signedBytes : this.bits(bytes);
  }
}

/** Deals out places in a frame. */
export class FrameLayout {
  private end = 0;

  /** Room for `count` values of all 32 lanes: the number of the first element. */
  place({ dtype, lanes }: Type, count = 1): number {
    const place = this.end / dtype.bytes;
    this.end += Math.ceil((32 * lanes * count * dtype.bytes) / 4) * 4;
    return place;
  }

  get byteLength(): number {
    return this.end;
  }
}

/** Visits the lanes of a mask. */
export function eachLane(mask: number, visit: (lane: number) => void): void {
  for (let rest = mask; rest !== 0; rest &= rest - 1) visit(firstLane(rest));
}

export const firstLane = (mask: number): number => 31 - Math.clz32(mask & -mask);

/** Copies the elements of `mask`'s lanes, `lanes` each. */
export function moveLanes(to: Words, toPlace: number, from: Words, fromPlace: number, lanes: number, mask: number) {
  if (mask === -1) {
    for (let k = 0; k < 32 * lanes; k++) to[toPlace + k] = from[fromPlace + k] ?? 0;
    return;
  }
  for (let lane = 0; lane < 32; lane++) {
    if (((mask >>> lane) & 1) === 0) continue;
    for (let k = lane * lanes; k < (lane + 1) * lanes; k++) to[toPlace + k] = from[fromPlace + k] ?? 0;
  }
}
