/**
 * What is recorded: kernels with the data that they run on. Data comes from seeds and whole-number arithmetic, so that every
 * machine makes the same bits, and only a hash of it is kept.
 */
import { type DType, HostTensor, type Kernel } from "../../dsl/index.ts";

export type Tensors = Readonly<Record<string, HostTensor>>;

/** What an output is in float64, element by element, for the interval of O2 (kernels/oracle.ts). */
export interface Exact {
  readonly output: string;
  readonly values: Float64Array;
  readonly magnitudes: Float64Array;
  readonly terms: number;
  readonly partials: number;
}

export interface Specimen {
  /** Unique. */
  readonly name: string;
  readonly kernel: Kernel;
  /** All tensors, outputs too, whose content doesn't count. */
  readonly args: () => Tensors;
  /**
   * What WGSL must come to: the recorded bits; the interval of `exact`; or nothing, where it may flush subnormals, round twice
   * or overflow in between. The simulator must come to the recorded bits in any case.
   */
  readonly wgsl: "bits" | "interval" | "nothing";
  readonly exact?: (args: Tensors) => Exact;
  /** For people: what went into an element of an output, in bits. */
  readonly explain?: (args: Tensors, element: number) => string;
}

const patternArrays = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array } as const;

/** A tensor with these bit patterns. */
export function tensorOfBits(dtype: DType, shape: readonly number[], bits: ArrayLike<number>): HostTensor {
  const patterns = new patternArrays[dtype.bytes](bits);
  return new HostTensor(dtype, shape, new Uint8Array(patterns.buffer));
}

/** Its elements as bit patterns. */
export function bitsOf({ dtype, bytes }: HostTensor): Uint8Array | Uint16Array | Uint32Array {
  const { buffer } = bytes.slice();
  return new patternArrays[dtype.bytes](buffer);
}
