/** A queue takes work: a stream runs it in order, a capture makes a graph of it. One function can fill either. */
import type { DTypeName } from "../../dsl/dtype.ts";
import { ArgumentError } from "../../dsl/errors.ts";
import { HostTensor } from "../../dsl/host.ts";
import { adoptInstead, DeviceTensor, isStranger, requireSameShape, requireTensor, requireWritable } from "../tensor.ts";
import type { NamedKernel } from "./context.ts";
import type { DevicePointer, DriverApi, StreamHandle } from "./driver.ts";
import type { Lifetime } from "./lifetime.ts";
import { PinnedTensor } from "./pinned.ts";
import type { CudaStorage } from "./storage.ts";
import type { Streams } from "./streams.ts";

/** What a piece of work needs while it runs: for messages, for reads under way, for a graph that will own it. */
export interface Work {
  readonly kernels: readonly NamedKernel[];
  readonly memory: readonly Lifetime[];
  readonly written: readonly CudaStorage[];
}

/** One end of a copy. */
type End =
  | { readonly lifetime: Lifetime; readonly storage: CudaStorage; readonly address: DevicePointer }
  | { readonly lifetime: Lifetime; readonly storage?: never; readonly bytes: Uint8Array };

export abstract class CudaQueue {
  readonly #streams: Streams;
  readonly #handle: StreamHandle;

  /** @internal Whether it was made by the constructor: what has only the fields, or is a proxy, is none. */
  static [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === "object" && value !== null && #handle in value;
  }

  constructor(streams: Streams, handle: StreamHandle) {
    this.#streams = streams;
    this.#handle = handle;
  }

  /** @internal */
  static handleOf(queue: CudaQueue): StreamHandle {
    return queue.#handle;
  }

  /** @internal Whether it belongs to the backend of these streams. */
  isOf(streams: Streams): boolean {
    return this.#streams === streams;
  }

  /** @internal Checks that work may be enqueued here now; `doing` completes "Not …". */
  abstract admit(doing: string, work: Work): void;
  /** @internal Before the driver is called. */
  abstract beforeWriting(work: Work): void;
  /** @internal After it was. */
  abstract enqueued(work: Work): void;

