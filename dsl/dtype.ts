/**
 * Data types: what an element is, in memory and in arithmetic.
 *
 * Arithmetic happens in `f32`, `i32`, `u32` and `bool`. The narrow types are storage: they are loaded, stored, packed into
 * vectors, and converted with `.to(...)`; numerics.ts says what a conversion means bit for bit.
 * ```ts
 * bf16.bytes // 2
 * encode(e4m3, 1000).toString(16) // 7e
 * decode(e4m3, 0x7e) // 448
 * ```
 */

/** Names of all element types. `e4m3` is the "fn" variant: no infinities, one NaN per sign, largest value 448. */
export type DTypeName = "f32" | "f16" | "bf16" | "e4m3" | "e5m2" | "i32" | "u32" | "i8" | "u8" | "bool";

/** Element types that Expr arithmetic exists for. */
export type NumericName = "f32" | "i32" | "u32";
export type IntegerName = "i32" | "u32";
export type FloatName = "f32" | "f16" | "bf16" | "e4m3" | "e5m2";

/** An element type. Compare by identity or by `name`. */
export interface DType<N extends DTypeName = DTypeName> {
  readonly name: N;
  /** Size in memory. */
  readonly bytes: 1 | 2 | 4;
  readonly kind: "float" | "signed" | "unsigned" | "bool";
  /** Float formats: explicit fraction bits and exponent bits; 0 for the others. */
  readonly fractionBits: number;
  readonly exponentBits: number;
}

function dtype<N extends DTypeName>(
  name: N,
  bytes: 1 | 2 | 4,
  kind: DType["kind"],
  exponentBits = 0,
  fractionBits = 0,
): DType<N> {
  return Object.freeze({ name, bytes, kind, exponentBits, fractionBits });
}

export const f32 = dtype("f32", 4, "float", 8, 23);
export const f16 = dtype("f16", 2, "float", 5, 10);
export const bf16 = dtype("bf16", 2, "float", 8, 7);
export const e4m3 = dtype("e4m3", 1, "float", 4, 3);
export const e5m2 = dtype("e5m2", 1, "float", 5, 2);
export const i32 = dtype("i32", 4, "signed");
export const u32 = dtype("u32", 4, "unsigned");
export const i8 = dtype("i8", 1, "signed");
export const u8 = dtype("u8", 1, "unsigned");
/** In memory one byte, 0 or 1; any other byte reads as true. */
export const bool = dtype("bool", 1, "bool");

/** Every dtype by its name. */
export const dtypes: { readonly [N in DTypeName]: DType<N> } = Object.freeze({
  f32,
  f16,
  bf16,
  e4m3,
  e5m2,
  i32,
  u32,
  i8,
  u8,
  bool,
});
