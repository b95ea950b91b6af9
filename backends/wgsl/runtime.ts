/** The WGSL backend: runs kernels through Dawn on whatever device there is, down to software alone. */
import { describe } from "../../dsl/check.ts";
import {
  ArgumentError,
  DeviceError,
  DisposedError,
  ShapeError,
  TegulaError,
  UnsupportedError,
} from "../../dsl/errors.ts";
import type { Kernel } from "../../dsl/kernel.ts";
import type { Params } from "../../dsl/params.ts";
import type { Location } from "../../dsl/source.ts";
import type { Backend, Executable, Launch, Storage } from "../backend.ts";
import {
  type Arguments,
  type BoundArguments,
  changeScalars,
  checkArguments,
  requireKernel,
  requireWritableIn,
  type Scalars,
} from "../bind.ts";
import { type DeviceTensor, requireBytes, requireLocation, requireWritable } from "../tensor.ts";
import { type FoundDevice, openDevice } from "./device.ts";
import { emitWgsl, type WgslModule } from "./emit.ts";
import type { DeviceKind, DeviceOptions } from "./options.ts";
import { messageOf, Program, type Slice } from "./program.ts";
import { roundUp, Transfer, usage } from "./transfer.ts";
import { waitNapping } from "./wait.ts";

/**
 * Opens the WGSL backend on a GPU, else lavapipe, else SwiftShader; `device` or $TEGULA_WGSL_DEVICE accepts one of them only.
 * @throws NotFoundError listing what was tried and what gives a device
 */
export async function openWgsl(options: DeviceOptions = {}): Promise<WgslBackend> {
  return WgslBackend.on(await openDevice(options));
}

/** Device memory. After its backend's dispose() it counts as freed. */
class WgslStorage implements Storage {
  readonly backend: WgslBackend;
  readonly byteLength: number;
  readonly buffer: GPUBuffer;
  /** @internal Whether it was made by the constructor: what has only the fields, or is a proxy, has no memory. */
  static [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === "object" && value !== null && #freed in value;
  }

  #freed = false;
  #frozenAt: Location | undefined;

  constructor(backend: WgslBackend, byteLength: number, buffer: GPUBuffer) {
    this.backend = backend;
    this.byteLength = byteLength;
    this.buffer = buffer;
  }

  get freed(): boolean {
    return this.#freed || this.backend.disposed;
  }

  get frozenAt(): Location | undefined {
    return this.#frozenAt;
  }

  /** What was enqueued before needs no waiting for: each dispatch is complete before the next begins. */
  freeze(at: Location): void {
    if (this.freed) throw new DisposedError("Device memory was used after it was freed");
    this.#frozenAt ??= requireLocation(at);
  }

  free(): void {
    if (this.freed) return;
    this.#freed = true;
    this.buffer.destroy();
  }

  [Symbol.dispose](): void {
    this.free();
  }
}

class WgslExecutable<P extends Params> implements Executable<P> {
  readonly kernel: Kernel<P>;
  readonly backend: WgslBackend;
  readonly program: Program;

  constructor(kernel: Kernel<P>, backend: WgslBackend, program: Program) {
    this.kernel = kernel;
    this.backend = backend;
    this.program = program;
  }

  get source(): string {
    return this.program.module.source;
  }

  get compileMs(): number {
    return this.program.compileMs;
  }

  bind(args: Arguments<P>): Launch<P> {
    // Alignment is promised of the place in a storage: each storage begins at a multiple of 256 bytes.
    const place = ({ storage, offsetBytes }: DeviceTensor) => ({ space: storage, begin: BigInt(offsetBytes) });
    return new WgslLaunch(this, checkArguments(this.kernel, args, this.backend, place));
  }
}

/** All are recorded before the first begins. */
const mostTimed = 1_000_000;

class WgslLaunch<P extends Params> implements Launch<P> {
  readonly executable: WgslExecutable<P>;
  #bound: BoundArguments;

  /** @throws ArgumentError, UnsupportedError for what WGSL can't bind */
  constructor(executable: WgslExecutable<P>, bound: BoundArguments) {
    this.executable = executable;
    this.#bound = bound;
    executable.program.check(executable.backend.slices(bound.tensors));
  }

  get kernel(): Kernel<P> {
    return this.executable.kernel;
  }

  launch(): void {
    this.#enqueue(1);
  }

  set(scalars: Partial<Scalars<P>>): void {
    this.#bound = { ...this.#bound, scalars: changeScalars(this.kernel, this.#bound.scalars, scalars) };
  }

