/** The CUDA backend: kernels on an NVIDIA GPU, SM90 or later, through the driver API and nothing else. */
import { ArgumentError, DisposedError, UnsupportedError } from "../../dsl/errors.ts";
import type { Kernel } from "../../dsl/kernel.ts";
import type { Params } from "../../dsl/params.ts";
import type { Backend, BoundLaunch, Executable, Storage } from "../backend.ts";
import { requireOwnArguments } from "../bind.ts";
import { notDetached, wholeNumber } from "./checks.ts";
import { type CudaArch, compileCuda, findCompiler } from "./compile.ts";
import { PrimaryContext } from "./context.ts";
import { type DeviceInfo, deviceInfo, type ModuleHandle, openDriver } from "./driver.ts";
import { emitCuda } from "./emit.ts";
import { CudaExecutable } from "./executable.ts";
import { CudaStorage, memoryUse } from "./storage.ts";
import { Stream } from "./stream.ts";

export interface CudaOptions {
  /** Which GPU, counting from 0 among those that CUDA_VISIBLE_DEVICES lets through. */
  readonly ordinal?: number | undefined;
  /** Programmatic dependent launch: a kernel may start while the one before it ends. On by default. */
  readonly pdl?: boolean | undefined;
  /** Waits for every launch, so that an error names the kernel that made it. Off by default. */
  readonly debug?: boolean | undefined;
}

/**
 * Opens a GPU.
 * @throws NotFoundError without driver or GPU, UnsupportedError for a GPU before SM90, DeviceError
 */
export async function openCuda(options: CudaOptions = {}): Promise<CudaBackend> {
  const driver = openDriver();
  const device = deviceInfo(driver, options.ordinal ?? 0);
  const arch = archOf(device);
  return new CudaBackend(PrimaryContext.open(driver, device), arch, options);
}

/** Whether openCuda() and compiling can work here: driver, GPU 0 of SM90 or later, and a compiler. Never throws. */
export function cudaAvailable(): boolean {
  return whyNoCuda() === undefined;
}

