/** Streams by persistent blocks: exact over several tiles a block, without a finding in any order, never stopped as a whole. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../backends/backend.ts";
import type { HostArguments } from "../backends/run.ts";
import { simulate } from "../backends/simulator/index.ts";
import {
  bf16,
  type Dim,
  e4m3,
  f32,
  frozen,
  HostTensor,
  input,
  type Kernel,
  type Params,
  ShapeError,
  size,
} from "../dsl/index.ts";
import {
  checkBits,
  epilogue,
  gemmReference,
  llGemmStreamBf16,
  llGemmStreamE4m3,
  randomTensor,
  seededRandom,
} from "../kernels/index.ts";
import { devices, noNvcc, nvccResources, runGuarded } from "./harness.ts";
import { runClean } from "./simulator/expect.ts";
import { statements, without } from "./simulator/mutate.ts";

type InName = "bf16" | "e4m3";
type Outputs = Readonly<Record<string, HostTensor>>;

interface Shape {
  readonly dtype: InName;
  readonly M: number;
  readonly N: number;
  readonly K: number;
  readonly blocks: number;
  readonly groups: 1 | 2 | 4;
}

/** Tiles of a block: 3 and 2; 1 and 0, as there are no more; 4. K ends within a stage, N within a tile. */
const shapes: readonly Shape[] = [
  { dtype: "bf16", M: 3, N: 270, K: 776, blocks: 2, groups: 1 },
  { dtype: "bf16", M: 13, N: 270, K: 520, blocks: 2, groups: 2 },
  { dtype: "e4m3", M: 3, N: 270, K: 1040, blocks: 2, groups: 1 },
  { dtype: "e4m3", M: 13, N: 270, K: 1040, blocks: 2, groups: 2 },
  { dtype: "e4m3", M: 13, N: 200, K: 528, blocks: 3, groups: 4 },
  { dtype: "bf16", M: 5, N: 100, K: 264, blocks: 264, groups: 1 },
  { dtype: "bf16", M: 16, N: 256, K: 64, blocks: 1, groups: 2 },
];

const makers = { bf16: llGemmStreamBf16, e4m3: llGemmStreamE4m3 };
const rowsPerWarp = { 1: 16, 2: 16, 4: 32 } as const;

/** A ring of two stages, fewer than a tile has steps. */
function kernelOf(
  { dtype, blocks, groups }: Shape,
  sizes: { readonly M: Dim; readonly N: Dim; readonly K: Dim },
): Kernel {
  const options = { blocks, groups, rowsPerWarp: rowsPerWarp[groups], stages: 2, out: f32 };
  return makers[dtype]({ ...sizes, ...options }) as unknown as Kernel;
}

/** Integers, and the exact result. */
function dataFor({ dtype, M, N, K }: Shape) {
  const random = seededRandom(M * N + K);
  const type = { bf16, e4m3 }[dtype];
  const [x, w] = [randomTensor(type, [M, K], "integers", random), randomTensor(type, [N, K], "integers", random)];
  const scales = { xScale: HostTensor.from(f32, [1], [0.5]), wScale: HostTensor.from(f32, [1], [4]) };
  const args = { x, w, y: HostTensor.filled(f32, [M, N], 0), ...(dtype === "e4m3" ? scales : {}) };
  return {
    args: args as unknown as HostArguments<Params>,
    expected: gemmReference(x, w, dtype === "e4m3" ? 2 : 1).y,
  };
}

const verdict = (outputs: unknown, expected: Float64Array) =>
  checkBits((outputs as Outputs)["y"] as HostTensor, expected);

const named = ({ dtype, M, N, K, blocks, groups }: Shape) =>
  `${dtype} ${M} x ${N} x ${K}, ${blocks} blocks, ${groups} groups`;

