/** Typing rules: the type of each operation's result, or why it has none. Tracing and the verifier both ask here. */
import { type MmaAtom, valuesOf } from "./atoms/mma.ts";
import { describe } from "./check.ts";
import { bool, type DType, f32, i32 } from "./dtype.ts";
import { DTypeError } from "./errors.ts";
import {
  type BinaryFn,
  formatType,
  type LaneCount,
  type Leaf,
  type Memory,
  type Op,
  sameType,
  type Type,
  type UnaryFn,
  type Value,
} from "./ir.ts";
import type { Location } from "./source.ts";

const numeric = ["f32", "i32", "u32"];
const integer = ["i32", "u32"];
const bits = ["i32", "u32", "bool"];
const float = ["f32"];

const unaryDTypes: { readonly [F in UnaryFn]: readonly string[] } = {
  neg: ["f32", "i32"],
  abs: ["f32", "i32"],
  not: bits,
  exp: float,
  log: float,
  sqrt: float,
  rsqrt: float,
  tanh: float,
  floor: float,
  ceil: float,
  round: float,
  popcount: integer,
  clz: integer,
};

const binaryDTypes: { readonly [F in BinaryFn]: readonly string[] } = {
  add: numeric,
  sub: numeric,
  mul: numeric,
  div: numeric,
  rem: integer,
  min: numeric,
  max: numeric,
  and: bits,
  or: bits,
  xor: bits,
  shl: integer,
  shr: integer,
  eq: [...numeric, "bool"],
  ne: [...numeric, "bool"],
  lt: numeric,
  le: numeric,
  gt: numeric,
  ge: numeric,
};

const comparisons: readonly string[] = ["eq", "ne", "lt", "le", "gt", "ge"];
export const isComparison = (fn: BinaryFn): boolean => comparisons.includes(fn);

/** For messages: a value's line. What each thread has from the start, as its lane, is made at no line of the author's. */
export function whereMade(
  what: string,
  { op, at }: Value,
): readonly { readonly what: string; readonly at: Location }[] {
  return op.kind === "id" ? [] : [{ what: `${what} was made`, at }];
}

