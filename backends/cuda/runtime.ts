/** The CUDA backend: kernels on an NVIDIA GPU, SM90 or later, through the driver API and nothing else. */
import type { DType, DTypeName } from "../../dsl/dtype.ts";
import { describe, ownDType, shapeOf } from "../../dsl/check.ts";
import { ArgumentError, DeviceError, NoDeviceError, ShapeError, UnsupportedError } from "../../dsl/errors.ts";
import type { Kernel } from "../../dsl/kernel.ts";
import type { Params } from "../../dsl/params.ts";
import type { Backend, Storage } from "../backend.ts";
import { requireKernel } from "../bind.ts";
import { callerOfBackends } from "../caller.ts";
import { byteLengthOf, DeviceTensor, requireBytes, requireTensor, requireWritable } from "../tensor.ts";
import { checkForeignStream, checkForeignTensor, type ForeignTensor } from "./adopt.ts";
import { type CudaArch, compileCuda, requireCompiler } from "./compile.ts";
import { PrimaryContext, refuseInCapture } from "./context.ts";
import { type CudaDriver, deviceCount, type DeviceInfo, deviceInfo, openDriver } from "./driver.ts";
import { emitCuda } from "./emit.ts";
import { CudaExecutable } from "./executable.ts";
import { CudaGraph } from "./graph.ts";
import { askDoctor } from "./libraries.ts";
import { PinnedTensor } from "./pinned.ts";
import type { CudaQueue } from "./queue.ts";
import { CudaStorage } from "./storage.ts";
import { CudaStream } from "./stream.ts";
import { Streams } from "./streams.ts";

export interface CudaOptions {
  /**
   * Which GPU, counting from 0 among those that CUDA_VISIBLE_DEVICES lets through. Left out, it is the first one of compute
   * capability 9.0 or later.
   */
  readonly ordinal?: number | undefined;
  /**
   * Takes the first GPU of exactly this compute capability, e.g. [9, 0]: code is made for one architecture, and not even a
   * later one has all instructions of `sm_90a`.
   */
  readonly capability?: readonly [major: number, minor: number] | undefined;
  /** Programmatic dependent launch: a kernel may start while the one before it ends. On by default. */
  readonly pdl?: boolean | undefined;
  /** Waits for every launch, so that an error names the kernel that made it. Off by default. */
  readonly debug?: boolean | undefined;
}

/**
 * Opens a GPU. Blocks the thread while the driver starts: 0.2 s for the first one of a process, on an H200.
 * @throws ArgumentError, NoDriverError, NoDeviceError, DriverTooOldError, UnsupportedError when there are only GPUs before
 * SM90, DeviceError
 */
export async function openCuda(options: CudaOptions = {}): Promise<CudaBackend> {
  checkOptions(options);
  const driver = openDriver();
  const device = chooseDevice(driver, options);
  return new CudaBackend(PrimaryContext.open(driver, device), archOf(device), options);
}

/**
 * Whether openCuda() and compiling can work here: driver, a GPU of SM90 or later, and a compiler, which is only looked for.
 * Never throws.
 */
export function cudaAvailable(): boolean {
  return whyNoCuda() === undefined;
}

