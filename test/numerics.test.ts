/** Conversions bit for bit: against vectors on which other implementations agreed, and against what rounding means. */
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  bf16,
  bool,
  type DType,
  dtypes,
  e4m3,
  e5m2,
  f16,
  f32,
  type FloatName,
  i32,
  i8,
  u32,
  u8,
} from "../dsl/dtype.ts";
import { ValueError } from "../dsl/errors.ts";
import { HostTensor } from "../dsl/host.ts";
import {
  decode,
  decodeArray,
  encode,
  encodeArray,
  encodeF32Bits,
  isNaNBits,
  type Saturation,
} from "../dsl/numerics.ts";
import { conversions, expectedHash, hashChunk } from "../playground/verify-conversions.ts";

const floats: readonly DType<FloatName>[] = [f32, f16, bf16, e4m3, e5m2];
const fp8 = [
  { dtype: e4m3, vectors: "e4m3fn" },
  { dtype: e5m2, vectors: "e5m2" },
] as const;

const data = (file: string): Buffer => readFileSync(new URL(`data/numerics/${file}`, import.meta.url));
const json = <T>(file: string): T => JSON.parse(data(file).toString());

function f32FromBits(bits: number): number {
  return new Float32Array(Uint32Array.of(bits).buffer)[0] ?? NaN;
}

/** The patterns of an 8-bit or 16-bit dtype. */
function patterns(dtype: DType): readonly number[] {
  return Array.from({ length: 2 ** (8 * dtype.bytes) }, (_, bits) => bits);
}

/** Patterns for which `holds` is false; a loop of `expect` over 65536 patterns would take seconds. */
function failures(dtype: DType, holds: (bits: number) => boolean): readonly number[] {
  return patterns(dtype).filter((bits) => !holds(bits));
}

/** Two patterns that mean the same: equal, or both NaN. */
function same(dtype: DType, a: number, b: number | undefined): boolean {
  return a === b || (b !== undefined && isNaNBits(dtype, a) && isNaNBits(dtype, b));
}

/**
 * What rounding to nearest even means, told by decode alone. The non-negative finite values of a format in order, one more
 * at the end, where the next would be without a limit; midpoints of neighbours are exact in float64.
 */
function nearestBySearch(dtype: DType): (value: number, saturation: Saturation) => number {
  const values: number[] = [];
  for (let bits = 0; Number.isFinite(decode(dtype, bits)); bits++) values.push(decode(dtype, bits));
  const count = values.length;
  const at = (i: number): number => values[i] ?? NaN;
  values.push(2 * at(count - 1) - at(count - 2));
  const signBit = 2 ** (8 * dtype.bytes - 1);

  return (value, saturation) => {
    if (Number.isNaN(value)) return signBit - 1;
    const sign = Object.is(Math.sign(value), -0) || value < 0 ? signBit : 0;
    const magnitude = Math.abs(value);
    let low = 0;
    for (let high = count; low < high;) {
      const middle = (low + high) >>> 1;
      const midpoint = (at(middle) + at(middle + 1)) / 2;
      if (magnitude < midpoint || (magnitude === midpoint && middle % 2 === 0)) high = middle;
      else low = middle + 1;
    }
    if (low < count) return sign + low;
    if (saturation === "satfinite") return sign + count - 1;
    return dtype === e4m3 ? signBit - 1 : sign + count;
  };
}

