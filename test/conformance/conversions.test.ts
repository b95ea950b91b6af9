/** Every conversion between dtypes, on every pattern of the narrow ones and boundary and random patterns of the others. */
import { readFileSync } from "node:fs";
import { expect } from "vitest";
import {
  bf16,
  type DType,
  type DTypeName,
  dtypes,
  type Expr,
  f16,
  HostTensor,
  input,
  kernel,
  type LaneCount,
  output,
  type Tensor,
  u32,
  u8,
} from "../../dsl/index.ts";
import { seededRandom } from "../../kernels/index.ts";
import { conformance, type Target } from "./backends.ts";
import { convert, fromBits, same, toBits } from "./reference.ts";

const all = Object.values(dtypes) as readonly DType[];
const { e4m3fn, e5m2 }: Record<"e4m3fn" | "e5m2", readonly (readonly [string, number, number])[]> = JSON.parse(
  readFileSync(new URL("../data/numerics/boundary_f32.json", import.meta.url), "utf8"),
);

/** Bit patterns to convert from. */
function patternsOf({ name, bytes }: DType): readonly number[] {
  if (bytes < 4) return Array.from({ length: 2 ** (8 * bytes) }, (_, bits) => bits);
  const random = seededRandom(20_261_123);
  const list = Array.from({ length: 20_000 }, () => Math.floor(random() * 2 ** 32));
  for (let bit = 0; bit < 32; bit++)
    for (const off of [-1, 0, 1]) list.push((2 ** bit + off) >>> 0, -(2 ** bit + off) >>> 0);
  if (name === "f32") {
    list.push(...[...e4m3fn, ...e5m2].map(([bits]) => Number(bits)));
    // Around what f16, bf16 and the integer types can hold, and halfway between neighbours.
    const edges = [
      65504,
      65519.996,
      65520,
      65536,
      2 ** 31,
      2 ** 31 - 128,
      2 ** 32,
      2 ** 32 - 256,
      127.5,
      128,
      255.5,
      256,
      0.5,
    ];
    edges.push(2 ** -24, 2 ** -25, 1.5 * 2 ** -25, 2 ** -14, 3.3895313892515355e38, 3.3961775292304601e38, Infinity);
    list.push(...edges.flatMap((x) => [toBits("f32", x), toBits("f32", -x)]));
    list.push(...Array.from({ length: 4000 }, () => toBits("f32", (random() - 0.5) * 2 ** (34 * random()))));
    list.push(...Array.from({ length: 2000 }, () => (Math.floor(random() * 65536) << 16) + 0x8000).map((x) => x >>> 0));
    list.push(0x7f800001, 0xffc12345, 0x7fffffff, 0xff800001);
  }
  return list;
}

/** What x.to(dtype) gives. Between narrow types it goes through f32, or u32 where neither is a float. */
function converted(from: DTypeName, to: DTypeName, value: number): number {
  const wide = (name: DTypeName): boolean => name === "i32" || name === "u32";
  const isFloat = (name: DTypeName): boolean => dtypes[name].kind === "float";
  if (from === to) return value;
  const direct = from === "f32" || to === "f32" || ((wide(from) || wide(to)) && !isFloat(from) && !isFloat(to));
  if (direct) return convert(from, to, value);
  const between = isFloat(from) || isFloat(to) ? "f32" : "u32";
  return convert(between, to, convert(from, between, value));
}

const lane = (x: Expr<DTypeName, LaneCount>, i: number): Expr<DTypeName> => (x as Expr<DTypeName, 2>).lane(i);

/** The result as a word, where arithmetic can carry it there; f16 and bf16 have outputs of their own. */
function toWord(x: Expr<DTypeName>): Expr<"u32"> {
  if (x.dtype.name === "bool") return x.to(u32);
  return x.dtype.bytes === 4 ? x.bitcast(u32) : x.bitcast(u8).to(u32);
}

async function failures(target: Target, from: DType, lanes: LaneCount): Promise<readonly string[]> {
  const patterns = patternsOf(from);
  const perBlock = 64 * lanes;
  const count = Math.ceil(patterns.length / perBlock) * perBlock;
  const words = all.filter(({ bytes }) => bytes !== 2);
  const halves = [f16, bf16] as const;
  const device = kernel(
    {
      name: `convert_${from.name}_${lanes}`,
      grid: count / perBlock,
      block: 64,
      params: {
        x: input(from, [count], { alignBytes: from.bytes * lanes }),
        asF16: output(f16, [count]),
        asBf16: output(bf16, [count]),
        asWords: output(u32, [words.length, count]),
      },
    },
    (t) => {
      const { x, asF16, asBf16, asWords } = t.pdl.wait();
      const first = t.block.x.mul(64).add(t.thread).mul(lanes);
      const value: Expr<DTypeName, LaneCount> = lanes === 1 ? x.load([first]) : x.loadVec([first], lanes);
      for (const [tensor, to] of [
        [asF16, f16],
        [asBf16, bf16],
      ] as const) {
        const result = value.to(to);
        for (let i = 0; i < lanes; i++) {
          (tensor as Tensor<DTypeName, 1, "output">).store([first.add(i)], lane(result, i) as never);
        }
      }
      for (const [row, to] of words.entries()) {
        const result = value.to(to);
        for (let i = 0; i < lanes; i++) asWords.store([row, first.add(i)], toWord(lane(result, i)));
      }
    },
  );
  const bytes = new Uint8Array(count * from.bytes);
  const view = new DataView(bytes.buffer);
  for (const [i, bits] of patterns.entries()) {
    if (from.bytes === 1) view.setUint8(i, bits);
    else if (from.bytes === 2) view.setUint16(2 * i, bits, true);
    else view.setUint32(4 * i, bits, true);
  }
  const { asF16, asBf16, asWords } = await target.run(device, {
    x: new HostTensor(from, [count], bytes),
    asF16: HostTensor.filled(f16, [count], 0xa5),
    asBf16: HostTensor.filled(bf16, [count], 0xa5),
    asWords: HostTensor.filled(u32, [words.length, count], 0xa5),
  });
  const wordValues = asWords.values();
  const actualOf = (to: DType): ((i: number) => number) => {
    const own = halves.find((half) => half === to);
    if (own) {
      const values = (own === f16 ? asF16 : asBf16).values();
      return (i) => values[i] ?? 0;
    }
    const row = words.indexOf(to) * count;
    return (i) => fromBits(to.name, wordValues[row + i] ?? 0);
  };
  const wrong: string[] = [];
  for (const to of all) {
    const actual = actualOf(to);
    let shown = 0;
    for (const [i, bits] of patterns.entries()) {
      const value = fromBits(from.name, bits);
      const expected = converted(from.name, to.name, value);
      if (same(actual(i), expected) || shown++ > 5) continue;
      wrong.push(`${from.name} 0x${bits.toString(16)} = ${value} to ${to.name}: ${actual(i)}, not ${expected}`);
    }
  }
  return wrong;
}

