/**
 * Pure operations as closures over a warp's frame. They compute all 32 lanes, whether taking part or not: nobody looks at
 * the results of the others.
 */
import { type DType, f32 } from "../../dsl/dtype.ts";
import type { Pure, Type, Value } from "../../dsl/ir.ts";
import { encodeF32Bits } from "../../dsl/numerics.ts";
import { type Frame, moveLanes } from "./frame.ts";
import { binaryFn, floatUnary, fma, popcount, valueTable } from "./numbers.ts";

export type Compute = (frame: Frame) => void;

/** How an operation of type `type` gets from its operands' places to its own. */
export function compilePure(op: Pure, type: Type, to: number, placeOf: (value: Value) => number): Compute {
  const count = 32 * type.lanes;
  switch (op.kind) {
    case "unary":
      return unary(op, count, to, placeOf(op.a));
    case "binary": {
      const { dtype } = op.a.type;
      const compute = binaryFn(op.fn, dtype);
      const [a, b] = [placeOf(op.a), placeOf(op.b)];
      return (frame) => {
        const [x, y] = [frame.numbers(dtype), frame.numbers(type.dtype)];
        for (let k = 0; k < count; k++) y[to + k] = compute(x[a + k] ?? 0, x[b + k] ?? 0);
      };
    }
    case "fma": {
      const [a, b, c] = [placeOf(op.a), placeOf(op.b), placeOf(op.c)];
      return ({ floats }) => {
        for (let k = 0; k < count; k++)
          floats[to + k] = fma(floats[a + k] ?? 0, floats[b + k] ?? 0, floats[c + k] ?? 0);
      };
    }
    case "select": {
      const [condition, yes, no] = [placeOf(op.condition), placeOf(op.yes), placeOf(op.no)];
      // One condition may stand for all elements of a vector.
      const perCondition = type.lanes / op.condition.type.lanes;
      return (frame) => {
        const [bits, conditions] = [frame.bits(type.dtype.bytes), frame.bytes];
        for (let k = 0; k < count; k++) {
          const chosen = conditions[condition + Math.floor(k / perCondition)] ? yes : no;
          bits[to + k] = bits[chosen + k] ?? 0;
        }
      };
    }
    case "convert":
      return convert(op.a.type.dtype, op.to, count, to, placeOf(op.a));
    case "bitcast": {
      const a = placeOf(op.a);
      return (frame) => moveLanes(frame.bits(type.dtype.bytes), to, frame.bits(type.dtype.bytes), a, type.lanes, -1);
    }
    case "pack":
    case "join":
    case "extract":
    case "slice":
      return copyElements(type, to, elementsOf(op, placeOf));
    case "dot":
      return dot(op.a, op.b, to, placeOf(op.a), placeOf(op.b), placeOf(op.c));
  }
}

function unary({ fn, a: { type } }: Extract<Pure, { kind: "unary" }>, count: number, to: number, a: number): Compute {
  const { dtype } = type;
  const compute = floatUnary[fn];
  if (dtype === f32 && compute) {
    return ({ floats }) => {
      for (let k = 0; k < count; k++) floats[to + k] = compute(floats[a + k] ?? 0);
    };
  }
  const onBits = ((): ((x: number) => number) => {
    switch (fn) {
      case "neg":
        return dtype === f32 ? (x) => x ^ (1 << 31) : (x) => -x | 0;
      case "abs":
        return dtype === f32 ? (x) => x & 0x7fffffff : (x) => Math.abs(x) | 0;
      case "not":
        return dtype.kind === "bool" ? (x) => x ^ 1 : (x) => ~x;
      case "popcount":
        return popcount;
      default:
        return Math.clz32;
    }
  })();
  return (frame) => {
    const bits = frame.bits(dtype.bytes);
    for (let k = 0; k < count; k++) bits[to + k] = onBits(bits[a + k] ?? 0);
  };
}