describe("decode", () => {
  test.each(fp8)("$vectors: every pattern has the value in the table", ({ dtype, vectors }) => {
    const table = json<Record<string, string[]>>("decode_tables.json")[vectors] ?? [];
    expect(table).toHaveLength(256);
    expect(patterns(dtype).map((bits) => decode(dtype, bits))).toEqual(table.map((hex) => f32FromBits(Number(hex))));
  });

  test("bf16: every pattern is the top half of an f32", () => {
    expect(failures(bf16, (bits) => Object.is(decode(bf16, bits), f32FromBits(bits * 2 ** 16)))).toEqual([]);
  });

  test("f16: every pattern has the value that IEEE 754 defines", () => {
    const value = (bits: number): number => {
      const [sign, exponent, fraction] = [bits >>> 15 ? -1 : 1, (bits >>> 10) & 31, bits & 1023];
      if (exponent === 31) return fraction ? NaN : sign * Infinity;
      return exponent ? sign * (1 + fraction / 1024) * 2 ** (exponent - 15) : (sign * fraction) / 2 ** 24;
    };
    expect(failures(f16, (bits) => Object.is(decode(f16, bits), value(bits)))).toEqual([]);
  });

  test.each([f16, bf16, e4m3, e5m2])("$name: increases with the pattern, is odd in the sign, encodes back", (dtype) => {
    const sign = 2 ** (8 * dtype.bytes - 1);
    const holds = (bits: number): boolean => {
      const value = decode(dtype, bits);
      if (Number.isNaN(value) !== isNaNBits(dtype, bits)) return false;
      if (Number.isNaN(value)) return encode(dtype, value) === sign - 1;
      const increases = bits % sign === 0 || Math.abs(value) > Math.abs(decode(dtype, bits - 1));
      const odd = Object.is(decode(dtype, bits < sign ? bits + sign : bits - sign), -value);
      return increases && odd && encode(dtype, value, "nosat") === bits;
    };
    expect(failures(dtype, holds)).toEqual([]);
  });

  test("integers and bool: every pattern of 8 bits, the ends of 32", () => {
    expect(failures(u8, (bits) => decode(u8, bits) === bits && encode(u8, bits) === bits)).toEqual([]);
    expect(failures(i8, (bits) => decode(i8, bits) === (bits < 128 ? bits : bits - 256))).toEqual([]);
    expect(failures(i8, (bits) => encode(i8, decode(i8, bits)) === bits)).toEqual([]);
    expect(failures(bool, (bits) => decode(bool, bits) === (bits === 0 ? 0 : 1))).toEqual([]);
    const ends = [0x7fffffff, 0x80000000, 0xffffffff];
    expect(ends.map((bits) => decode(i32, bits))).toEqual([2 ** 31 - 1, -(2 ** 31), -1]);
    expect(decode(u32, 0xffffffff)).toBe(2 ** 32 - 1);
    expect([encode(i32, -(2 ** 31)), encode(i32, -1), encode(u32, 2 ** 32 - 1)]).toEqual([
      2 ** 31,
      2 ** 32 - 1,
      2 ** 32 - 1,
    ]);
  });
});

describe("encode, against the vectors", () => {
  type Code = number | "NaN";
  test.each(fp8)("$vectors: every boundary, both ways and both modes", ({ dtype, vectors }) => {
    const rows = json<Record<string, [string, Code, Code][]>>("boundary_f32.json")[vectors] ?? [];
    expect(rows.length).toBeGreaterThan(1500);
    const right = (bits: number, saturation: Saturation, expected: Code): boolean =>
      [encode(dtype, f32FromBits(bits), saturation), encodeF32Bits(dtype, bits, saturation)].every((code) =>
        expected === "NaN" ? isNaNBits(dtype, code) : code === expected,
      );
    const wrong = rows.filter(
      ([hex, satfinite, nosat]) => !(right(+hex, "satfinite", satfinite) && right(+hex, "nosat", nosat)),
    );
    expect(wrong).toEqual([]);
  });

  const narrowings = [f16, bf16].flatMap((from) =>
    conversions.slice(0, 4).map((to) => ({ from, ...to, file: `${from.name}_to_${to.name}.bin` })),
  );
  test.each(narrowings)("$file: every input", ({ from, dtype, saturation, file }) => {
    const expected = data(file);
    const code = (bits: number): number => encode(dtype, decode(from, bits), saturation);
    expect(failures(from, (bits) => same(dtype, code(bits), expected[bits]))).toEqual([]);
  });

  // Chunks with an overflow, with an overflow and a negative sign, with infinity and NaN, with the largest subnormals.
  const chunks = { e4m3fn_nosat: 0x43, e5m2_satfinite: 0xc7, bf16_rne: 0x7f, f16_rne: 0x38 };
  test.each(Object.entries(chunks))("%s: all 2^24 inputs of chunk %i", (name, chunk) => {
    const conversion = conversions.find((each) => each.name === name);
    expect(conversion && hashChunk(conversion, chunk)).toBe(expectedHash(name, chunk));
  });
});

