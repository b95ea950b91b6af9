/** Tensors in host memory: what goes into a launch and what comes back, as exact bytes of a dtype. */
import { describe, ownDType, shapeOf } from "./check.ts";
import { type DType, type DTypeName } from "./dtype.ts";
import { OutOfMemoryError, ShapeError, ValueError } from "./errors.ts";
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

  readonly #made = true;

  /** @internal Whether it was made by the constructor: what has only the fields, or is a proxy, is none. */
  static [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === "object" && value !== null && #made in value;
  }

  /** @throws ShapeError when the number of bytes is not what dtype and shape make; DTypeError; ValueError for no bytes */
  constructor(dtype: DType<N>, shape: readonly number[], bytes: Uint8Array<ArrayBuffer>) {
    this.dtype = ownDType(dtype);
    this.shape = shapeOf(shape);
    if (!ArrayBuffer.isView(bytes) || !(bytes instanceof Uint8Array)) {
      throw new ValueError(`The bytes of a host tensor are a Uint8Array, not ${describe(bytes)}`, {
        at: callerLocation(),
        hint: "HostTensor.from(f32, [4], [1, 2, 3, 4]) makes them from numbers",
      });
    }
    this.bytes = bytes;
    const count = bytes.byteLength / this.dtype.bytes;
    if (count !== elementCount(this.shape)) throw wrongCount(this.dtype, this.shape, count);
  }

  /**
   * Encodes numbers, rounding once to nearest even. What is too large for e4m3 or e5m2 becomes their largest finite
   * value, an infinity too; in f32, f16 and bf16 it becomes, and an infinity stays, infinite.
   *
   * @throws ShapeError when there are not as many values as the shape has elements
   * @throws ValueError when an integer dtype or bool can't represent a value; OutOfMemoryError
   */
  static from<N extends DTypeName>(
    dtype: DType<N>,
    shape: readonly number[],
    values: ArrayLike<number>,
  ): HostTensor<N> {
    const [own, dims] = [ownDType(dtype), shapeOf(shape)];
    const saturation = own.name === "e4m3" || own.name === "e5m2" ? "satfinite" : "nosat";
    return new HostTensor(own, dims, encodeArray(own, numbersOf(values, own, dims), saturation));
  }

  /** Fills every byte, e.g. with 0xff: a NaN in each float type. @throws ShapeError, ValueError, OutOfMemoryError */
  static filled<N extends DTypeName>(dtype: DType<N>, shape: readonly number[], byte: number): HostTensor<N> {
    const [own, dims] = [ownDType(dtype), shapeOf(shape)];
    if (!Number.isInteger(byte) || byte < 0 || byte > 255) {
      throw new ValueError(`A byte is a whole number from 0 to 255, not ${describe(byte)}`, { at: callerLocation() });
    }
    return new HostTensor(own, dims, room(own, dims).fill(byte));
  }

  /** Decodes every element; exact. @throws ValueError when its bytes were detached or shrunk */
  values(): Float64Array {
    const count = elementCount(this.shape);
    if (this.bytes.byteLength !== count * this.dtype.bytes) {
      throw new ValueError(`${this} has only ${this.bytes.byteLength} bytes left: its memory was detached or shrunk`);
    }
    if (count === 0) return new Float64Array(0);
    return decodeArray(this.dtype, this.bytes);
  }

  toString(): string {
    return `${this.dtype.name}[${this.shape.join(", ")}]`;
  }
}

/** What the caller gave, read once. @throws ShapeError, ValueError, OutOfMemoryError */
function numbersOf(values: ArrayLike<number>, dtype: DType, shape: readonly number[]): ArrayLike<number> {
  const at = callerLocation();
  const given: unknown = values;
  const length: unknown = typeof given === "object" && given !== null ? values.length : undefined;
  if (typeof length !== "number") {
    throw new ValueError(`The values of a tensor are a list of numbers, not ${describe(values)}`, {
      at,
      hint: "HostTensor.from(f32, [4], [1, 2, 3, 4])",
    });
  }
  if (typeof values[0] === "object") {
    throw new ShapeError("Values are one flat list of numbers in row-major order, not lists of lists", {
      at,
      hint: "HostTensor.from(dtype, [rows, columns], rows.flat())",
    });
  }
  if (length !== elementCount(shape)) throw wrongCount(dtype, shape, length);
  if (ArrayBuffer.isView(values) && typeof values[0] !== "bigint") return values;
  room(dtype, shape);
  const numbers: readonly unknown[] = Array.from(values);
  const wrong = numbers.findIndex((value) => typeof value !== "number");
  if (wrong < 0) return numbers as readonly number[];
  throw new ValueError(`Values are numbers, but element ${wrong} is ${describe(numbers[wrong])}`, { at });
}

function wrongCount(dtype: DType, shape: readonly number[], count: number): ShapeError {
  return new ShapeError(
    `${dtype.name}[${shape.join(", ")}] has ${elementCount(shape)} elements, but ${count} were given`,
    { at: callerLocation() },
  );
}

const elementCount = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

/** Bytes for a tensor. @throws OutOfMemoryError */
function room(dtype: DType, shape: readonly number[]): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(elementCount(shape) * dtype.bytes);
  } catch (error) {
    throw new OutOfMemoryError(`There is no room for ${dtype.name}[${shape.join(", ")}]: ${String(error)}`, {
      at: callerLocation(),
    });
  }
}
