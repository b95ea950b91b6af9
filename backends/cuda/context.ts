/**
 * The primary context of a device: the one that CUDA shares among everything in a process. All calls that need a context go
 * through `call`, which makes it current, checks the answer, and remembers when a kernel has destroyed it. It stays
 * current, so that launches need no call for it: what another library had current before is not put back.
 */
import {
  CaptureError,
  ContextLostError,
  DeviceError,
  LaunchRefusedError,
  OutOfMemoryError,
  TegulaError,
} from "../../dsl/errors.ts";
import type { Location } from "../../dsl/source.ts";
import {
  type ContextHandle,
  type CudaDriver,
  type DeviceInfo,
  type DevicePointer,
  type DriverApi,
  type FunctionHandle,
  type ModuleHandle,
} from "./driver.ts";
import { contextDestroyed, describeResult, losesContext, outOfMemory, refusedLaunch, wrongContext } from "./results.ts";

/** What messages need to know of a kernel; of another library's there is no line. */
export interface NamedKernel {
  readonly name: string;
  readonly at: Location | undefined;
  /** What one of its launches takes of the device, in words. */
  readonly needs?: string;
}

/** Whatever launches into this context: it knows which kernels may have caused an error that is only seen later. */
export interface Launcher {
  /** Launched, and not known to have ended well; `order` grows with every piece of work of the thread. */
  suspects(): readonly { readonly kernels: readonly NamedKernel[]; readonly order: number }[];
}

/** What is the same for everything in a thread; a worker has its own. CUDA, too, has one current context per thread. */
export const thread: {
  /** The context that this library made current last; another library may have changed it since. */
  current: PrimaryContext | undefined;
  /**
   * Counts whatever may spoil a launch that was found fine before: memory freed or frozen, something disposed, a context
   * lost, a capture begun or ended. A launch that was checked at this count needs no other check.
   */
  generation: number;
  /** Counts what was enqueued, on whatever stream. */
  enqueued: number;
  /** What waits for the end of the capture that is going on, if one is. */
  afterCapture: (() => void)[] | undefined;
} = { current: undefined, generation: 0, enqueued: 0, afterCapture: undefined };

/** @throws CaptureError while a graph is captured, before the driver hears of it */
export function refuseInCapture(doing: string, hint = "Do it before the capture, or after it"): void {
  if (!thread.afterCapture) return;
  throw new CaptureError(`Not ${doing} while a graph is captured: it can't be part of the graph`, { hint });
}

/** Does it now, or at the end of the capture that is going on: for giving back, which must never throw. */
export function outsideCapture(action: () => void): void {
  if (thread.afterCapture) thread.afterCapture.push(action);
  else action();
}

/** Contexts in use. Backends on one device share a context, and so its fate. */
const contexts = new Map<string, PrimaryContext>();
/** Why the last context of a device was lost: no later one will come into being in this process, as far as was seen. */
const losses = new Map<string, ContextLostError>();

export class PrimaryContext {
  readonly driver: CudaDriver;
  readonly device: DeviceInfo;
  readonly launchers = new Set<Launcher>();
  readonly handle: ContextHandle;
  /** The pieces of device memory that this thread has here: where each begins, and its size in bytes. */
  readonly #allocated = new Map<DevicePointer, number>();
  #users = 0;
  #lost: ContextLostError | undefined;

  /** The context of a device, made when needed. Each `open` wants one `close`. @throws ContextLostError, DeviceError */
  static open(driver: CudaDriver, device: DeviceInfo): PrimaryContext {
    refuseInCapture(`opening ${device.name}`);
    const key = PrimaryContext.#key(driver, device);
    contexts.get(key)?.assertUsable(`opening ${device.name}`);
    const context = contexts.get(key) ?? new PrimaryContext(driver, device);
    contexts.set(key, context);
    context.#users++;
    return context;
  }

  private constructor(driver: CudaDriver, device: DeviceInfo) {
    this.driver = driver;
    this.device = device;
    const out = new BigUint64Array(1);
    const result = driver.api.cuDevicePrimaryCtxRetain(out, device.handle);
    if (losesContext(result)) {
      this.#lost = losses.get(PrimaryContext.#key(driver, device));
      this.assertUsable(`opening ${device.name}`);
    }
    if (result !== 0) throw this.#failure(result, "creating a context");
    this.handle = (out[0] ?? 0n) as ContextHandle;
  }

