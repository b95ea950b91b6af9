/**
 * Conversions between numbers and the bit patterns of a dtype, exact on the host.
 *
 * One integer core serves every float format: `encodeF32Bits` narrows an f32 pattern, told what to do by the dtype's
 * `exponentBits` and `fractionBits` alone. The meaning is that of PTX ISA, "Data Movement and Conversion Instructions:
 * cvt", with `.rn` and optionally `.satfinite`; the backends promise the same bits.
 */
import { describe, ownDType } from "./check.ts";
import { type DType, type DTypeName, type FloatName } from "./dtype.ts";
import { ValueError } from "./errors.ts";

/**
 * What becomes of a float too large for its format, once rounded. `satfinite`: the largest finite value with the sign of
 * the input, for an infinite input as well. `nosat`: an infinity with that sign, or NaN in e4m3, which has no infinities.
 */
export type Saturation = "satfinite" | "nosat";

/** Reinterprets the 4 bytes of an f32. */
const scratch = new DataView(new ArrayBuffer(4));

function fromF32Bits(bits: number): number {
  scratch.setUint32(0, bits);
  return scratch.getFloat32(0);
}

function toF32Bits(value: number): number {
  scratch.setFloat32(0, value);
  return scratch.getInt32(0);
}

/**
 * f32 bits of a float64, rounded to odd: an inexact value becomes the neighbour whose last bit is set. That bit tells a
 * later rounding to nearest that the value was not a tie, so the two together round once (each narrower format leaves
 * at least two bits between its last and f32's). A finite number beyond f32's range becomes f32's largest, not infinity.
 */
function toF32BitsOdd(value: number): number {
  const nearest = Math.fround(value);
  const bits = toF32Bits(nearest);
  if (nearest === value) return bits;
  return (Math.abs(nearest) > Math.abs(value) ? bits - 1 : bits) | 1;
}

function isFloat(dtype: DType): dtype is DType<FloatName> {
  return dtype.kind === "float";
}

/** Every bit but the sign: 0x7F, 0x7FFF or 0x7FFFFFFF. In a float format it is also the NaN that PTX calls canonical. */
function magnitudeMask(dtype: DType): number {
  return 0x7fffffff >>> (32 - 8 * dtype.bytes);
}

/** The pattern of the largest finite value. IEEE formats give up their top exponent for infinity and NaN, e4m3 one pattern. */
function maxFinite(dtype: DType): number {
  if (dtype.name === "e4m3") return 0x7e;
  return (((1 << dtype.exponentBits) - 1) << dtype.fractionBits) - 1;
}

/**
 * Whether a pattern of `dtype` is NaN, of any sign and payload; false for integers and bool. No NaN equals itself and
 * the devices differ in which one they make, so comparisons of results go by class.
 */
export function isNaNBits(dtype: DType, bits: number): boolean {
  if (!isFloat(dtype)) return false;
  const infinity = maxFinite(dtype) + 1;
  const magnitude = bits & magnitudeMask(dtype);
  return dtype.name === "e4m3" ? magnitude === infinity : magnitude > infinity;
}

/**
 * Value of a bit pattern, exact: every value of every dtype is a JavaScript number. Keeps -0, infinities and NaN;
 * signed integers are sign-extended; of a bool's patterns 0 is 0, every other is 1.
 *
 * @param bits the pattern as an unsigned integer, below 2^(8 * dtype.bytes)
 * @throws ValueError when `bits` is not such an integer; DTypeError
 */
export function decode(dtype: DType, bits: number): number {
  const own = ownDType(dtype);
  const mask = magnitudeMask(own);
  if (!(Number.isInteger(bits) && bits >= 0 && bits <= 2 * mask + 1)) {
    const narrowed = own.bytes === 4 ? "x >>> 0" : `x & 0x${(2 * mask + 1).toString(16)}`;
    throw new ValueError(`${describe(bits)} is not a bit pattern of ${own.name}`, {
      hint: `Pass an unsigned integer of ${8 * own.bytes} bits, such as ${narrowed}.`,
    });
  }
  return valueOf(own, bits);
}

