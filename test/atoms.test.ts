/**
 * Every matrix instruction, on every device: fragments filled through our layouts, straight from global memory, through
 * ldmatrix, or by wgmma from swizzled shared memory, compared with sums in float64. Integers must be exact; reals within the
 * bound of the accumulator's bits.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../backends/backend.ts";
import {
  bf16,
  decode,
  type DType,
  type DTypeName,
  e4m3,
  e5m2,
  encode,
  f16,
  f32,
  HostTensor,
  i32,
  input,
  type Kernel,
  kernel,
  type MmaAtom,
  mmaAtoms,
  output,
  tiledMma,
  wgmmaAtom,
} from "../dsl/index.ts";
import { composition, Layout, makeLayout, Swizzle } from "../dsl/layout/index.ts";
import { seededRandom } from "../kernels/index.ts";
import { devices, runGuarded } from "./harness.ts";

type Kind = "direct" | "ldmatrix" | "swizzled ldmatrix" | "permuted";
type AnyAtom = MmaAtom<"bf16", "bf16", "f32">;

/** c = a * b by one warp, `repeat` instructions along M and N, two along K. */
function product(atom: AnyAtom, kind: Kind, repeat: number): Kernel {
  const [M, N, K] = [repeat * atom.M, repeat * atom.N, 2 * atom.K];
  const word = 4 / atom.a.bytes;
  const neighbours = new Layout([word, 4, atom.K / (4 * word), 2], [1, (2 * atom.K) / 4, word, atom.K / 4]);
  const options = kind === "permuted" ? { permute: [null, null, neighbours] as const } : {};
  return kernel(
    {
      name: `${atom.name}_${kind.replace(" ", "_")}`,
      grid: 1,
      block: 32,
      params: {
        a: input(atom.a, [M, K], { alignBytes: 16 }),
        b: input(atom.b, [N, K], { alignBytes: 16 }),
        c: output(atom.c, [M, N], { alignBytes: 16 }),
      },
    },
    (t) => {
      const { a, b, c } = t.pdl.wait();
      const mma = tiledMma(atom, options).slice(t.lane);
      const gC = mma.partitionC(t.tileOf(c));
      const rC = t.fragment(gC);
      const [gA, gB] = [mma.partitionA(t.tileOf(a)), mma.partitionB(t.tileOf(b))];
      if (kind === "direct" || kind === "permuted") {
        const [rA, rB] = [t.fragment(gA), t.fragment(gB)];
        const plan = t.copy(gA, rA);
        t.copy(gB, rB);
        if (kind === "permuted") expect(plan.bytes).toBe(Math.min(16, (atom.K / 2) * atom.a.bytes));
        t.mma(rC, rA, rB);
      } else {
        const bytes = K * atom.a.bytes;
        const units = Math.log2(16 / atom.a.bytes);
        const swizzle = new Swizzle(
          kind === "ldmatrix" ? 0 : Math.log2(bytes / 16),
          units,
          kind === "ldmatrix" ? 0 : Math.log2(bytes / 16),
        );
        const layout = (rows: number) => composition(swizzle, makeLayout([rows, K], [K, 1]));
        const [sA, sB] = [t.sharedTile(atom.a, layout(M)), t.sharedTile(atom.b, layout(N))];
        for (const [from, to, rows] of [
          [a, sA, M],
          [b, sB, N],
        ] as const) {
          const lanes = 16 / atom.a.bytes;
          const perRow = K / lanes;
          const tv = new Layout(
            [
              [perRow, 32 / perRow],
              [lanes, (rows * perRow) / 32],
            ],
            [
              [rows * lanes, 1],
              [rows, 32 / perRow],
            ],
          );
          t.copyAsync(t.tileOf(from).partition(tv, t.lane), to.partition(tv, t.lane));
        }
        t.asyncCommit();
        t.asyncWait(0);
        t.barrier();
        const [tA, tB] = [mma.partitionA(sA), mma.partitionB(sB)];
        const [rA, rB] = [t.matrixFragment(tA), t.matrixFragment(tB)];
        t.copyMatrix(tA, rA);
        t.copyMatrix(tB, rB);
        t.mma(rC, rA, rB);
      }
      t.copy(rC, gC);
    },
  );
}

/** c = a * b by one warpgroup, operands in shared memory swizzled by 16 * 2^bits bytes. */
function warpgroupProduct(atom: AnyAtom, bits: 0 | 1 | 2 | 3): Kernel {
  const lanes = 16 / atom.a.bytes;
  const [M, N, K] = [atom.M, atom.N, Math.max(2 * atom.K, lanes * 2 ** bits)];
  return kernel(
    {
      name: `${atom.name}_swizzle${bits}`,
      grid: 1,
      block: 128,
      params: {
        a: input(atom.a, [M, K], { alignBytes: 16 }),
        b: input(atom.b, [N, K], { alignBytes: 16 }),
        c: output(f32, [M, N], { alignBytes: 16 }),
      },
    },
    (t) => {
      const { a, b, c } = t.pdl.wait();
      const width = lanes * 2 ** bits; // elements of a swizzled row
      const layout = (rows: number) =>
        bits === 0
          ? // 8 rows of 16 bytes after one another, then the next 16-byte columns.
            new Layout(
              [
                [8, rows / 8],
                [lanes, K / lanes],
              ],
              [
                [lanes, 8 * K],
                [1, 8 * lanes],
              ],
            )
          : new Layout([rows, [width, K / width]], [width, [1, rows * width]]);
      const shared = (dtype: DType<"bf16">, rows: number) =>
        t.sharedTile(dtype, composition(new Swizzle(bits, Math.log2(lanes), bits === 0 ? 0 : 3), layout(rows)), {
          alignBytes: 1024,
        });
      const [sA, sB] = [shared(atom.a, M), shared(atom.b, N)];
      for (const [from, to, rows] of [
        [a, sA, M],
        [b, sB, N],
      ] as const) {
        // Element by element: thread = row or column.
        for (const i of t.range(Math.ceil((rows * K) / 128))) {
          const element = i.mul(128).add(t.thread);
          t.when(element.lt(rows * K), () => {
            const tv = new Layout([rows * K, 1], [1, 0]);
            const [source, target] = [t.tileOf(from).partition(tv, element), to.partition(tv, element)];
            target.store(0, source.load(0));
          });
        }
      }
      t.asyncFence();
      t.barrier();
      const mma = tiledMma(atom).slice(t.thread);
      const rC = t.accumulator(mma, [M, N]);
      t.wgmmaFence();
      t.wgmma(rC, sA, sB, { accumulate: false });
      t.wgmmaCommit();
      t.wgmmaWait(0);
      t.copy(rC, mma.partitionC(t.tileOf(c)));
    },
  );
}

