/** A stream: work in order. It never blocks, or is blocked by, the default stream of other libraries. */
import { ArgumentError, DisposedError } from "../../dsl/errors.ts";
import { type NamedKernel, outsideCapture, refuseInCapture, thread } from "./context.ts";
import type { DevicePointer, StreamHandle } from "./driver.ts";
import { CudaEvent } from "./event.ts";
import { CudaQueue, type Work } from "./queue.ts";
import { notReady } from "./results.ts";
import type { Streams } from "./streams.ts";

const nonBlocking = 1; // CU_STREAM_NON_BLOCKING

/** How many launches are remembered to explain an error that is only seen later; a power of two. */
const remembered = 16;

/** Runs work in the order in which it was enqueued; see `cuda.stream`, `cuda.createStream()`, `cuda.adoptStream(...)`. */
export class CudaStream extends CudaQueue implements Disposable {
  readonly #streams: Streams;
  readonly #handle: StreamHandle;
  /** Another library's: it may hold work that this object knows nothing of. */
  readonly #adopted: boolean;
  /** The number of the last work (thread.enqueued), and of the last that is known to have ended well. */
  #enqueued = 0;
  #settled = 0;
  /** The last kernels, each with its number. */
  readonly #kernels = new Array<readonly NamedKernel[] | undefined>(remembered).fill(undefined);
  readonly #orders = new Array<number>(remembered).fill(0);
  #launches = 0;
  #closed = false;

  /** @internal Whether it was made by the constructor. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === "object" && value !== null && #adopted in value;
  }

  /** For the CUDA backend only. */
  constructor(streams: Streams, handle: StreamHandle, adopted: boolean) {
    super(streams, handle);
    this.#streams = streams;
    this.#handle = handle;
    this.#adopted = adopted;
    streams.context.launchers.add(this);
    streams.all.add(this);
  }

  /** @internal A new stream of the driver's. */
  static create(streams: Streams): StreamHandle {
    return streams.context.receive("making a stream", (api, out) => api.cuStreamCreate(out, nonBlocking));
  }

  /** @throws DisposedError, DeviceError; CaptureError while a graph is captured */
  record(): CudaEvent {
    this.#assertLive();
    return new CudaEvent(this.#streams, this, this.#enqueued, true);
  }