function valueOf(dtype: DType, bits: number): number {
  const mask = magnitudeMask(dtype);
  switch (dtype.kind) {
    case "unsigned":
      return bits;
    case "signed":
      return bits > mask ? bits - 2 * (mask + 1) : bits;
    case "bool":
      return bits === 0 ? 0 : 1;
    case "float":
      return decodeFloat(dtype, bits);
  }
}

function decodeFloat(dtype: DType, bits: number): number {
  if (isNaNBits(dtype, bits)) return NaN;
  const sign = bits > magnitudeMask(dtype) ? -1 : 1;
  const magnitude = bits & magnitudeMask(dtype);
  if (magnitude > maxFinite(dtype)) return sign * Infinity;
  // Moved to f32's field positions and read with f32's bias, 127, every value is too small by the same power of two.
  const bias = (1 << (dtype.exponentBits - 1)) - 1;
  const scale = fromF32Bits((127 + 127 - bias) << 23);
  return sign * scale * fromF32Bits(magnitude << (23 - dtype.fractionBits));
}

/**
 * Bit pattern of a number, unsigned.
 *
 * Floats: `value` is rounded once, to nearest even, straight from float64, then `saturation` says what an overflow
 * becomes: e4m3 rounds |x| <= 464 to 448 and overflows above; e5m2 overflows from 61440, f16 from 65520. NaN becomes
 * the canonical NaN of PTX: 0x7F, 0x7FFF or 0x7FFFFFFF. (PTX has no `.satfinite` for f32; the same rule is applied.)
 *
 * Integers and bool: `value` must be in range; nothing is rounded, wrapped or saturated.
 *
 * @throws ValueError when an integer or bool dtype can't represent `value`, or for no number; DTypeError
 */
export function encode(dtype: DType, value: number, saturation: Saturation = "satfinite"): number {
  const own = ownDType(dtype);
  if (typeof value !== "number") throw new ValueError(`${describe(value)} is no number: encode(f32, 1.5)`);
  if (saturation !== "satfinite" && saturation !== "nosat") {
    throw new ValueError(`Overflow is handled as "satfinite" or "nosat" says, not as ${describe(saturation)}`);
  }
  return isFloat(own) ? encodeFloat(own, value, saturation) : encodeInteger(own, value);
}

function encodeFloat(dtype: DType<FloatName>, value: number, saturation: Saturation): number {
  return encodeF32Bits(dtype, dtype.name === "f32" ? toF32Bits(value) : toF32BitsOdd(value), saturation);
}

/**
 * Bit pattern, unsigned, of the f32 whose bits are `f32Bits` (signed or unsigned): what `encode` gives for that value,
 * in integer arithmetic alone. Allocates nothing.
 */
export function encodeF32Bits(dtype: DType<FloatName>, f32Bits: number, saturation: Saturation): number {
  const nan = magnitudeMask(dtype);
  const magnitude = f32Bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return nan;

  // value = significand * 2^(exponent - 150); subnormals share the exponent of the smallest normals.
  const exponent = Math.max(magnitude >>> 23, 1);
  const significand = magnitude - ((exponent - 1) << 23);
  // The exponent, biased as f32's, of dtype's smallest normals. Each step below drops one bit more; 25 drop all of them.
  const minExponent = 129 - (1 << (dtype.exponentBits - 1));
  const dropped = Math.min(23 - dtype.fractionBits + Math.max(minExponent - exponent, 0), 25);

  // Twice the remainder against the step; an odd quotient tips a tie. A carry runs on into the exponent, as it should.
  const quotient = significand >>> dropped;
  const remainder = significand - (quotient << dropped);
  const roundUp = 2 * remainder + (quotient & 1) > 1 << dropped ? 1 : 0;
  let rounded = (Math.max(exponent - minExponent, 0) << dtype.fractionBits) + quotient + roundUp;

  const largest = maxFinite(dtype);
  if (rounded > largest) {
    if (saturation === "nosat" && dtype.name === "e4m3") return nan;
    rounded = saturation === "satfinite" ? largest : largest + 1;
  }
  return (((f32Bits >>> 31) << (8 * dtype.bytes - 1)) | rounded) >>> 0;
}

