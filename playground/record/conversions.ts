/** Conversions between dtypes, of every pattern of the narrow ones and at the edges of the others. */
import {
  bf16,
  bool,
  ceilDiv,
  decode,
  type DType,
  e4m3,
  e5m2,
  encode,
  type Expr,
  f16,
  f32,
  HostTensor,
  i32,
  i8,
  input,
  type Kernel,
  kernel,
  type LaneCount,
  output,
  type Params,
  size,
  u32,
  u8,
} from "../../dsl/index.ts";
import { seededRandom } from "../../kernels/index.ts";
import { below, type Random } from "./data.ts";
import { type Specimen, type Tensors, tensorOfBits } from "./specimen.ts";

const narrowFloats = [f16, bf16, e4m3, e5m2] as const;
const count = size("n", { multipleOf: 64 });

export function conversionSpecimens(): readonly Specimen[] {
  const edges = f32Edges(seededRandom(11));
  return [
    conversion("f32 to floats", [f32], narrowFloats, 1, () => edges),
    conversion("f32 to floats, 4 lanes", [f32], narrowFloats, 4, () => edges),
    conversion("f32 to integers", [f32], [i32, u32, i8, u8, bool], 1, () => edges),
    conversion("floats to f32", narrowFloats, [f32], 1, everyPattern),
    conversion("floats to f32, 4 lanes", narrowFloats, [f32], 4, everyPattern),
    conversion("integers to f32", [i32, u32, i8, u8], [f32], 1, integerEdges),
  ];
}

/** Every pattern of each of `from` to each of `to`. */
function conversion(
  name: string,
  from: readonly DType[],
  to: readonly DType[],
  lanes: LaneCount,
  patternsOf: (dtype: DType) => readonly number[],
): Specimen {
  const pairs = from.flatMap((source) =>
    to.map((target) => ({ source, target, name: `${source.name}_${target.name}` })),
  );
  const aligned = { alignBytes: 4 * lanes };
  const params: Params = Object.fromEntries([
    ...from.map((dtype) => [dtype.name, input(dtype, [count], aligned)] as const),
    ...pairs.map(({ name, target }) => [name, output(target, [count], aligned)] as const),
  ]);
  const traced: Kernel = kernel(
    { name: name.replaceAll(/\W+/g, "_"), grid: ceilDiv(count, 32 * lanes), block: 32, params },
    (t) => {
      const tensors = t.pdl.wait() as Readonly<Record<string, Memory>>;
      const first = t.block.x.mul(32).add(t.lane).mul(lanes);
      t.when(first.lt(count), () => {
        for (const { source, target, name } of pairs) {
          tensors[name]?.storeVec([first], tensors[source.name]?.loadVec([first], lanes).to(target));
        }
      });
    },
  );
  const args = (): Tensors => {
    const all = from.map((dtype) => ({ dtype, patterns: patternsOf(dtype) }));
    const length = Math.ceil(Math.max(...all.map(({ patterns }) => patterns.length)) / 64) * 64;
    const inputs = all.map(({ dtype, patterns }) => {
      const repeated = Array.from({ length }, (_, i) => patterns[i % patterns.length] ?? 0);
      return [dtype.name, tensorOfBits(dtype, [length], repeated)] as const;
    });
    const outputs = pairs.map(({ name, target }) => [name, HostTensor.filled(target, [length], 0xff)] as const);
    return Object.fromEntries([...inputs, ...outputs]);
  };
  return { name, kernel: traced, args, wgsl: "bits" };
}

/** A tensor of a kernel whose parameters are a list. */
interface Memory {
  loadVec(index: readonly unknown[], lanes: LaneCount): Expr<"f32">;
  storeVec(index: readonly unknown[], value: unknown): void;
}

const everyPattern = ({ bytes }: DType): readonly number[] => Array.from({ length: 2 ** (8 * bytes) }, (_, i) => i);

function integerEdges(dtype: DType): readonly number[] {
  if (dtype.bytes === 1) return everyPattern(dtype);
  const random = seededRandom(12);
  const powers = Array.from({ length: 32 }, (_, i) => 2 ** i);
  const near = powers.flatMap((power) => [power - 1, power, power + 1, power + power / 2, 2 ** 32 - power]);
  // Halfway between two f32, and beside that.
  const ties = Array.from({ length: 1000 }, () => {
    const shift = 1 + below(8, random);
    return (2 ** 23 + below(2 ** 23, random)) * 2 ** shift + 2 ** (shift - 1) + below(3, random) - 1;
  });
  const any = Array.from({ length: 1000 }, () => below(2 ** 32, random));
  return [...near, ...ties, ...any].map((bits) => bits >>> 0);
}

/** f32 patterns: around every value of fp8 and many of f16 and bf16, halfway between them, around integers' ends, and any. */
export function f32Edges(random: Random): readonly number[] {
  const around = (x: number): readonly number[] => {
    const bits = encode(f32, x, "nosat");
    return [bits, bits - 1, bits + 1, bits ^ 0x80000000].map((pattern) => pattern >>> 0);
  };
  const finite = (dtype: DType, pattern: number): number => decode(dtype, pattern);
  const values = narrowFloats.flatMap((dtype) => {
    const positive = 2 ** (8 * dtype.bytes - 1);
    const patterns =
      dtype.bytes === 1
        ? Array.from({ length: positive }, (_, i) => i)
        : Array.from({ length: 600 }, () => below(positive, random));
    const edges = [0, 1, 2 ** dtype.fractionBits - 1, 2 ** dtype.fractionBits, positive - 2 ** dtype.fractionBits - 1];
    return [...patterns, ...edges].flatMap((pattern) => {
      const [x, next] = [finite(dtype, pattern), finite(dtype, Math.min(pattern + 1, positive - 1))];
      return Number.isFinite(x) ? [x, Number.isFinite(next) ? (x + next) / 2 : x * 1.03125] : [];
    });
  });
  const ends = [464, 480, 57344, 61440, 65504, 65520, 65536, 127.5, 128, 128.5, 255.5, 256, 0.5, 1.5, 2.5];
  const powers = Array.from({ length: 34 }, (_, i) => 2 ** i);
  const any = Array.from({ length: 2000 }, () => below(2 ** 32, random));
  const special = [0x7f800000, 0x7f800001, 0x7fc00000, 0x7fffffff, 0xff800000, 0xffc12345, 1, 0x7fffff, 0x7f7fffff];
  return [...[...values, ...ends, ...powers].flatMap(around), ...special, ...any];
}
