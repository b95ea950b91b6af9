/**
 * The CUDA driver API, as far as Tegula uses it (docs.nvidia.com/cuda/cuda-driver-api). Each function is declared once.
 *
 * Only synchronous calls: koffi runs asynchronous ones on other threads, while CUDA's current context belongs to a thread;
 * it doesn't keep their buffers alive, and runs them on a stack of 128 KiB, for which no driver is made. What C hands out
 * through a pointer is received in one-element typed arrays.
 */
import { DeviceError, DriverTooOldError, NoDeviceError, NoDriverError, type TegulaError } from "../../dsl/errors.ts";
import { askDoctor, type Library, openDriverLibrary } from "./libraries.ts";
import { describeResult, noDevice, stubLibrary } from "./results.ts";

/** A pointer or handle of the driver. One kind never passes for another, and none leaves this folder. */
type Handle<Kind extends string> = bigint & { readonly __cuda: Kind };
export type ContextHandle = Handle<"CUcontext">;
export type StreamHandle = Handle<"CUstream">;
export type EventHandle = Handle<"CUevent">;
export type ModuleHandle = Handle<"CUmodule">;
export type FunctionHandle = Handle<"CUfunction">;
export type GraphHandle = Handle<"CUgraph">;
export type GraphExecHandle = Handle<"CUgraphExec">;
/** An address in device memory. */
export type DevicePointer = Handle<"CUdeviceptr">;
/** An address in this process; whoever passes it keeps the memory alive. koffi takes it faster than a typed array. */
export type HostAddress = Handle<"host">;
/** CUdevice, a small number. */
export type DeviceHandle = number & { readonly __cuda: "CUdevice" };

type Out64 = BigUint64Array<ArrayBuffer>;
type Out32 = Int32Array<ArrayBuffer>;
type Bytes = Uint8Array<ArrayBufferLike>;

