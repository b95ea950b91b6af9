/**
 * What cuLaunchKernelEx reads, laid out once per bound launch in one piece of memory:
 *
 *   CUlaunchConfig       0  gridDim x, y, z; blockDim x, y, z; sharedMemBytes; padding       8 x u32
 *                       32  hStream, attrs                                                   2 x u64
 *                       48  numAttrs; padding                                                2 x u32
 *   CUlaunchAttribute   56  id; padding                                                      2 x u32
 *                       64  value, a union of 64 bytes                                       64 bytes
 *   void *params[n]    128  the address of each argument's value                             n x u64
 *   values                  tensors first, then scalars; 8 bytes for each                    n x u64
 *   tensor maps             at the next address that is a multiple of 64                     m x 128 bytes
 *
 * n counts all arguments, in the order tensors, scalars, tensor maps; of the values the last m are unused.
 *
 * The driver copies the arguments before cuLaunchKernelEx returns. The memory of an ArrayBuffer never moves, and this object
 * keeps it alive, so the addresses stay right as long as the object is there.
 */
import koffi from "koffi";
import type { BoundScalar } from "../bind.ts";
import { wholeNumber } from "./checks.ts";
import type { DevicePointer, HostAddress, StreamHandle } from "./driver.ts";

/** CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION: may start before the kernel ahead of it in the stream ends. */
const programmaticStreamSerialization = 6;

const streamAt = 32;
const attributesAt = 40;
const attributeCountAt = 48;
const attributeAt = 56;
const paramsAt = 128;

/** CUtensorMap: its size, and the alignment that it is declared with. */
export const tensorMapBytes = 128;
export const tensorMapAlign = 64;

export interface PacketShape {
  /** Threads per block. */
  readonly block: number;
  readonly dynamicSharedBytes: number;
  readonly tensorCount: number;
  readonly scalarCount: number;
  readonly tensorMapCount: number;
}

export class LaunchPacket {
  /** CUlaunchConfig. */
  readonly config: Uint8Array<ArrayBuffer>;
  readonly configAddress: HostAddress;
  /** void *kernelParams[]. */
  readonly paramsAddress: HostAddress;
  readonly #tensorCount: number;
  readonly #view: DataView<ArrayBuffer>;
  readonly #valuesAt: number;
  readonly #mapsAt: number;

  constructor({ block, dynamicSharedBytes, tensorCount, scalarCount, tensorMapCount }: PacketShape) {
    const count = tensorCount + scalarCount + tensorMapCount;
    this.#tensorCount = tensorCount;
    this.#valuesAt = paramsAt + 8 * count;
    const end = this.#valuesAt + 8 * count;
    const room = tensorMapCount > 0 ? tensorMapAlign + tensorMapBytes * tensorMapCount : 0;
    const memory = new ArrayBuffer(end + room);
    const address = koffi.address(memory);
    this.#mapsAt = aligned(address, end);
    const view = new DataView(memory);
    this.#view = view;
    this.config = new Uint8Array(memory);
    this.configAddress = address as HostAddress;
    this.paramsAddress = (address + BigInt(paramsAt)) as HostAddress;

    const blockDim = [wholeNumber("Threads per block", block, 1, 1024), 1, 1];
    for (const [axis, size] of blockDim.entries()) view.setUint32(12 + 4 * axis, size, true);
    view.setUint32(24, wholeNumber("Dynamic shared memory", dynamicSharedBytes, 0, 2 ** 31 - 1), true);
    view.setBigUint64(attributesAt, address + BigInt(attributeAt), true);
    view.setUint32(attributeAt, programmaticStreamSerialization, true);
    view.setInt32(attributeAt + 8, 1, true);
    for (let i = 0; i < count; i++) {
      const map = i - tensorCount - scalarCount;
      const at = map < 0 ? this.#valuesAt + 8 * i : this.#mapsAt + tensorMapBytes * map;
      view.setBigUint64(paramsAt + 8 * i, address + BigInt(at), true);
    }
  }

  /** @throws ArgumentError for sizes that no grid can have (compute capabilities 9.0 to 12.x) */
  setGrid([x, y, z]: readonly [number, number, number]): void {
    this.#view.setUint32(0, wholeNumber("Grid size in x", x, 1, 2 ** 31 - 1), true);
    this.#view.setUint32(4, wholeNumber("Grid size in y", y, 1, 65535), true);
    this.#view.setUint32(8, wholeNumber("Grid size in z", z, 1, 65535), true);
  }

  /** Whether the launch carries the attribute of programmatic dependent launch; without it, it waits for all before it. */
  setOverlap(overlap: boolean): void {
    this.#view.setUint32(attributeCountAt, overlap ? 1 : 0, true);
  }

  setStream(stream: StreamHandle): void {
    this.#view.setBigUint64(streamAt, stream, true);
  }

  setTensor(index: number, pointer: DevicePointer): void {
    this.#view.setBigUint64(this.#valuesAt + 8 * index, pointer, true);
  }

  /** The bytes of a CUtensorMap. */
  setTensorMap(index: number, map: Uint8Array): void {
    new Uint8Array(this.#view.buffer, this.#mapsAt + tensorMapBytes * index, tensorMapBytes).set(map);
  }

  /** @throws ArgumentError when the value isn't one of the dtype's */
  setScalar(index: number, { name, dtype, value }: BoundScalar): void {
    const at = this.#valuesAt + 8 * (this.#tensorCount + index);
    if (dtype.name === "f32") this.#view.setFloat32(at, value, true);
    else if (dtype.name === "i32") this.#view.setInt32(at, wholeNumber(name, value, -(2 ** 31), 2 ** 31 - 1), true);
    else this.#view.setUint32(at, wholeNumber(name, value, 0, 2 ** 32 - 1), true);
  }
}

/** The first offset from `offset` on whose address a tensor map may have. */
export function aligned(address: bigint, offset: number): number {
  const beyond = Number((address + BigInt(offset)) % BigInt(tensorMapAlign));
  return beyond === 0 ? offset : offset + tensorMapAlign - beyond;
}
