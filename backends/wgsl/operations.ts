/** How each scalar operation of the IR reads in WGSL. Narrow floats are bit patterns in u32, i8 is i32, u8 is u32. */
import type { DType } from "../../dsl/dtype.ts";
import { type BinaryFn, infixSymbols, type UnaryFn } from "../../dsl/ir.ts";
import { encode } from "../../dsl/numerics.ts";
import { atom, call, infix, shortestF32, term, type Text } from "../lowering/text.ts";
import type { Prelude } from "./prelude.ts";

/** The WGSL type that holds one element of a dtype outside memory. */
export function scalarType(dtype: DType): string {
  if (dtype.name === "f32" || dtype.name === "bool") return dtype.name;
  return dtype.kind === "signed" ? "i32" : "u32";
}

export function binary(fn: BinaryFn, dtype: DType, a: Text, b: Text): Text {
  const isBool = dtype.name === "bool";
  switch (fn) {
    case "min":
    case "max":
      return call(fn, a, b);
    case "shl":
    case "shr":
      return infix(fn === "shl" ? "<<" : ">>", a, atom(`(bitcast<u32>(${b.code}) & 31u)`));
    case "and":
      // Not &&, which branches: software devices take seconds over a hundred branches.
      return infix("&", a, b);
    case "or":
      return infix("|", a, b);
    case "xor":
      return infix(isBool ? "!=" : "^", a, b);
    case "div":
    case "rem":
      // WGSL defines x / 0 as the IR does, but refuses a divisor that is the literal 0.
      if (dtype.kind !== "float" && (b.code === "0" || b.code === "0u")) return fn === "div" ? a : b;
      return infix(fn === "div" ? "/" : "%", a, b);
    case "ne":
      // Of floats, SwiftShader's != is false where one is NaN.
      if (dtype.kind === "float") return atom(`!(${infix("==", a, b).code})`);
      return infix("!=", a, b);
    case "add":
    case "sub":
    case "mul":
    case "eq":
    case "lt":
    case "le":
    case "gt":
    case "ge":
      return infix(infixSymbols[fn], a, b);
  }
}

export function unary(fn: UnaryFn, dtype: DType, a: Text, prelude: Prelude): Text {
  switch (fn) {
    case "neg":
      return atom(`-${a.code.startsWith("-") ? `(${a.code})` : term(a)}`);
    case "not":
      return atom(`${dtype.name === "bool" ? "!" : "~"}${term(a)}`);
    case "rsqrt":
      return call("inverseSqrt", a);
    case "exp":
    case "log":
    case "tanh":
      return call(prelude.math(fn), a);
    case "popcount":
      return call("countOneBits", a);
    case "clz":
      return call("countLeadingZeros", a);
    case "abs":
    case "sqrt":
    case "floor":
    case "round":
    case "ceil":
      return call(fn, a);
  }
}

export function convert(from: DType, to: DType, a: Text, prelude: Prelude): Text {
  if (to.name === "bool") {
    // By its bits: a comparison may flush subnormals.
    if (from.name === "f32") return infix("!=", atom(`(bitcast<u32>(${a.code}) << 1u)`), atom("0u"));
    return infix("!=", a, atom(from.kind === "signed" ? "0" : "0u"));
  }
  if (from.name === "f32") {
    if (to.name === "i32" || to.name === "u32" || to.kind === "float") return call(prelude.fromF32(to), a);
    const [low, high] = to.name === "i8" ? ["-128", "127"] : ["0", "255"];
    const clamped = call("clamp", call(prelude.fromF32("i32"), a), atom(low), atom(high));
    return to.name === "i8" ? clamped : call("u32", clamped);
  }
  if (to.name === "f32")
    return from.kind === "float" || from.name === "u32" ? call(prelude.toF32(from), a) : call("f32", a);
  // u32(-1) and i32(4294967295) are refused where they stand in constant expressions.
  const [source, target] = [scalarType(from), scalarType(to)];
  const word = source === "bool" || source === target ? call(target, a) : call(`bitcast<${target}>`, a);
  if (to.name === "u8") return infix("&", word, atom("0xffu"));
  return to.name === "i8" ? signExtended(word) : word;
}

export function bitcast(from: DType, to: DType, a: Text): Text {
  if (to.bytes === 4) return call(`bitcast<${to.name}>`, a);
  if (to.name === "i8") return signExtended(call("bitcast<i32>", a));
  return from.name === "i8" ? infix("&", call("bitcast<u32>", a), atom("0xffu")) : a;
}

/** The low 8 bits as an i8. */
const signExtended = (word: Text): Text => infix(">>", infix("<<", word, atom("24u")), atom("24u"));

/** A literal. `value` is what the dtype holds. */
export function constant(dtype: DType, value: number, prelude: Prelude): Text {
  if (Object.is(value, 0) && dtype.name === "f32") return atom("0.0");
  switch (dtype.name) {
    case "f32":
      // WGSL has no literal for infinities and NaN, may flush subnormal ones, and refuses those that round down to the largest.
      if (!(Math.abs(value) < 3.4e38) || Math.abs(value) < 2 ** -126) return hidden(dtype, value, prelude);
      return atom(value < 0 ? `(${shortestF32(value)})` : shortestF32(value));
    case "i32":
    case "i8":
      if (value === -(2 ** 31)) return atom("i32(-2147483647 - 1)");
      return atom(value < 0 ? `(${value})` : `${value}`);
    case "u32":
    case "u8":
      return atom(`${value}u`);
    case "bool":
      return atom(value ? "true" : "false");
    default:
      return atom(`0x${encode(dtype, value, "nosat").toString(16)}u`);
  }
}

/**
 * A constant that no compiler knows for one. WGSL refuses expressions of constants alone that overflow, divide by zero or
 * are no number; SwiftShader takes x * 0.0 for 0 and x + 0.0 for x.
 */
export function hidden(dtype: DType, value: number, prelude: Prelude): Text {
  if (dtype.name === "f32") {
    return atom(`${prelude.f32FromBits()}(0x${encode(dtype, value, "nosat").toString(16)}u)`);
  }
  const { code } = constant(dtype, value, prelude);
  switch (scalarType(dtype)) {
    case "i32":
      return infix("|", atom(code), atom(`i32(${prelude.noBits()})`));
    case "u32":
      return infix("|", atom(code), atom(prelude.noBits()));
    default:
      return infix(value ? "==" : "!=", atom(prelude.noBits()), atom("0u"));
  }
}