  /**
   * What is enqueued here from now on begins after the event's place was reached, or after all that is enqueued on another
   * stream by now. @throws ArgumentError, DisposedError, DeviceError; CaptureError while a graph is captured
   */
  waitFor(other: CudaEvent | CudaStream): void {
    this.#assertLive();
    if (other instanceof CudaStream) {
      other.#assertLive();
      using event = new CudaEvent(other.#streams, other, other.#enqueued, false);
      this.waitFor(event);
      return;
    }
    if (!(other instanceof CudaEvent)) {
      throw new ArgumentError("waitFor takes a stream or an event of this thread", { hint: "b.waitFor(a)" });
    }
    const handle = CudaEvent.handleOf(other, this.#streams);
    this.#streams.context.call("waiting for an event", (api) => api.cuStreamWaitEvent(this.#handle, handle, 0));
    this.#enqueued = ++thread.enqueued;
  }

  /** Waits for everything enqueued so far, while the event loop goes on. @throws DeviceError, DisposedError */
  async synchronize(): Promise<void> {
    this.#assertLive();
    await this.ended();
  }

  /**
   * Waits for its work, then gives it back; an adopted stream stays its owner's, who must not destroy it before. If its owner
   * captures it right now, it can't be waited for, and must live until the backend is disposed.
   * @throws ArgumentError for `cuda.stream`, which goes with the backend
   */
  dispose(): void {
    if (this === this.#streams.main) {
      throw new ArgumentError("cuda.stream can't be disposed by itself", { hint: "await cuda.dispose()" });
    }
    this.close();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** @internal What may have caused an error that is only seen now. */
  suspects(): readonly { readonly kernels: readonly NamedKernel[]; readonly order: number }[] {
    return this.#kernels.flatMap((kernels, slot) => (kernels ? [{ kernels, order: this.#orders[slot] ?? 0 }] : []));
  }

  /** @internal */
  override admit(doing: string): void {
    this.#assertLive();
    refuseInCapture(
      `${doing} on a stream`,
      "Enqueue it on what the captured function is given: launch.launch(on), on.copy(from, to), on.foreign(...)",
    );
    this.#streams.context.assertUsable(doing);
  }

  /** @internal */
  override beforeWriting({ written }: Work): void {
    if (this.#streams.reads.size > 0) this.#streams.readBeforeWriting(written);
  }

  /** @internal */
  override enqueued({ kernels }: Work): void {
    const order = ++thread.enqueued;
    this.#enqueued = order;
    if (kernels.length > 0) {
      const slot = this.#launches++ % remembered;
      this.#kernels[slot] = kernels;
      this.#orders[slot] = order;
    }
    if (this.#streams.debug && !this.#closed) this.synchronizeNow();
  }

  /** @internal Copies to the device after everything enqueued, and waits for it: `bytes` may change afterwards. */
  copyIn(to: DevicePointer, bytes: Uint8Array): void {
    const size = bytes.byteLength;
    this.#streams.context.call(`writing ${size} bytes`, (api) => api.cuMemcpyHtoDAsync(to, bytes, size, this.#handle));
    this.synchronizeNow();
  }

  /** @internal Copies from the device after everything enqueued, and waits for it. */
  copyOut(from: DevicePointer, size: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(size);
    this.#streams.context.call(`reading ${size} bytes`, (api) =>
      api.cuMemcpyDtoHAsync(bytes, from, size, this.#handle),
    );
    this.synchronizeNow();
    return bytes;
  }

  /** @internal Device time in microseconds of what `enqueue` enqueues here. */
  async timeUs(enqueue: () => void): Promise<number> {
    using start = this.record();
    enqueue();
    using end = this.record();
    return await end.elapsedUs(start);
  }

  /** @internal Whether something may still be running or waiting. */
  get busy(): boolean {
    return this.#adopted || this.#enqueued > this.#settled;
  }

  /** @internal As synchronize(), also when it was disposed and is still waited for. */
  async ended(): Promise<void> {
    using end = new CudaEvent(this.#streams, this, this.#enqueued, false);
    await end.synchronize();
  }

  /** @internal Waits for everything enqueued; blocks the thread. @throws DeviceError when a launch failed */
  synchronizeNow(): void {
    this.#streams.context.call("waiting for launches", (api) => api.cuStreamSynchronize(this.#handle));
    this.settle(this.#enqueued);
  }

  /**
   * @internal The same, if there is anything, for those who give memory back. False when nobody knows whether its work has
   * ended: its owner captures an adopted stream, or has destroyed it. The fault of a launch shows in the next call that can
   * throw.
   */
  finish(): boolean {
    const { context } = this.#streams;
    let result = this.busy ? notReady : 0;
    if (this.busy) context.release((api) => (result = api.cuStreamSynchronize(this.#handle)));
    if (result === 0) this.settle(this.#enqueued);
    const ended = result === 0 || context.lost !== undefined;
    if (ended && this.#closed) this.#giveBack();
    return ended;
  }

  /** @internal Notes that its work up to number `order` has ended well. */
  settle(order: number): void {
    if (order <= this.#settled) return;
    this.#settled = order;
    for (let slot = 0; slot < remembered; slot++) {
      if ((this.#orders[slot] ?? 0) <= order) this.#kernels[slot] = undefined;
    }
  }

  /** @internal */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    thread.generation++;
    outsideCapture(() => this.finish());
  }

  #giveBack(): void {
    const { context, all } = this.#streams;
    if (!this.#adopted) context.release((api) => api.cuStreamDestroy(this.#handle));
    context.launchers.delete(this);
    all.delete(this);
  }

  #assertLive(): void {
    if (!this.#closed) return;
    this.#streams.assertLive();
    throw new DisposedError("A stream was used after dispose()");
  }
}
