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
import { TensorMaps } from "./tensor-map.ts";

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
  /** Each with the index of its tensor. */
  readonly #tensorMaps: readonly { readonly index: number; readonly maps: TensorMaps }[];
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
    this.#tensorMaps = module.tensorMaps.map((map) => ({
      index: kernel.ir.tensors.indexOf(map.tensor),
      maps: new TensorMaps(context, kernel, map),
    }));
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
  launch(stream: Stream, launch: BoundLaunch, pointers: readonly DevicePointer[], memory: MemoryUse): void {
    const { grid, tensors, scalars } = launch;
    const packet = (this.#packet ??= new LaunchPacket({
      block: this.kernel.ir.block,
      dynamicSharedBytes: this.#dynamicSharedBytes,
      tensorCount: pointers.length,
      scalarCount: scalars.length,
      tensorMapCount: this.#tensorMaps.length,
    }));
    if (pointers.length !== packet.tensorCount || scalars.length !== packet.scalarCount) {
      throw new ArgumentError(
        `${this.kernel.name} takes ${packet.tensorCount} tensors and ${packet.scalarCount} scalars, ` +
          `got ${pointers.length} and ${scalars.length}`,
        { at: this.kernel.at },
      );
    }
    const { cluster } = this.kernel.ir;
    if (grid[0] % cluster !== 0) {
      throw new ArgumentError(
        `${this.kernel.name}: a grid of ${grid[0]} blocks along x doesn't divide into clusters of ${cluster}`,
        { at: this.kernel.at },
      );
    }
    packet.setGrid(grid);
    for (const [index, pointer] of pointers.entries()) packet.setTensor(index, pointer);
    for (const [index, scalar] of scalars.entries()) packet.setScalar(index, scalar);
    for (const [map, { index, maps }] of this.#tensorMaps.entries()) {
      const [tensor, pointer] = [tensors[index], pointers[index]];
      if (tensor && pointer !== undefined) packet.setTensorMap(map, maps.of(tensor, pointer));
    }
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
    if (ir.cluster > 1) this.#requireRoomForCluster(shared);
  }

  /** The blocks of a cluster run at once, on multiprocessors next to each other. */
  #requireRoomForCluster(sharedBytes: number): void {
    const { name, at, ir } = this.kernel;
    const packet = new LaunchPacket({
      block: ir.block,
      dynamicSharedBytes: this.#dynamicSharedBytes,
      tensorCount: 0,
      scalarCount: 0,
      tensorMapCount: 0,
    });
    packet.setGrid([ir.cluster, 1, 1]);
    const out = new Int32Array(1);
    const { api } = this.#context.driver;
    const result = this.#context.query(`asking whether clusters of ${name} fit`, () =>
      api.cuOccupancyMaxActiveClusters(out, this.#function, packet.config),
    );
    const clusters = out[0] ?? 0;
    if (result === 0 && clusters > 0) return;
    throw new UnsupportedError(
      `${this.#context.device.name} has no room for ${name}'s clusters of ${ir.cluster} blocks with ${ir.block} threads ` +
        `and ${formatBytes(sharedBytes)} of shared memory each${result === 0 ? "" : `: ${describeResult(api, result)}`}`,
      { at, hint: "Use smaller clusters, fewer threads or less shared memory" },
    );
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