/** Why cudaAvailable() is false: the message of what openCuda() or compile() would throw. */
export function whyNoCuda(): string | undefined {
  try {
    chooseDevice(openDriver(), {});
    requireCompiler();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

const oldestMajor = 9;

/** @throws ArgumentError for what is no such option */
function checkOptions(options: CudaOptions): void {
  const hint = "openCuda(), openCuda({ ordinal: 1 }), openCuda({ capability: [9, 0] })";
  if (typeof options !== "object" || options === null) {
    throw new ArgumentError(`openCuda takes its options as an object, not ${describe(options)}`, { hint });
  }
  const { ordinal, capability } = options;
  if (ordinal !== undefined && typeof ordinal !== "number") {
    throw new ArgumentError(`A device's ordinal is a number, not ${describe(ordinal)}`, { hint });
  }
  const pair = Array.isArray(capability) && capability.length === 2 && capability.every(Number.isSafeInteger);
  if (capability !== undefined && !pair) {
    throw new ArgumentError(`A compute capability is two whole numbers, not ${describe(capability)}`, { hint });
  }
}

/** @throws NoDeviceError, UnsupportedError */
function chooseDevice(driver: CudaDriver, { ordinal, capability }: CudaOptions): DeviceInfo {
  const candidates =
    ordinal === undefined
      ? Array.from({ length: deviceCount(driver) }, (_, i) => deviceInfo(driver, i))
      : [deviceInfo(driver, ordinal)];
  const [first] = candidates;
  const wanted = capability?.join(".");
  const fitting = candidates.filter((device) => wanted === undefined || device.capability.join(".") === wanted);
  const chosen = fitting.find((device) => device.capability[0] >= oldestMajor);
  if (chosen) return chosen;
  if (!first) return deviceInfo(driver, 0); // which says that there is none
  const found = candidates.map((device) => `${device.name} has compute capability ${device.capability.join(".")}`);
  if (fitting.length === 0) {
    throw new NoDeviceError(`There is no CUDA device of compute capability ${wanted}: ${found.join(", ")}`, {
      hint: "Only what CUDA_VISIBLE_DEVICES lets through is counted. " + askDoctor,
    });
  }
  throw new UnsupportedError(`${found.join(", ")}; the CUDA backend needs SM90+ (H100, H200, B200, RTX 50, or later)`, {
    hint: "The WGSL backend runs the same kernels on any GPU with Vulkan.",
  });
}

function archOf({ capability: [major, minor] }: DeviceInfo): CudaArch {
  return `sm_${Number(`${major}${minor}`)}a`;
}

/**
 * Made by openCuda(). Dispose it, or write `await using cuda = await openCuda()`.
 *
 * Work is enqueued on streams and runs in their order; streams overlap unless `waitFor` orders them. What the backend does
 * itself comes after everything enqueued so far on any of its streams: write, read, freeze, free, synchronize.
 *
 * It works in the device's primary context, as CUDA's runtime API does, and leaves it current in this thread; after the last
 * dispose() on a device none is. A library with a context of its own makes that current again before its next call; in
 * between, calls and launches here find theirs by themselves.
 */
export class CudaBackend implements Backend {
  readonly name = "cuda";
  readonly device: string;
  readonly arch: CudaArch;
  readonly pdl: boolean;
  readonly #context: PrimaryContext;
  readonly #streams: Streams;
  /** What dispose() gives back: memory, graphs. */
  readonly #storages = new Set<CudaStorage>();
  readonly #pinned = new Set<PinnedTensor>();
  readonly #graphs = new Set<CudaGraph>();
  /** Lets go of what was compiled together with its kernel; the machine code stays loaded until it is disposed. */
  readonly #executables = new WeakMap<object, unknown>();

  constructor(context: PrimaryContext, arch: CudaArch, { pdl = true, debug = false }: CudaOptions) {
    this.#context = context;
    this.arch = arch;
    this.pdl = pdl;
    this.device = `${context.device.name} (${arch}, driver ${context.driver.version})`;
    try {
      this.#streams = new Streams(this, context, debug);
    } catch (error) {
      context.close();
      throw error;
    }
  }

  /** Where launches and graphs go that name no other stream. */
  get stream(): CudaStream {
    return this.#streams.main;
  }

  /** A stream of its own, whose work may overlap that of the others. @throws DeviceError, DisposedError */
  createStream(): CudaStream {
    this.#streams.assertLive();
    return new CudaStream(this.#streams, CudaStream.create(this.#streams), false);
  }

  /**
   * A stream of another library in this process, from its CUstream (0n is CUDA's legacy default stream). What is enqueued
   * here goes there, between that library's own work; it stays that library's, and must live longer than this object.
   * What is freed or unloaded while its work can't be waited for (its owner captures it, or has destroyed it) is given back
   * by a later free() or dispose() that can wait; write and read throw meanwhile.
   * @throws ArgumentError for a stream of another device or context, CaptureError for one that is being captured. No check
   * finds a pointer that is no stream at all.
   */
  adoptStream(pointer: bigint): CudaStream {
    this.#streams.assertLive();
    return new CudaStream(this.#streams, checkForeignStream(this.#streams, pointer), true);
  }

  /** Compiles once per kernel object, and again after the executable was disposed. Blocks the thread while the compiler works. */
  async compile<P extends Params>(kernel: Kernel<P>): Promise<CudaExecutable<P>> {
    const streams = this.#streams;
    streams.assertLive();
    requireKernel(kernel);
    this.#context.assertUsable(`compiling ${kernel.name}`);
    const known = this.#executables.get(kernel) as CudaExecutable<P> | undefined;
    if (known && !known.disposed) return known;
    refuseInCapture(`compiling ${kernel.name}`);
    const { arch, pdl } = this;
    const module = emitCuda(kernel.ir);
    const compiled = compileCuda(module.source, { arch, name: kernel.name });
    const executable = new CudaExecutable({ streams, kernel, module, compiled, arch, pdl });
    this.#executables.set(kernel, executable);
    return executable;
  }

  allocate(byteLength: number): Storage {
    this.#streams.assertLive();
    if (!Number.isSafeInteger(byteLength) || byteLength < 1) {
      throw new ShapeError(`Can't allocate ${describe(byteLength)} bytes: a whole number of at least 1 is needed`);
    }
    const pointer = this.#context.allocate(byteLength);
    const storage = new CudaStorage(this, this.#streams, pointer, byteLength, (ended) => {
      this.#context.free(pointer);
      this.#storages.delete(ended);
    });
    this.#storages.add(storage);
    return storage;
  }

  /**
   * A tensor in host memory that the device copies by itself: `stream.copy(pinned, tensor)` returns at once. Locked pages
   * can't be swapped out, so pin what is copied again and again, and no more.
   * @throws ShapeError, DTypeError, DeviceError
   */
  pinned<N extends DTypeName>(dtype: DType<N>, shape: readonly number[]): PinnedTensor<N> {
    this.#streams.assertLive();
    const tensor = new PinnedTensor(
      this.#streams,
      ownDType(dtype, callerOfBackends),
      shapeOf(shape, callerOfBackends),
      (ended) => this.#pinned.delete(ended),
    );
    this.#pinned.add(tensor);
    return tensor;
  }

  /**
   * A tensor in device memory of another library in this process. It stays that library's: freeing the tensor waits for the
   * launches that may use it and calls `onFree`. What that library does with it meanwhile, and on which stream, is not known
   * here; order it by events or on an adopted stream.
   * @throws ArgumentError for what is no memory of this device, or too little of it, or memory of this library's own tensors;
   * ShapeError unless it is contiguous; DTypeError
   */
  adoptTensor<N extends DTypeName>(foreign: ForeignTensor<N>): DeviceTensor<N> {
    this.#streams.assertLive();
    const { pointer, dtype, shape, onFree } = checkForeignTensor(this.#streams, foreign);
    const byteLength = Math.max(byteLengthOf(dtype, shape), 1);
    const storage = new CudaStorage(this, this.#streams, pointer, byteLength, (ended) => {
      this.#storages.delete(ended);
      try {
        onFree?.();
      } catch (error) {
        // It must not keep the rest from being given back: it becomes an uncaught exception.
        queueMicrotask(() => {
          throw error;
        });
      }
    });
    this.#storages.add(storage);
    return new DeviceTensor(storage, dtype, shape);
  }

  /**
   * The address of a tensor's first element, for another library in this process. It is good until the tensor is freed.
   * @throws DisposedError, ArgumentError for a tensor of another backend
   */
  pointerOf(tensor: DeviceTensor): bigint {
    const { storage, offsetBytes, byteLength } = requireTensor(tensor);
    return this.#streams.own(storage).address(offsetBytes, byteLength);
  }

  /** Returns when the bytes are on the device; waits for everything enqueued before. */
  write(storage: Storage, offsetBytes: number, bytes: Uint8Array): void {
    const { byteLength } = requireBytes(bytes);
    const own = this.#streams.own(storage);
    const address = own.address(offsetBytes, byteLength);
    requireWritable(own, "This memory");
    if (byteLength > 0) this.#streams.write(own, address, bytes);
  }

  /** What everything enqueued so far leaves there. The event loop goes on; only what writes there meanwhile must wait. */
  async read(storage: Storage, offsetBytes: number, byteLength: number): Promise<Uint8Array<ArrayBuffer>> {
    const own = this.#streams.own(storage);
    own.address(offsetBytes, byteLength);
    return byteLength === 0 ? new Uint8Array(0) : await this.#streams.read(own, offsetBytes, byteLength);
  }

  /**
   * Makes a graph of what a function enqueues: the same function that runs eagerly as `chain(cuda.stream)`.
   *
   *   const chain = (on: CudaQueue) => {
   *     norm.launch(on);
   *     gemm.launch(on);
   *   };
   *   const graph = cuda.capture(chain);
   *   graph.launch();
   *
   * Kernels keep their programmatic dependencies. While it is captured, the function can't allocate, compile, read, wait, or
   * launch elsewhere.
   * @throws CaptureError, and whatever the function throws
   */
  capture(chain: (on: CudaQueue) => void): CudaGraph {
    this.#streams.assertLive();
    const graph = new CudaGraph(this.#streams, chain, (ended) => this.#graphs.delete(ended));
    this.#graphs.add(graph);
    return graph;
  }

  async synchronize(): Promise<void> {
    this.#streams.assertLive();
    await this.#streams.drain();
  }

  /**
   * Waits for what runs, and gives everything back; a second call does nothing.
   * @throws CaptureError while a graph is captured. When all is done: ContextLostError when a launch turned out to have failed
   * that nobody had waited for, DeviceError when an adopted stream's work couldn't be waited for
   */
  async dispose(): Promise<void> {
    if (this.#streams.closed) return;
    refuseInCapture("disposing the backend");
    const lostBefore = this.#context.lost;
    this.#streams.beginClosing(); // before memory and code go away under a running kernel
    for (const graph of this.#graphs) graph.dispose();
    for (const pinned of this.#pinned) pinned.dispose();
    for (const storage of this.#storages) storage.free();
    for (const code of this.#streams.code) code.giveUp();
    this.#streams.close();
    this.#context.close();
    if (this.#context.lost && !lostBefore) throw this.#context.lost;
    if (this.#streams.leftSomething) {
      throw new DeviceError("Not all memory was given back: the work of an adopted stream couldn't be waited for", {
        hint: "Its owner captures it, or destroyed it too early: dispose the adopted stream before",
      });
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}