function convert(from: DType, dtype: DType, count: number, to: number, a: number): Compute {
  const isNarrow = (type: DType): boolean => type.kind === "float" && type !== f32;
  if (isNarrow(from)) {
    const table = valueTable(from);
    return (frame) => {
      const [bits, { floats }] = [frame.bits(from.bytes), frame];
      for (let k = 0; k < count; k++) floats[to + k] = table[bits[a + k] ?? 0] ?? 0;
    };
  }
  const { name } = dtype;
  if (name === "f16" || name === "bf16" || name === "e4m3" || name === "e5m2") {
    const target = { ...dtype, name };
    const saturation = dtype.bytes === 1 ? "satfinite" : "nosat";
    return (frame) => {
      const [bits, { words }] = [frame.bits(dtype.bytes), frame];
      for (let k = 0; k < count; k++) bits[to + k] = encodeF32Bits(target, words[a + k] ?? 0, saturation);
    };
  }
  const toBool = dtype.kind === "bool";
  const [low, high] =
    dtype.kind === "signed"
      ? [-(2 ** (8 * dtype.bytes - 1)), 2 ** (8 * dtype.bytes - 1) - 1]
      : [0, 2 ** (8 * dtype.bytes) - 1];
  const saturates = from === f32 && !toBool;
  return (frame) => {
    const [x, y] = [frame.numbers(from), frame.numbers(dtype)];
    for (let k = 0; k < count; k++) {
      const value = x[a + k] ?? 0;
      // Typed arrays wrap integers by themselves, and make NaN 0.
      y[to + k] = toBool ? Number(value !== 0) : saturates ? Math.min(Math.max(Math.trunc(value), low), high) : value;
    }
  };
}

/** Where an element of a vector comes from: of a value that has `stride` elements a lane. */
interface Element {
  readonly place: number;
  readonly stride: number;
  readonly element: number;
}

type Rearrangement = Extract<Pure, { kind: "pack" | "join" | "extract" | "slice" }>;

function elementsOf(op: Rearrangement, placeOf: (value: Value) => number): readonly Element[] {
  const from = (value: Value, first: number, count: number): readonly Element[] =>
    Array.from({ length: count }, (_, i) => {
      return { place: placeOf(value), stride: value.type.lanes, element: first + i };
    });
  switch (op.kind) {
    case "pack":
      return op.lanes.flatMap((lane) => from(lane, 0, 1));
    case "join":
      return op.parts.flatMap((part) => from(part, 0, part.type.lanes));
    case "extract":
      return from(op.a, op.lane, 1);
    case "slice":
      return from(op.a, op.first, op.lanes);
  }
}

function copyElements({ dtype, lanes }: Type, to: number, elements: readonly Element[]): Compute {
  return (frame) => {
    const bits = frame.bits(dtype.bytes);
    for (const [i, { place, stride, element }] of elements.entries()) {
      for (let lane = 0; lane < 32; lane++) bits[to + lane * lanes + i] = bits[place + lane * stride + element] ?? 0;
    }
  };
}

function dot(a: Value, b: Value, to: number, placeA: number, placeB: number, placeC: number): Compute {
  const { lanes } = a.type;
  const [tableA, tableB] = [a, b].map(({ type }) => (type.dtype === f32 ? undefined : valueTable(type.dtype)));
  const [x, y] = [new Float32Array(lanes), new Float32Array(lanes)];
  return (frame) => {
    const [bitsA, bitsB] = [frame.numbers(a.type.dtype), frame.numbers(b.type.dtype)];
    const { floats } = frame;
    for (let lane = 0; lane < 32; lane++) {
      const [atA, atB] = [placeA + lane * lanes, placeB + lane * lanes];
      for (let k = 0; k < lanes; k++) x[k] = tableA ? (tableA[bitsA[atA + k] ?? 0] ?? 0) : (bitsA[atA + k] ?? 0);
      for (let k = 0; k < lanes; k++) y[k] = tableB ? (tableB[bitsB[atB + k] ?? 0] ?? 0) : (bitsB[atB + k] ?? 0);
      let sum = floats[placeC + lane] ?? 0;
      for (let k = 0; k < lanes; k++) sum = fma(x[k] ?? 0, y[k] ?? 0, sum);
      floats[to + lane] = sum;
    }
  };
}

/** f32 operations of one lane: what is counted as flops. */
export function flopsOf(op: Pure, { dtype, lanes }: Type): number {
  if (op.kind === "dot") return 2 * op.a.type.lanes;
  if (op.kind === "fma") return 2 * lanes;
  return op.kind === "binary" && dtype === f32 ? lanes : 0;
}