conformance((target, on) => {
  for (const from of all) {
    on(`every conversion from ${from.name}`, async () => {
      expect(await failures(target, from, 1)).toEqual([]);
    });
    const lanes = (16 / from.bytes) as LaneCount;
    on(`every conversion from ${from.name}, ${lanes} lanes`, async () => {
      expect(await failures(target, from, lanes)).toEqual([]);
    });
  }

  // `npm run fuzz -- --seed 77 --from 12313 --kernels 1`: ptxas 13.0 folds cvt.rzi.u32.f32 of -1.0 or 0.0 to 2^32 - 1.
  on("one of two constants is converted like any number", async () => {
    const pairs = [-1, -2, 0, 1.5, 2 ** 31, 2 ** 32, 1e20, -1e20].flatMap((a) =>
      [0, -1, 1].map((b) => [a, b] as const),
    );
    const device = kernel(
      {
        name: "convert_chosen",
        grid: 1,
        block: 32,
        params: { x: input(u32, [32]), u: output(u32, [pairs.length, 32]), i: output(dtypes.i32, [pairs.length, 32]) },
      },
      (t) => {
        const { x, u, i } = t.pdl.wait();
        const isFirst = x.load([t.thread]).ne(0);
        for (const [row, [a, b]] of pairs.entries()) {
          const chosen = isFirst.select(t.const(dtypes.f32, a), t.const(dtypes.f32, b));
          u.store([row, t.thread], chosen.to(u32));
          i.store([row, t.thread], chosen.to(dtypes.i32));
        }
      },
    );
    const x = Array.from({ length: 32 }, (_, lane) => lane % 2);
    const { u, i } = await target.run(device, {
      x: HostTensor.from(u32, [32], x),
      u: HostTensor.filled(u32, [pairs.length, 32], 0xa5),
      i: HostTensor.filled(dtypes.i32, [pairs.length, 32], 0xa5),
    });
    for (const [dtype, tensor] of [
      ["u32", u],
      ["i32", i],
    ] as const) {
      expect([...tensor.values()], dtype).toEqual(
        pairs.flatMap(([a, b]) => x.map((first) => convert("f32", dtype, first ? a : b))),
      );
    }
  });

  on("bits survive every bitcast", async () => {
    const { f32, i32, i8, e4m3, e5m2 } = dtypes;
    const patterns = [...patternsOf(f32)].slice(0, 256);
    const words = HostTensor.from(u32, [256], patterns);
    const narrow = Array.from({ length: 256 }, (_, i) => i);
    /** Each way from one dtype to another of them, with the first at both ends. */
    const tours = <N extends DTypeName>(all: readonly DType<N>[]) =>
      all.flatMap((a) => all.flatMap((b) => (a === b ? [] : [[a, b] as const])));
    const [ofWords, ofBytes] = [tours([u32, f32, i32] as const), tours([u8, i8, e4m3, e5m2] as const)];
    const device = kernel(
      {
        name: "bitcasts",
        grid: 1,
        block: 256,
        params: {
          w: input(u32, [256]),
          b: input(u8, [256]),
          h: input(bf16, [256]),
          wide: output(u32, [ofWords.length, 256]),
          bytes: output(u8, [ofBytes.length, 256]),
          half: output(bf16, [256]),
        },
      },
      (t) => {
        const { w, b, h, wide, bytes, half } = t.pdl.wait();
        const i = t.thread;
        for (const [row, [one, other]] of ofWords.entries()) {
          wide.store([row, i], w.load([i]).bitcast(one).bitcast(other).bitcast(u32));
        }
        for (const [row, [one, other]] of ofBytes.entries()) {
          bytes.store([row, i], b.load([i]).bitcast(one).bitcast(other).bitcast(u8));
        }
        half.store([i], h.load([i]).bitcast(f16).bitcast(bf16));
      },
    );
    const h = new HostTensor(bf16, [256], new Uint8Array(Uint16Array.from(patterns).buffer));
    const result = await target.run(device, {
      w: words,
      b: HostTensor.from(u8, [256], narrow),
      h,
      wide: HostTensor.filled(u32, [ofWords.length, 256], 0xa5),
      bytes: HostTensor.filled(u8, [ofBytes.length, 256], 0xa5),
      half: HostTensor.filled(bf16, [256], 0xa5),
    });
    expect([...result.wide.values()]).toEqual(ofWords.flatMap(() => patterns));
    expect([...result.bytes.values()]).toEqual(ofBytes.flatMap(() => narrow));
    expect(result.half.bytes).toEqual(h.bytes);
  });
});
