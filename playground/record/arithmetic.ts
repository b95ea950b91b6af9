/** Arithmetic on pairs of edges and random operands, and exchanges between the lanes of a warp. */
import {
  ceilDiv,
  type DType,
  type DTypeName,
  encode,
  type Expr,
  f32,
  HostTensor,
  i32,
  input,
  type Kernel,
  kernel,
  output,
  size,
  u32,
} from "../../dsl/index.ts";
import { seededRandom } from "../../kernels/index.ts";
import { f32Edges } from "./conversions.ts";
import { below, normal, type Random } from "./data.ts";
import { type Specimen, type Tensors, tensorOfBits } from "./specimen.ts";

const count = size("n", { multipleOf: 64 });

export function arithmeticSpecimens(): readonly Specimen[] {
  return [
    integerArithmetic(i32),
    integerArithmetic(u32),
    floatArithmetic(),
    exchanges("whole numbers", (random) => below(201, random) - 100),
    exchanges("reals", normal),
  ];
}

const integerFunctions = ["add", "sub", "mul", "div", "rem", "min", "max", "and", "or", "xor", "shl", "shr"] as const;
const comparisons = ["eq", "ne", "lt", "le", "gt", "ge"] as const;
const floatFunctions = ["add", "sub", "mul", "div"] as const;
const roundings = ["sqrt", "floor", "ceil", "round", "abs", "neg"] as const;

/** By name: the methods of Expr are called as the IR's functions. */
function apply(fn: string, a: Expr<DTypeName>, ...others: readonly unknown[]): Expr<"u32"> {
  const methods = a as unknown as Readonly<Record<string, (...others: readonly unknown[]) => Expr<"u32">>>;
  const result = methods[fn]?.call(a, ...others);
  if (!result) throw new RangeError(`there is no ${fn}`);
  return result;
}

/** One kernel that computes each row of words from the operands x, y and z of each thread. */
function arithmetic(
  name: string,
  dtype: DType<"f32" | "i32" | "u32">,
  rows: readonly ((x: Expr<"f32">, y: Expr<"f32">, z: Expr<"f32">) => Expr<"u32">)[],
  pairs: () => readonly (readonly [number, number, number])[],
  wgsl: Specimen["wgsl"],
): Specimen {
  // To tsc operands are alike whatever their dtype.
  const of = dtype as unknown as DType<"f32">;
  const operand = () => input(of, [count]);
  const params = { x: operand(), y: operand(), z: operand(), out: output(u32, [rows.length, count]) };
  const traced = kernel({ name, grid: ceilDiv(count, 64), block: 64, params }, (t) => {
    const { x, y, z, out } = t.pdl.wait();
    const i = t.block.x.mul(64).add(t.thread);
    const operands = [x.load([i]), y.load([i]), z.load([i])] as const;
    for (const [row, compute] of rows.entries()) out.store([row, i], compute(...operands));
  });
  const args = (): Tensors => {
    const triples = pairs();
    const length = Math.ceil(triples.length / 64) * 64;
    const column = (axis: 0 | 1 | 2) =>
      tensorOfBits(
        dtype,
        [length],
        Array.from({ length }, (_, i) => triples[i % triples.length]?.[axis] ?? 0),
      );
    return { x: column(0), y: column(1), z: column(2), out: HostTensor.filled(u32, [rows.length, length], 0xff) };
  };
  return { name: name.replaceAll("_", " "), kernel: traced as unknown as Kernel, args, wgsl };
}

/** All pairs of the first patterns, then each pattern with another. */
function pairsOf(edges: readonly number[], others: readonly number[], random: Random) {
  const crossed = edges.flatMap((x) => edges.map((y) => [x, y, others[below(others.length, random)] ?? 0] as const));
  const any = others.map((x) => {
    const [y, z] = [others[below(others.length, random)] ?? 0, others[below(others.length, random)] ?? 0];
    return [x, y, z] as const;
  });
  return [...crossed, ...any];
}