  static #key(driver: CudaDriver, device: DeviceInfo): string {
    return `${device.ordinal} ${driver.path}`;
  }

  /** Why the context is lost, if it is. */
  get lost(): ContextLostError | undefined {
    return this.#lost;
  }

  /**
   * Calls the driver with this context current. `doing` completes "CUDA failed, …"; `kernel` is the one it is done for.
   * @throws DeviceError, ContextLostError, OutOfMemoryError
   */
  call(doing: string, call: (api: DriverApi) => number, kernel?: NamedKernel): void {
    const result = this.query(doing, call, kernel);
    if (result !== 0) throw this.#failure(result, doing, kernel);
  }

  /** Like `call`, but hands back an answer that is not fatal, for the caller to judge. */
  query(doing: string, call: (api: DriverApi) => number, kernel?: NamedKernel): number {
    refuseInCapture(doing);
    return this.queryAlsoInCapture(doing, call, kernel);
  }

  /** For what a capture consists of, and what the driver does without looking at any device. */
  queryAlsoInCapture(doing: string, call: (api: DriverApi) => number, kernel?: NamedKernel): number {
    this.assertUsable(doing);
    this.makeCurrent();
    const result = call(this.driver.api);
    if (losesContext(result)) throw this.#failure(result, doing, kernel);
    return result;
  }

  /** Calls the driver with work that may become part of a graph. @throws DeviceError */
  enqueue(doing: string, call: (api: DriverApi) => number): void {
    const result = this.queryAlsoInCapture(doing, call);
    if (result !== 0) throw this.#failure(result, doing);
  }

  /** @throws ContextLostError when the context is lost, saying why and what to do */
  assertUsable(doing: string): void {
    if (this.#lost) throw new ContextLostError(`Not ${doing}, because of an earlier failure. ${this.#lost.message}`);
  }

  /**
   * After the driver refused a call that was made without making this context current: does so, and tries once more.
   * @throws DeviceError, LaunchRefusedError, OutOfMemoryError, ContextLostError
   */
  retry(refused: number, doing: string, call: (api: DriverApi) => number, kernel?: NamedKernel): void {
    if (!wrongContext.has(refused)) throw this.#failure(refused, doing, kernel);
    this.makeCurrent();
    const result = call(this.driver.api);
    if (result !== 0) throw this.#failure(result, doing, kernel);
  }

  /** Receives a handle or address that the driver hands out through a pointer. */
  receive<H extends bigint>(doing: string, call: (api: DriverApi, out: BigUint64Array<ArrayBuffer>) => number): H {
    const out = new BigUint64Array(1);
    this.call(doing, (api) => call(api, out));
    return (out[0] ?? 0n) as H;
  }

  /** @throws OutOfMemoryError, DeviceError */
  allocate(byteLength: number): DevicePointer {
    const doing = `allocating ${formatBytes(byteLength)}`;
    const pointer: DevicePointer = this.receive(doing, (api, out) => api.cuMemAlloc(out, byteLength));
    this.#allocated.set(pointer, byteLength);
    return pointer;
  }

  /** Gives back what `allocate` returned. */
  free(pointer: DevicePointer): void {
    this.#allocated.delete(pointer);
    this.release((api) => api.cuMemFree(pointer));
  }

  /** Whether an address lies in what `allocate` returned and nobody has freed, for any backend of this thread. */
  allocated(address: bigint): boolean {
    return [...this.#allocated].some(([start, size]) => address >= start && address < start + BigInt(size));
  }

  functionAttribute(fn: FunctionHandle, attribute: number): number {
    const out = new Int32Array(1);
    this.call("asking about a kernel", (api) => api.cuFuncGetAttribute(out, attribute, fn));
    return out[0] ?? 0;
  }

  unload(module: ModuleHandle): void {
    this.release((api) => api.cuModuleUnload(module));
  }

  /** Gives something back. In a lost context there is nothing left to give, and no way to fail. */
  release(call: (api: DriverApi) => number): void {
    outsideCapture(() => {
      if (this.#lost) return;
      try {
        this.query("releasing resources", call);
      } catch (error) {
        // The fault of an earlier launch surfaced here: `lost` now says so to everyone who goes on.
        if (!(error instanceof TegulaError)) throw error;
      }
    });
  }

  /** Ends one use; after the last, the driver may destroy the context. */
  close(): void {
    if (--this.#users > 0) return;
    contexts.delete(PrimaryContext.#key(this.driver, this.device));
    const { api } = this.driver;
    api.cuCtxSetCurrent(null); // so that what may be destroyed now doesn't stay current
    thread.current = undefined;
    api.cuDevicePrimaryCtxRelease(this.device.handle);
  }

  /**
   * Before every call but launches: other libraries in this thread (and backends of other devices) make theirs current, too,
   * and memory would be allocated there.
   */
  makeCurrent(): void {
    const result = this.driver.api.cuCtxSetCurrent(this.handle);
    if (result !== 0) throw this.#failure(result, "making the context current");
    thread.current = this;
  }

  #failure(result: number, doing: string, kernel?: NamedKernel): TegulaError {
    const what = describeResult(this.driver.api, result);
    if (losesContext(result)) return this.#lose(what, doing, result === contextDestroyed ? reopen : restart);
    const at = kernel?.at;
    if (result === outOfMemory) {
      return new OutOfMemoryError(`No room on ${this.device.name}, ${doing}${this.#room()}`, {
        at,
        hint: "Free tensors that are no longer needed; other processes may hold the rest (`nvidia-smi`).",
      });
    }
    if (kernel?.needs === undefined || !refusedLaunch.has(result)) {
      return new DeviceError(`CUDA failed, ${doing}: ${what}`, { at });
    }
    return new LaunchRefusedError(`CUDA refuses ${doing}: ${what}; each launch takes ${kernel.needs}`, {
      at,
      hint: "Take less of it: smaller tiles, fewer threads, smaller clusters.",
    });
  }

  /** What is free, if the context is there and current. */
  #room(): string {
    if (thread.current !== this) return "";
    const [free, total] = [new BigUint64Array(1), new BigUint64Array(1)];
    if (this.driver.api.cuMemGetInfo(free, total) !== 0) return "";
    return `: ${formatBytes(Number(free[0]))} of ${formatBytes(Number(total[0]))} are free`;
  }

  #lose(what: string, doing: string, remedy: string): ContextLostError {
    thread.generation++;
    const launches = [...this.launchers].flatMap((launcher) => launcher.suspects());
    const suspects = launches.sort((a, b) => a.order - b.order).flatMap(({ kernels }) => kernels);
    const byName = new Map(suspects.map((kernel) => [kernel.name, kernel]));
    const lost = `the context of CUDA device ${this.device.ordinal} is lost`;
    const last = suspects.at(-1);
    this.#lost =
      byName.size > 1
        ? new ContextLostError(
            `One of the kernels ${[...byName.keys()].join(", ")} (launched last) failed with ${what}; ${lost}`,
            {
              related: [...byName.values()].flatMap(({ name, at }) => (at ? [{ what: name, at }] : [])),
              hint: `openCuda({ debug: true }) waits for each launch and tells which. ${remedy}`,
            },
          )
        : new ContextLostError(`${last ? `Kernel ${last.name}` : "CUDA"} failed with ${what}, seen ${doing}; ${lost}`, {
            at: last?.at,
            hint: remedy,
          });
    losses.set(PrimaryContext.#key(this.driver, this.device), this.#lost);
    return this.#lost;
  }
}

/** CUDA promises nothing else, and drivers do nothing else: not after a release or reset of the context, nor in a new one. */
const restart = "Only a new process can use the device again. In this one, what is left can still be disposed.";
const reopen =
  "Another library destroyed it, e.g. by cudaDeviceReset(). Dispose every CUDA backend of this device, then openCuda() again.";

/** E.g. "1.5 GiB". */
export function formatBytes(count: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
  const power = Math.min(Math.floor(Math.log2(Math.max(count, 1)) / 10), units.length - 1);
  return `${Number((count / 1024 ** power).toPrecision(4))} ${units[power] ?? ""}`;
}