/** Each function once: its C prototype, and the same in TypeScript. The result is a CUresult. */
function declare({ handle }: Library) {
  const f = <A extends readonly unknown[]>(prototype: string): ((...args: A) => number) => handle.func(prototype);
  /** What drivers before CUDA 12.3 don't have. */
  const recent = <A extends readonly unknown[]>(prototype: string): ((...args: A) => number) | undefined => {
    try {
      return f<A>(prototype);
    } catch {
      return undefined;
    }
  };
  return {
    // Initialization, version, errors, devices
    cuInit: f<[flags: 0]>("int cuInit(uint32_t flags)"),
    cuDriverGetVersion: f<[version: Out32]>("int cuDriverGetVersion(void *version)"),
    cuGetErrorName: f<[result: number, text: Out64]>("int cuGetErrorName(int result, void *text)"),
    cuGetErrorString: f<[result: number, text: Out64]>("int cuGetErrorString(int result, void *text)"),
    cuDeviceGetCount: f<[count: Out32]>("int cuDeviceGetCount(void *count)"),
    cuDeviceGet: f<[device: Out32, ordinal: number]>("int cuDeviceGet(void *device, int ordinal)"),
    cuDeviceGetName: f<[name: Bytes, size: number, device: DeviceHandle]>(
      "int cuDeviceGetName(void *name, int size, int device)",
    ),
    cuDeviceGetAttribute: f<[value: Out32, attribute: number, device: DeviceHandle]>(
      "int cuDeviceGetAttribute(void *value, int attribute, int device)",
    ),
    // Primary contexts
    cuDevicePrimaryCtxRetain: f<[context: Out64, device: DeviceHandle]>(
      "int cuDevicePrimaryCtxRetain(void *context, int device)",
    ),
    cuDevicePrimaryCtxRelease: f<[device: DeviceHandle]>("int cuDevicePrimaryCtxRelease_v2(int device)"),
    cuCtxSetCurrent: f<[context: ContextHandle | null]>("int cuCtxSetCurrent(void *context)"),
    // Memory
    cuMemAlloc: f<[pointer: Out64, byteLength: number]>("int cuMemAlloc_v2(void *pointer, size_t byteLength)"),
    cuMemFree: f<[pointer: DevicePointer]>("int cuMemFree_v2(uint64_t pointer)"),
    cuMemGetInfo: f<[free: Out64, total: Out64]>("int cuMemGetInfo_v2(void *free, void *total)"),
    cuMemcpyHtoDAsync: f<[to: DevicePointer, from: Bytes, byteLength: number, stream: StreamHandle]>(
      "int cuMemcpyHtoDAsync_v2(uint64_t to, void *from, size_t byteLength, void *stream)",
    ),
    cuMemcpyDtoHAsync: f<[to: Bytes, from: DevicePointer, byteLength: number, stream: StreamHandle]>(
      "int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t byteLength, void *stream)",
    ),
    cuMemcpyDtoDAsync: f<[to: DevicePointer, from: DevicePointer, byteLength: number, stream: StreamHandle]>(
      "int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t byteLength, void *stream)",
    ),
    cuMemHostRegister: f<[memory: HostAddress, byteLength: number, flags: 0]>(
      "int cuMemHostRegister_v2(uint64_t memory, size_t byteLength, uint32_t flags)",
    ),
    cuMemHostUnregister: f<[memory: HostAddress]>("int cuMemHostUnregister(uint64_t memory)"),
    cuPointerGetAttribute: f<[value: Out64, attribute: number, pointer: DevicePointer]>(
      "int cuPointerGetAttribute(void *value, int attribute, uint64_t pointer)",
    ),
    // Modules and functions
    cuModuleLoadData: f<[module: Out64, image: Bytes]>("int cuModuleLoadData(void *module, void *image)"),
    cuModuleUnload: f<[module: ModuleHandle]>("int cuModuleUnload(void *module)"),
    cuModuleGetFunction: f<[fn: Out64, module: ModuleHandle, name: string]>(
      "int cuModuleGetFunction(void *fn, void *module, const char *name)",
    ),
    cuFuncGetAttribute: f<[value: Out32, attribute: number, fn: FunctionHandle]>(
      "int cuFuncGetAttribute(void *value, int attribute, void *fn)",
    ),
    cuFuncSetAttribute: f<[fn: FunctionHandle, attribute: number, value: number]>(
      "int cuFuncSetAttribute(void *fn, int attribute, int value)",
    ),
    cuLaunchKernelEx: f<[config: HostAddress, fn: FunctionHandle, params: HostAddress, extra: 0]>(
      "int cuLaunchKernelEx(uint64_t config, uint64_t fn, uint64_t params, uint64_t extra)",
    ),
    cuOccupancyMaxActiveClusters: f<[clusters: Out32, fn: FunctionHandle, config: Bytes]>(
      "int cuOccupancyMaxActiveClusters(void *clusters, void *fn, void *config)",
    ),
    cuTensorMapEncodeTiled: f<
      [
        map: Bytes,
        dataType: number,
        rank: number,
        address: DevicePointer,
        sizes: Out64,
        strides: Out64,
        box: Uint32Array<ArrayBuffer>,
        elementStrides: Uint32Array<ArrayBuffer>,
        interleave: number,
        swizzle: number,
        l2Promotion: number,
        outsideFill: number,
      ]
    >(
      "int cuTensorMapEncodeTiled(void *map, int dataType, uint32_t rank, uint64_t address, void *sizes, void *strides, " +
        "void *box, void *elementStrides, int interleave, int swizzle, int l2Promotion, int outsideFill)",
    ),
    // Streams and events
    cuStreamCreate: f<[stream: Out64, flags: number]>("int cuStreamCreate(void *stream, uint32_t flags)"),
    cuStreamDestroy: f<[stream: StreamHandle]>("int cuStreamDestroy_v2(void *stream)"),
    cuStreamGetCtx: f<[stream: StreamHandle, context: Out64]>("int cuStreamGetCtx(void *stream, void *context)"),
    cuStreamIsCapturing: f<[stream: StreamHandle, status: Out32]>(
      "int cuStreamIsCapturing(void *stream, void *status)",
    ),
    cuStreamWaitEvent: f<[stream: StreamHandle, event: EventHandle, flags: 0]>(
      "int cuStreamWaitEvent(void *stream, void *event, uint32_t flags)",
    ),
    cuStreamSynchronize: f<[stream: StreamHandle]>("int cuStreamSynchronize(void *stream)"),
    cuEventCreate: f<[event: Out64, flags: number]>("int cuEventCreate(void *event, uint32_t flags)"),
    cuEventDestroy: f<[event: EventHandle]>("int cuEventDestroy_v2(void *event)"),
    cuEventRecord: f<[event: EventHandle, stream: StreamHandle]>("int cuEventRecord(void *event, void *stream)"),
    cuEventQuery: f<[event: EventHandle]>("int cuEventQuery(void *event)"),
    cuEventElapsedTime: f<[milliseconds: Float32Array<ArrayBuffer>, start: EventHandle, end: EventHandle]>(
      "int cuEventElapsedTime(void *milliseconds, void *start, void *end)",
    ),
    // Graphs
    cuStreamBeginCapture: f<[stream: StreamHandle, mode: number]>(
      "int cuStreamBeginCapture_v2(void *stream, int mode)",
    ),
    cuStreamEndCapture: f<[stream: StreamHandle, graph: Out64]>("int cuStreamEndCapture(void *stream, void *graph)"),
    cuGraphGetNodes: f<[graph: GraphHandle, nodes: null, count: Out64]>(
      "int cuGraphGetNodes(void *graph, void *nodes, void *count)",
    ),
    cuGraphGetEdges: recent<[graph: GraphHandle, from: Out64, to: Out64, data: Bytes, count: Out64]>(
      "int cuGraphGetEdges_v2(void *graph, void *from, void *to, void *data, void *count)",
    ),
    cuGraphInstantiate: f<[exec: Out64, graph: GraphHandle, flags: 0]>(
      "int cuGraphInstantiateWithFlags(void *exec, void *graph, uint64_t flags)",
    ),
    cuGraphExecUpdate: f<[exec: GraphExecHandle, graph: GraphHandle, info: Bytes]>(
      "int cuGraphExecUpdate_v2(void *exec, void *graph, void *info)",
    ),
    cuGraphLaunch: f<[exec: GraphExecHandle, stream: StreamHandle]>("int cuGraphLaunch(void *exec, void *stream)"),
    cuGraphExecDestroy: f<[exec: GraphExecHandle]>("int cuGraphExecDestroy(void *exec)"),
    cuGraphDestroy: f<[graph: GraphHandle]>("int cuGraphDestroy(void *graph)"),
  };
}

