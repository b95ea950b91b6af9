/**
 * Capturing: what a function enqueues becomes a graph instead of running. Everything that can't be part of a graph is refused
 * before the driver hears of it, and whatever happens, the capture ends with the function.
 */
import { ArgumentError, CaptureError } from "../../dsl/errors.ts";
import { type NamedKernel, thread } from "./context.ts";
import type { GraphHandle } from "./driver.ts";
import type { Lifetime } from "./lifetime.ts";
import { CudaQueue, type Work } from "./queue.ts";
import { captureInvalidated, captureUnjoined, describeResult } from "./results.ts";
import type { CudaStorage } from "./storage.ts";
import type { Streams } from "./streams.ts";

/** CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: also other libraries of this thread may not wait or allocate meanwhile. */
const threadLocal = 1;
/** CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC, the third byte of each CUgraphEdgeData. */
const programmatic = 1;
const edgeDataBytes = 8;

/** A graph as it was captured, with all that it uses; `memory` is retained until someone calls `letGo`. */
export class Captured implements Work {
  readonly kernels: readonly NamedKernel[];
  readonly memory: readonly Lifetime[];
  readonly written: readonly CudaStorage[];
  readonly nodeCount: number;
  readonly programmaticEdges: number | undefined;
  readonly #streams: Streams;
  readonly #graph: GraphHandle;

  constructor(streams: Streams, graph: GraphHandle, work: Work) {
    this.kernels = work.kernels;
    this.memory = work.memory;
    this.written = work.written;
    this.#streams = streams;
    this.#graph = graph;
    const count = new BigUint64Array(1);
    streams.context.call("counting a graph's nodes", (api) => api.cuGraphGetNodes(graph, null, count));
    this.nodeCount = Number(count[0]);
    this.programmaticEdges = this.#countProgrammaticEdges();
  }

  /** Hands out the CUgraph and destroys it afterwards: only executable graphs are kept. */
  use<T>(action: (graph: GraphHandle) => T): T {
    try {
      return action(this.#graph);
    } finally {
      this.#streams.context.release((api) => api.cuGraphDestroy(this.#graph));
    }
  }

  letGo(): void {
    for (const lifetime of this.memory) lifetime.release();
  }

  #countProgrammaticEdges(): number | undefined {
    if (this.nodeCount === 0) return 0;
    const { context } = this.#streams;
    const { cuGraphGetEdges: edges } = context.driver.api;
    // One stream makes a chain. Room for more, since asking for the number alone is refused for programmatic edges.
    const room = 4 * this.nodeCount;
    const [count, data] = [BigUint64Array.of(BigInt(room)), new Uint8Array(edgeDataBytes * room)];
    const [from, to] = [new BigUint64Array(room), new BigUint64Array(room)];
    const doing = "asking for a graph's edges";
    if (!edges || context.query(doing, () => edges(this.#graph, from, to, data, count)) !== 0) return undefined;
    const types = data.filter((_, i) => i % edgeDataBytes === 2).subarray(0, Number(count[0]));
    return types.filter((type) => type === programmatic).length;
  }
}

/** The queue that a captured function is given. */
class Capture extends CudaQueue implements Work {
  readonly #kernels = new Set<NamedKernel>();
  readonly #memory = new Set<Lifetime>();
  readonly #written = new Set<CudaStorage>();
  #open = true;

  get kernels(): readonly NamedKernel[] {
    return [...this.#kernels];
  }

  get memory(): readonly Lifetime[] {
    return [...this.#memory];
  }

  get written(): readonly CudaStorage[] {
    return [...this.#written];
  }

  override admit(doing: string, work: Work): void {
    if (!this.#open) {
      throw new CaptureError(`Not ${doing}: the capture that this queue belongs to has ended`, {
        hint: "Enqueue on what the captured function is given, inside of it",
      });
    }
    for (const kernel of work.kernels) this.#kernels.add(kernel);
    for (const storage of work.written) this.#written.add(storage);
    for (const lifetime of work.memory) {
      if (this.#memory.has(lifetime)) continue;
      lifetime.retain();
      this.#memory.add(lifetime);
    }
  }

  override beforeWriting(): void {}

  override enqueued(): void {}

  close(): void {
    this.#open = false;
  }

  letGo(): void {
    for (const lifetime of this.#memory) lifetime.release();
  }
}

/**
 * Captures what `record` enqueues on the queue that it is given.
 * @throws CaptureError for what can't be captured, and whatever `record` throws; no capture goes on after that
 */
export function capture(streams: Streams, record: (on: CudaQueue) => void): Captured {
  const { context } = streams;
  if (typeof record !== "function") {
    throw new ArgumentError("What is captured is a function", { hint: "cuda.capture((on) => { launch.launch(on); })" });
  }
  const stream = streams.forCaptures();
  context.call("beginning a capture", (api) => api.cuStreamBeginCapture(stream, threadLocal));
  const queue = new Capture(streams, stream);
  const deferred: (() => void)[] = (thread.afterCapture = []);
  thread.generation++;
  const graph = new BigUint64Array(1);
  let ended = 0;
  try {
    try {
      rejectAsync(record(queue));
    } finally {
      queue.close();
      thread.afterCapture = undefined;
      thread.generation++;
      context.release((api) => (ended = api.cuStreamEndCapture(stream, graph)));
    }
    context.assertUsable("finishing a graph");
    if (ended !== 0) throw explain(streams, ended);
    const captured = new Captured(streams, (graph[0] ?? 0n) as GraphHandle, queue);
    if (captured.nodeCount > 0) return captured;
    throw new CaptureError("The captured function enqueued nothing", {
      hint: "Enqueue on what it is given: cuda.capture((on) => { launch.launch(on); })",
    });
  } catch (error) {
    queue.letGo();
    const handle = (graph[0] ?? 0n) as GraphHandle;
    if (handle !== 0n) context.release((api) => api.cuGraphDestroy(handle));
    throw error;
  } finally {
    for (const action of deferred) action();
  }
}

function explain({ context }: Streams, result: number): CaptureError {
  const what = describeResult(context.driver.api, result);
  if (result !== captureInvalidated) {
    return new CaptureError(`CUDA makes no graph of what was captured: ${what}`, {
      hint:
        result === captureUnjoined
          ? "Another library put work on a stream of its own: let it make the captured stream wait for that in the end"
          : undefined,
    });
  }
  return new CaptureError(`The capture became invalid while it went on: ${what}`, {
    hint: "Another library of this thread allocated, waited or loaded code meanwhile; let it do so before the capture",
  });
}

/** @throws CaptureError */
function rejectAsync(result: unknown): void {
  const later = result instanceof Promise;
  if (!later && !(typeof result === "object" && result !== null && "next" in result)) return;
  if (later) result.catch(() => undefined);
  throw new CaptureError(
    later
      ? "A captured function can't be async: what follows its first await would not be in the graph"
      : "A captured function can't be a generator: nothing in it would run",
    { hint: "Do asynchronous work before cuda.capture(...), and write an ordinary function: (on) => { ... }" },
  );
}