describe("encode rounds once, to nearest even", () => {
  test.each(conversions)("$name: f32 inputs all over the range, against a search", ({ dtype, saturation }) => {
    const nearest = nearestBySearch(dtype);
    const wrong: number[] = [];
    for (let bits = 0; bits < 2 ** 32; bits += 65521) {
      if (encodeF32Bits(dtype, bits, saturation) !== nearest(f32FromBits(bits), saturation)) wrong.push(bits);
    }
    expect(wrong).toEqual([]);
  });

  /** Doubles of any size, and doubles at or next to the midpoint of two neighbours, closer than f32 could tell. */
  function doubles(dtype: DType<FloatName>): fc.Arbitrary<number> {
    const largest = encode(dtype, Infinity);
    const offset = fc.constantFrom(0, 2 ** -52, -(2 ** -53), 2 ** -30, -(2 ** -30));
    const nearMidpoint = fc
      .tuple(fc.nat(largest - 1), offset, fc.constantFrom(1, -1))
      .map(([bits, off, sign]) => sign * ((decode(dtype, bits) + decode(dtype, bits + 1)) / 2) * (1 + off));
    const inRange = fc.double({ min: -2 * decode(dtype, largest), max: 2 * decode(dtype, largest) });
    return fc.oneof(fc.double(), inRange, nearMidpoint);
  }

  test.each(floats)("$name: no neighbour is nearer, ties have an even pattern, then overflow", (dtype) => {
    const sign = 2 ** (8 * dtype.bytes - 1);
    const largest = encode(dtype, Infinity);
    // The pattern above the largest is infinity, or e4m3's NaN; for rounding it is where the next value would be.
    const beyond = 2 * decode(dtype, largest) - decode(dtype, largest - 1);
    const at = (code: number): number => (code > largest ? beyond : decode(dtype, code));

    const holds = (value: number): boolean => {
      const bits = encode(dtype, value, "nosat");
      if (Number.isNaN(value)) return isNaNBits(dtype, bits);
      const magnitude = Math.abs(value);
      const code = bits % sign;
      const even = code % 2 === 0;
      const lower = code === 0 ? -1 : (at(code - 1) + at(code)) / 2;
      const upper = code > largest ? NaN : (at(code) + at(code + 1)) / 2;
      const nearest = (magnitude > lower && !(magnitude >= upper)) || (even && [lower, upper].includes(magnitude));
      const signBit = value < 0 || Object.is(value, -0) ? sign : 0;
      const signRight = bits === signBit + code || isNaNBits(dtype, bits);
      return nearest && signRight && encode(dtype, value) === signBit + Math.min(code, largest);
    };
    fc.assert(fc.property(doubles(dtype), holds), { numRuns: 5000 });
  });

  test("doubles that rounding through f32 would tip the wrong way", () => {
    const justAbove = (tie: number): number => tie * (1 + 2 ** -40); // f32 sees a tie
    expect(encode(f16, justAbove(1 + 2 ** -11))).toBe(encode(f16, 1) + 1);
    expect(encode(bf16, justAbove(1 + 2 ** -8))).toBe(encode(bf16, 1) + 1);
    expect([464, justAbove(464)].map((x) => encode(e4m3, x, "nosat"))).toEqual([0x7e, 0x7f]);
    expect([61440 * (1 - 2 ** -40), 61440].map((x) => encode(e5m2, x, "nosat"))).toEqual([0x7b, 0x7c]);
    expect([65520 * (1 - 2 ** -40), 65520].map((x) => encode(f16, x, "nosat"))).toEqual([0x7bff, 0x7c00]);
    expect([2 ** -10, justAbove(2 ** -10), 5e-324].map((x) => encode(e4m3, x))).toEqual([0, 1, 0]);
  });
});