describe.each(devices)("persistent blocks on $name", ({ name, missing, open }) => {
  // Software devices take seconds to compile each of them.
  const some = <T>(all: readonly T[], ...few: readonly number[]): readonly T[] =>
    name === "wgsl" ? all.filter((_, i) => few.includes(i)) : all;
  let backend: Backend;
  beforeAll(async () => {
    if (!missing) backend = await open();
  });
  afterAll(() => backend?.dispose());

  test.skipIf(missing).each(some(shapes, 0, 3).map((shape) => ({ name: named(shape), shape })))(
    "$name",
    async ({ shape }) => {
      const { args, expected } = dataFor(shape);
      expect(verdict(await runGuarded(backend, kernelOf(shape, shape), args), expected)).toMatchObject({ ok: true });
    },
  );

  test.skipIf(missing).each(some([1, 2] as const, 0))(
    "one kernel for all sizes, of fewer tiles than blocks and of more, %i groups",
    async (groups) => {
      const dims = { M: size("M", { max: 16 }), N: size("N"), K: size("K", { max: 16384, multipleOf: 16 }) };
      const base = { dtype: "bf16", blocks: 3, groups } as const;
      const kernel = kernelOf({ ...base, M: 16, N: 1, K: 16 }, dims);
      for (const [M, N, K] of [
        [1, 1, 16],
        [9, 130, 272],
        [16, 449, 400],
      ] as const) {
        const { args, expected } = dataFor({ ...base, M, N, K });
        expect(verdict(await runGuarded(backend, kernel, args), expected), `${M} x ${N} x ${K}`).toMatchObject({
          ok: true,
        });
      }
    },
  );

  test.skipIf(missing).each(some([1, 2] as const, 1))("an epilogue sees each sum once, %i groups", async (groups) => {
    const shape: Shape = { dtype: "bf16", M: 5, N: 150, K: 136, blocks: 2, groups };
    const { M, N, K, blocks } = shape;
    const params = { bias: frozen(bf16, [N]), residual: input(bf16, [M, N]) };
    const end = epilogue(params, (sum, { m, n, bias, residual }) =>
      sum.add(bias.load([n]).to(f32)).mul(residual.load([m, n]).to(f32)),
    );
    const kernel = llGemmStreamBf16({ M, N, K, out: f32, blocks, groups, stages: 2, epilogue: end });
    const { args, expected } = dataFor(shape);
    const random = seededRandom(4);
    const bias = randomTensor(bf16, [N], "integers", random);
    const residual = randomTensor(bf16, [M, N], "integers", random);
    const [b, r] = [bias.values(), residual.values()];
    const outputs = await runGuarded(backend, kernel as unknown as Kernel, { ...args, bias, residual });
    expect(
      verdict(
        outputs,
        expected.map((sum, i) => (sum + (b[i % N] ?? 0)) * (r[i] ?? 0)),
      ),
    ).toMatchObject({ ok: true });
  });
});

describe.each(shapes.map((shape) => ({ name: named(shape), shape })))("$name, in the simulator", ({ shape }) => {
  const kernel = kernelOf(shape, shape);
  const { args, expected } = dataFor(shape);

  test("is exact and clean, whatever the schedule", () => {
    for (const seed of [undefined, 1, 2, 3, 4, 5]) {
      expect(verdict(runClean(kernel, args, seed), expected), `seed ${seed}`).toMatchObject({ ok: true });
    }
    expect(simulate(kernel, args).unwritten).toEqual([]);
  });

  test("has no barrier that the producer would meet between tiles", () => {
    expect(statements(kernel, "clusterArrive", "clusterWait")).toEqual([]);
    expect(statements(kernel, "barrier").filter((stmt) => stmt.kind === "barrier" && stmt.scope === "block")).toEqual(
      [],
    );
  });
});

test("needs every barrier, wait and arrival that it has", () => {
  // No more steps than stages: else the ring alone keeps groups from being a tile ahead, and stores from being early.
  const shape: Shape = { dtype: "bf16", M: 3, N: 270, K: 136, blocks: 2, groups: 2 };
  const kernel = kernelOf(shape, shape);
  const { args } = dataFor(shape);
  const unnoticed = (["barrier", "namedBarrier", "await", "arrive", "pdlWait"] as const).flatMap((kind) =>
    statements(kernel, kind).flatMap((stmt, i) =>
      [undefined, 1, 2].some((seed) => simulate(without(kernel, stmt), args, { seed }).findings.length > 0)
        ? []
        : [`${kind} ${i}`],
    ),
  );
  expect(unnoticed).toEqual([]);
});

test("the grid has no more blocks than there are tiles", () => {
  const sizes = { M: 8, K: 512, out: f32, blocks: 264 };
  expect(llGemmStreamBf16({ ...sizes, N: 28672 }).ir.grid[0]).toBe(264);
  expect(llGemmStreamBf16({ ...sizes, N: 130 }).ir.grid[0]).toBe(3);
});

test("persistent blocks form no clusters, and are counted by a number", () => {
  const sizes = { M: 8, N: 512, K: 512, out: f32 };
  expect(() => llGemmStreamBf16({ ...sizes, blocks: 4, cluster: 2 })).toThrow(ShapeError);
  expect(() => llGemmStreamBf16({ ...sizes, blocks: 4, cluster: 2 })).toThrow(
    /4 blocks for all tiles and clusters of 2 exclude[^]*Leave out/,
  );
  expect(() => llGemmStreamE4m3({ ...sizes, blocks: 0 })).toThrow(/blocks of llGemmStream: a whole number.*not 0/);
});

test.skipIf(noNvcc)("what serves 28672 x 4096 compiles for sm_90a without a spill, in few registers", () => {
  for (const { dtype, groups } of shapes) {
    for (const M of [8, 16]) {
      const options = { M, N: 28672, K: 4096, out: bf16, blocks: 264, groups, rowsPerWarp: rowsPerWarp[groups] };
      const resources = nvccResources(makers[dtype](options) as unknown as Kernel);
      const { spillStoreBytes, spillLoadBytes, stackBytes, registers } = resources;
      expect({ spillStoreBytes, spillLoadBytes, stackBytes }).toEqual({
        ...{ spillStoreBytes: 0, spillLoadBytes: 0, stackBytes: 0 },
      });
      expect(registers).toBeLessThanOrEqual(64);
    }
  }
});
