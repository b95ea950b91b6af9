/**
 * The one interface behind which every executor stands: compile, allocate, write, launch, read, time, dispose.
 * A backend knows the IR and nothing of kernels; arguments reach it already checked (bind.ts).
 */
import type { DType } from "../dsl/dtype.ts";
import type { Kernel } from "../dsl/kernel.ts";
import type { Params } from "../dsl/params.ts";
import type { DeviceTensor } from "./tensor.ts";

/** A piece of device memory. Freed once, explicitly or with its backend; every use after that throws DisposedError. */
export interface Storage {
  readonly backend: Backend;
  readonly byteLength: number;
  readonly freed: boolean;
  free(): void;
}

/** A kernel made ready for one backend. */
export interface Executable<P extends Params = Params> {
  readonly kernel: Kernel<P>;
  readonly backend: Backend;
  /** The generated CUDA C or WGSL. */
  readonly source: string;
  /** Wall-clock time of the target's compiler, without tracing and emitting. */
  readonly compileMs: number;
}

/** A run-time scalar or size with the value it has in one launch. */
export interface BoundScalar {
  readonly name: string;
  readonly dtype: DType<"f32" | "i32" | "u32">;
  readonly value: number;
}

/** The checked arguments of one launch, in the order of the kernel's parameters. */
export interface BoundLaunch {
  /** What they are arguments of; a launch of anything else is refused. */
  readonly kernel: Kernel;
  readonly grid: readonly [x: number, y: number, z: number];
  readonly tensors: readonly DeviceTensor[];
  readonly scalars: readonly BoundScalar[];
}

export interface Backend {
  readonly name: "cuda" | "wgsl";
  /** For people: the device and how it was found, e.g. "SwiftShader (Dawn)". */
  readonly device: string;

  /** @throws CompileError, UnsupportedError */
  compile<P extends Params>(kernel: Kernel<P>): Promise<Executable<P>>;
  /** Allocates memory whose content is undefined. `byteLength` >= 1. @throws DeviceError when there is no room */
  allocate(byteLength: number): Storage;
  write(storage: Storage, offsetBytes: number, bytes: Uint8Array): void;
  read(storage: Storage, offsetBytes: number, byteLength: number): Promise<Uint8Array<ArrayBuffer>>;
  /** Enqueues one launch after all earlier ones; returns at once. */
  launch(executable: Executable, launch: BoundLaunch): void;
  /** Waits for everything enqueued. @throws DeviceError when a launch failed */
  synchronize(): Promise<void>;
  /** Enqueues `launches` launches back to back and returns their mean time in microseconds, device time where it can be had. */
  timeUs(executable: Executable, launch: BoundLaunch, launches: number): Promise<number>;
  /** Frees everything that this backend made. Idempotent. */
  dispose(): Promise<void>;
}