function integerArithmetic(dtype: DType<"i32" | "u32">): Specimen {
  const rows = [
    ...[...integerFunctions, ...comparisons].map((fn) => (x: Expr<"f32">, y: Expr<"f32">) => word(apply(fn, x, y))),
    ...["not", "popcount", "clz"].map((fn) => (x: Expr<"f32">) => word(apply(fn, x))),
    (x: Expr<"f32">, y: Expr<"f32">, z: Expr<"f32">) => word(x.lt(y).select(x, z)),
  ];
  const edges = [0, 1, 2, 5, 31, 32, 33, 2 ** 31 - 1, 2 ** 31, 2 ** 31 + 1, 2 ** 32 - 1, 2 ** 32 - 2, 2 ** 32 - 7];
  const random = seededRandom(13);
  const others = Array.from({ length: 1500 }, () => Math.floor(2 ** (32 * random())));
  return arithmetic(`${dtype.name}_arithmetic`, dtype, rows, () => pairsOf(edges, others, seededRandom(14)), "bits");
}

/** Rounded once each, subnormals kept; without min and max, in which the signs of zeros are open. */
function floatArithmetic(): Specimen {
  const rows = [
    ...[...floatFunctions, ...comparisons].map((fn) => (x: Expr<"f32">, y: Expr<"f32">) => word(apply(fn, x, y))),
    ...roundings.map((fn) => (x: Expr<"f32">) => word(apply(fn, x))),
    (x: Expr<"f32">, y: Expr<"f32">, z: Expr<"f32">) => word(x.fma(y, z)),
  ];
  const values = [0, 1, 1 / 3, 0.5, 1.5, 3, 1e20, 2 ** -126, 2 ** -149, 2 ** 24, (2 - 2 ** -23) * 2 ** 127, Infinity];
  const edges = values.flatMap((x) => [encode(f32, x, "nosat"), encode(f32, -x, "nosat")]);
  const others = f32Edges(seededRandom(11)).slice(-2500);
  return arithmetic("f32_arithmetic", f32, rows, () => pairsOf(edges, others, seededRandom(15)), "nothing");
}

/** As a word. Of NaN only that it is one counts. */
function word(value: Expr<DTypeName>): Expr<"u32"> {
  if (value.dtype.name === "bool") return (value as Expr<"bool">).to(u32);
  if (value.dtype.name !== "f32") return (value as Expr<"i32">).bitcast(u32);
  const float = value as Expr<"f32">;
  return float.eq(float).select(float.bitcast(u32), 0x7fffffff);
}

/** Shuffles by amounts of each lane's own, and reductions: f32 sums in the order of the butterfly. */
function exchanges(what: string, draw: (random: Random) => number): Specimen {
  const params = {
    x: input(f32, [count]),
    by: input(i32, [count]),
    shuffled: output(f32, [4, count]),
    reduced: output(f32, [3, count]),
    voted: output(u32, [3, count]),
  };
  const name = `exchanges of ${what}`;
  const traced = kernel({ name: name.replaceAll(" ", "_"), grid: ceilDiv(count, 64), block: 64, params }, (t) => {
    const { x, by, shuffled, reduced, voted } = t.pdl.wait();
    const i = t.block.x.mul(64).add(t.thread);
    const [value, amount] = [x.load([i]), by.load([i])];
    const results = [
      t.shuffleXor(value, amount),
      t.shuffleUp(value, amount),
      t.shuffleDown(value, amount),
      t.shuffle(value, amount),
    ];
    for (const [row, result] of results.entries()) shuffled.store([row, i], result);
    for (const [row, result] of [t.warpSum(value), t.warpMin(value), t.warpMax(value)].entries()) {
      reduced.store([row, i], result);
    }
    const positive = value.gt(0);
    const votes = [t.warpAny(positive).to(u32), t.warpAll(positive).to(u32), t.warpSum(amount).to(u32)];
    for (const [row, vote] of votes.entries()) voted.store([row, i], vote);
  });
  const args = (): Tensors => {
    const random = seededRandom(16);
    const length = 1024;
    const x = Array.from({ length }, () => encode(f32, draw(random), "nosat"));
    const amounts = Array.from({ length }, () => below(64, random));
    return {
      x: tensorOfBits(f32, [length], x),
      by: tensorOfBits(i32, [length], amounts),
      shuffled: HostTensor.filled(f32, [4, length], 0xff),
      reduced: HostTensor.filled(f32, [3, length], 0xff),
      voted: HostTensor.filled(u32, [3, length], 0xff),
    };
  };
  return { name, kernel: traced as unknown as Kernel, args, wgsl: what === "reals" ? "nothing" : "bits" };
}
