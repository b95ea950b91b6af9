/** Memory and streams that another library of this process made: checked as far as the driver can tell. */
import type { DType, DTypeName } from "../../dsl/dtype.ts";
import { describe, ownDType, shapeOf } from "../../dsl/check.ts";
import { ArgumentError, CaptureError, ShapeError } from "../../dsl/errors.ts";
import { callerOfBackends } from "../caller.ts";
import { byteLengthOf } from "../tensor.ts";
import type { PrimaryContext } from "./context.ts";
import type { DevicePointer, DriverApi, StreamHandle } from "./driver.ts";
import { describeResult } from "./results.ts";
import type { Streams } from "./streams.ts";

/** What another library says of a tensor of its own, e.g. PyTorch: `data_ptr()`, `shape`, `stride()`. */
export interface ForeignTensor<N extends DTypeName> {
  /** The address of the first element. */
  readonly pointer: bigint;
  readonly dtype: DType<N>;
  readonly shape: readonly number[];
  /** In elements; only those of a contiguous row-major tensor are accepted, which is also the default. */
  readonly strides?: readonly number[] | undefined;
  /** Called once, after the last launch that may use the memory: when the tensor is freed, or with the backend. */
  readonly onFree?: (() => void) | undefined;
}

// CUpointer_attribute
const memoryType = 2;
const deviceOrdinal = 9;
const rangeStart = 11;
const rangeSize = 12;
/** CU_MEMORYTYPE_DEVICE */
const deviceMemory = 2n;

/** User-space addresses end below this on every system that CUDA runs on. */
const maxAddress = 2n ** 57n;

/** What of it is used, read once. @throws ArgumentError, ShapeError, DTypeError */
export function checkForeignTensor<N extends DTypeName>(
  { context }: Streams,
  foreign: ForeignTensor<N>,
): Omit<ForeignTensor<N>, "strides"> & { readonly pointer: DevicePointer } {
  if (typeof foreign !== "object" || foreign === null) {
    throw new ArgumentError(`adoptTensor takes an object, not ${describe(foreign)}`, {
      hint: "cuda.adoptTensor({ pointer, dtype: f32, shape: [4, 8] })",
    });
  }
  const { pointer, strides, onFree } = foreign;
  const [dtype, shape] = [ownDType(foreign.dtype, callerOfBackends), shapeOf(foreign.shape, callerOfBackends)];
  const byteLength = byteLengthOf(dtype, shape);
  const address = rawAddress("A tensor's pointer", pointer, 1n) as DevicePointer;
  if (onFree !== undefined && typeof onFree !== "function") throw new ArgumentError("onFree must be a function");
  requireContiguous(shape, strides);
  if (address % BigInt(dtype.bytes) !== 0n) {
    throw new ArgumentError(`${hex(address)} is not a multiple of ${dtype.bytes} bytes, the size of one ${dtype.name}`);
  }

  const ask = (attribute: number): bigint => {
    const out = new BigUint64Array(1); // zero, where the driver writes only 4 bytes
    const doing = "asking about a pointer";
    const result = context.query(doing, (api) => api.cuPointerGetAttribute(out, attribute, address));
    if (result === 0) return out[0] ?? 0n;
    throw new ArgumentError(
      `${hex(address)} is no address that CUDA knows: ${describeResult(context.driver.api, result)}`,
      { hint: "Pass a device pointer of this process, e.g. BigInt(tensor.data_ptr())" },
    );
  };
  if (ask(memoryType) !== deviceMemory) throw new ArgumentError(`${hex(address)} is host memory, not device memory`);
  if (context.allocated(address)) {
    throw new ArgumentError(`${hex(address)} lies in memory of a tensor of this library: nothing is adopted twice`, {
      hint: "Another tensor over the same memory is a view: tensor.view([4, 8], offset)",
    });
  }
  const ordinal = Number(ask(deviceOrdinal));
  if (ordinal !== context.device.ordinal) {
    throw new ArgumentError(`${hex(address)} is on CUDA device ${ordinal}, the backend on ${context.device.ordinal}`, {
      hint: `await openCuda({ ordinal: ${ordinal} })`,
    });
  }
  const room = ask(rangeStart) + ask(rangeSize) - address;
  if (room < BigInt(byteLength)) {
    const what = `${dtype.name}[${shape.join(", ")}]`;
    throw new ArgumentError(`${what} needs ${byteLength} bytes from ${hex(address)} on; its allocation has ${room}`);
  }
  return { pointer: address, dtype, shape, onFree };
}

/** @throws ArgumentError; CaptureError while its owner captures it */
export function checkForeignStream({ context }: Streams, pointer: bigint): StreamHandle {
  // 0, 1 and 2 are CUDA's names for default streams.
  const stream = rawAddress("A stream", pointer, 0n) as StreamHandle;
  const out = new BigUint64Array(1);
  const result = context.query("asking about a stream", (api) => api.cuStreamGetCtx(stream, out));
  if (result !== 0) {
    throw new ArgumentError(`${hex(stream)} is no stream: ${describeResult(context.driver.api, result)}`);
  }
  if (out[0] === context.handle) return notCapturing(context, stream);
  throw new ArgumentError(`The stream ${hex(stream)} belongs to another device or context than this backend`, {
    hint: "Tegula uses the primary context of its device, as the CUDA runtime and PyTorch do",
  });
}

/** What is enqueued there would become part of its owner's graph, and waiting would break that. @throws CaptureError */
function notCapturing(context: PrimaryContext, stream: StreamHandle): StreamHandle {
  const status = new Int32Array(1);
  const asking = (api: DriverApi) => api.cuStreamIsCapturing(stream, status);
  const result = context.query("asking about a stream", asking);
  if (result === 0 && status[0] === 0) return stream;
  const why = result === 0 ? "" : `: ${describeResult(context.driver.api, result)}`;
  throw new CaptureError(`A graph is captured from the stream ${hex(stream)} by its owner${why}`, {
    hint: "Adopt it before that capture, or after it; a graph of this library is made by cuda.capture(...)",
  });
}

function rawAddress(what: string, value: bigint, min: bigint): bigint {
  if (typeof value === "bigint" && value >= min && value < maxAddress) return value;
  throw new ArgumentError(`${what} must be an address as a bigint, got ${typeof value} ${describe(value)}`);
}

function requireContiguous(shape: readonly number[], strides: readonly number[] | undefined): void {
  if (strides === undefined) return;
  if (!Array.isArray(strides)) throw new ShapeError(`Strides are an array of whole numbers, not ${describe(strides)}`);
  const expected = shape.map((_, axis) => shape.slice(axis + 1).reduce((product, size) => product * size, 1));
  // The stride along an axis of one element is never used, and libraries fill in what they like.
  const fits = (stride: number, axis: number) => shape[axis] === 1 || stride === expected[axis];
  if (strides.length === shape.length && strides.every(fits)) return;
  const given = strides.slice(0, shape.length + 1).map(describe);
  throw new ShapeError(
    `Only contiguous row-major tensors are adopted: [${shape.join(", ")}] has strides [${expected.join(", ")}], ` +
      `got [${given.join(", ")}]`,
    { hint: "Make it contiguous in the other library first, e.g. tensor.contiguous()" },
  );
}

function hex(address: bigint): string {
  return `0x${address.toString(16)}`;
}
