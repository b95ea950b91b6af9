/** A kernel as machine code in a context, ready to launch. */
import { describe } from "../../dsl/check.ts";
import {
  ArgumentError,
  DisposedError,
  DriverTooOldError,
  LaunchRefusedError,
  UnsupportedError,
} from "../../dsl/errors.ts";
import type { TensorMap } from "../../dsl/ir-tile.ts";
import type { Kernel } from "../../dsl/kernel.ts";
import type { Params } from "../../dsl/params.ts";
import type { Backend, Executable } from "../backend.ts";
import { type Arguments, checkArguments } from "../bind.ts";
import type { DeviceTensor } from "../tensor.ts";
import type { CompiledCuda, CudaArch } from "./compile.ts";
import { type PrimaryContext, formatBytes } from "./context.ts";
import type { DevicePointer, DriverApi, FunctionHandle, ModuleHandle } from "./driver.ts";
import type { CudaModule } from "./emit.ts";
import { CudaLaunch } from "./launch.ts";
import { Lifetime } from "./lifetime.ts";
import { LaunchPacket } from "./packet.ts";
import { describeResult, refusedImage } from "./results.ts";
import type { Streams } from "./streams.ts";
import { encodeTensorMap } from "./tensor-map.ts";

// CUfunction_attribute
const maxThreadsPerBlock = 0;
const sharedSizeBytes = 1;
const registerCount = 4;
const maxDynamicSharedSizeBytes = 8;

/** Dynamic shared memory that every kernel may have without asking. */
const defaultDynamicSharedBytes = 48 * 1024;

export interface CudaExecutableParts<P extends Params> {
  readonly streams: Streams;
  readonly kernel: Kernel<P>;
  readonly module: CudaModule;
  readonly compiled: CompiledCuda;
  readonly arch: CudaArch;
  /** Whether its launches may begin while the kernel ahead ends. */
  readonly pdl: boolean;
}

/**
 * Made by `cuda.compile(kernel)`. Its machine code stays loaded until it is disposed, or the backend; garbage collection of
 * this object doesn't unload it.
 */
export class CudaExecutable<P extends Params = Params> implements Executable<P>, Disposable {
  readonly kernel: Kernel<P>;
  readonly backend: Backend;
  readonly source: string;
  readonly compileMs: number;
  /** What compiled it, e.g. "NVRTC 13.0". */
  readonly compiler: string;
  readonly #code: Lifetime;
  readonly #context: PrimaryContext;
  readonly #streams: Streams;
  readonly #pdl: boolean;
  readonly #function: FunctionHandle;
  readonly #dynamicSharedBytes: number;
  /** What a launch takes of the device, in words. */
  readonly #needs: string;
  readonly #tensorMaps: readonly TensorMap[];

