/**
 * Host memory that the device copies to and from by itself, while the host goes on.
 *
 * It is an ordinary ArrayBuffer whose pages the driver locks, not memory of the driver's in an external ArrayBuffer: that
 * one would have to be detached before it is freed, which Node before 22 can't do, and whatever view of it was left would be
 * a pointer to nothing. This way the memory stays valid as long as anything in JavaScript sees it.
 */
import { freemem } from "node:os";
import { markAsUntransferable } from "node:worker_threads";
import koffi from "koffi";
import type { DType, DTypeName } from "../../dsl/dtype.ts";
import { ArgumentError, DisposedError, OutOfMemoryError } from "../../dsl/errors.ts";
import { HostTensor } from "../../dsl/host.ts";
import { byteLengthOf, requireBytes } from "../tensor.ts";
import { formatBytes } from "./context.ts";
import type { HostAddress } from "./driver.ts";
import { Lifetime } from "./lifetime.ts";
import { outOfMemory } from "./results.ts";
import type { Streams } from "./streams.ts";

const pageBytes = 4096;

/** A tensor in page-locked host memory, made by `cuda.pinned(...)`. `using` unlocks it; its values stay readable. */
export class PinnedTensor<N extends DTypeName = DTypeName> extends HostTensor<N> implements Disposable {
  readonly #streams: Streams;
  readonly #lifetime: Lifetime;

  /** @internal Whether it was made by the constructor. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === "object" && value !== null && #lifetime in value;
  }

  /** For the CUDA backend only. `end` is called when the pages are unlocked. @throws ShapeError, OutOfMemoryError, DeviceError */
  constructor(streams: Streams, dtype: DType<N>, shape: readonly number[], end: (tensor: PinnedTensor) => void) {
    const { context } = streams;
    const size = byteLengthOf(dtype, shape);
    const pages = lockable(size);
    const [address, lockedBytes] = [koffi.address(pages) as HostAddress, pages.byteLength];
    context.call(`page-locking ${formatBytes(lockedBytes)}`, (api) => {
      const result = api.cuMemHostRegister(address, lockedBytes, 0);
      if (result === outOfMemory) throw noRoom(lockedBytes);
      return result;
    });
    super(dtype, shape, pages.subarray(0, size));
    this.#streams = streams;
    this.#lifetime = new Lifetime(() =>
      streams.whenIdle(() => {
        context.release((api) => api.cuMemHostUnregister(address));
        end(this);
      }),
    );
    Object.freeze(this); // copies go to the pages that were locked
  }

  /** Unlocks the pages, after the copies that use them and the graphs that do. A second call does nothing. */
  dispose(): void {
    this.#lifetime.giveUp();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** @internal What keeps it locked. @throws DisposedError, ArgumentError for another backend's, or memory that went away */
  lifetimeIn(streams: Streams): Lifetime {
    if (!this.#lifetime.owned) throw new DisposedError(`${this} in pinned memory was used after dispose()`);
    if (this.#streams !== streams) throw new ArgumentError(`${this} was pinned by another backend`);
    requireBytes(this.bytes);
    return this.#lifetime;
  }
}

/** Whole pages: what shares a page with them would be locked, too, and could not be locked again. @throws OutOfMemoryError */
function lockable(size: number): Uint8Array<ArrayBuffer> {
  const whole = Math.max(Math.ceil(size / pageBytes), 1) * pageBytes;
  try {
    const memory = new ArrayBuffer(whole + pageBytes);
    markAsUntransferable(memory);
    const beyond = Number(koffi.address(memory) % BigInt(pageBytes));
    return new Uint8Array(memory, beyond === 0 ? 0 : pageBytes - beyond, whole);
  } catch (error) {
    throw error instanceof RangeError ? noRoom(size) : error;
  }
}

function noRoom(size: number): OutOfMemoryError {
  return new OutOfMemoryError(
    `No room for ${formatBytes(size)} of locked host memory: ${formatBytes(freemem())} are free`,
    {
      hint: "Pin less, or dispose what is no longer copied; `ulimit -l` may set a limit.",
    },
  );
}
