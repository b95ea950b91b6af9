/**
 * Data made on the device: whole numbers that every order of summation adds exactly, so that results are compared bit for
 * bit. The same function in TypeScript gives single elements, to check samples against.
 */
import {
  bf16,
  ceilDiv,
  type DType,
  e4m3,
  type Expr,
  f32,
  i32,
  kernel,
  output,
  scalar,
  size,
  type Thread,
} from "../../dsl/index.ts";
import { type Backend, DeviceTensor, type Storage } from "../../backends/cuda/index.ts";
import type { InName } from "./cases.ts";

/** Weights and tokens are from -4 to 4, those of e4m3 from -1 to 1: their sums stay below 2^24. */
const spread = { bf16: 9, e4m3: 3, f32: 9 } as const;

const mix = 0x2545_f491;

/** Element `i` of the data with this seed. */
export function elementAt(dtype: InName, seed: number, i: number): number {
  let h = Math.imul(i ^ seed, mix);
  h = Math.imul(h ^ (h >>> 15), mix);
  return ((h >>> 16) % spread[dtype]) - (spread[dtype] - 1) / 2;
}

function element(t: Thread, dtype: InName, seed: Expr<"i32">, i: Expr<"i32">): Expr<"i32"> {
  const times = t.const(i32, mix);
  const logical = (x: Expr<"i32">, by: number, bits: number): Expr<"i32"> => x.shr(by).and(2 ** bits - 1);
  const first = i.xor(seed).mul(times);
  const h = first.xor(logical(first, 15, 17)).mul(times);
  return logical(h, 16, 16)
    .rem(spread[dtype])
    .sub((spread[dtype] - 1) / 2);
}

const n = size("n", { max: 2 ** 31 - 1024 });
const fillOf = (dtype: DType<InName>) =>
  kernel(
    {
      name: `fill_${dtype.name}`,
      grid: ceilDiv(n, 1024),
      block: 256,
      params: { seed: scalar(i32), y: output(dtype, [n]) },
    },
    (t, { seed }) => {
      const { y } = t.pdl.wait();
      for (let part = 0; part < 4; part++) {
        const i = t.block.x
          .mul(1024)
          .add(part * 256)
          .add(t.thread);
        t.when(i.lt(n), () => y.store([i], element(t, dtype.name, seed, i).to(dtype)));
      }
    },
  );
const fills = { bf16: fillOf(bf16), e4m3: fillOf(e4m3), f32: fillOf(f32) } as const;

/** Fills memory with the data of this seed, as many elements as it has room for. */
export async function fill(device: Backend, dtype: InName, storage: Storage, seed: number): Promise<void> {
  const type = { bf16, e4m3, f32 }[dtype];
  const executable = await device.compile(fills[dtype]);
  executable.bind({ seed, y: new DeviceTensor(storage, type, [storage.byteLength / type.bytes]) }).launch();
}

/** Where a row of data begins, and of which seed it is. */
export interface RowOfData {
  readonly seed: number;
  readonly start: number;
}

/** The product of two rows. */
export function productOf(dtype: InName, K: number, a: RowOfData, b: RowOfData): number {
  let sum = 0;
  for (let k = 0; k < K; k++) sum += elementAt(dtype, a.seed, a.start + k) * elementAt(dtype, b.seed, b.start + k);
  return sum;
}
