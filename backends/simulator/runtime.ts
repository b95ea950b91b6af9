/** The simulator as a backend: memory in ArrayBuffers, launches that run where they are enqueued. */
import { describe } from "../../dsl/check.ts";
import { ArgumentError, DisposedError, OutOfMemoryError, ShapeError } from "../../dsl/errors.ts";
import type { Kernel } from "../../dsl/kernel.ts";
import type { Params } from "../../dsl/params.ts";
import { printKernel } from "../../dsl/print.ts";
import type { Location } from "../../dsl/source.ts";
import type { Backend, Executable, Storage } from "../backend.ts";
import { type Arguments, checkArguments, requireKernel } from "../bind.ts";
import { type DeviceTensor, requireBytes, requireWritable } from "../tensor.ts";
import type { Content } from "./context.ts";
import { SimulatorLaunch } from "./launch.ts";

export interface SimulatorOptions {
  /**
   * "all": accesses are checked against each other. "values": results alone, faster; of findings only out-of-bounds,
   * misaligned, divergence, arrivals and deadlock.
   */
  readonly check?: "all" | "values";
  /** Runs clusters and warps in a random order, interrupts warps, and ends copies early: the same for the same seed. */
  readonly seed?: number | undefined;
}

/**
 * Opens the simulator. It is always there, in Node and in a browser.
 * ```ts
 * const simulator = await openSimulator({ seed: 1 });
 * const { y } = await run(simulator, gemm, { w, x }); // a HazardError for a race, a missing wait, ...
 * ```
 * @throws ArgumentError for what is no such option
 */
export async function openSimulator(options: SimulatorOptions = {}): Promise<SimulatorBackend> {
  return new SimulatorBackend(options);
}

/** Memory. It knows which of its bytes were ever written. */
class SimulatorStorage implements Storage {
  readonly backend: SimulatorBackend;
  readonly byteLength: number;
  bytes: Uint8Array<ArrayBuffer>;
  /** By byte: 1, or 0 as long as nobody wrote it. */
  defined: Uint8Array<ArrayBuffer>;
  #freed = false;
  #frozenAt: Location | undefined;

  /** Whether it was made by the constructor: what has only the fields, or is a proxy, is none. */
  static [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === "object" && value !== null && #freed in value;
  }

  constructor(backend: SimulatorBackend, byteLength: number) {
    this.backend = backend;
    this.byteLength = byteLength;
    this.bytes = new Uint8Array(byteLength).fill(0xff);
    this.defined = new Uint8Array(byteLength);
  }

  get freed(): boolean {
    return this.#freed || this.backend.disposed;
  }

  get frozenAt(): Location | undefined {
    return this.#frozenAt;
  }

  freeze(at: Location): void {
    if (this.freed) throw new DisposedError("Device memory was used after it was freed");
    this.#frozenAt ??= at;
  }

  free(): void {
    this.#freed = true;
    this.bytes = this.defined = new Uint8Array(0);
  }

  [Symbol.dispose](): void {
    this.free();
  }
}

export class SimulatorExecutable<P extends Params = Params> implements Executable<P> {
  readonly kernel: Kernel<P>;
  readonly backend: SimulatorBackend;
  /** There is no compiler. */
  readonly compileMs = 0;

  constructor(kernel: Kernel<P>, backend: SimulatorBackend) {
    this.kernel = kernel;
    this.backend = backend;
  }

  get source(): string {
    return printKernel(this.kernel.ir);
  }

  bind(args: Arguments<P>): SimulatorLaunch<P> {
    const place = ({ storage, offsetBytes }: DeviceTensor) => ({ space: storage, begin: BigInt(offsetBytes) });
    const { kernel, backend } = this;
    return new SimulatorLaunch(kernel, backend, checkArguments(kernel, args, backend, place));
  }
}

export class SimulatorBackend implements Backend {
  readonly name = "simulator";
  readonly device: string;
  readonly check: "all" | "values";
  readonly seed: number | undefined;
  #disposed = false;