/** `index`: where the value stands in an array, for the message. */
function encodeInteger(dtype: DType, value: number, index?: number): number {
  const mask = magnitudeMask(dtype);
  const min = dtype.kind === "signed" ? -mask - 1 : 0;
  const max = dtype.kind === "signed" ? mask : dtype.kind === "unsigned" ? 2 * mask + 1 : 1;
  if (!(value >= min && value <= max && Number.isInteger(value))) {
    const what = index === undefined ? `${value}` : `${value} (element ${index})`;
    const range = dtype.kind === "bool" ? "0 and 1" : `the integers ${min} to ${max}`;
    throw new ValueError(`${dtype.name} can't represent ${what}: it holds ${range}`, {
      hint:
        dtype.kind === "bool"
          ? "Write 0 or 1, such as Number(x !== 0)."
          : value < min || value > max
            ? `Clamp it, such as Math.min(Math.max(x, ${min}), ${max}), or take a wider dtype.`
            : "Round it, such as Math.round(x), or take a float dtype.",
    });
  }
  return dtype.bytes === 4 ? value >>> 0 : value & 0xff;
}

/**
 * `encode` of every element: `values.length * dtype.bytes` bytes, little-endian.
 *
 * @throws ValueError when an integer or bool dtype can't represent an element; the message has its index
 */
export function encodeArray(
  dtype: DType,
  values: ArrayLike<number>,
  saturation: Saturation = "satfinite",
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(values.length * dtype.bytes);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < values.length; i++) {
    const value = values[i] ?? NaN;
    const bits = isFloat(dtype) ? encodeFloat(dtype, value, saturation) : encodeInteger(dtype, value, i);
    if (dtype.bytes === 1) view.setUint8(i, bits);
    else if (dtype.bytes === 2) view.setUint16(2 * i, bits, true);
    else view.setUint32(4 * i, bits, true);
  }
  return bytes;
}

/**
 * `decode` of every element of little-endian bytes: `bytes.length / dtype.bytes` numbers. `bytes` need not be aligned.
 *
 * @throws ValueError when the bytes are no whole number of elements
 */
export function decodeArray(dtype: DType, bytes: Uint8Array): Float64Array<ArrayBuffer> {
  if (bytes.length % dtype.bytes !== 0) {
    throw new ValueError(`${bytes.length} bytes are no whole number of ${dtype.name} elements`, {
      hint: `Pass a multiple of ${dtype.bytes} bytes.`,
    });
  }
  const values = new Float64Array(bytes.length / dtype.bytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (dtype.bytes === 4) {
    for (let i = 0; i < values.length; i++) values[i] = valueOf(dtype, view.getUint32(4 * i, true));
    return values;
  }
  const table = decodeTable(dtype);
  for (let i = 0; i < values.length; i++) {
    values[i] = table[dtype.bytes === 1 ? view.getUint8(i) : view.getUint16(2 * i, true)] ?? NaN;
  }
  return values;
}

const decodeTables = new Map<DTypeName, Float64Array>();

/** Value of every pattern of an 8-bit or 16-bit dtype, made on first use. */
function decodeTable(dtype: DType): Float64Array {
  let table = decodeTables.get(dtype.name);
  if (!table) {
    table = Float64Array.from({ length: 2 ** (8 * dtype.bytes) }, (_, bits) => decode(dtype, bits));
    decodeTables.set(dtype.name, table);
  }
  return table;
}
