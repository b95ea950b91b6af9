/** A piece of device memory: its address, and whether it may be used and written. */
import { DisposedError, ShapeError } from "../../dsl/errors.ts";
import type { Location } from "../../dsl/source.ts";
import type { Backend, Storage } from "../backend.ts";
import { thread } from "./context.ts";
import type { DevicePointer } from "./driver.ts";
import { Lifetime } from "./lifetime.ts";
import type { Streams } from "./streams.ts";

export class CudaStorage implements Storage {
  readonly backend: Backend;
  readonly byteLength: number;
  readonly lifetime: Lifetime;
  readonly #streams: Streams;
  readonly #pointer: DevicePointer;
  #frozenAt: Location | undefined;

  /** `end` gives the memory back, when no launch uses it any more. */
  constructor(
    backend: Backend,
    streams: Streams,
    pointer: DevicePointer,
    byteLength: number,
    end: (storage: CudaStorage) => void,
  ) {
    this.backend = backend;
    this.byteLength = byteLength;
    this.lifetime = new Lifetime(() => streams.whenIdle(() => end(this)));
    this.#streams = streams;
    this.#pointer = pointer;
  }

  get freed(): boolean {
    return !this.lifetime.owned;
  }

  get frozenAt(): Location | undefined {
    return this.#frozenAt;
  }

  freeze(at: Location): void {
    this.address(0, 0);
    this.#streams.synchronizeNow();
    this.#frozenAt ??= at;
    thread.generation++;
  }

  /** Gives the memory back, after the launches that may use it, and the graphs that do. A second call does nothing. */
  free(): void {
    this.lifetime.giveUp();
  }

  [Symbol.dispose](): void {
    this.free();
  }

  /**
   * The address of `byteLength` bytes from `offsetBytes` on. For the CUDA backend only.
   * @throws DisposedError, ShapeError when they don't lie inside
   */
  address(offsetBytes: number, byteLength: number): DevicePointer {
    if (this.freed) throw new DisposedError("Device memory was used after it was freed");
    const whole = Number.isSafeInteger(offsetBytes) && Number.isSafeInteger(byteLength);
    if (!whole || offsetBytes < 0 || byteLength < 0 || offsetBytes + byteLength > this.byteLength) {
      throw new ShapeError(`${byteLength} bytes at ${offsetBytes} don't lie in a storage of ${this.byteLength} bytes`);
    }
    return (this.#pointer + BigInt(offsetBytes)) as DevicePointer;
  }
}
