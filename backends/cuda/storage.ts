/** A piece of device memory, with its liveness. */
import { DisposedError, ShapeError } from "../../dsl/errors.ts";
import { isWritten } from "../../dsl/ir.ts";
import type { Backend, BoundLaunch, Storage } from "../backend.ts";
import type { DevicePointer } from "./driver.ts";

/** The storages that a launch may read before its wait, and those that it writes. */
export interface MemoryUse {
  readonly frozen: readonly Storage[];
  readonly written: readonly Storage[];
}

export function memoryUse({ kernel, tensors }: BoundLaunch): MemoryUse {
  const frozen: Storage[] = [];
  const written: Storage[] = [];
  for (const [index, { storage }] of tensors.entries()) {
    const role = kernel.ir.tensors[index]?.role;
    if (role === "frozen") frozen.push(storage);
    if (role && isWritten(role)) written.push(storage);
  }
  return { frozen, written };
}

export class CudaStorage implements Storage {
  readonly backend: Backend;
  readonly byteLength: number;
  readonly #release: (storage: CudaStorage, pointer: DevicePointer) => void;
  #pointer: DevicePointer | undefined;

  constructor(
    backend: Backend,
    byteLength: number,
    pointer: DevicePointer,
    release: (storage: CudaStorage, pointer: DevicePointer) => void,
  ) {
    this.backend = backend;
    this.byteLength = byteLength;
    this.#pointer = pointer;
    this.#release = release;
  }

  get freed(): boolean {
    return this.#pointer === undefined;
  }

  /** Gives the memory back, after the launches that may use it. A second call does nothing. */
  free(): void {
    const pointer = this.#pointer;
    this.#pointer = undefined;
    if (pointer !== undefined) this.#release(this, pointer);
  }

  /**
   * The address of `byteLength` bytes from `offsetBytes` on. For the CUDA backend only.
   * @throws DisposedError, ShapeError when they don't lie inside
   */
  address(offsetBytes: number, byteLength: number): DevicePointer {
    if (this.#pointer === undefined) throw new DisposedError("Device memory was used after it was freed");
    const whole = Number.isSafeInteger(offsetBytes) && Number.isSafeInteger(byteLength);
    if (!whole || offsetBytes < 0 || byteLength < 0 || offsetBytes + byteLength > this.byteLength) {
      throw new ShapeError(`${byteLength} bytes at ${offsetBytes} don't lie in a storage of ${this.byteLength} bytes`);
    }
    return (this.#pointer + BigInt(offsetBytes)) as DevicePointer;
  }
}
