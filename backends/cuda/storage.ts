/** A piece of device memory: its address, and whether it may be used and written. */
import { describe } from "../../dsl/check.ts";
import { ArgumentError, DisposedError } from "../../dsl/errors.ts";
import type { Location } from "../../dsl/source.ts";
import type { Backend, Storage } from "../backend.ts";
import { requireLocation } from "../tensor.ts";
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

  /** @internal Whether it was made by the constructor: what has only the fields, or is a proxy, has no memory. */
  static [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === "object" && value !== null && #pointer in value;
  }

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
    const place = requireLocation(at);
    this.#streams.synchronizeNow();
    this.#frozenAt ??= place;
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
   * @throws DisposedError, ArgumentError when they don't lie inside
   */
  address(offsetBytes: number, byteLength: number): DevicePointer {
    if (this.freed) throw new DisposedError("Device memory was used after it was freed");
    const whole = Number.isSafeInteger(offsetBytes) && Number.isSafeInteger(byteLength);
    if (!whole || offsetBytes < 0 || byteLength < 0 || offsetBytes + byteLength > this.byteLength) {
      throw new ArgumentError(
        `${describe(byteLength)} bytes at byte ${describe(offsetBytes)} are outside of storage of ${this.byteLength} bytes`,
      );
    }
    return (this.#pointer + BigInt(offsetBytes)) as DevicePointer;
  }
}