/** @throws DTypeError that names the operation, its operands' types and the lines they come from */
export function resultType(op: Exclude<Op, Leaf>, at: Location): Type {
  switch (op.kind) {
    case "unary":
      requireDType(op.fn, op.a, unaryDTypes[op.fn], at);
      return op.a.type;
    case "binary":
      requireDType(op.fn, op.a, binaryDTypes[op.fn], at);
      requireSame(op.fn, op.a, op.b, at);
      return isComparison(op.fn) ? { dtype: bool, lanes: op.a.type.lanes } : op.a.type;
    case "fma":
      requireDType("fma", op.a, float, at);
      requireSame("fma", op.a, op.b, at);
      requireSame("fma", op.a, op.c, at);
      return op.a.type;
    case "select": {
      requireDType("select", op.condition, ["bool"], at);
      requireSame("select", op.yes, op.no, at);
      const { lanes } = op.condition.type;
      if (lanes !== 1 && lanes !== op.yes.type.lanes) mismatch("select", op.condition, op.yes, at);
      return op.yes.type;
    }
    case "convert":
      if (!convertible(op.a.type.dtype, op.to)) {
        throw new DTypeError(`There is no conversion from ${op.a.type.dtype.name} to ${op.to.name} in one step`, {
          at,
          hint: "Go through f32: x.to(f32).to(...)",
        });
      }
      return { dtype: op.to, lanes: op.a.type.lanes };
    case "bitcast":
      if (op.a.type.dtype.bytes !== op.to.bytes || op.to === bool || op.a.type.dtype === bool) {
        throw new DTypeError(`Can't reinterpret ${op.a.type.dtype.name} as ${op.to.name}`, {
          at,
          hint: "Both must have the same size, and bool has no bits of its own; .to(...) converts the value",
        });
      }
      return { dtype: op.to, lanes: op.a.type.lanes };
    case "pack": {
      const [first] = op.lanes;
      const lanes = op.lanes.length;
      requireLanes(lanes, at);
      if (!first || lanes === 1) throw new DTypeError("pack makes vectors of 2, 4, 8 or 16 lanes, not of 1", { at });
      for (const lane of op.lanes) requireSame("pack", first, lane, at);
      requireScalar("pack", first, at);
      return { dtype: first.type.dtype, lanes };
    }
    case "join": {
      const [first] = op.parts;
      const lanes = op.parts.reduce((sum, part) => sum + part.type.lanes, 0);
      requireLanes(lanes, at);
      if (!first || op.parts.length < 2) throw new DTypeError("join takes two vectors or more", { at });
      for (const part of op.parts) requireSame("join", first, part, at);
      return { dtype: first.type.dtype, lanes };
    }
    case "slice":
      requireLanes(op.lanes, at);
      if (!(op.first >= 0 && op.first % op.lanes === 0 && op.first + op.lanes <= op.a.type.lanes)) {
        throw new DTypeError(`${formatType(op.a.type)} has no ${op.lanes} lanes from ${describe(op.first)} on`, {
          at,
          related: [{ what: "the vector was made", at: op.a.at }],
          hint: "A slice begins at a multiple of its own lanes",
        });
      }
      return { dtype: op.a.type.dtype, lanes: op.lanes };
    case "extract":
      if (!(Number.isInteger(op.lane) && op.lane >= 0 && op.lane < op.a.type.lanes)) {
        throw new DTypeError(`${formatType(op.a.type)} has no lane ${describe(op.lane)}`, {
          at,
          related: [{ what: "the vector was made", at: op.a.at }],
          hint: `A lane is a TypeScript number from 0 to ${op.a.type.lanes - 1}`,
        });
      }
      return { dtype: op.a.type.dtype, lanes: 1 };
    case "dot": {
      if (op.a.type.dtype.kind !== "float" || op.b.type.dtype.kind !== "float") mismatch("dot", op.a, op.b, at);
      if (op.a.type.lanes !== op.b.type.lanes) mismatch("dot", op.a, op.b, at);
      requireDType("dot", op.c, float, at);
      requireScalar("dot", op.c, at);
      return op.c.type;
    }
    case "read":
      requireIndex(op.index ? [op.index] : [], op.register.length === undefined ? 0 : 1, op.register.name, at);
      return op.register.type;
    case "load":
      requireLanes(op.lanes, at);
      requireIndex(op.index, op.memory.shape.length, op.memory.name, at);
      if (op.guard) {
        requireDType("load", op.guard, ["bool"], at);
        requireScalar("load", op.guard, at);
      }
      if (op.peer) requirePeer(op.memory, op.peer, at);
      return { dtype: op.memory.dtype, lanes: op.lanes };
    case "shuffle":
      requireDType("shuffle", op.a, numeric, at);
      requireScalar("shuffle", op.a, at);
      requireIndex([op.by], 1, "shuffle", at);
      return op.a.type;
    case "reduce":
      requireDType(`warp ${op.fn}`, op.a, op.fn === "and" || op.fn === "or" ? bits : numeric, at);
      requireScalar(`warp ${op.fn}`, op.a, at);
      return op.a.type;
    case "atomic": {
      requireIndex(op.index, op.memory.shape.length, op.memory.name, at);
      const allowed = op.fn === "add" || op.fn === "exchange" ? numeric : integer;
      requireDType(`atomic ${op.fn}`, op.a, allowed, at);
      requireScalar(`atomic ${op.fn}`, op.a, at);
      if (op.a.type.dtype !== op.memory.dtype) {
        throw new DTypeError(
          `atomic ${op.fn} of ${formatType(op.a.type)} on ${op.memory.name}, which holds ${op.memory.dtype.name}`,
          { at },
        );
      }
      if (op.compare) requireSame(`atomic ${op.fn}`, op.a, op.compare, at);
      return op.a.type;
    }
    case "mma": {
      const { atom } = op;
      if (atom.kind !== "mma") {
        throw new DTypeError(`${atom.name} reads its operands from shared memory`, {
          at,
          hint: "Use t.wgmma(accumulator, a, b)",
        });
      }
      const types = fragmentTypes(atom);
      for (const operand of ["a", "b", "c"] as const) {
        if (sameType(op[operand].type, types[operand])) continue;
        throw new DTypeError(
          `${atom.name} takes ${formatType(types[operand])} as ${operand.toUpperCase()}, not ${formatType(op[operand].type)}`,
          { at, related: [{ what: "the operand was made", at: op[operand].at }] },
        );
      }
      return types.c;
    }
    case "ldmatrix": {
      requireIndex(op.index, op.memory.shape.length, op.memory.name, at);
      const { dtype } = op.memory;
      if (op.transposed && dtype.bytes !== 2) {
        throw new DTypeError(`A transposing ldmatrix moves 2-byte elements, not ${dtype.name}`, { at });
      }
      const lanes = (op.matrices * 4) / dtype.bytes;
      requireLanes(lanes, at);
      return { dtype, lanes };
    }
  }
}

