/** A kernel as machine code in a context, ready to launch. */
import { ArgumentError, DeviceError, UnsupportedError } from "../../dsl/errors.ts";
import type { Kernel } from "../../dsl/kernel.ts";
import type { Params } from "../../dsl/params.ts";
import type { Backend, BoundLaunch, Executable } from "../backend.ts";
import type { CompiledCuda, CudaArch } from "./compile.ts";
import { type PrimaryContext, formatBytes } from "./context.ts";
import type { DevicePointer, FunctionHandle, ModuleHandle } from "./driver.ts";
import type { CudaModule } from "./emit.ts";
import { LaunchPacket } from "./packet.ts";
import { describeResult, refusedImage } from "./results.ts";
import type { MemoryUse } from "./storage.ts";
import type { Stream } from "./stream.ts";

// CUfunction_attribute
const maxThreadsPerBlock = 0;
const sharedSizeBytes = 1;
const registerCount = 4;
const maxDynamicSharedSizeBytes = 8;

/** Dynamic shared memory that every kernel may have without asking. */
const defaultDynamicSharedBytes = 48 * 1024;

export interface CudaExecutableParts<P extends Params> {
  readonly backend: Backend;
  readonly kernel: Kernel<P>;
  readonly module: CudaModule;
  readonly compiled: CompiledCuda;
  readonly arch: CudaArch;
}

export class CudaExecutable<P extends Params = Params> implements Executable<P> {
  readonly kernel: Kernel<P>;
  readonly backend: Backend;
  readonly source: string;
  readonly compileMs: number;
  /** What compiled it, e.g. "NVRTC 13.0". */
  readonly compiler: string;
  /** For whoever unloads it. Garbage collection of this object doesn't. */
  readonly module: ModuleHandle;
  readonly #context: PrimaryContext;
  readonly #function: FunctionHandle;
  readonly #dynamicSharedBytes: number;
  #packet: LaunchPacket | undefined;

  /** Loads the machine code. @throws UnsupportedError when driver or device can't run it; DeviceError */
  constructor(context: PrimaryContext, parts: CudaExecutableParts<P>) {
    const { backend, kernel, module, compiled } = parts;
    this.backend = backend;
    this.kernel = kernel;
    this.source = module.source;
    this.compileMs = compiled.ms;
    this.compiler = compiled.compiler;
    this.#context = context;
    this.#dynamicSharedBytes = module.dynamicSharedBytes;
    this.module = load(context, parts);
    try {
      this.#function = context.receive(`looking up ${module.entry}`, (api, out) =>
        api.cuModuleGetFunction(out, this.module, module.entry),
      );
      this.#reserve();
    } catch (error) {
      context.unload(this.module);
      throw error;
    }
  }

  /**
   * Enqueues one launch; `pointers` are the addresses of its tensors.
   * @throws ArgumentError for numbers that don't fit, DeviceError
   */
  launch(stream: Stream, { grid, scalars }: BoundLaunch, pointers: readonly DevicePointer[], memory: MemoryUse): void {
    const packet = (this.#packet ??= new LaunchPacket({
      block: this.kernel.ir.block,
      dynamicSharedBytes: this.#dynamicSharedBytes,
      tensorCount: pointers.length,
      scalarCount: scalars.length,
    }));
    if (pointers.length !== packet.tensorCount || scalars.length !== packet.scalarCount) {
      throw new ArgumentError(
        `${this.kernel.name} takes ${packet.tensorCount} tensors and ${packet.scalarCount} scalars, ` +
          `got ${pointers.length} and ${scalars.length}`,
        { at: this.kernel.at },
      );
    }
    packet.setGrid(grid);
    for (const [index, pointer] of pointers.entries()) packet.setTensor(index, pointer);
    for (const [index, scalar] of scalars.entries()) packet.setScalar(index, scalar);
    stream.launch(packet, this.#function, this.kernel, memory);
  }

  /** Makes room for the kernel's shared memory, and refuses what no launch could fit in. */
  #reserve(): void {
    const { name, at, ir } = this.kernel;
    const context = this.#context;
    const dynamic = this.#dynamicSharedBytes;
    const shared = dynamic + context.functionAttribute(this.#function, sharedSizeBytes);
    const most = context.device.maxSharedBytes;
    if (shared > most) {
      throw new UnsupportedError(
        `${name} needs ${formatBytes(shared)} of shared memory per block, ${context.device.name} has ${formatBytes(most)}`,
        { at },
      );
    }
    if (dynamic > defaultDynamicSharedBytes) {
      const doing = `reserving ${formatBytes(dynamic)} of shared memory for ${name}`;
      context.call(doing, (api) => api.cuFuncSetAttribute(this.#function, maxDynamicSharedSizeBytes, dynamic));
    }
    const threads = context.functionAttribute(this.#function, maxThreadsPerBlock);
    if (ir.block > threads) {
      const registers = context.functionAttribute(this.#function, registerCount);
      throw new UnsupportedError(
        `${name} has ${ir.block} threads per block, but with ${registers} registers each only ${threads} fit`,
        { at },
      );
    }
  }
}

function load<P extends Params>(context: PrimaryContext, { kernel, compiled, arch }: CudaExecutableParts<P>) {
  const { name, at } = kernel;
  const out = new BigUint64Array(1);
  const result = context.query(`loading ${name}`, (api) => api.cuModuleLoadData(out, compiled.cubin));
  if (result === 0) return (out[0] ?? 0n) as ModuleHandle;
  const { api, version } = context.driver;
  const what = describeResult(api, result);
  if (!refusedImage.has(result)) throw new DeviceError(`CUDA failed, loading ${name}: ${what}`, { at });
  throw new UnsupportedError(
    `The driver (CUDA ${version}) refuses ${name}, made by ${compiled.compiler} for ${arch}: ${what}`,
    { at, hint: `Update the driver, or let TEGULA_LIBNVRTC name an NVRTC no newer than CUDA ${version}.` },
  );
}
