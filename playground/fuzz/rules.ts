/**
 * How expressions are made: for each dtype, TypeScript with a # for each operand. Every f32 stays a multiple of 2^-23 of at
 * most about 2^31, so that nothing overflows or becomes subnormal, and all that an executor may do in its own way (NaN, the
 * sign of zero, what fma rounds) is left out: what remains has one right answer, to the bit.
 */
import type { DTypeName } from "../../dsl/index.ts";
import type { Tolerance } from "./program.ts";

/** The operands have as many lanes as the result. */
export interface Rule {
  readonly code: string;
  readonly operands: readonly DTypeName[];
}

export const dtypeNames = ["i32", "f32", "u32", "bool", "bf16", "f16", "e4m3", "e5m2", "i8", "u8"] as const;

export const numeric = ["i32", "f32", "u32"] as const;

const rule = (code: string, ...operands: readonly DTypeName[]): Rule => ({ code, operands });
const methods = (names: string, ...operands: readonly DTypeName[]): readonly Rule[] =>
  names.split(" ").map((name) => rule(operands.length === 1 ? `#.${name}()` : `#.${name}(#)`, ...operands));

const kept = ".min(1e6).max(-1e6)";
/** Nothing finer than 2^-20. */
export const coarse = `.mul(1048576).round().mul(1 / 1048576)${kept}`;
/** Small whole numbers, whose products and sums are exact. */
export const small = ".round().min(100).max(-100)";

/** What i32 and u32 share. `other` is the other of them. */
function integer(self: "i32" | "u32", other: "i32" | "u32"): readonly Rule[] {
  return [
    ...methods("add sub mul div rem min max and or xor shl shr", self, self),
    ...methods("not popcount clz", self),
    ...[rule(`#.to(${self})`, other), rule(`#.bitcast(${self})`, other), rule(`#.to(${self})`, "f32")],
    ...[rule(`#.mul(4096).to(${self})`, "f32"), rule(`#.add(0).bitcast(${self})`, "f32")],
    ...(["bool", "i8", "u8"] as const).map((from) => rule(`#.to(${self})`, from)),
  ];
}

export const rules: { readonly [D in DTypeName]: readonly Rule[] } = {
  i32: [...integer("i32", "u32"), ...methods("neg abs", "i32")],
  u32: integer("u32", "i32"),
  f32: [
    ...["#.add(#)", "#.sub(#)", "#.mul(#.round())"].map((code) => rule(code + kept, "f32", "f32")),
    ...[rule(`#.mul(#)${coarse}`, "f32", "f32"), ...methods("min max", "f32", "f32")],
    ...methods("neg abs floor ceil round", "f32"),
    rule(`#${small}.fma(#${small}, #${small})`, "f32", "f32", "f32"),
    ...(["i32", "u32"] as const).flatMap((from) => [
      rule(`#.to(f32)${kept}`, from),
      rule("#.to(f32).mul(1 / 4096)", from),
      rule("#.and(0x7ffff8).or(0x3f800000).bitcast(f32)", from),
    ]),
    ...(["bf16", "f16", "e4m3", "e5m2", "bool", "i8", "u8"] as const).map((from) => rule("#.to(f32)", from)),
  ],
  bool: [
    ...(["i32", "f32", "u32"] as const).flatMap((from) => methods("lt le gt ge eq ne", from, from)),
    ...[...methods("and or xor eq ne", "bool", "bool"), ...methods("not", "bool")],
    ...(["i32", "f32", "u8", "i8"] as const).map((from) => rule("#.to(bool)", from)),
  ],
  bf16: [rule("#.to(bf16)", "f32"), rule("#.to(bf16)", "i32"), rule("#.to(bf16)", "e4m3"), rule("#.to(bf16)", "f16")],
  f16: [
    rule("#.min(6e4).max(-6e4).to(f16)", "f32"),
    rule("#.to(f16)", "e5m2"),
    rule("#.to(f16)", "i8"),
    rule("#.bitcast(bf16).bitcast(f16)", "f16"),
  ],
  e4m3: [rule("#.to(e4m3)", "f32"), rule("#.to(e4m3)", "bf16"), rule("#.to(e4m3)", "u32"), ...via("e4m3")],
  e5m2: [rule("#.to(e5m2)", "f32"), rule("#.to(e5m2)", "f16"), rule("#.to(e5m2)", "u8"), ...via("e5m2")],
  i8: [...bytes("i8"), rule("#.to(i8)", "u8"), rule("#.bitcast(i8)", "u8")],
  u8: [...bytes("u8"), rule("#.to(u8)", "i8"), rule("#.bitcast(u8)", "i8")],
};

/** There and back: any other bits might be a NaN. */
function via(self: "e4m3" | "e5m2"): readonly Rule[] {
  const others = (["i8", "u8", "e4m3", "e5m2"] as const).filter((other) => other !== self);
  return others.map((other) => rule(`#.bitcast(${other}).bitcast(${self})`, self));
}

function bytes(self: "i8" | "u8"): readonly Rule[] {
  return [
    ...(["i32", "u32", "f32", "bool"] as const).map((from) => rule(`#.to(${self})`, from)),
    ...(["e4m3", "e5m2"] as const).map((from) => rule(`#.to(f32).add(0).to(${from}).bitcast(${self})`, from)),
  ];
}

export const constants: { readonly [D in DTypeName]: readonly [number, ...number[]] } = {
  i32: [0, 1, 2, 3, 5, 31, 32, 33, 100, -1, -2, -7, 65_537, 2 ** 31 - 1, -(2 ** 31)],
  u32: [0, 1, 2, 3, 7, 31, 32, 33, 65_535, 2 ** 31, 2 ** 32 - 1],
  f32: [0, 1, -1, 0.5, 2.5, 3.5, -1.5, 0.0009765625, -1000.25, 65_505, 1e6],
  bool: [0, 1],
  bf16: [0, 1, -2, 257, 0.0078125],
  f16: [0, 1, -2, 65_504, 0.0009765625],
  e4m3: [0, 1, -2, 448, 0.001953125],
  e5m2: [0, 1, -2, 57_344, 0.0001220703125],
  i8: [0, 1, -1, 127, -128],
  u8: [0, 1, 2, 128, 255],
};

const narrow = ".to(f32).add(0).bitcast(u32)";

/** What makes a u32 of each, the same for -0 and 0. */
export const words: { readonly [D in DTypeName]: string } = {
  ...{ i32: ".bitcast(u32)", u32: "", f32: ".add(0).bitcast(u32)", bool: ".to(u32)", i8: ".to(u32)", u8: ".to(u32)" },
  ...{ bf16: narrow, f16: narrow, e4m3: narrow, e5m2: narrow },
};

/** Functions whose last bits are open, of operands that keep to where their bounds hold; WGSL, "Floating Point Accuracy". */
export const approximations: readonly { readonly code: string; readonly tolerance: Tolerance }[] = [
  { code: "#.div(#.abs().max(0.001))", tolerance: { ulps: 3, absolute: 0 } },
  { code: "#.abs().sqrt()", tolerance: { ulps: 6, absolute: 0 } },
  { code: "#.abs().max(0.001).rsqrt()", tolerance: { ulps: 4, absolute: 0 } },
  { code: "#.min(8).max(-8).exp()", tolerance: { ulps: 21, absolute: 0 } },
  { code: "#.abs().max(0.001).log()", tolerance: { ulps: 5, absolute: 2 ** -21 } },
  { code: "#.tanh()", tolerance: { ulps: 10, absolute: 1e-5 } },
];