  /** @throws ArgumentError */
  constructor(options: SimulatorOptions = {}) {
    const hint = 'openSimulator({ check: "values", seed: 1 })';
    if (typeof options !== "object" || options === null) {
      throw new ArgumentError(`openSimulator takes its options as an object, not ${describe(options)}`, { hint });
    }
    const { check = "all", seed } = options;
    if (check !== "all" && check !== "values") {
      throw new ArgumentError(`check is "all" or "values", not ${describe(check)}`, { hint });
    }
    if (seed !== undefined && !Number.isSafeInteger(seed)) {
      throw new ArgumentError(`A seed is a whole number, not ${describe(seed)}`, { hint });
    }
    this.check = check;
    this.seed = seed;
    this.device = seed === undefined ? "simulator" : `simulator, schedule ${seed}`;
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** Nothing is left to do before a launch. @throws DisposedError */
  async compile<P extends Params>(kernel: Kernel<P>): Promise<SimulatorExecutable<P>> {
    this.checkLive();
    requireKernel(kernel);
    return new SimulatorExecutable(kernel, this);
  }

  /** Memory that counts as never written; its bytes are 0xff. @throws ShapeError, OutOfMemoryError, DisposedError */
  allocate(byteLength: number): Storage {
    this.checkLive();
    if (!Number.isSafeInteger(byteLength) || byteLength < 1) {
      throw new ShapeError(`Can't allocate ${describe(byteLength)} bytes: a whole number of at least 1 is needed`);
    }
    try {
      return new SimulatorStorage(this, byteLength);
    } catch (error) {
      throw new OutOfMemoryError(`There is no room for ${byteLength} bytes: ${String(error)}`);
    }
  }

  /** Copies `bytes` in. @throws ArgumentError out of range or frozen; DisposedError */
  write(storage: Storage, offsetBytes: number, bytes: Uint8Array): void {
    const { byteLength } = requireBytes(bytes);
    const own = this.#own(storage, offsetBytes, byteLength);
    requireWritable(storage, "This memory");
    own.bytes.set(bytes, offsetBytes);
    own.defined.fill(1, offsetBytes, offsetBytes + byteLength);
  }

  /** A copy of bytes as they are now. @throws ArgumentError out of range; DisposedError */
  async read(storage: Storage, offsetBytes: number, byteLength: number): Promise<Uint8Array<ArrayBuffer>> {
    return this.#own(storage, offsetBytes, byteLength).bytes.slice(offsetBytes, offsetBytes + byteLength);
  }

  /** Launches have ended when they return. @throws DisposedError */
  async synchronize(): Promise<void> {
    this.checkLive();
  }

  async dispose(): Promise<void> {
    this.#disposed = true;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  /** @internal What a launch finds in a tensor, and changes in place. @throws DisposedError */
  content({ storage, offsetBytes, byteLength, dtype, shape }: DeviceTensor): Content {
    const own = this.#own(storage, offsetBytes, byteLength);
    const end = offsetBytes + byteLength;
    const defined = own.defined.subarray(offsetBytes, end);
    const isDefined = !defined.includes(0);
    const ofElement = (i: number): Uint8Array => defined.subarray(i * dtype.bytes, (i + 1) * dtype.bytes);
    return {
      dims: shape,
      bytes: own.bytes.subarray(offsetBytes, end),
      isDefined: isDefined ? undefined : (i) => !ofElement(i).includes(0),
      define: isDefined ? undefined : (i) => void ofElement(i).fill(1),
    };
  }

  /** The storage as this backend's own, live, and large enough. */
  #own(storage: Storage, offsetBytes: number, byteLength: number): SimulatorStorage {
    this.checkLive();
    if (!(storage instanceof SimulatorStorage) || storage.backend !== this) {
      throw new ArgumentError("A tensor's memory belongs to another backend");
    }
    if (storage.freed) throw new DisposedError("Device memory was used after it was freed");
    const whole = Number.isSafeInteger(offsetBytes) && Number.isSafeInteger(byteLength);
    if (!whole || offsetBytes < 0 || byteLength < 0 || offsetBytes + byteLength > storage.byteLength) {
      throw new ArgumentError(
        `${describe(byteLength)} bytes at byte ${describe(offsetBytes)} are outside of storage of ${storage.byteLength} bytes`,
      );
    }
    return storage;
  }

  /** @internal @throws DisposedError */
  checkLive(): void {
    if (this.#disposed) throw new DisposedError("The simulator was used after dispose()");
  }
}
