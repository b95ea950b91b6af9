/**
 * The one interface behind which every executor stands: compile, allocate, write, bind, launch, read, time, dispose.
 * A backend knows the IR and nothing of kernels; arguments reach it already checked (bind.ts).
 */
import type { Kernel } from "../dsl/kernel.ts";
import type { Params } from "../dsl/params.ts";
import type { Location } from "../dsl/source.ts";
import type { Arguments, Scalars } from "./bind.ts";

/**
 * A piece of device memory. Freed once: explicitly, by `using`, or with its backend; every use after that throws
 * DisposedError.
 */
export interface Storage extends Disposable {
  readonly backend: Backend;
  readonly byteLength: number;
  readonly freed: boolean;
  /** Where it became read-only, if it did; nothing writes it after that. */
  readonly frozenAt: Location | undefined;
  /** Waits for what was enqueued, then makes it read-only for ever. @throws DisposedError, DeviceError */
  freeze(at: Location): void;
  /** Gives the memory back, after the launches that may use it. A second call does nothing. */
  free(): void;
}

/** A kernel made ready for one backend. */
export interface Executable<P extends Params = Params> {
  readonly kernel: Kernel<P>;
  readonly backend: Backend;
  /** The generated CUDA C or WGSL; of the simulator, which runs the IR as it is, the IR. */
  readonly source: string;
  /** Wall-clock time of the target's compiler, without tracing and emitting. */
  readonly compileMs: number;

  /**
   * Checks the arguments and prepares everything that launching them takes. Device tensors stay the caller's; a launch
   * after one of them was freed throws.
   * @throws ArgumentError with the parameter and what it should be; DisposedError for freed memory
   */
  bind(args: Arguments<P>): Launch<P>;
}

/** A kernel with its arguments: what can be launched, any number of times. */
export interface Launch<P extends Params = Params> {
  readonly kernel: Kernel<P>;

  /**
   * Enqueues one launch, after all earlier ones; returns at once. The simulator runs it here.
   * @throws DisposedError, ArgumentError, DeviceError
   */
  launch(): void;
  /** Changes scalars from the next launch on; tensors want a new `bind`. @throws ArgumentError */
  set(scalars: Partial<Scalars<P>>): void;
  /**
   * Enqueues `launches` launches back to back and returns their mean time in microseconds, device time where it can be had.
   * @throws UnsupportedError of the simulator, which has no clock
   */
  timeUs(launches: number): Promise<number>;
}

export interface Backend extends AsyncDisposable {
  readonly name: "cuda" | "wgsl" | "simulator";
  /** For people: the device and how it was found, e.g. "SwiftShader (Dawn)". */
  readonly device: string;

  /** @throws CompileError, UnsupportedError */
  compile<P extends Params>(kernel: Kernel<P>): Promise<Executable<P>>;
  /** Allocates memory whose content is undefined. `byteLength` >= 1. @throws DeviceError when there is no room */
  allocate(byteLength: number): Storage;
  /** Copies in after everything enqueued so far. @throws ArgumentError when the memory is frozen; DisposedError */
  write(storage: Storage, offsetBytes: number, bytes: Uint8Array): void;
  /** What everything enqueued so far leaves there. @throws DeviceError when a launch failed; DisposedError */
  read(storage: Storage, offsetBytes: number, byteLength: number): Promise<Uint8Array<ArrayBuffer>>;
  /** Waits for everything enqueued. @throws DeviceError when a launch failed */
  synchronize(): Promise<void>;
  /** Frees everything that this backend made. Idempotent. */
  dispose(): Promise<void>;
}