  /**
   * Enqueues a copy between two tensors of one dtype and shape, on the device or in pinned memory; returns at once. Pinned
   * memory must be left alone until the copy is done: `await stream.synchronize()`, or an event after it.
   * @throws ShapeError, DisposedError; ArgumentError for ordinary host memory, which `tensor.write` and `tensor.read` copy,
   * when both overlap, and when `to` is frozen
   */
  copy<N extends DTypeName>(
    from: DeviceTensor<N> | PinnedTensor<N>,
    to: DeviceTensor<NoInfer<N>> | PinnedTensor<NoInfer<N>>,
  ): void {
    const [source, target] = [this.#end(from), this.#end(to)];
    requireSameShape(from, to);
    if (target.storage) requireWritable(target.storage, `${to}`);
    if (!source.storage && !target.storage) {
      throw new ArgumentError("Both ends of this copy are on the host", { hint: "to.bytes.set(from.bytes)" });
    }
    const size = source.storage ? (from as DeviceTensor).byteLength : source.bytes.byteLength;
    if (size === 0) return;
    if (source.storage && target.storage) {
      const apart = source.address - target.address;
      if (apart < size && -apart < size) throw new ArgumentError(`${from} and the ${to} that it is copied to overlap`);
    }

    const doing = `copying ${from}`;
    const memory = [source.lifetime, target.lifetime];
    const work: Work = { kernels: [], memory, written: target.storage ? [target.storage] : [] };
    this.admit(doing, work);
    this.beforeWriting(work);
    this.#streams.context.enqueue(doing, (api) => copyCall(api, source, target, size, this.#handle));
    this.enqueued(work);
  }

  /**
   * Lets another library of this process enqueue work of its own here, e.g. cuBLASLt: `enqueue` is given the CUstream, which is
   * good until it returns. `doing` names the work in messages; the tensors are those that it uses, so that graphs keep them.
   *
   *   on.foreign("multiplying by cuBLASLt", { reads: [w, x], writes: [y] }, (stream) => matmul(handle, ..., stream));
   *
   * @throws ArgumentError when a written tensor is frozen, or `enqueue` async; DisposedError, also when `enqueue` disposed what
   * it uses; DeviceError, CaptureError; what `enqueue` throws
   */
  foreign(
    doing: string,
    uses: { readonly reads: readonly DeviceTensor[]; readonly writes: readonly DeviceTensor[] },
    enqueue: (stream: bigint) => void,
  ): void {
    const { reads, writes } = checkUses(doing, uses, enqueue);
    const own = (tensor: DeviceTensor): CudaStorage => this.#device(tensor).storage;
    for (const tensor of writes) requireWritable(own(tensor), `${tensor}`);
    const written = writes.map(own);
    const memory = [...reads.map(own), ...written].map(({ lifetime }) => lifetime);
    const work: Work = { kernels: [{ name: doing, at: undefined }], memory, written };
    this.admit(doing, work);
    this.beforeWriting(work);
    this.#streams.context.makeCurrent();
    let result: unknown;
    try {
      result = enqueue(this.#handle);
    } finally {
      this.enqueued(work);
    }
    rejectAsync(doing, result);
    this.admit(doing, work);
    for (const tensor of [...reads, ...writes]) own(tensor);
  }

  #device(tensor: DeviceTensor) {
    const storage = this.#streams.own(requireTensor(tensor).storage);
    const address = storage.address(tensor.offsetBytes, tensor.byteLength);
    return { lifetime: storage.lifetime, storage, address };
  }

  #end(tensor: DeviceTensor | PinnedTensor): End {
    const streams = this.#streams;
    if (tensor instanceof DeviceTensor) return this.#device(tensor);
    if (tensor instanceof PinnedTensor) return { lifetime: tensor.lifetimeIn(streams), bytes: tensor.bytes };
    const ordinary = (tensor as unknown) instanceof HostTensor;
    throw new ArgumentError(`Only tensors on the device and pinned ones are copied by a queue`, {
      hint: ordinary
        ? "This one is in ordinary memory: tensor.write(host) and tensor.read() copy that, or make it by cuda.pinned(...)"
        : isStranger(tensor, ["dtype", "shape"])
          ? adoptInstead
          : "on.copy(cuda.pinned(f32, [n]), tensor)",
    });
  }
}

/** Of what JavaScript passes to `foreign`. @throws ArgumentError */
function checkUses<U extends { readonly reads: unknown; readonly writes: unknown }>(
  doing: string,
  uses: U,
  enqueue: unknown,
): U {
  const named = typeof uses === "object" && uses !== null && Array.isArray(uses.reads) && Array.isArray(uses.writes);
  if (typeof doing === "string" && named && typeof enqueue === "function") return uses;
  throw new ArgumentError("foreign takes what is done, the tensors that it reads and writes, and a function", {
    hint: 'on.foreign("multiplying by cuBLASLt", { reads: [w, x], writes: [y] }, (stream) => { ... })',
  });
}

/** @throws ArgumentError */
function rejectAsync(doing: string, result: unknown): void {
  if (!(result instanceof Promise)) return;
  result.catch(() => undefined);
  throw new ArgumentError(`${doing}: the function can't be async, since the stream is good only until it returns`, {
    hint: "Do asynchronous work before, and enqueue in an ordinary function: (stream) => { ... }",
  });
}

function copyCall(api: DriverApi, from: End, to: End, size: number, stream: StreamHandle): number {
  if (!to.storage) return from.storage ? api.cuMemcpyDtoHAsync(to.bytes, from.address, size, stream) : 0;
  return from.storage
    ? api.cuMemcpyDtoDAsync(to.address, from.address, size, stream)
    : api.cuMemcpyHtoDAsync(to.address, from.bytes, size, stream);
}
