/** All streams of a backend, and what concerns them together: reading, writing, giving memory back. */
import { describe } from "../../dsl/check.ts";
import { ArgumentError, DisposedError } from "../../dsl/errors.ts";
import type { Backend, Storage } from "../backend.ts";
import { isStranger } from "../tensor.ts";
import { outsideCapture, type PrimaryContext, thread } from "./context.ts";
import type { DevicePointer, StreamHandle } from "./driver.ts";
import type { CudaEvent } from "./event.ts";
import type { Lifetime } from "./lifetime.ts";
import { CudaStorage } from "./storage.ts";
import { CudaStream } from "./stream.ts";

/** A read that waits for its turn. */
interface PendingRead {
  readonly storage: CudaStorage;
  bytes: Uint8Array<ArrayBuffer> | undefined;
  copy(): Uint8Array<ArrayBuffer>;
}

/** What was never given back, since work that nobody could wait for may still use it; also keeps its host memory in place. */
const abandoned: (() => void)[] = [];

export class Streams {
  readonly backend: Backend;
  readonly context: PrimaryContext;
  /** Waits for every launch. */
  readonly debug: boolean;
  readonly all = new Set<CudaStream>();
  readonly events = new Set<CudaEvent>();
  readonly reads = new Set<PendingRead>();
  /** Machine code that is loaded. */
  readonly code = new Set<Lifetime>();
  readonly main: CudaStream;
  /** Where graphs are captured; nothing ever runs there. */
  #captures: StreamHandle | undefined;
  /** What is to be given back when nothing runs. */
  #ending: (() => void)[] = [];
  #closed = false;

  constructor(backend: Backend, context: PrimaryContext, debug: boolean) {
    this.backend = backend;
    this.context = context;
    this.debug = debug;
    this.main = new CudaStream(this, CudaStream.create(this), false);
  }

  /** Whether the backend was disposed. */
  get closed(): boolean {
    return this.#closed;
  }

  /** @throws DisposedError after the backend's dispose() */
  assertLive(): void {
    if (this.#closed) throw new DisposedError("The CUDA backend was used after dispose()");
  }

  /** @throws DisposedError, ArgumentError for memory of another backend: its address means nothing here */
  own(storage: Storage): CudaStorage {
    this.assertLive();
    if (storage instanceof CudaStorage && storage.backend === this.backend) return storage;
    const where =
      isStranger(storage, ["backend"]) && isStranger(storage.backend, ["device"]) ? storage.backend : undefined;
    throw new ArgumentError(
      where
        ? `A tensor in ${where.device} was given to ${this.backend.device}`
        : `This is no memory of ${this.backend.device}: ${describe(storage)}`,
      { hint: "Read it, and write it into a tensor of this backend." },
    );
  }

  /** Copies in after everything enqueued on any stream, and waits for it. @throws DeviceError */
  write(storage: CudaStorage, to: DevicePointer, bytes: Uint8Array): void {
    this.readBeforeWriting([storage]);
    this.#synchronizeOthers();
    this.main.copyIn(to, bytes);
  }

  /** What everything enqueued so far leaves there. The event loop goes on; only what writes there meanwhile must wait. */
  async read(storage: CudaStorage, offsetBytes: number, byteLength: number): Promise<Uint8Array<ArrayBuffer>> {
    const copy = () => {
      const address = this.own(storage).address(offsetBytes, byteLength); // throws once that is gone
      this.#synchronizeOthers();
      return this.main.copyOut(address, byteLength);
    };
    const read: PendingRead = { storage, bytes: undefined, copy };
    this.reads.add(read);
    try {
      await this.drain();
      this.own(storage).address(offsetBytes, byteLength);
      return read.bytes ?? copy();
    } finally {
      this.reads.delete(read);
    }
  }

  /** A read promised what was there before. (Of memory that was freed meanwhile, which a graph may still write, it rejects.) */
  readBeforeWriting(written: readonly CudaStorage[]): void {
    for (const read of this.reads) {
      if (!read.storage.freed && written.includes(read.storage)) read.bytes ??= read.copy();
    }
  }

  /** Waits for everything enqueued so far, while the event loop goes on. @throws DeviceError, DisposedError */
  async drain(): Promise<void> {
    const others = [...this.all].filter((stream) => stream !== this.main && stream.busy);
    await Promise.all([this.main, ...others].map((stream) => stream.ended()));
  }

  /** Waits for everything enqueued; blocks the thread. @throws DeviceError when a launch failed */
  synchronizeNow(): void {
    for (const stream of this.all) if (stream === this.main || stream.busy) stream.synchronizeNow();
  }

  /**
   * Waits until nothing runs, then gives something back; at the end of the capture, if there is one. Where it can't wait, the
   * next one tries again, at the latest close().
   */
  whenIdle(release: () => void): void {
    this.#ending.push(release);
    outsideCapture(() => this.#finish());
  }

  forCaptures(): StreamHandle {
    return (this.#captures ??= CudaStream.create(this));
  }

  /** Refuses everything from now on, and waits for what runs. */
  beginClosing(): void {
    this.#closed = true;
    thread.generation++;
    this.#finish();
  }

  /** Gives back all streams and events. What still waits for them rejects with DisposedError. */
  close(): void {
    this.#finish();
    for (const event of this.events) event.dispose();
    for (const stream of this.all) stream.close();
    const captures = this.#captures;
    if (captures !== undefined) this.context.release((api) => api.cuStreamDestroy(captures));
    abandoned.push(...this.#ending);
  }

  /** Whether something was left to the driver, since there was no way to wait for what may use it. */
  get leftSomething(): boolean {
    return this.#ending.length > 0;
  }

  /** Waits for what runs, and gives back what waits for that. */
  #finish(): void {
    if (![...this.all].map((stream) => stream.finish()).every(Boolean)) return;
    const ending = this.#ending;
    this.#ending = [];
    for (const end of ending) end();
  }

  /** The copy that follows waits for the main stream by its order. */
  #synchronizeOthers(): void {
    for (const stream of this.all) if (stream !== this.main && stream.busy) stream.synchronizeNow();
  }
}