/** Fraction bits that the sums keep: 24 of f32; of mma.sync on Hopper 25 truncated; of wgmma with one-byte floats 13. */
function bound(atom: AnyAtom, K: number, magnitude: number): number {
  if ((atom.c.name as string) === "i32") return 0;
  const narrow = atom.kind === "wgmma" && atom.a.bytes === 1;
  return magnitude * (K + 8) * 2 ** (narrow ? -13 : -24);
}

async function check(backend: Backend, atom: AnyAtom, made: Kernel, integers: boolean, seed: number): Promise<void> {
  const random = seededRandom(seed);
  const [{ shape: [M = 0, K = 0] = [] } = { shape: [] }, { shape: [N = 0] = [] } = { shape: [] }] = made.ir
    .tensors as unknown as {
    readonly shape: readonly number[];
  }[];
  const data = (dtype: DType, rows: number): HostTensor => {
    const small = dtype.bytes === 1 && dtype.kind === "float" ? 2 : 4;
    const draw = (): number => {
      if (integers || dtype.kind !== "float")
        return Math.round((random() * 2 - 1) * (dtype.kind === "float" ? small : 100));
      const value = (random() * 2 - 1) * 2 ** Math.floor(random() * 8 - 4);
      return atom.tf32 ? decode(f16, encode(f16, value, "nosat")) : value; // 11 significant bits
    };
    return HostTensor.from(dtype, [rows, K], Float64Array.from({ length: rows * K }, draw));
  };
  const [a, b] = [data(atom.a, M), data(atom.b, N)];
  const dtype = (atom.c.name as string) === "i32" ? i32 : f32;
  const args = { a, b, c: HostTensor.filled(dtype, [M, N], 0) };
  const { c } = (await runGuarded(backend, made, args as never)) as { readonly c: HostTensor };
  const [as, bs, cs] = [a.values(), b.values(), c.values()];
  for (let m = 0; m < M; m++) {
    for (let n = 0; n < N; n++) {
      let [exact, magnitude] = [0, 0];
      for (let k = 0; k < K; k++) {
        const term = (as[m * K + k] ?? 0) * (bs[n * K + k] ?? 0);
        exact += term;
        magnitude += Math.abs(term);
      }
      const error = Math.abs((cs[m * N + n] ?? NaN) - exact);
      expect(error, `${made.name} (${m},${n}) seed ${seed}`).toBeLessThanOrEqual(
        integers ? 0 : bound(atom, K, magnitude),
      );
    }
  }
}

const atoms = Object.values(mmaAtoms).flatMap((shape) => Object.values(shape) as unknown as AnyAtom[]);
const wgmmaInputs: readonly (readonly [DType<DTypeName>, DType<DTypeName>])[] = [
  [f16, f16],
  [bf16, bf16],
  [e4m3, e4m3],
  [e5m2, e5m2],
  [e4m3, e5m2],
  [e5m2, e4m3],
];

describe.each(devices)("matrix instructions on $name", { timeout: 120_000 }, ({ name, missing, open }) => {
  let backend: Backend;
  beforeAll(async () => {
    if (!missing) backend = await open();
  });
  afterAll(() => backend?.dispose());

  const seed = Date.now() % 1_000_000;
  for (const atom of atoms) {
    // ldmatrix of K = 8 words takes rows of 32 bytes; swizzles need 2 units a row.
    const kinds: readonly Kind[] = ["direct", "permuted", "ldmatrix", "swizzled ldmatrix"];
    test.skipIf(missing).each(kinds)(`${atom.name}, %s`, async (kind) => {
      // Software devices take long to compile many instructions.
      const made = product(atom, kind, name === "cuda" || atom.K === 8 ? 2 : 1);
      await check(backend, atom, made, true, seed);
      await check(backend, atom, made, false, seed + 1);
    });
  }

  for (const [a, b] of wgmmaInputs) {
    test.skipIf(missing).each(name === "cuda" || a === bf16 ? [8, 24, 64, 128, 256] : [24, 64])(
      `wgmma ${a.name} x ${b.name}, N = %i`,
      async (N) => {
        const atom = wgmmaAtom(N, a as DType<"bf16">, b as DType<"bf16">);
        for (const bits of N === 64 && (name === "cuda" || a === bf16) ? ([0, 1, 2, 3] as const) : ([3] as const)) {
          const made = warpgroupProduct(atom, bits);
          await check(backend, atom, made, true, seed);
          await check(backend, atom, made, false, seed + 1);
        }
      },
    );
  }
});
