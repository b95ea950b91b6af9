/** Tensor maps: what TMA knows of a tensor, encoded by the driver when a launch is bound. */
import koffi from "koffi";
import { ArgumentError } from "../../dsl/errors.ts";
import type { DTypeName } from "../../dsl/dtype.ts";
import type { SwizzleBytes, TensorMap } from "../../dsl/ir-tile.ts";
import type { Kernel } from "../../dsl/kernel.ts";
import type { PrimaryContext } from "./context.ts";
import type { DevicePointer } from "./driver.ts";
import { aligned, tensorMapAlign, tensorMapBytes } from "./packet.ts";
import { describeResult } from "./results.ts";

/** CUtensorMapDataType; bytes are moved as they are. */
const dataTypes: { readonly [name in DTypeName]: number } = {
  e4m3: 0,
  e5m2: 0,
  i8: 0,
  u8: 0,
  bool: 0,
  u32: 2,
  i32: 3,
  f16: 6,
  f32: 7,
  bf16: 9,
};
/** CUtensorMapSwizzle. */
const swizzles: { readonly [bytes in SwizzleBytes]: number } = { 0: 0, 32: 1, 64: 2, 128: 3 };
const noInterleave = 0;
const promoteToL2In256Bytes = 3;
const fillWithZeros = 0; // CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE

/** Addresses and strides that TMA takes. */
const granule = 16;
/** The bytes of a CUtensorMap. @throws ArgumentError for a tensor that TMA can't read */
export function encodeTensorMap(
  context: PrimaryContext,
  kernel: Pick<Kernel, "name" | "at">,
  map: TensorMap,
  shape: readonly number[],
  pointer: DevicePointer,
): Uint8Array {
  const { tensor, box, swizzleBytes } = map;
  const { name, dtype } = tensor;
  const fail = (what: string, hint: string): never => {
    throw new ArgumentError(`${kernel.name}: TMA can't read ${name}: ${what}`, {
      related: [{ what: "its tensor map was made", at: map.at }],
      hint,
    });
  };
  if (pointer % BigInt(granule) !== 0n) {
    fail(
      `it begins at an address that is not a multiple of ${granule} bytes`,
      `Let ${name} begin at a multiple of ${granule} bytes of its storage`,
    );
  }
  // The driver counts dimensions from the innermost on.
  const sizes = shape.toReversed();
  const strides = sizes.map((_, i) => sizes.slice(0, i + 1).reduce((product, size) => product * size, dtype.bytes));
  const rowBytes = strides[0] ?? 0;
  if (strides.slice(0, -1).some((stride) => stride % granule !== 0)) {
    fail(
      `a row of ${sizes[0]} ${dtype.name} has ${rowBytes} bytes, not a multiple of ${granule}`,
      `Pad the last dimension of ${name} to a multiple of ${granule / dtype.bytes}`,
    );
  }
  if (sizes.some((size) => size < 1)) fail(`its shape is [${shape.join(", ")}]`, "Don't launch it for an empty tensor");

  const memory = new ArrayBuffer(tensorMapAlign + tensorMapBytes);
  const encoded = new Uint8Array(memory, aligned(koffi.address(memory), 0), tensorMapBytes);
  const { api } = context.driver;
  const result = context.queryAlsoInCapture(`making a tensor map of ${name}`, () =>
    api.cuTensorMapEncodeTiled(
      encoded,
      dataTypes[dtype.name],
      sizes.length,
      pointer,
      BigUint64Array.from(sizes, BigInt),
      BigUint64Array.from(strides, BigInt), // it reads all but the last
      Uint32Array.from(box.toReversed()),
      new Uint32Array(sizes.length).fill(1),
      noInterleave,
      swizzles[swizzleBytes],
      promoteToL2In256Bytes,
      fillWithZeros,
    ),
  );
  if (result !== 0) {
    fail(
      `for shape [${shape.join(", ")}], boxes of [${box.join(", ")}] and a swizzle of ${swizzleBytes} bytes ` +
        `the driver answers ${describeResult(api, result)}`,
      "Boxes have at most 256 elements along each axis, and along the last a multiple of 16 bytes, at most the swizzle's",
    );
  }
  return encoded;
}