  /**
   * Mean time of a launch in microseconds. It is wall time: `launches` dispatches are submitted together and waited for,
   * so it contains the host's share of submitting and waking up.
   * @throws as `launch` and `synchronize`
   */
  async timeUs(launches: number): Promise<number> {
    if (!Number.isSafeInteger(launches) || launches < 1 || launches > mostTimed) {
      throw new ArgumentError(`Can't time ${describe(launches)} launches; 1 to ${mostTimed} can be`);
    }
    const { backend } = this.executable;
    await backend.synchronize();
    const start = performance.now();
    this.#enqueue(launches);
    await backend.synchronize();
    return ((performance.now() - start) * 1000) / launches;
  }

  #enqueue(times: number): void {
    const { kernel } = this;
    for (const [index, tensor] of this.#bound.tensors.entries()) {
      const { name = "", role = "frozen" } = kernel.ir.tensors[index] ?? {};
      requireWritableIn(kernel, name, role, tensor);
    }
    this.executable.backend.enqueue(this.executable.program, this.#bound, times);
  }
}

/**
 * Made by openWgsl(). Dispose it, or write `await using`; launches run in the order in which they were enqueued.
 * ```ts
 * await using wgsl = await openWgsl();
 * const { y } = await run(wgsl, twice, { x });
 * ```
 */
