/** How each scalar operation of the IR reads in CUDA C. */
import type { DType } from "../../dsl/dtype.ts";
import { type BinaryFn, infixSymbols, type UnaryFn } from "../../dsl/ir.ts";
import { encode } from "../../dsl/numerics.ts";
import { atom, call, infix, shortestF32, term, type Text } from "../lowering/text.ts";
import type { Prelude } from "./prelude.ts";

/** What is known about an integer operation's operands, so that its plain C form is exact. */
export interface Proof {
  /** The result may exceed 32 bits. */
  readonly mayWrap: boolean;
  /** A divisor is at least 1; a shift count is 0 to 31. */
  readonly safeRight: boolean;
}

export const noProof: Proof = { mayWrap: true, safeRight: false };

export function binary(fn: BinaryFn, dtype: DType, a: Text, b: Text, proof: Proof, prelude: Prelude): Text {
  const integer = dtype.name === "i32" || dtype.name === "u32";
  switch (fn) {
    case "add":
    case "sub":
    case "mul":
      // Unsigned arithmetic wraps by itself.
      if (dtype.name === "i32" && proof.mayWrap) return call(prelude.integer(fn, dtype), a, b);
      break;
    case "div":
    case "rem":
      if (integer && !proof.safeRight) return call(prelude.integer(fn, dtype), a, b);
      break;
    case "shl":
      if (dtype.name === "i32" ? proof.mayWrap || !proof.safeRight : !proof.safeRight) {
        return call(prelude.integer(fn, dtype), a, b);
      }
      break;
    case "shr":
      if (!proof.safeRight) return infix(">>", a, atom(`(${infix("&", b, atom("31")).code})`));
      break;
    case "min":
    case "max":
      return integer ? call(fn, a, b) : call(`f${fn}f`, a, b);
    case "and":
    case "or":
      if (dtype.name === "bool") return infix(fn === "and" ? "&&" : "||", a, b);
      break;
    case "xor":
      if (dtype.name === "bool") return infix("!=", a, b);
      break;
    case "eq":
    case "ne":
    case "lt":
    case "le":
    case "gt":
    case "ge":
      break;
  }
  return infix(infixSymbols[fn], a, b);
}

export function unary(fn: UnaryFn, dtype: DType, a: Text, prelude: Prelude): Text {
  switch (fn) {
    case "neg":
      // -x of the smallest i32 wraps to itself.
      return dtype.name === "i32" ? call(prelude.negate(), a) : { code: `-${term(a)}`, operator: "neg" };
    case "abs":
      return dtype.name === "i32" ? call(prelude.abs(), a) : call("fabsf", a);
    case "not":
      return atom(`${dtype.name === "bool" ? "!" : "~"}${term(a)}`);
    case "round":
      return call("rintf", a);
    case "exp":
    case "log":
    case "sqrt":
    case "rsqrt":
    case "tanh":
    case "floor":
    case "ceil":
      return call(`${fn}f`, a);
    case "popcount":
      return count("__popc", dtype, a);
    case "clz":
      return count("__clz", dtype, a);
  }
}

function count(name: string, dtype: DType, a: Text): Text {
  return dtype.name === "u32" ? atom(`(unsigned)${call(name, a).code}`) : call(name, a);
}

export function convert(from: DType, to: DType, a: Text, prelude: Prelude): Text {
  const cast = (): Text => atom(`(${prelude.type({ dtype: to, lanes: 1 })})${term(a)}`);
  if (to.name === "bool") return infix("!=", a, atom(from.name === "f32" ? "0.0f" : "0"));
  if (from.name === "f32") {
    if (to.name === "i32") return call("__float2int_rz", a);
    // ptxas 13.0 makes 2^32 - 1 instead of 0 of c ? -1.0f : 0.0f.
    if (to.name === "u32") return call("__float2uint_rz", call("fmaxf", a, atom("0.0f")));
    return call(prelude.fromF32(to), a);
  }
  if (to.name === "f32" && from.kind === "float") return call(prelude.toF32(from), a);
  return cast();
}

export function bitcast(from: DType, to: DType, a: Text, prelude: Prelude): Text {
  const words: { readonly [name: string]: string } = { f32: "float", i32: "int", u32: "uint" };
  const [source, target] = [words[from.name], words[to.name]];
  if (source && target && (source === "float" || target === "float")) return call(`__${source}_as_${target}`, a);
  return atom(`(${prelude.type({ dtype: to, lanes: 1 })})${term(a)}`);
}

/** A literal. `value` is what the dtype holds. */
export function constant(dtype: DType, value: number, prelude: Prelude): Text {
  switch (dtype.name) {
    case "f32": {
      if (!Number.isFinite(value)) return atom(`__int_as_float(0x${encode(dtype, value, "nosat").toString(16)})`);
      const text = `${shortestF32(value)}f`;
      return text.startsWith("-") ? { code: text, operator: "neg" } : atom(text);
    }
    case "i32":
      if (value === -(2 ** 31)) return atom("(-2147483647 - 1)");
      return value < 0 ? { code: String(value), operator: "neg" } : atom(String(value));
    case "u32":
      return atom(`${value}u`);
    case "bool":
      return atom(value ? "true" : "false");
    default: {
      const type = prelude.type({ dtype, lanes: 1 });
      return dtype.kind === "float"
        ? atom(`(${type})0x${encode(dtype, value, "nosat").toString(16)}`)
        : atom(`(${type})(${value})`);
    }
  }
}
