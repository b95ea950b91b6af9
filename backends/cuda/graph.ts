/** Graphs: a chain of work that was captured once, and is launched as a whole by one call. */
import { ArgumentError, CaptureError, DisposedError } from "../../dsl/errors.ts";
import { requireWritable } from "../tensor.ts";
import { capture, type Captured } from "./capture.ts";
import { wholeNumber } from "./checks.ts";
import { thread } from "./context.ts";
import type { GraphExecHandle } from "./driver.ts";
import { CudaQueue } from "./queue.ts";
import { describeResult, graphUpdateRefused } from "./results.ts";
import { CudaStream } from "./stream.ts";
import type { Streams } from "./streams.ts";

/** CUgraphExecUpdateResult: why the driver can't change a graph into another, as far as it says. */
const reasons: readonly string[] = [
  "",
  "",
  "its work or the order of it is another",
  "a kernel became a copy, or a copy a kernel",
  "a kernel became another one",
  "a parameter changed that can't be changed",
  "something in it can't be changed at all",
  "a kernel became one that it can't become",
  "an attribute of a kernel changed, e.g. its cluster size",
];

/**
 * Made by `cuda.capture(...)`. It owns what was captured: memory that is freed meanwhile is given back when the graph is
 * disposed, too. `using` disposes it.
 */
export class CudaGraph implements Disposable {
  readonly #streams: Streams;
  readonly #exec: GraphExecHandle;
  readonly #end: (graph: CudaGraph) => void;
  #captured: Captured;
  #disposed = false;
  /** Where it was launched last, and the count at which that was checked. */
  #on: CudaStream | undefined;
  #generation = -1;

  /** For the CUDA backend only. @throws as `CudaBackend.capture` */
  constructor(streams: Streams, record: (on: CudaQueue) => void, end: (graph: CudaGraph) => void) {
    this.#streams = streams;
    this.#end = end;
    const captured = capture(streams, record);
    try {
      this.#exec = captured.use((graph) =>
        streams.context.receive("making a graph executable", (api, out) => api.cuGraphInstantiate(out, graph, 0)),
      );
    } catch (error) {
      captured.letGo();
      throw error;
    }
    this.#captured = captured;
  }

  /** Launches and copies in it. */
  get nodeCount(): number {
    return this.#captured.nodeCount;
  }

  /** How many of its kernels may begin while the one ahead ends; undefined where the driver can't tell (before CUDA 12.3). */
  get programmaticEdges(): number | undefined {
    return this.#captured.programmaticEdges;
  }

  /** Enqueues all of it: one call of the driver. @throws DisposedError, ArgumentError, DeviceError */
  launch(on: CudaStream = this.#streams.main): void {
    const { context } = this.#streams;
    if (on !== this.#on || this.#generation !== thread.generation) this.#admit(on);
    on.beforeWriting(this.#captured);
    if (thread.current !== context) context.makeCurrent();
    const { api } = context.driver;
    const stream = CudaQueue.handleOf(on);
    const result = api.cuGraphLaunch(this.#exec, stream);
    if (result !== 0) context.retry(result, "launching a graph", () => api.cuGraphLaunch(this.#exec, stream));
    on.enqueued(this.#captured);
  }

  /**
   * Captures again, and replaces tensors, scalars, grids and kernels; later launches have the new ones. The chain must have
   * the same form: as many launches and copies, in the same order.
   * @throws CaptureError when it hasn't, and then the graph is as it was; DisposedError; whatever `record` throws
   */
  update(record: (on: CudaQueue) => void): void {
    this.#assertLive();
    const { context } = this.#streams;
    const next = capture(this.#streams, record);
    try {
      const info = new Uint8Array(24); // CUgraphExecUpdateResultInfo: a result, then two nodes
      next.use((graph) => {
        this.#assertLive(); // the function may have disposed it
        const result = context.query("updating a graph", (api) => api.cuGraphExecUpdate(this.#exec, graph, info));
        if (result !== 0) throw this.#refusal(next, result, info[0] ?? 0);
      });
    } catch (error) {
      next.letGo();
      throw error;
    }
    const before = this.#captured;
    this.#captured = next;
    this.#generation = -1;
    before.letGo();
  }

  /** Device time in microseconds of one launch of the graph, the mean of `replays` back to back. @throws as `launch` */
  async timeUs(replays: number): Promise<number> {
    wholeNumber("The number of replays", replays, 1, 1_000_000);
    const us = await this.#streams.main.timeUs(() => {
      for (let i = 0; i < replays; i++) this.launch();
    });
    return us / replays;
  }

  /** Waits for its launches, then lets go of what it owns. A second call does nothing. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    thread.generation++;
    this.#streams.whenIdle(() => {
      this.#streams.context.release((api) => api.cuGraphExecDestroy(this.#exec));
      this.#captured.letGo();
      this.#end(this);
    });
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #assertLive(): void {
    this.#streams.assertLive();
    if (this.#disposed) throw new DisposedError("A graph was used after dispose()");
  }

  #admit(on: CudaStream): void {
    this.#assertLive();
    if (!(on instanceof CudaStream) || !on.isOf(this.#streams)) {
      throw new ArgumentError("A graph is launched on a stream of its own backend", {
        hint: "graph.launch(), or graph.launch(cuda.createStream()); a graph can't be captured into another",
      });
    }
    on.admit("launching a graph");
    for (const storage of this.#captured.written) requireWritable(storage, "Memory that this graph writes");
    this.#on = on;
    this.#generation = thread.generation;
  }

  #refusal(next: Captured, result: number, reason: number): CaptureError {
    const { nodeCount } = this.#captured;
    const what =
      result !== graphUpdateRefused
        ? describeResult(this.#streams.context.driver.api, result)
        : next.nodeCount !== nodeCount
          ? `it has ${nodeCount} launches and copies, the new one ${next.nodeCount}`
          : reasons[reason] || describeResult(this.#streams.context.driver.api, result);
    return new CaptureError(`This graph can't become what was captured now: ${what}`, {
      hint:
        result === graphUpdateRefused
          ? "The graph is as it was. Capture a second graph instead: cuda.capture(...)"
          : "What the graph does now isn't known: dispose it, and capture anew",
    });
  }
}