  /**
   * For the CUDA backend only. Loads the machine code.
   * @throws LaunchRefusedError, DriverTooOldError, UnsupportedError for code of another device; DeviceError
   */
  constructor(parts: CudaExecutableParts<P>) {
    const { streams, kernel, module, compiled, pdl } = parts;
    const { context } = streams;
    this.backend = streams.backend;
    this.kernel = kernel;
    this.source = module.source;
    this.compileMs = compiled.ms;
    this.compiler = compiled.compiler;
    this.#context = context;
    this.#streams = streams;
    this.#pdl = pdl;
    this.#dynamicSharedBytes = module.dynamicSharedBytes;
    this.#tensorMaps = module.tensorMaps;
    const loaded = load(context, parts);
    try {
      this.#function = context.receive(`looking up ${module.entry}`, (api, out) =>
        api.cuModuleGetFunction(out, loaded, module.entry),
      );
      this.#needs = this.#reserve();
    } catch (error) {
      context.unload(loaded);
      throw error;
    }
    this.#code = codeOf(streams, loaded);
  }

  /** @internal Whether it was disposed, by itself or with its backend. */
  get disposed(): boolean {
    return !this.#code.owned;
  }

  /**
   * `pdl: false`: launches of it begin when all before them have ended, as with `openCuda({ pdl: false })`.
   * @throws also ArgumentError for tensors that TMA can't read, DisposedError, DeviceError
   */
  bind(args: Arguments<P>, options: { readonly pdl?: boolean } = {}): CudaLaunch<P> {
    const { kernel, backend } = this;
    const streams = this.#streams;
    streams.assertLive();
    if (typeof options !== "object" || options === null) {
      throw new ArgumentError(`bind takes its options as an object, not ${describe(options)}`, {
        hint: "executable.bind({ x, y }, { pdl: false })",
      });
    }
    const { pdl = this.#pdl } = options;
    if (this.disposed) throw new DisposedError(`${kernel.name} was bound after its executable was disposed`);
    const pointer = ({ storage, offsetBytes, byteLength }: DeviceTensor): DevicePointer =>
      streams.own(storage).address(offsetBytes, byteLength);
    // Addresses, since adopted memory begins anywhere, and may be adopted twice.
    const place = (tensor: DeviceTensor) => ({ space: backend, begin: pointer(tensor) });
    const bound = checkArguments(kernel, args, backend, place);

    const packet = this.#packet(bound.tensors.length, bound.scalars.length, this.#tensorMaps.length);
    packet.setGrid(bound.grid);
    packet.setOverlap(pdl);
    for (const [index, tensor] of bound.tensors.entries()) packet.setTensor(index, pointer(tensor));
    for (const [index, scalar] of bound.scalars.entries()) packet.setScalar(index, scalar);
    for (const [index, map] of this.#tensorMaps.entries()) {
      const tensor = bound.tensors[kernel.ir.tensors.indexOf(map.tensor)];
      if (!tensor) continue;
      packet.setTensorMap(index, encodeTensorMap(this.#context, kernel, map, tensor.shape, pointer(tensor)));
    }
    const parts = { kernel, streams, fn: this.#function, code: this.#code, bound, packet, needs: this.#needs };
    return new CudaLaunch(parts);
  }

  /**
   * Unloads the machine code, after the launches of it and the graphs that have it. Its launches can't be launched any more;
   * `cuda.compile` of the same kernel makes another executable. A second call does nothing.
   */
  dispose(): void {
    this.#code.giveUp();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #packet(tensorCount: number, scalarCount: number, tensorMapCount: number): LaunchPacket {
    const { block } = this.kernel.ir;
    const dynamicSharedBytes = this.#dynamicSharedBytes;
    return new LaunchPacket({ block, dynamicSharedBytes, tensorCount, scalarCount, tensorMapCount });
  }

  /** Makes room for the kernel's shared memory, refuses what no launch could fit in, and says what each takes. */
  #reserve(): string {
    const { name, at, ir } = this.kernel;
    const context = this.#context;
    const dynamic = this.#dynamicSharedBytes;
    const shared = dynamic + context.functionAttribute(this.#function, sharedSizeBytes);
    const most = context.device.maxSharedBytes;
    if (shared > most) {
      throw new LaunchRefusedError(
        `${name} needs ${formatBytes(shared)} of shared memory per block, ${context.device.name} has ${formatBytes(most)}`,
        { at, hint: "Use smaller tiles or fewer stages" },
      );
    }
    if (dynamic > defaultDynamicSharedBytes) {
      const doing = `reserving ${formatBytes(dynamic)} of shared memory for ${name}`;
      context.call(doing, (api) => api.cuFuncSetAttribute(this.#function, maxDynamicSharedSizeBytes, dynamic));
    }
    const threads = context.functionAttribute(this.#function, maxThreadsPerBlock);
    const registers = context.functionAttribute(this.#function, registerCount);
    if (ir.block > threads) {
      throw new LaunchRefusedError(
        `${name} has ${ir.block} threads per block, but with ${registers} registers each only ${threads} fit`,
        { at, hint: "Use fewer threads, or keep less in registers" },
      );
    }
    if (ir.cluster > 1) this.#requireRoomForCluster(shared);
    const block = `${ir.block} threads of ${registers} registers and ${formatBytes(shared)} of shared memory per block`;
    return ir.cluster > 1 ? `${block}, in clusters of ${ir.cluster}` : block;
  }

  /** The blocks of a cluster run at once, on multiprocessors next to each other. */
  #requireRoomForCluster(sharedBytes: number): void {
    const { name, at, ir } = this.kernel;
    const packet = this.#packet(0, 0, 0);
    packet.setGrid([ir.cluster, 1, 1]);
    const out = new Int32Array(1);
    const { api } = this.#context.driver;
    const result = this.#context.query(`asking whether clusters of ${name} fit`, () =>
      api.cuOccupancyMaxActiveClusters(out, this.#function, packet.config),
    );
    const clusters = out[0] ?? 0;
    if (result === 0 && clusters > 0) return;
    throw new LaunchRefusedError(
      `${this.#context.device.name} has no room for ${name}'s clusters of ${ir.cluster} blocks with ${ir.block} threads ` +
        `and ${formatBytes(sharedBytes)} of shared memory each${result === 0 ? "" : `: ${describeResult(api, result)}`}`,
      { at, hint: "Use smaller clusters, fewer threads or less shared memory" },
    );
  }
}

/** Not in the constructor, whose functions would all keep the kernel alive for as long as the code. */
function codeOf(streams: Streams, module: ModuleHandle): Lifetime {
  const code = new Lifetime(() =>
    streams.whenIdle(() => {
      streams.context.unload(module);
      streams.code.delete(code);
    }),
  );
  streams.code.add(code);
  return code;
}

function load<P extends Params>(context: PrimaryContext, parts: CudaExecutableParts<P>): ModuleHandle {
  const { kernel, compiled } = parts;
  const out = new BigUint64Array(1);
  const loading = (api: DriverApi): number => {
    const result = api.cuModuleLoadData(out, compiled.cubin);
    if (refusedImage.has(result)) throw refusal(context, parts, result);
    return result;
  };
  context.call(`loading ${kernel.name}`, loading, kernel);
  return (out[0] ?? 0n) as ModuleHandle;
}

/** Machine code of a compiler that is too new, or for another device. */
function refusal<P extends Params>(
  { driver, device }: PrimaryContext,
  { kernel, compiled, arch }: CudaExecutableParts<P>,
  result: number,
): UnsupportedError {
  const { name, at } = kernel;
  const what = `${name}, made by ${compiled.compiler} for ${arch}: ${describeResult(driver.api, result)}`;
  if (newer(compiled.compiler, driver.version)) {
    return new DriverTooOldError(`The driver (CUDA ${driver.version}) refuses ${what}`, {
      at,
      hint: `Update the driver, or let TEGULA_LIBNVRTC name an NVRTC no newer than CUDA ${driver.version}.`,
    });
  }
  return new UnsupportedError(`${device.name} can't run ${what}`, {
    at,
    hint:
      `Its compute capability is ${device.capability.join(".")}. Flags for the compilers in the environment ` +
      "(NVRTC_APPEND_FLAGS, NVCC_APPEND_FLAGS) may change the architecture.",
  });
}

/** Whether a compiler, e.g. "NVRTC 13.1", is of a later CUDA than the driver. */
function newer(compiler: string, driverVersion: string): boolean {
  const numbers = (text: string) => (/(\d+)\.(\d+)/.exec(text) ?? []).slice(1).map(Number);
  const [[major = 0, minor = 0], [most = 0, minorOfMost = 0]] = [numbers(compiler), numbers(driverVersion)];
  return major > most || (major === most && minor > minorOfMost);
}
