/** Tensors in host memory: what goes into a launch and what comes back, as exact bytes of a dtype. */
import { type DType, type DTypeName } from "./dtype.ts";
import { ShapeError } from "./errors.ts";
import { decodeArray, encodeArray } from "./numerics.ts";
import { callerLocation } from "./source.ts";

/**
 * A contiguous, row-major tensor on the host. Bytes are little-endian, as on the devices.
 * ```ts
 * HostTensor.from(bf16, [2, 2], [1, 2, 3, 4.01]).values() // 1,2,3,4
 * HostTensor.filled(e4m3, [2], 0xff).values() // NaN,NaN
 * new HostTensor(i32, [1], new Uint8Array([0, 1, 0, 0])).values() // 256
 * ```
 */
export class HostTensor<N extends DTypeName = DTypeName> {
  readonly dtype: DType<N>;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array<ArrayBuffer>;

  /** @throws ShapeError when the number of bytes is not what dtype and shape make */
  constructor(dtype: DType<N>, shape: readonly number[], bytes: Uint8Array<ArrayBuffer>) {
    const expected = elementCount(shape) * dtype.bytes;
    if (bytes.byteLength !== expected) {
      const count = bytes.byteLength / dtype.bytes;
      throw new ShapeError(
        `${dtype.name}[${shape.join(", ")}] has ${expected / dtype.bytes} elements, but ${count} were given`,
        { at: callerLocation() },
      );
    }
    this.dtype = dtype;
    this.shape = Object.freeze([...shape]);
    this.bytes = bytes;
  }

  /**
   * Encodes numbers, rounding once to nearest even. What is too large for e4m3 or e5m2 becomes their largest finite
   * value, an infinity too; in f32, f16 and bf16 it becomes, and an infinity stays, infinite.
   *
   * @throws ShapeError when there are not as many values as the shape has elements
   * @throws ValueError when an integer dtype or bool can't represent a value
   */
  static from<N extends DTypeName>(
    dtype: DType<N>,
    shape: readonly number[],
    values: ArrayLike<number>,
  ): HostTensor<N> {
    const nested = Array.from(values).find((value) => typeof value === "object");
    if (nested !== undefined) {
      throw new ShapeError("Values are one flat list of numbers in row-major order, not lists of lists", {
        at: callerLocation(),
        hint: "HostTensor.from(dtype, [rows, columns], rows.flat())",
      });
    }
    const saturation = dtype.name === "e4m3" || dtype.name === "e5m2" ? "satfinite" : "nosat";
    return new HostTensor(dtype, shape, encodeArray(dtype, values, saturation));
  }

  /** Fills every byte, e.g. with 0xff: a NaN in each float type. */
  static filled<N extends DTypeName>(dtype: DType<N>, shape: readonly number[], byte: number): HostTensor<N> {
    return new HostTensor(dtype, shape, new Uint8Array(elementCount(shape) * dtype.bytes).fill(byte));
  }

  /** Decodes every element; exact. */
  values(): Float64Array {
    return decodeArray(this.dtype, this.bytes);
  }

  toString(): string {
    return `${this.dtype.name}[${this.shape.join(", ")}]`;
  }
}

/** @throws ShapeError for anything but whole numbers */
function elementCount(shape: readonly number[]): number {
  if (Array.isArray(shape) && shape.every((size) => Number.isSafeInteger(size) && size >= 0)) {
    return shape.reduce((product, size) => product * size, 1);
  }
  throw new ShapeError(`A tensor's shape is a list of whole numbers, not ${JSON.stringify(shape)}`, {
    at: callerLocation(),
  });
}
