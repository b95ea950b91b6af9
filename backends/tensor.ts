/** Tensors in device memory: a dtype and a shape over a piece of a backend's storage. */
import { describe, ownDType, shapeOf } from "../dsl/check.ts";
import { type DType, type DTypeName } from "../dsl/dtype.ts";
import { ArgumentError, DisposedError, ShapeError } from "../dsl/errors.ts";
import { HostTensor } from "../dsl/host.ts";
import { isLocation, type Location } from "../dsl/source.ts";
import type { Backend, Storage } from "./backend.ts";
import { callerOfBackends } from "./caller.ts";

/** A contiguous, row-major tensor in device memory. `using` frees it. */
export class DeviceTensor<N extends DTypeName = DTypeName> implements Disposable {
  readonly storage: Storage;
  readonly dtype: DType<N>;
  readonly shape: readonly number[];
  readonly offsetBytes: number;
  readonly byteLength: number;
  readonly #made = true;

  /** @internal Whether it was made by the constructor: what has only the fields, or is a proxy, is none. */
  static [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === "object" && value !== null && #made in value;
  }

  /** @throws ShapeError when the storage is too small; ArgumentError for no storage; DTypeError */
  constructor(storage: Storage, dtype: DType<N>, shape: readonly number[], offsetBytes = 0) {
    requireStorage(storage);
    this.storage = storage;
    this.dtype = ownDType(dtype, callerOfBackends);
    this.shape = shapeOf(shape, callerOfBackends);
    this.offsetBytes = offsetBytes;
    this.byteLength = byteLengthOf(this.dtype, this.shape);
    if (!Number.isSafeInteger(offsetBytes) || offsetBytes < 0 || offsetBytes + this.byteLength > storage.byteLength) {
      throw new ShapeError(
        Number.isSafeInteger(offsetBytes)
          ? `${this} at byte ${offsetBytes} needs ${offsetBytes + this.byteLength} bytes, ` +
              `the storage has ${storage.byteLength}`
          : `${this} can't begin at byte ${describe(offsetBytes)} of its storage`,
      );
    }
    Object.freeze(this); // its size was checked
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
    const dims = shapeOf(shape, callerOfBackends);
    const start = Number.isSafeInteger(offset) && offset >= 0 ? offset * this.dtype.bytes : Infinity;
    if (start + byteLengthOf(this.dtype, dims) > this.byteLength) {
      throw new ShapeError(`${this} has no [${dims.join(", ")}] from element ${describe(offset)} on`);
    }
    return new DeviceTensor(this.storage, this.dtype, dims, this.offsetBytes + start);
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

/** @throws ShapeError for what is no shape, or too large */
export function byteLengthOf(dtype: DType, shape: readonly number[]): number {
  const bytes = shapeOf(shape, callerOfBackends).reduce((product, size) => product * size, dtype.bytes);
  if (Number.isSafeInteger(bytes)) return bytes;
  throw new ShapeError(`${dtype.name}[${shape.join(", ")}] would have ${bytes} bytes`);
}

/** Its getters fail in what only looks like one: a proxy, or an object with its class alone. @throws ArgumentError */
function requireStorage(storage: Storage): void {
  try {
    const { byteLength, freed = false, frozenAt } = storage;
    const known = Number.isSafeInteger(byteLength) && typeof freed === "boolean";
    if (known && (frozenAt === undefined || isLocation(frozenAt))) return;
  } catch {
    // Then it is none.
  }
  throw new ArgumentError(`A tensor lies in a storage, not in ${describe(storage)}`, { hint: "backend.allocate(64)" });
}

/** @throws ArgumentError for what is no tensor on a device */
export function requireTensor(tensor: DeviceTensor): DeviceTensor {
  if (tensor instanceof DeviceTensor) return tensor;
  throw new ArgumentError(`This is no tensor on the device: ${describe(tensor)}`, {
    hint: isStranger(tensor, ["storage", "dtype"]) ? adoptInstead : undefined,
  });
}

/** @throws ArgumentError for what is no backend */
export function requireBackend(backend: Backend): void {
  if (isStranger(backend, ["name", "device", "allocate", "compile"])) return;
  throw new ArgumentError(`A backend is needed here, not ${describe(backend)}`, {
    hint: "await openWgsl(), await openCuda(), await openSimulator()",
  });
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
  requireBackend(backend);
  if (!(source instanceof HostTensor) && !isDType(source)) {
    throw new ArgumentError(
      `A tensor is made from a HostTensor, or a dtype and a shape, not from ${describe(source)}`,
      {
        hint: "deviceTensor(backend, HostTensor.from(f32, [4], [1, 2, 3, 4])), deviceTensor(backend, f32, [4])",
      },
    );
  }
  const [dtype, dims] =
    source instanceof HostTensor
      ? [source.dtype, source.shape]
      : [ownDType(source, callerOfBackends), shapeOf(shape, callerOfBackends)];
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

/**
 * For backends: what is copied in. A detached array has length 0, so that copying it would quietly copy nothing.
 * @throws ArgumentError
 */
export function requireBytes(bytes: Uint8Array): Uint8Array {
  if (!ArrayBuffer.isView(bytes) || !(bytes instanceof Uint8Array)) {
    throw new ArgumentError(`Bytes to copy are a Uint8Array, not ${describe(bytes)}`, {
      hint: "new Uint8Array(array.buffer, array.byteOffset, array.byteLength), or hostTensor.bytes",
    });
  }
  try {
    new Uint8Array(bytes.buffer);
  } catch {
    throw new ArgumentError("The memory of this array was transferred away (detached); nothing can be copied from it");
  }
  return bytes;
}

/** For backends: the place that `freeze` remembers, for messages. @throws ArgumentError */
export function requireLocation(at: Location): Location {
  if (isLocation(at)) return Object.freeze({ file: at.file, line: at.line, column: at.column });
  throw new ArgumentError(`freeze takes the line that freezes, not ${describe(at)}`, {
    hint: "tensor.freeze() finds it by itself",
  });
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