/** Why cudaAvailable() is false: the message of what openCuda() or compile() would throw. */
export function whyNoCuda(): string | undefined {
  try {
    archOf(deviceInfo(openDriver(), 0));
    findCompiler();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function archOf({ name, capability: [major, minor] }: DeviceInfo): CudaArch {
  if (major >= 9) return `sm_${Number(`${major}${minor}`)}a`;
  throw new UnsupportedError(
    `${name} has compute capability ${major}.${minor}; the CUDA backend needs SM90+ (H100, H200, B200, RTX 50, or later)`,
    { hint: "The WGSL backend runs the same kernels on any GPU with Vulkan." },
  );
}

/** A read that waits for its turn. */
interface PendingRead {
  readonly storage: Storage;
  bytes: Uint8Array<ArrayBuffer> | undefined;
  copy(): Uint8Array<ArrayBuffer>;
}

/** Made by openCuda(). Dispose it, or write `await using cuda = await openCuda()`. */
export class CudaBackend implements Backend, AsyncDisposable {
  readonly name = "cuda";
  readonly device: string;
  readonly arch: CudaArch;
  readonly pdl: boolean;
  readonly #context: PrimaryContext;
  readonly #stream: Stream;
  readonly #debug: boolean;
  readonly #storages = new Set<CudaStorage>();
  readonly #reads = new Set<PendingRead>();
  /** Lets go of what was compiled together with its kernel; the machine code stays loaded until dispose(). */
  readonly #executables = new WeakMap<object, CudaExecutable>();
  readonly #modules: ModuleHandle[] = [];
  #disposed = false;

  constructor(context: PrimaryContext, arch: CudaArch, { pdl = true, debug = false }: CudaOptions) {
    this.#context = context;
    this.arch = arch;
    this.pdl = pdl;
    this.#debug = debug;
    this.device = `${context.device.name} (${arch}, driver ${context.driver.version})`;
    try {
      this.#stream = new Stream(context, pdl);
    } catch (error) {
      context.close();
      throw error;
    }
  }

  /** Compiles once per kernel object; `compiler` is e.g. "NVRTC 13.0". Blocks the thread while the compiler works. */
  async compile<P extends Params>(kernel: Kernel<P>): Promise<Executable<P> & { readonly compiler: string }> {
    this.#assertLive();
    const known = this.#executables.get(kernel);
    if (known) return known as CudaExecutable<P>;
    const { arch } = this;
    const module = emitCuda(kernel.ir);
    const compiled = compileCuda(module.source, { arch, name: kernel.name });
    const executable = new CudaExecutable(this.#context, { backend: this, kernel, module, compiled, arch });
    this.#executables.set(kernel, executable);
    this.#modules.push(executable.module);
    return executable;
  }

  allocate(byteLength: number): Storage {
    this.#assertLive();
    wholeNumber("A storage's size in bytes", byteLength, 1, Number.MAX_SAFE_INTEGER);
    const storage = new CudaStorage(this, byteLength, this.#context.allocate(byteLength), (freed, pointer) => {
      // cuMemFree doesn't promise to wait for launches on other streams than the default one.
      this.#stream.finish();
      this.#context.release((api) => api.cuMemFree(pointer));
      this.#storages.delete(freed);
    });
    this.#storages.add(storage);
    return storage;
  }

  /** Returns when the bytes are on the device; waits for everything enqueued before. */
  write(storage: Storage, offsetBytes: number, bytes: Uint8Array): void {
    const { byteLength } = notDetached(bytes);
    const address = this.#own(storage).address(offsetBytes, byteLength);
    if (byteLength === 0) return;
    this.#readBeforeWriting(storage);
    this.#stream.copyIn(address, bytes);
  }

  /** What everything enqueued so far leaves there. The event loop goes on; only what writes there meanwhile must wait. */
  async read(storage: Storage, offsetBytes: number, byteLength: number): Promise<Uint8Array<ArrayBuffer>> {
    const address = () => this.#own(storage).address(offsetBytes, byteLength); // throws once that is gone
    address();
    if (byteLength === 0) return new Uint8Array(0);
    const copy = () => this.#stream.copyOut(address(), byteLength);
    const read: PendingRead = { storage, bytes: undefined, copy };
    this.#reads.add(read);
    try {
      await this.#stream.drain();
      address();
      return read.bytes ?? copy();
    } finally {
      this.#reads.delete(read);
    }
  }

  launch(executable: Executable, launch: BoundLaunch): void {
    this.#assertLive();
    const own = this.#ownExecutable(executable, launch);
    const pointers = launch.tensors.map(({ storage, offsetBytes, byteLength }) =>
      this.#own(storage).address(offsetBytes, byteLength),
    );
    const memory = memoryUse(launch);
    for (const storage of memory.written) this.#readBeforeWriting(storage);
    own.launch(this.#stream, launch, pointers, memory);
    if (this.#debug) this.#stream.synchronize();
  }

  async synchronize(): Promise<void> {
    this.#assertLive();
    await this.#stream.drain();
  }

  /** Device time, by events around the launches; where enqueueing takes longer than running, the time of enqueueing. */
  async timeUs(executable: Executable, launch: BoundLaunch, launches: number): Promise<number> {
    this.#assertLive();
    wholeNumber("The number of launches", launches, 1, 1_000_000);
    this.#ownExecutable(executable, launch);
    const ms = await this.#stream.time(() => {
      for (let i = 0; i < launches; i++) this.launch(executable, launch);
    });
    return (ms * 1000) / launches;
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#stream.finish(); // before memory and code go away under a running kernel
    for (const storage of [...this.#storages]) storage.free();
    for (const module of this.#modules) this.#context.unload(module);
    this.#stream.close();
    this.#context.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #assertLive(): void {
    if (this.#disposed) throw new DisposedError("The CUDA backend was used after dispose()");
  }

  /** A read promised what was there before. */
  #readBeforeWriting(storage: Storage): void {
    for (const read of this.#reads) if (read.storage === storage) read.bytes ??= read.copy();
  }

  /** @throws ArgumentError for an executable of another backend, or one that the arguments aren't for */
  #ownExecutable(executable: Executable, launch: BoundLaunch): CudaExecutable {
    const { kernel } = executable;
    if (!(executable instanceof CudaExecutable) || executable.backend !== this) {
      throw new ArgumentError(`${kernel.name} was compiled by another backend`, { at: kernel.at });
    }
    requireOwnArguments(executable, launch);
    return executable;
  }

  /** @throws DisposedError, ArgumentError for memory of another backend: its address means nothing here */
  #own(storage: Storage): CudaStorage {
    this.#assertLive();
    if (storage instanceof CudaStorage && storage.backend === this) return storage;
    throw new ArgumentError(`A tensor in ${storage.backend.device} was given to ${this.device}`, {
      hint: "Read it, and write it into a tensor of this backend.",
    });
  }
}
