/** All streams of a backend, and what concerns them together: reading, writing, giving memory back. */
import { ArgumentError, DisposedError } from "../../dsl/errors.ts";
import type { Backend, Storage } from "../backend.ts";
import { outsideCapture, type PrimaryContext, thread } from "./context.ts";
import type { DevicePointer, StreamHandle } from "./driver.ts";
import type { CudaEvent } from "./event.ts";
import { CudaStorage } from "./storage.ts";
import { CudaStream } from "./stream.ts";

/** A read that waits for its turn. */
interface PendingRead {
  readonly storage: CudaStorage;
  bytes: Uint8Array<ArrayBuffer> | undefined;
  copy(): Uint8Array<ArrayBuffer>;
}

export class Streams {
  readonly backend: Backend;
  readonly context: PrimaryContext;
  /** Waits for every launch. */
  readonly debug: boolean;
  readonly all = new Set<CudaStream>();
  readonly events = new Set<CudaEvent>();
  readonly reads = new Set<PendingRead>();
  readonly main: CudaStream;
  /** Where graphs are captured; nothing ever runs there. */
  #captures: StreamHandle | undefined;
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
    throw new ArgumentError(`A tensor in ${storage.backend.device} was given to ${this.backend.device}`, {
      hint: "Read it, and write it into a tensor of this backend.",
    });
  }

  /** Copies in after everything enqueued on any stream, and waits for it. @throws DeviceError */
  write(storage: CudaStorage, to: DevicePointer, bytes: Uint8Array): void {
    this.readBeforeWriting([storage]);
    this.#finishOthers();
    this.main.copyIn(to, bytes);
  }

  /** What everything enqueued so far leaves there. The event loop goes on; only what writes there meanwhile must wait. */
  async read(storage: CudaStorage, offsetBytes: number, byteLength: number): Promise<Uint8Array<ArrayBuffer>> {
    const copy = () => {
      const address = this.own(storage).address(offsetBytes, byteLength); // throws once that is gone
      this.#finishOthers();
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
    await Promise.all([this.main, ...others].map((stream) => stream.synchronize()));
  }

  /** Waits for everything enqueued; blocks the thread. @throws DeviceError when a launch failed */
  synchronizeNow(): void {
    for (const stream of this.all) if (stream === this.main || stream.busy) stream.synchronizeNow();
  }

  /** Waits until nothing runs, then gives something back; at the end of the capture, if there is one. */
  whenIdle(release: () => void): void {
    outsideCapture(() => {
      for (const stream of this.all) stream.finish();
      release();
    });
  }

  forCaptures(): StreamHandle {
    return (this.#captures ??= CudaStream.create(this));
  }

  /** Refuses everything from now on, and waits for what runs. */
  beginClosing(): void {
    this.#closed = true;
    thread.generation++;
    for (const stream of this.all) stream.finish();
  }

  /** Gives back all streams and events. What still waits for them rejects with DisposedError. */
  close(): void {
    for (const event of this.events) event.dispose();
    for (const stream of this.all) stream.close();
    const captures = this.#captures;
    if (captures !== undefined) this.context.release((api) => api.cuStreamDestroy(captures));
  }

  /** The copy that follows waits for the main stream by its order. */
  #finishOthers(): void {
    for (const stream of this.all) if (stream !== this.main) stream.finish();
  }
}