describe("special values, arrays, tensors and errors", () => {
  test("satfinite makes infinities finite, nosat keeps them; NaN is canonical", () => {
    expect(floats.map((dtype) => encode(dtype, -Infinity))).toEqual([0xff7fffff, 0xfbff, 0xff7f, 0xfe, 0xfb]);
    expect(floats.map((dtype) => encode(dtype, -Infinity, "nosat"))).toEqual([0xff800000, 0xfc00, 0xff80, 0x7f, 0xfc]);
    expect(floats.map((dtype) => encode(dtype, NaN))).toEqual([0x7fffffff, 0x7fff, 0x7fff, 0x7f, 0x7f]);
    expect(floats.map((dtype) => Object.is(decode(dtype, encode(dtype, -0)), -0))).toEqual(floats.map(() => true));
    expect(isNaNBits(u8, 0x7f)).toBe(false);
  });

  test.each(Object.values(dtypes))(
    "$name: arrays hold what encode and decode say, little-endian, unaligned",
    (dtype) => {
      const values = dtype.kind === "float" ? [1.1, -3, 0, 1e9, NaN] : dtype.kind === "signed" ? [-1, 0, 5] : [1, 0, 1];
      const bytes = encodeArray(dtype, values);
      const codes = values.map((value) => encode(dtype, value));
      const byte = (code: number, i: number): number => (code >>> (8 * i)) & 0xff;
      expect([...bytes]).toEqual(codes.flatMap((code) => Array.from({ length: dtype.bytes }, (_, i) => byte(code, i))));
      const shifted = new Uint8Array(bytes.length + 1);
      shifted.set(bytes, 1);
      expect([...decodeArray(dtype, shifted.subarray(1))]).toEqual(codes.map((code) => decode(dtype, code)));
    },
  );

  test("HostTensor.from keeps an infinity where the dtype has one, except in fp8", () => {
    const values = (dtype: DType): number[] => [...HostTensor.from(dtype, [2], [Infinity, -1e39]).values()];
    for (const dtype of [f32, f16, bf16]) expect(values(dtype)).toEqual([Infinity, -Infinity]);
    expect([values(e4m3), values(e5m2)]).toEqual([
      [448, -448],
      [57344, -57344],
    ]);
  });

  test("errors say what doesn't fit, where, and what to write", () => {
    expect(() => encode(u8, 300)).toThrow(ValueError);
    expect(() => encode(u8, 300)).toThrow(/^u8 can't represent 300: .* 0 to 255\n +Clamp it, .*\(x, 0\), 255\)/);
    expect(() => encodeArray(i32, [0, 2 ** 31])).toThrow(/^i32 can't .* 2147483648 \(element 1\): .* -2147483648 to /);
    expect(() => encode(i8, 0.5)).toThrow(/^i8 can't represent 0.5: .* -128 to 127\n +Round it, .*Math.round\(x\)/);
    expect(() => encode(i32, NaN)).toThrow(/^i32 can't represent NaN: .*\n.* float dtype/);
    expect(() => encode(bool, 2)).toThrow(/^bool can't represent 2: it holds 0 and 1\n.*Number\(x !== 0\)/);
    expect(() => decode(e4m3, 256)).toThrow(/^256 is not a bit pattern of e4m3\n.* 8 bits, such as x & 0xff/);
    expect(() => decode(i32, -1)).toThrow(/^-1 is not .*\n.* such as x >>> 0/);
    expect(() => decodeArray(f32, new Uint8Array(6))).toThrow(/^6 bytes .* f32 elements\n.* multiple of 4 bytes/);
  });
});
