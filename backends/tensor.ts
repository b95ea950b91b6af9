/** Tensors in device memory: a dtype and a shape over a piece of a backend's storage. */
import { describe } from "../dsl/check.ts";
import { type DType, type DTypeName } from "../dsl/dtype.ts";
import { ArgumentError, DisposedError, ShapeError } from "../dsl/errors.ts";
import { HostTensor } from "../dsl/host.ts";
import type { Backend, Storage } from "./backend.ts";
import { callerOfBackends } from "./caller.ts";

/** A contiguous, row-major tensor in device memory. `using` frees it. */
export class DeviceTensor<N extends DTypeName = DTypeName> implements Disposable {
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

  /** Whether its memory is read-only for ever. */
  get frozen(): boolean {
    return this.storage.frozenAt !== undefined;
  }

  /**
   * Waits for everything enqueued, then makes the whole storage read-only for ever: this tensor and every other view of it.
   * Only frozen tensors are arguments of `frozen` parameters, which kernels read before the kernels ahead have ended.
   * @throws DisposedError, DeviceError
   */
  freeze(): FrozenTensor<N> {
    this.live().freeze(callerOfBackends());
    return this as DeviceTensor<N> as FrozenTensor<N>;
  }

  /**
   * Another shape over the same memory, from element `offset` of this tensor on.
   * @throws ShapeError when that is more than this tensor has
   */
  view(shape: readonly number[], offset = 0): DeviceTensor<N> {
    const bytes = byteLengthOf(this.dtype, shape);
    const start = offset * this.dtype.bytes;
    if (!Number.isSafeInteger(offset) || offset < 0 || start + bytes > this.byteLength) {
      throw new ShapeError(`${this} has no [${shape.join(", ")}] from element ${offset} on`);
    }
    return new DeviceTensor(this.storage, this.dtype, shape, this.offsetBytes + start);
  }

  /**
   * Copies host data in. The dtype and shape must be the tensor's own.
   * @throws ShapeError; ArgumentError when it is frozen; DisposedError
   */
  write(data: HostTensor): void {
    requireSameShape(data, this);
    this.live().backend.write(this.storage, this.offsetBytes, data.bytes);
  }

  /** Copies the content back to the host, after everything enqueued so far. @throws DisposedError, DeviceError */
  async read(): Promise<HostTensor<N>> {
    const bytes = await this.live().backend.read(this.storage, this.offsetBytes, this.byteLength);
    return new HostTensor(this.dtype, this.shape, bytes);
  }

  /** Frees the storage, and with it every tensor that views it. */
  free(): void {
    this.storage.free();
  }

  [Symbol.dispose](): void {
    this.free();
  }

  toString(): string {
    return `${this.dtype.name}[${this.shape.join(", ")}]`;
  }

  private live(): Storage {
    if (this.storage.freed)
      throw new DisposedError(`${this} was used after its memory was freed, or its backend disposed`);
    return this.storage;
  }
}

/** A tensor that nothing writes any more: what `tensor.freeze()` and `frozenTensor(...)` return. */
export interface FrozenTensor<N extends DTypeName = DTypeName> extends DeviceTensor<N> {
  readonly frozen: true;
  view(shape: readonly number[], offset?: number): FrozenTensor<N>;
}

/** @throws ShapeError for what is no shape */
export function byteLengthOf(dtype: DType, shape: readonly number[]): number {
  if (!Array.isArray(shape)) {
    throw new ShapeError(`A tensor's shape is an array of whole numbers, not ${describe(shape)}`, { hint: "[4, 8]" });
  }
  const bytes = shape.reduce((product, size) => product * size, dtype.bytes);
  if (shape.every((size) => Number.isSafeInteger(size) && size >= 0) && Number.isSafeInteger(bytes)) return bytes;
  throw new ShapeError(`A tensor's shape must be non-negative whole numbers, got [${shape.join(", ")}]`);
}

/** Allocates a tensor, with undefined content or with a copy of `data`. @throws DeviceError when there is no room */
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
  if (!(source instanceof HostTensor) && !isDType(source)) {
    throw new ArgumentError(
      `A tensor is made from a HostTensor, or a dtype and a shape, not from ${describe(source)}`,
      {
        hint: "deviceTensor(backend, HostTensor.from(f32, [4], [1, 2, 3, 4])), deviceTensor(backend, f32, [4])",
      },
    );
  }
  const [dtype, dims] = source instanceof HostTensor ? [source.dtype, source.shape] : [source, shape];
  const storage = backend.allocate(Math.max(byteLengthOf(dtype, dims), 1));
  const tensor = new DeviceTensor(storage, dtype, dims);
  try {
    if (source instanceof HostTensor) tensor.write(source);
    return tensor;
  } catch (error) {
    storage.free();
    throw error;
  }
}

/** Allocates a tensor with a copy of `data` that is read-only from then on: weights, tables. @throws DeviceError */
export function frozenTensor<N extends DTypeName>(backend: Backend, data: HostTensor<N>): FrozenTensor<N> {
  return deviceTensor(backend, data).freeze();
}

/** @throws ShapeError unless both have the same dtype and shape; ArgumentError for what is no tensor */
export function requireSameShape(from: HostTensor | DeviceTensor, to: HostTensor | DeviceTensor): void {
  for (const tensor of [from, to]) {
    if (!(tensor instanceof HostTensor || tensor instanceof DeviceTensor)) {
      throw new ArgumentError(`A tensor is copied from and to tensors, not ${describe(tensor)}`, {
        hint: "HostTensor.from(f32, [4], [1, 2, 3, 4])",
      });
    }
    // An ArrayBuffer can shrink.
    const bytes = tensor instanceof HostTensor ? tensor.bytes.byteLength : tensor.byteLength;
    if (bytes !== byteLengthOf(tensor.dtype, tensor.shape)) {
      throw new ShapeError(`${tensor} has only ${bytes} bytes left: its memory was detached or shrunk`);
    }
  }
  if (from.dtype.name === to.dtype.name && from.shape.join() === to.shape.join()) return;
  throw new ShapeError(`Can't copy ${from} into ${to}`);
}

/** For backends, before anything writes there. @throws ArgumentError naming where it was frozen */
export function requireWritable({ frozenAt }: Storage, what: string): void {
  if (frozenAt === undefined) return;
  throw new ArgumentError(`${what} is frozen: nothing writes it any more`, {
    related: [{ what: "it was frozen", at: frozenAt }],
    hint: "Write into a tensor of its own, or freeze() it after the last write",
  });
}

/**
 * Whether something looks like ours and isn't: postMessage copies the fields of an object to another thread, and leaves its
 * methods and its memory behind; another copy of this package has classes of its own.
 */
export function isStranger(value: unknown, fields: readonly string[]): boolean {
  return typeof value === "object" && value !== null && fields.every((field) => field in value);
}

/** A dtype is known by its fields alone, so that it may come from anywhere. */
export function isDType(value: unknown): boolean {
  return isStranger(value, ["name", "bytes", "kind"]);
}

/** What to do about a stranger that was a device tensor. */
export const adoptInstead =
  "It comes from another thread (or another copy of this package): adopt its device pointer here, cuda.adoptTensor(...)";
