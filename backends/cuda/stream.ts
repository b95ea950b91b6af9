/** A stream: launches and copies in order. It never blocks, or is blocked by, the default stream of other libraries. */
import { setImmediate, setTimeout } from "node:timers/promises";
import { DisposedError } from "../../dsl/errors.ts";
import type { Storage } from "../backend.ts";
import type { Launcher, NamedKernel, PrimaryContext } from "./context.ts";
import type { DevicePointer, EventHandle, FunctionHandle, StreamHandle } from "./driver.ts";
import type { LaunchPacket } from "./packet.ts";
import { notReady } from "./results.ts";
import type { MemoryUse } from "./storage.ts";

const nonBlocking = 1; // CU_STREAM_NON_BLOCKING
const withTiming = 0; // CU_EVENT_DEFAULT
const withoutTiming = 2; // CU_EVENT_DISABLE_TIMING

/** How many launches are remembered to explain an error that is only seen later. */
const remembered = 16;
/** Milliseconds of asking at every turn of the event loop before asking once a millisecond. */
const eagerMs = 2;

export class Stream implements Launcher {
  readonly #context: PrimaryContext;
  readonly #handle: StreamHandle;
  readonly #pdl: boolean;
  #launches = 0;
  #unsettled: { readonly kernel: NamedKernel; readonly order: number }[] = [];
  /** Storages that launches write which may still run, with the last such launch. Freed memory was waited for, and is gone. */
  readonly #written = new Map<Storage, number>();
  readonly #events = new Set<EventHandle>();
  #closed = false;

  constructor(context: PrimaryContext, pdl: boolean) {
    this.#context = context;
    this.#pdl = pdl;
    this.#handle = context.receive("making a stream", (api, out) => api.cuStreamCreate(out, nonBlocking));
    context.launchers.add(this);
  }

  suspects(): readonly NamedKernel[] {
    return this.#unsettled.map(({ kernel }) => kernel);
  }

  /**
   * Enqueues a launch. The packet may be refilled as soon as this returns.
   *
   * With PDL a kernel may start while earlier ones run, and not only the last: A writes, B lets C start before A ends. C's
   * `pdl.wait()` covers that for all but its frozen tensors, which it reads at once, through a cache that expects no writers.
   * So a launch that is given as frozen what a launch since the last full wait writes goes without PDL: by the stream's order
   * it starts when all before it have ended, and is itself such a full wait for those after it.
   * @throws DeviceError
   */
  launch(packet: LaunchPacket, fn: FunctionHandle, kernel: NamedKernel, { frozen, written }: MemoryUse): void {
    const overlap = this.#pdl && !frozen.some((storage) => this.#written.has(storage));
    packet.setOverlap(overlap);
    packet.setStream(this.#handle);
    const doing = `launching ${kernel.name}`;
    this.#context.call(doing, (api) => api.cuLaunchKernelEx(packet.config, fn, packet.params, null), kernel);
    this.#unsettled.push({ kernel, order: ++this.#launches });
    if (this.#unsettled.length > remembered) this.#unsettled.shift();
    if (!overlap) this.#written.clear();
    for (const storage of written) this.#written.set(storage, this.#launches);
  }

  /** Copies to the device after everything enqueued, and waits for it: `bytes` may change afterwards. @throws DeviceError */
  copyIn(to: DevicePointer, bytes: Uint8Array): void {
    const size = bytes.byteLength;
    this.#context.call(`writing ${size} bytes`, (api) => api.cuMemcpyHtoDAsync(to, bytes, size, this.#handle));
    this.synchronize();
  }

  /** Copies from the device after everything enqueued, and waits for it. @throws DeviceError */
  copyOut(from: DevicePointer, byteLength: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(byteLength);
    const doing = `reading ${byteLength} bytes`;
    this.#context.call(doing, (api) => api.cuMemcpyDtoHAsync(bytes, from, byteLength, this.#handle));
    this.synchronize();
    return bytes;
  }

  /** Waits for everything enqueued; blocks the thread. @throws DeviceError when a launch failed */
  synchronize(): void {
    this.#context.call("waiting for launches", (api) => api.cuStreamSynchronize(this.#handle));
    this.#settle(this.#launches);
  }

  /** Waits until no launch is running, for those who give memory back. A failure shows in the next call that can throw. */
  finish(): void {
    if (this.#unsettled.length === 0) return;
    this.#context.release((api) => api.cuStreamSynchronize(this.#handle));
    this.#settle(this.#launches);
  }

  /** Waits for everything enqueued so far, while the event loop goes on. @throws DeviceError, DisposedError */
  async drain(): Promise<void> {
    const end = this.#event(withoutTiming);
    try {
      this.#record(end);
      await this.#reached(end);
    } finally {
      this.#destroy(end);
    }
  }

  /** Device time in milliseconds from before the first to after the last of what `enqueue` enqueues. @throws DeviceError */
  async time(enqueue: () => void): Promise<number> {
    const start = this.#event(withTiming);
    const end = this.#event(withTiming);
    try {
      this.#record(start);
      enqueue();
      this.#record(end);
      await this.#reached(end);
      const out = new Float32Array(1);
      this.#context.call("reading a time", (api) => api.cuEventElapsedTime(out, start, end));
      return out[0] ?? NaN;
    } finally {
      this.#destroy(start);
      this.#destroy(end);
    }
  }

  /** Gives the stream back, after `finish`. What still waits in `drain` or `time` rejects with DisposedError. */
  close(): void {
    this.#closed = true;
    for (const event of this.#events) this.#destroy(event);
    this.#context.release((api) => api.cuStreamDestroy(this.#handle));
    this.#context.launchers.delete(this);
  }

  #event(flags: number): EventHandle {
    const event: EventHandle = this.#context.receive("making an event", (api, out) => api.cuEventCreate(out, flags));
    this.#events.add(event);
    return event;
  }

  #record(event: EventHandle): void {
    this.#context.call("recording an event", (api) => api.cuEventRecord(event, this.#handle));
  }

  /** Does nothing for an event that went with the stream. */
  #destroy(event: EventHandle): void {
    if (this.#events.delete(event)) this.#context.release((api) => api.cuEventDestroy(event));
  }

  /** Asks again and again; waiting inside the driver would block the thread. */
  async #reached(event: EventHandle): Promise<void> {
    const launches = this.#launches;
    const start = performance.now();
    const doing = "waiting for launches";
    for (;;) {
      if (this.#closed) throw new DisposedError("The CUDA backend was disposed while something waited for it");
      if (this.#context.query(doing, (api) => api.cuEventQuery(event)) !== notReady) break;
      await (performance.now() - start < eagerMs ? setImmediate() : setTimeout(1));
    }
    this.#settle(launches);
  }

  /** Notes that the first `launches` launches have ended. */
  #settle(launches: number): void {
    this.#unsettled = this.#unsettled.filter(({ order }) => order > launches);
    for (const [storage, order] of this.#written) if (order <= launches) this.#written.delete(storage);
  }
}
