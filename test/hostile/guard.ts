/**
 * Looks at every call of the driver before it crosses the FFI: numbers that koffi would bend, handles that CUDA never gave or
 * has taken back, buffers that are too small or gone. Also at the answers, since a driver that says "invalid" was asked
 * something that Tegula should have refused.
 */
import koffi from "koffi";
import { openDriver } from "../../backends/cuda/driver.ts";

type Kind = "context" | "stream" | "event" | "module" | "function" | "graph" | "exec" | "device memory";

/** Arguments that are handles, by function and position. */
const handles: Readonly<Record<string, Readonly<Record<number, Kind>>>> = {
  cuCtxSetCurrent: { 0: "context" },
  cuMemFree: { 0: "device memory" },
  cuMemcpyHtoDAsync: { 3: "stream" },
  cuMemcpyDtoHAsync: { 3: "stream" },
  cuMemcpyDtoDAsync: { 3: "stream" },
  cuModuleUnload: { 0: "module" },
  cuModuleGetFunction: { 1: "module" },
  cuFuncGetAttribute: { 2: "function" },
  cuFuncSetAttribute: { 0: "function" },
  cuLaunchKernelEx: { 1: "function" },
  cuOccupancyMaxActiveClusters: { 1: "function" },
  cuStreamDestroy: { 0: "stream" },
  cuStreamIsCapturing: { 0: "stream" },
  cuStreamWaitEvent: { 0: "stream", 1: "event" },
  cuStreamSynchronize: { 0: "stream" },
  cuEventDestroy: { 0: "event" },
  cuEventRecord: { 0: "event", 1: "stream" },
  cuEventQuery: { 0: "event" },
  cuEventElapsedTime: { 1: "event", 2: "event" },
  cuStreamBeginCapture: { 0: "stream" },
  cuStreamEndCapture: { 0: "stream" },
  cuGraphGetNodes: { 0: "graph" },
  cuGraphGetEdges: { 0: "graph" },
  cuGraphInstantiate: { 1: "graph" },
  cuGraphExecUpdate: { 0: "exec", 1: "graph" },
  cuGraphLaunch: { 0: "exec", 1: "stream" },
  cuGraphExecDestroy: { 0: "exec" },
  cuGraphDestroy: { 0: "graph" },
};

/** Functions that hand out a handle, and through which argument. */
const makers: Readonly<Record<string, readonly [kind: Kind, argument: number]>> = {
  cuDevicePrimaryCtxRetain: ["context", 0],
  cuMemAlloc: ["device memory", 0],
  cuModuleLoadData: ["module", 0],
  cuModuleGetFunction: ["function", 0],
  cuStreamCreate: ["stream", 0],
  cuEventCreate: ["event", 0],
  cuStreamEndCapture: ["graph", 1],
  cuGraphInstantiate: ["exec", 0],
};
/** Functions that take back their first argument. */
const takers = [
  "cuMemFree",
  "cuModuleUnload",
  "cuStreamDestroy",
  "cuEventDestroy",
  "cuGraphExecDestroy",
  "cuGraphDestroy",
];
/** Which argument is the size of which buffer. */
const sizes: Readonly<Record<string, readonly [buffer: number, size: number]>> = {
  cuDeviceGetName: [0, 1],
  cuMemcpyHtoDAsync: [1, 2],
  cuMemcpyDtoHAsync: [0, 2],
};
/** Answers that are no complaint: done, no room, not ready, a graph of another form. */
const fine: ReadonlySet<number> = new Set([0, 2, 600, 910]);
/** Functions by which Tegula asks whether something is what it should be; any answer will do. */
const asking: ReadonlySet<string> = new Set(["cuPointerGetAttribute", "cuStreamGetCtx", "cuModuleLoadData"]);

/** Integers that koffi passes on as they are. */
const limits: Readonly<Record<string, readonly [least: number, most: number]>> = {
  Int32: [-(2 ** 31), 2 ** 31 - 1],
  UInt32: [0, 2 ** 32 - 1],
  UInt64: [0, Number.MAX_SAFE_INTEGER],
};

type Call = (...args: readonly unknown[]) => number;
type Declared = Call & {
  readonly info: { readonly arguments: readonly { readonly type: { readonly primitive: string } }[] };
};

