/** Tensors in device memory: a dtype and a shape over a piece of a backend's storage. */
import { type DType, type DTypeName } from "../dsl/dtype.ts";
import { DisposedError, ShapeError } from "../dsl/errors.ts";
import { HostTensor } from "../dsl/host.ts";
import type { Backend, Storage } from "./backend.ts";

/** A contiguous, row-major tensor in device memory. */
export class DeviceTensor<N extends DTypeName = DTypeName> {
  readonly storage: Storage;
  readonly dtype: DType<N>;
  readonly shape: readonly number[];
  readonly offsetBytes: number;
  readonly byteLength: number;

  /** @throws ShapeError when the storage is too small */
  constructor(storage: Storage, dtype: DType<N>, shape: readonly number[], offsetBytes = 0) {
    this.storage = storage;
    this.dtype = dtype;
    this.shape = Object.freeze([...shape]);
    this.offsetBytes = offsetBytes;
    this.byteLength = byteLengthOf(dtype, shape);
    if (!Number.isSafeInteger(offsetBytes) || offsetBytes < 0 || offsetBytes + this.byteLength > storage.byteLength) {
      throw new ShapeError(
        `${dtype.name}[${shape.join(", ")}] at byte ${offsetBytes} needs ${offsetBytes + this.byteLength} bytes, ` +
          `the storage has ${storage.byteLength}`,
      );
    }
  }

  /** Copies host data in. The dtype and shape must be the tensor's own. @throws ShapeError, DisposedError */
  write(data: HostTensor): void {
    if (data.dtype.name !== this.dtype.name || data.shape.join() !== this.shape.join()) {
      throw new ShapeError(`Can't write ${data} into ${this}`);
    }
    this.live().backend.write(this.storage, this.offsetBytes, data.bytes);
  }

  /** Copies the content back to the host, after every launch enqueued so far. @throws DisposedError, DeviceError */
  async read(): Promise<HostTensor<N>> {
    const bytes = await this.live().backend.read(this.storage, this.offsetBytes, this.byteLength);
    return new HostTensor(this.dtype, this.shape, bytes);
  }

  /** Frees the storage, and with it every tensor that views it. */
  free(): void {
    this.storage.free();
  }

  toString(): string {
    return `${this.dtype.name}[${this.shape.join(", ")}]`;
  }

  private live(): Storage {
    if (this.storage.freed) throw new DisposedError(`${this} was used after its memory was freed`);
    return this.storage;
  }
}

/** @throws ShapeError for what is no shape */
function byteLengthOf(dtype: DType, shape: readonly number[]): number {
  const bytes = shape.reduce((product, size) => product * size, dtype.bytes);
  if (shape.every((size) => Number.isSafeInteger(size) && size >= 0) && Number.isSafeInteger(bytes)) return bytes;
  throw new ShapeError(`A tensor's shape must be non-negative whole numbers, got [${shape.join(", ")}]`);
}

/** Allocates a tensor, with undefined content or with a copy of `data`. */
export function deviceTensor<N extends DTypeName>(backend: Backend, data: HostTensor<N>): DeviceTensor<N>;
export function deviceTensor<N extends DTypeName>(
  backend: Backend,
  dtype: DType<N>,
  shape: readonly number[],
): DeviceTensor<N>;
export function deviceTensor<N extends DTypeName>(
  backend: Backend,
  source: HostTensor<N> | DType<N>,
  shape: readonly number[] = [],
): DeviceTensor<N> {
  const [dtype, dims] = source instanceof HostTensor ? [source.dtype, source.shape] : [source, shape];
  const storage = backend.allocate(Math.max(byteLengthOf(dtype, dims), 1));
  const tensor = new DeviceTensor(storage, dtype, dims);
  if (source instanceof HostTensor) tensor.write(source);
  return tensor;
}
