/**
 * The primary context of a device: the one that CUDA shares among everything in a process. All calls that need a context go
 * through `call`, which makes it current, checks the answer, and remembers when a kernel has destroyed it.
 */
import { DeviceError, TegulaError } from "../../dsl/errors.ts";
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
import { describeResult, losesContext, outOfMemory, wrongContext } from "./results.ts";

/** What messages need to know of a kernel; of another library's there is no line. */
export interface NamedKernel {
  readonly name: string;
  readonly at: Location | undefined;
}

/** Whatever launches into this context: it knows which kernels may have caused an error that is only seen later. */
export interface Launcher {
  /** Launched, and not known to have ended well; `order` grows with every piece of work of the thread. */
  suspects(): readonly { readonly kernels: readonly NamedKernel[]; readonly order: number }[];
}

/** Something was asked for that can't become part of a graph, while one is captured; or the capture itself is wrong. */
export class CaptureError extends TegulaError {}

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

export class PrimaryContext {
  readonly driver: CudaDriver;
  readonly device: DeviceInfo;
  readonly launchers = new Set<Launcher>();
  readonly handle: ContextHandle;
  #users = 0;
  #lost: DeviceError | undefined;

  /** The context of a device, made when needed. Each `open` wants one `close`. @throws DeviceError */
  static open(driver: CudaDriver, device: DeviceInfo): PrimaryContext {
    refuseInCapture(`opening ${device.name}`);
    const key = PrimaryContext.#key(driver, device);
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
    if (result !== 0) throw this.#failure(result, "creating a context");
    this.handle = (out[0] ?? 0n) as ContextHandle;
  }

  static #key(driver: CudaDriver, device: DeviceInfo): string {
    return `${device.ordinal} ${driver.path}`;
  }

  get lost(): boolean {
    return this.#lost !== undefined;
  }

  /**
   * Calls the driver with this context current. `doing` completes "CUDA failed, …"; `kernel` is the one it is done for.
   * @throws DeviceError
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

  /** @throws DeviceError when the context is lost, saying why and how to go on */
  assertUsable(doing: string): void {
    if (this.#lost) throw new DeviceError(`Not ${doing}, because of an earlier failure. ${this.#lost.message}`);
  }

  /**
   * After the driver refused a call that was made without making this context current: does so, and tries once more.
   * @throws DeviceError
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

  /** @throws DeviceError with what was asked and what is free */
  allocate(byteLength: number): DevicePointer {
    const doing = `allocating ${formatBytes(byteLength)}`;
    const out = new BigUint64Array(1);
    const result = this.query(doing, (api) => api.cuMemAlloc(out, byteLength));
    if (result === outOfMemory) {
      const [free, total] = [new BigUint64Array(1), new BigUint64Array(1)];
      this.call("asking for free memory", (api) => api.cuMemGetInfo(free, total));
      throw new DeviceError(
        `No room for ${formatBytes(byteLength)} on ${this.device.name}: ` +
          `${formatBytes(Number(free[0]))} of ${formatBytes(Number(total[0]))} are free`,
        { hint: "Free tensors that are no longer needed; other processes may hold the rest (`nvidia-smi`)." },
      );
    }
    if (result !== 0) throw this.#failure(result, doing);
    return (out[0] ?? 0n) as DevicePointer;
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

  #failure(result: number, doing: string, kernel?: NamedKernel): DeviceError {
    const what = describeResult(this.driver.api, result);
    if (!losesContext(result)) {
      return new DeviceError(`CUDA failed, ${doing}: ${what}`, { at: kernel?.at });
    }
    thread.generation++;
    const launches = [...this.launchers].flatMap((launcher) => launcher.suspects());
    const suspects = launches.sort((a, b) => a.order - b.order).flatMap(({ kernels }) => kernels);
    const names = [...new Set(suspects.map(({ name }) => name))];
    const lost = `the context of CUDA device ${this.device.ordinal} is lost`;
    const last = suspects.at(-1);
    this.#lost =
      names.length > 1
        ? new DeviceError(`One of the kernels ${names.join(", ")} (launched last) failed with ${what}; ${lost}`, {
            hint: `openCuda({ debug: true }) waits for each launch and tells which. ${reopen}`,
          })
        : new DeviceError(`${last ? `Kernel ${last.name}` : "CUDA"} failed with ${what}, seen ${doing}; ${lost}`, {
            at: last?.at,
            hint: reopen,
          });
    return this.#lost;
  }
}

const reopen =
  "Dispose every CUDA backend of this device, then openCuda() again; if that still fails, start a new process: " +
  "CUDA promises recovery only then.";

/** E.g. "1.5 GiB". */
export function formatBytes(count: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
  const power = Math.min(Math.floor(Math.log2(Math.max(count, 1)) / 10), units.length - 1);
  return `${Number((count / 1024 ** power).toPrecision(4))} ${units[power] ?? ""}`;
}