export class WgslBackend implements Backend {
  readonly name = "wgsl";
  /** For people, e.g. "SwiftShader (Dawn)". */
  readonly device: string;
  /** What runs the shaders: hardware, Mesa's software device, or Google's. */
  readonly kind: DeviceKind;
  readonly #device: GPUDevice;
  readonly #transfer: Transfer;
  /** What is compiled already, as long as the kernel is used. */
  readonly #executables = new WeakMap<Kernel, Promise<Executable>>();
  #disposed = false;
  /** Error scopes of launches whose outcome isn't known yet. */
  readonly #unsettled = new Set<Promise<void>>();
  /** What went wrong since the last synchronize() or read(). */
  #failures: string[] = [];
  /** Why the device is lost; then nothing works any more. */
  #lost: string | undefined;
  #lastKernel: string | undefined;
  readonly #onError = (event: GPUUncapturedErrorEvent): void => {
    event.preventDefault();
    this.#failures.push(event.error.message);
  };

  /** @internal */
  static on(found: FoundDevice): WgslBackend {
    return new WgslBackend(found);
  }

  private constructor({ device, kind, label }: FoundDevice) {
    this.device = label;
    this.kind = kind;
    this.#device = device;
    this.#transfer = new Transfer(device);
    device.addEventListener("uncapturederror", this.#onError);
    void device.lost.then(({ reason, message }) => {
      const after = this.#lastKernel === undefined ? "" : ` after a launch of "${this.#lastKernel}"`;
      this.#lost = `The device was lost${after} (${reason}): ${message}`;
    });
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** @throws CompileError with the line of WGSL; UnsupportedError; DisposedError */
  async compile<P extends Params>(kernel: Kernel<P>): Promise<Executable<P>> {
    this.#checkLive();
    requireKernel(kernel);
    let executable = this.#executables.get(kernel);
    if (!executable) {
      executable = this.executableFromModule<Params>(kernel, emitWgsl(kernel.ir));
      this.#executables.set(kernel, executable);
      // A failure is not kept: it may have been the device's.
      executable.catch(() => this.#executables.delete(kernel));
    }
    return (await executable) as Executable<P>;
  }

  /** Compiles WGSL that is there already; its parameters must be those of the kernel. @throws as `compile` */
  async executableFromModule<P extends Params>(kernel: Kernel<P>, module: WgslModule): Promise<Executable<P>> {
    this.#checkLive();
    try {
      const program = await this.#wait(Program.compile(this.#device, kernel.name, module));
      this.#checkLive();
      return new WgslExecutable(kernel, this, program);
    } catch (error) {
      this.#checkLive();
      throw error;
    }
  }

  /**
   * Allocates memory whose content is undefined; `byteLength` in bytes, at least 1.
   * @throws UnsupportedError over the device's limits; DisposedError. Running out of memory is reported by the next
   * synchronize() or read().
   */
  allocate(byteLength: number): Storage {
    this.#checkLive();
    if (!Number.isSafeInteger(byteLength) || byteLength < 1) {
      throw new ShapeError(`Can't allocate ${describe(byteLength)} bytes: a whole number of at least 1 is needed`);
    }
    const size = roundUp(byteLength, 4);
    for (const limit of ["maxBufferSize", "maxStorageBufferBindingSize"] as const) {
      if (size <= this.#device.limits[limit]) continue;
      throw new UnsupportedError(
        `${byteLength} bytes are over this device's ${limit} of ${this.#device.limits[limit]}`,
      );
    }
    const bits = usage.storage | usage.copySrc | usage.copyDst;
    return new WgslStorage(this, byteLength, this.#device.createBuffer({ size, usage: bits }));
  }

  /** Enqueues a copy of `bytes`, at any offset in bytes. @throws ArgumentError out of range or frozen; DisposedError */
  write(storage: Storage, offsetBytes: number, bytes: Uint8Array): void {
    const { buffer, byteLength } = this.#own(storage, offsetBytes, requireBytes(bytes).byteLength);
    requireWritable(storage, "This memory");
    this.#transfer.write(buffer, byteLength, offsetBytes, bytes);
  }

  /**
   * Copies bytes back, after everything enqueued so far.
   * @throws ArgumentError out of range; DeviceError when an earlier launch failed; DisposedError
   */
  async read(storage: Storage, offsetBytes: number, byteLength: number): Promise<Uint8Array<ArrayBuffer>> {
    const { buffer } = this.#own(storage, offsetBytes, byteLength);
    try {
      const bytes = await this.#wait(this.#transfer.read(buffer, offsetBytes, byteLength));
      await this.#settle();
      return bytes;
    } catch (error) {
      await this.#settle();
      throw error instanceof TegulaError ? error : new DeviceError(`Reading back failed: ${messageOf(error)}`);
    }
  }

  /** Waits for everything enqueued. @throws DeviceError naming the kernel whose launch failed; DisposedError */
  async synchronize(): Promise<void> {
    this.#checkLive();
    await this.#wait(this.#device.queue.onSubmittedWorkDone()).catch(() => undefined);
    await this.#settle();
  }

  /** Destroys the device with everything on it, after the work that is under way. Idempotent, never throws. */
  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#device.removeEventListener("uncapturederror", this.#onError); // Dawn's Node module would keep it, and this object
    this.#device.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }

  /** @internal Enqueues `times` launches after all earlier ones; returns at once. @throws DeviceError, DisposedError */
  enqueue(program: Program, { grid, tensors, scalars }: BoundArguments, times: number): void {
    const slices = this.slices(tensors);
    const { name } = program;
    this.#device.pushErrorScope("validation");
    try {
      const report = program.enqueue(slices, scalars, grid, times);
      this.#lastKernel = name;
      if (report) this.#settleLater(report.then((failure) => void (failure && this.#failures.push(failure))));
    } finally {
      this.#settleLater(
        this.#device
          .popErrorScope()
          .then((error) => void (error && this.#failures.push(`Launch of "${name}" failed: ${error.message}`))),
      );
    }
  }

  /** Failures mean that the device is lost, which #settle reports. */
  #settleLater(work: Promise<void>): void {
    const outcome = work.catch(() => undefined);
    this.#unsettled.add(outcome);
    void outcome.then(() => this.#unsettled.delete(outcome));
  }

  /** @internal @throws ArgumentError, DisposedError, DeviceError */
  slices(tensors: readonly DeviceTensor[]): readonly Slice[] {
    return tensors.map(({ storage, offsetBytes, byteLength }) => {
      const { buffer } = this.#own(storage, offsetBytes, byteLength);
      return { buffer, offset: offsetBytes, size: roundUp(Math.max(byteLength, 1), 4) };
    });
  }

  /** The storage as this backend's own, live, and large enough. */
  #own(storage: Storage, offsetBytes: number, byteLength: number): WgslStorage {
    this.#checkLive();
    if (!(storage instanceof WgslStorage) || storage.backend !== this) {
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

  /** Software devices compute on the cores that waiting would burn. */
  #wait<T>(work: Promise<T>): Promise<T> {
    return this.kind === "gpu" ? work : waitNapping(work);
  }

  #checkLive(): void {
    if (this.#disposed) throw new DisposedError("The WGSL backend was used after dispose()");
    if (this.#lost !== undefined) throw new DeviceError(this.#lost);
  }

  /** Waits for the outcome of every launch, then throws what went wrong, once. */
  async #settle(): Promise<void> {
    await Promise.all(this.#unsettled);
    this.#checkLive();
    const failures = this.#failures;
    this.#failures = [];
    if (failures.length > 0) throw new DeviceError(failures.join("\n"));
  }
}