export type DriverApi = ReturnType<typeof declare>;

/** The driver, initialized. One per library and thread. */
export interface CudaDriver {
  readonly api: DriverApi;
  /** The CUDA version that the driver supports, e.g. "13.0". */
  readonly version: string;
  /** Where it was found. */
  readonly path: string;
}

const drivers = new Map<string, CudaDriver>();

/**
 * Opens and initializes the driver.
 * @throws NoDriverError, NoDeviceError, DriverTooOldError, DeviceError
 */
export function openDriver(): CudaDriver {
  const library = openDriverLibrary();
  const known = drivers.get(library.path);
  if (known) return known;

  const api = declareOrExplain(library);
  const initialized = api.cuInit(0);
  if (initialized !== 0) throw whyNotInitialized(describeResult(api, initialized), initialized, library);
  const version = receive32(api, "asking for the driver's version", (out) => api.cuDriverGetVersion(out));
  const driver: CudaDriver = {
    api,
    version: `${Math.floor(version / 1000)}.${Math.floor((version % 1000) / 10)}`,
    path: library.path,
  };
  drivers.set(library.path, driver);
  return driver;
}

function whyNotInitialized(what: string, result: number, { path }: Library): TegulaError {
  if (result === stubLibrary) {
    return new NoDriverError(`${path} is only a stand-in to link with, of the CUDA toolkit: ${what}`, {
      hint: "Install NVIDIA's driver, or take the folder of the stand-in out of LD_LIBRARY_PATH. " + askDoctor,
    });
  }
  if (result === noDevice) {
    return new NoDeviceError(`No NVIDIA GPU: ${what} (driver ${path})`, {
      hint: "Check `nvidia-smi` and CUDA_VISIBLE_DEVICES; a container needs the NVIDIA container toolkit. " + askDoctor,
    });
  }
  return new DeviceError(`CUDA doesn't start: ${what} (driver ${path})`, {
    hint: "Check `nvidia-smi`; after an update of the driver, restart the machine.",
  });
}