export interface Guard {
  /** What was wrong with calls so far. */
  readonly complaints: readonly string[];
  /** A stream that another library made. */
  readonly lend: (stream: bigint) => bigint;
  readonly remove: () => void;
}

/** Guards the driver that openDriver() gives. */
export function guardDriver(): Guard {
  const api = openDriver().api as unknown as Record<string, Declared | undefined>;
  const originals = { ...api };
  const complaints: string[] = [];
  const live = new Map<Kind, Set<bigint>>();
  const known = (kind: Kind): Set<bigint> => {
    const handles = live.get(kind) ?? new Set();
    live.set(kind, handles);
    return handles;
  };
  // CUDA's names for default streams.
  for (const name of [0n, 1n, 2n]) known("stream").add(name);

  for (const [name, declared] of Object.entries(originals)) {
    if (!declared) continue;
    const types = declared.info.arguments.map(({ type }) => type.primitive);
    const guarded: Call = (...args) => {
      const complain = (what: string) => void complaints.push(`${name}(${args.map(String).join(", ")}): ${what}`);
      if (args.length !== types.length) complain(`${types.length} arguments wanted`);
      for (const [i, type] of types.entries()) {
        const problem = wrong(type, args[i]);
        if (problem) complain(`argument ${i} ${problem}`);
      }
      for (const [position, kind] of Object.entries(handles[name] ?? {})) {
        const handle = args[Number(position)];
        if (handle === null && kind === "context") continue; // none is current then
        if (typeof handle !== "bigint" || !known(kind).has(handle)) complain(`argument ${position} is no live ${kind}`);
      }
      const [buffer = 0, size = 0] = sizes[name] ?? [];
      const memory = args[buffer];
      if (sizes[name] && !(memory instanceof Uint8Array && memory.byteLength >= Number(args[size]))) {
        complain("the buffer is smaller than that");
      }
      if (name === "cuLaunchKernelEx") checkConfig(args[0], known("stream"), complain);
      const result = declared(...args);
      if (!fine.has(result) && !asking.has(name)) complain(`the driver answered ${result}`);
      if (result !== 0) return result;
      const [kind, out = 0] = makers[name] ?? [];
      const made: unknown = kind && (args[out] as BigUint64Array)[0];
      if (kind && typeof made === "bigint") known(kind).add(made);
      if (takers.includes(name)) known(handles[name]?.[0] ?? "stream").delete(args[0] as bigint);
      return result;
    };
    api[name] = guarded as Declared;
  }
  return {
    complaints,
    lend: (stream) => {
      known("stream").add(stream);
      return stream;
    },
    remove: () => void Object.assign(api, originals),
  };
}

/** What is wrong with a value for a C type, if anything is. */
function wrong(type: string, value: unknown): string | undefined {
  const range = limits[type];
  if (range && typeof value === "number") {
    const [least, most] = range;
    return Number.isInteger(value) && value >= least && value <= most ? undefined : `is ${value}, no ${type}`;
  }
  if (type === "UInt64" || type === "Pointer") {
    if (value === null) return undefined;
    if (typeof value === "bigint") return value >= 0n && value < 2n ** 64n ? undefined : `is ${value}, no ${type}`;
    if (type === "Pointer" && ArrayBuffer.isView(value)) return value.byteLength > 0 ? undefined : "is an empty buffer";
  }
  if (type === "String" && typeof value === "string") return value.includes("\0") ? "holds a NUL" : undefined;
  return `is a ${typeof value}, no ${type}`;
}

/** Of CUlaunchConfig (backends/cuda/packet.ts) the grid, the block, and the stream. */
function checkConfig(address: unknown, streams: ReadonlySet<bigint>, complain: (what: string) => void): void {
  if (typeof address !== "bigint") return;
  const words = koffi.decode(address, koffi.array("uint32_t", 10)) as readonly number[];
  const [x = 0, y = 0, z = 0, threads = 0] = words;
  const most = [2 ** 31 - 1, 65_535, 65_535, 1024];
  if (![x, y, z, threads].every((size, i) => size >= 1 && size <= (most[i] ?? 0)))
    complain(`grid ${x} ${y} ${z}, block ${threads}`);
  const stream = BigInt(words[8] ?? 0) + (BigInt(words[9] ?? 0) << 32n);
  if (!streams.has(stream)) complain(`the stream ${stream} is not live`);
}
