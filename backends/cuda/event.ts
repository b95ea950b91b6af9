/** Events: places in a stream that can be waited for and timed. */
import { setImmediate, setTimeout } from "node:timers/promises";
import { describe } from "../../dsl/check.ts";
import { ArgumentError, DisposedError } from "../../dsl/errors.ts";
import type { EventHandle } from "./driver.ts";
import { notReady } from "./results.ts";
import { CudaQueue } from "./queue.ts";
import type { CudaStream } from "./stream.ts";
import type { Streams } from "./streams.ts";

const withTiming = 0; // CU_EVENT_DEFAULT
const withoutTiming = 2; // CU_EVENT_DISABLE_TIMING

const hint = "const start = stream.record(); launch.launch(stream); await stream.record().elapsedUs(start)";

/** Milliseconds of asking at every turn of the event loop before asking once a millisecond. */
const eagerMs = 2;

/** A place in a stream, made by `stream.record()`. `using` gives it back. */
export class CudaEvent implements Disposable {
  readonly #streams: Streams;
  readonly #stream: CudaStream;
  readonly #timing: boolean;
  /** The number of the stream's last work before it. */
  readonly #order: number;
  #handle: EventHandle | undefined;

  /** @internal Whether it was made by the constructor. */
  static [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === "object" && value !== null && #timing in value;
  }

  /** For the CUDA backend only. @throws DeviceError */
  constructor(streams: Streams, stream: CudaStream, order: number, timing: boolean) {
    const { context } = streams;
    this.#streams = streams;
    this.#stream = stream;
    this.#order = order;
    this.#timing = timing;
    const flags = timing ? withTiming : withoutTiming;
    const handle: EventHandle = context.receive("making an event", (api, out) => api.cuEventCreate(out, flags));
    this.#handle = handle;
    streams.events.add(this);
    try {
      context.call("recording an event", (api) => api.cuEventRecord(handle, CudaQueue.handleOf(stream)));
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /** @internal @throws DisposedError; ArgumentError for an event of another device */
  static handleOf(event: CudaEvent, streams: Streams): EventHandle {
    if (event.#streams.context === streams.context) return event.#live();
    throw new ArgumentError(`This event belongs to ${event.#streams.backend.device}`, {
      hint: "Wait for it on the host: await event.synchronize()",
    });
  }

  /** Waits until the stream has come here, while the event loop goes on. @throws DeviceError, DisposedError */
  async synchronize(): Promise<void> {
    const start = performance.now();
    for (;;) {
      const handle = this.#live();
      const answer = this.#streams.context.query("waiting for launches", (api) => api.cuEventQuery(handle));
      if (answer !== notReady) break;
      await (performance.now() - start < eagerMs ? setImmediate() : setTimeout(1));
    }
    this.#stream.settle(this.#order);
  }

  /**
   * Device time in microseconds from `since` to here, when the device has come here.
   * @throws ArgumentError when it came here first; DeviceError, DisposedError
   */
  async elapsedUs(since: CudaEvent): Promise<number> {
    if (!(since instanceof CudaEvent)) {
      throw new ArgumentError(`Time is measured from one event to another, not from ${describe(since)}`, { hint });
    }
    if (!this.#timing || !since.#timing) throw new ArgumentError("One of these events was recorded without timing");
    await since.synchronize();
    await this.synchronize();
    const [start, end] = [CudaEvent.handleOf(since, this.#streams), this.#live()];
    const out = new Float32Array(1);
    this.#streams.context.call("reading a time", (api) => api.cuEventElapsedTime(out, start, end));
    const us = (out[0] ?? NaN) * 1000;
    if (us >= 0) return us;
    throw new ArgumentError(`The device came here ${-us} microseconds before the event that the time is counted from`, {
      hint,
    });
  }

  /** What still waits for it rejects with DisposedError. */
  dispose(): void {
    const handle = this.#handle;
    if (handle === undefined) return;
    this.#handle = undefined;
    this.#streams.events.delete(this);
    this.#streams.context.release((api) => api.cuEventDestroy(handle));
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #live(): EventHandle {
    if (this.#handle !== undefined) return this.#handle;
    const { closed } = this.#streams;
    throw new DisposedError(
      closed ? "The CUDA backend was disposed while something waited for it" : "An event was used after dispose()",
    );
  }
}