function declareOrExplain(library: Library): DriverApi {
  try {
    return declare(library);
  } catch (error) {
    throw new DriverTooOldError(
      `${library.path} is not a driver that Tegula can use: ${error instanceof Error ? error.message : String(error)}`,
      { hint: "Update NVIDIA's driver: CUDA 12.0 (version 525) or later." },
    );
  }
}

/** A device, before any context exists on it. */
export interface DeviceInfo {
  readonly handle: DeviceHandle;
  readonly ordinal: number;
  readonly name: string;
  readonly capability: readonly [major: number, minor: number];
  /** The most shared memory that one block can have, static and dynamic. */
  readonly maxSharedBytes: number;
}

// CUdevice_attribute
const computeCapabilityMajor = 75;
const computeCapabilityMinor = 76;
const maxSharedMemoryPerBlockOptin = 97;

/** How many devices CUDA_VISIBLE_DEVICES lets through. @throws DeviceError */
export function deviceCount({ api }: CudaDriver): number {
  return receive32(api, "counting devices", (out) => api.cuDeviceGetCount(out));
}

/** @throws NoDeviceError when there is no device of that ordinal; DeviceError */
export function deviceInfo(driver: CudaDriver, ordinal: number): DeviceInfo {
  const { api } = driver;
  const count = deviceCount(driver);
  if (!Number.isInteger(ordinal) || ordinal < 0 || ordinal >= count) {
    throw new NoDeviceError(`There is no CUDA device ${ordinal}; ${count} found`, {
      hint: "Ordinals start at 0 and count only what CUDA_VISIBLE_DEVICES lets through. " + askDoctor,
    });
  }
  const doing = `asking about device ${ordinal}`;
  const handle = receive32(api, doing, (out) => api.cuDeviceGet(out, ordinal)) as DeviceHandle;
  const attribute = (id: number) => receive32(api, doing, (out) => api.cuDeviceGetAttribute(out, id, handle));
  const name = new Uint8Array(256);
  assertSuccess(api, api.cuDeviceGetName(name, name.length, handle), doing);
  return {
    handle,
    ordinal,
    name: new TextDecoder().decode(name.subarray(0, name.indexOf(0))),
    capability: [attribute(computeCapabilityMajor), attribute(computeCapabilityMinor)],
    maxSharedBytes: attribute(maxSharedMemoryPerBlockOptin),
  };
}

/** Receives what a function hands out through an `int *`. */
function receive32(api: DriverApi, doing: string, call: (out: Out32) => number): number {
  const out = new Int32Array(1);
  assertSuccess(api, call(out), doing);
  return out[0] ?? 0;
}

/** For calls outside any context. */
function assertSuccess(api: DriverApi, result: number, doing: string): void {
  if (result !== 0) throw new DeviceError(`CUDA failed, ${doing}: ${describeResult(api, result)}`);
}