/** The types of the values that a thread holds of a mma's operands. */
export function fragmentTypes(atom: MmaAtom): { readonly [operand in "a" | "b" | "c"]: Type } {
  const type = (operand: "A" | "B" | "C", dtype: DType): Type => ({
    dtype,
    lanes: valuesOf(atom, operand) as LaneCount,
  });
  return { a: type("A", atom.a), b: type("B", atom.b), c: type("C", atom.c) };
}

/** @throws DTypeError unless it is an i32 and the memory is shared */
export function requirePeer(memory: Memory, peer: Value, at: Location): void {
  requireIndex([peer], 1, "a cluster", at);
  if (memory.kind === "shared") return;
  throw new DTypeError(`${memory.name} is global memory: every block sees the same`, {
    at,
    hint: "peer is for shared memory, of which each block of a cluster has its own",
  });
}

/** Whether IR `convert` exists: always with f32, i32 or u32 on one side. */
export function convertible(from: DType, to: DType): boolean {
  if (from === to) return false;
  if (from === f32 || to === f32) return true;
  const wide = integer.includes(from.name) || integer.includes(to.name);
  return wide && from.kind !== "float" && to.kind !== "float";
}

/** @throws DTypeError */
export function requireLanes(lanes: unknown, at: Location): asserts lanes is LaneCount {
  if (lanes === 1 || lanes === 2 || lanes === 4 || lanes === 8 || lanes === 16) return;
  throw new DTypeError(`A vector has 2, 4, 8 or 16 lanes, not ${describe(lanes)}`, { at });
}

function requireDType(what: string, value: Value, allowed: readonly string[], at: Location): void {
  if (allowed.includes(value.type.dtype.name)) return;
  const narrow = value.type.dtype.kind === "float" && value.type.dtype !== f32;
  throw new DTypeError(`${what} doesn't take ${formatType(value.type)}, only ${allowed.join(", ")}`, {
    at,
    related: whereMade("the operand", value),
    hint: narrow ? `${value.type.dtype.name} is for storage: write .to(f32) first` : undefined,
  });
}

function requireScalar(what: string, value: Value, at: Location): void {
  if (value.type.lanes === 1) return;
  throw new DTypeError(`${what} takes one element, not ${formatType(value.type)}`, {
    at,
    related: whereMade("the operand", value),
    hint: "Take its lanes with .lane(i)",
  });
}

function requireSame(what: string, a: Value, b: Value, at: Location): void {
  if (!sameType(a.type, b.type)) mismatch(what, a, b, at);
}

function mismatch(what: string, a: Value, b: Value, at: Location): never {
  throw new DTypeError(`${what} of ${formatType(a.type)} and ${formatType(b.type)}`, {
    at,
    related: [...whereMade(formatType(a.type), a), ...whereMade(formatType(b.type), b)],
    hint: "Convert one side with .to(...), which says what rounding costs",
  });
}

function requireIndex(index: readonly Value[], rank: number, name: string, at: Location): void {
  if (index.length !== rank) throw new DTypeError(`${name} takes ${rank} indices, not ${index.length}`, { at });
  for (const value of index) {
    if (value.type.dtype !== i32 || value.type.lanes !== 1) {
      throw new DTypeError(`An index of ${name} is ${formatType(value.type)}; indices are i32`, {
        at,
        related: whereMade("the index", value),
        hint: "Write .to(i32)",
      });
    }
  }
}
