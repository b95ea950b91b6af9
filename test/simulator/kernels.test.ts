/**
 * The shipped kernels in the simulator: exact on integers and without a finding, whatever the schedule; and with a finding as
 * soon as any barrier, wait, arrival or fence that matters is left out.
 */
import { describe, expect, test } from "vitest";
import type { HostArguments, HostResults } from "../../backends/run.ts";
import { simulate } from "../../backends/simulator/index.ts";
import { bf16, type DType, e4m3, f32, HostTensor, type Kernel, type Params, size } from "../../dsl/index.ts";
import {
  checkBits,
  gemmBf16,
  gemmReference,
  llGemmDotBf16,
  llGemmDotE4m3,
  llGemmMmaBf16,
  llGemmMmaE4m3,
  llGemmPipelineBf16,
  llGemmPipelineE4m3,
  llGemmStreamBf16,
  llGemmStreamE4m3,
  randomTensor,
  rmsNorm,
  rmsNormReference,
  seededRandom,
} from "../../kernels/index.ts";
import { runClean } from "./expect.ts";
import { statements, without } from "./mutate.ts";

interface Case {
  readonly name: string;
  readonly kernel: Kernel;
  readonly args: Readonly<Record<string, HostTensor | number>>;
  readonly expected: Readonly<Record<string, Float64Array>>;
  /** Statements whose absence nobody can notice: kind and number among those of its kind. */
  readonly spare?: readonly string[];
}

const random = seededRandom(20_261_123);

function gemm(
  name: string,
  kernel: object,
  dtype: DType<"bf16" | "e4m3">,
  shape: readonly number[],
  spare?: readonly string[],
): Case {
  const [M = 0, N = 0, K = 0] = shape;
  const [x, w] = [randomTensor(dtype, [M, K], "integers", random), randomTensor(dtype, [N, K], "integers", random)];
  const one = HostTensor.from(f32, [1], [1]);
  const y = HostTensor.filled(f32, [M, N], 0xff);
  const args = { x, w, y, ...(dtype.name === "e4m3" ? { xScale: one, wScale: one } : {}) };
  return { name, kernel: kernel as Kernel, args, expected: { y: gemmReference(x, w).y }, ...(spare ? { spare } : {}) };
}

function norm(M: number, H: number): Case {
  // A row of one number each: its mean square is exact, and 4 / 16 and 1 / 4 have exact roots.
  const rows = (value: number) => HostTensor.from(bf16, [M, H], new Array<number>(M * H).fill(value));
  const [x, residual] = [rows(1), rows(1)];
  const weight = randomTensor(bf16, [H], "integers", random);
  const expected = rmsNormReference(x, residual, weight, 0);
  const args = { x, residual, weight, eps: 0, y: HostTensor.filled(bf16, [M, H], 0xff) };
  return {
    name: "RMSNorm",
    kernel: rmsNorm({ M: size("M"), H }) as unknown as Kernel,
    args,
    expected: { ...expected },
  };
}

const out = f32;
const sizes = { M: size("M", { max: 16 }), N: size("N"), K: size("K", { max: 16384 }) };
const cases: readonly Case[] = [
  gemm("dot", llGemmDotBf16({ M: 3, N: 4, K: 1024, out, warps: 4 }), bf16, [3, 4, 1024]),
  gemm("dot, sizes at launch", llGemmDotE4m3({ ...sizes, out }), e4m3, [5, 3, 2049]),
  gemm("mma", llGemmMmaBf16({ M: 5, N: 24, K: 1024, out, cluster: 4 }), bf16, [5, 24, 1024]),
  gemm("mma, sizes at launch", llGemmMmaE4m3({ ...sizes, out, cluster: 2, pieces: 1 }), e4m3, [11, 17, 515]),
  gemm("pipeline", llGemmPipelineBf16({ M: 5, N: 24, K: 2880, out, cluster: 2, stages: 2 }), bf16, [5, 24, 2880]),
  gemm("pipeline, odd", llGemmPipelineE4m3({ M: 9, N: 17, K: 2881, out, cluster: 2, stages: 2 }), e4m3, [9, 17, 2881]),
  gemm("stream", llGemmStreamBf16({ M: 5, N: 70, K: 1040, out, cluster: 2, stages: 2 }), bf16, [5, 70, 1040]),
  gemm(
    "stream, by halves",
    llGemmStreamE4m3({ M: 9, N: 64, K: 1040, out, groups: 2, boxes: 2, stages: 2 }),
    e4m3,
    [9, 64, 1040],
  ),
  // Whoever multiplies comes after the producers' wait, through the ring.
  gemm(
    "gemm by TMA",
    gemmBf16({ M: 70, N: 40, K: 328, out, tileM: 128, tileN: 32, stages: 2 }),
    bf16,
    [70, 40, 328],
    ["pdlWait 0"],
  ),
  gemm(
    "gemm by threads",
    gemmBf16({ M: 70, N: 40, K: 327, out, tileM: 64, tileN: 32, stages: 2 }),
    bf16,
    [70, 40, 327],
    ["pdlWait 0"],
  ),
  norm(3, 2880),
];

type Args = HostArguments<Params>;

/** Names of outputs that are not what they should be, to the bit. */
const wrong = (outputs: HostResults<Params>, { expected }: Case): readonly string[] =>
  Object.entries(expected)
    .filter(
      ([name, values]) => !checkBits((outputs as Readonly<Record<string, HostTensor>>)[name] as HostTensor, values).ok,
    )
    .map(([name]) => name);

describe.each(cases)("$name", (one) => {
  const { kernel, spare = [] } = one;
  const args = one.args as Args;

  test("is exact and clean, whatever the schedule", () => {
    for (const seed of [undefined, 1, 2, 3, 4, 5])
      expect(wrong(runClean(kernel, args, seed), one), `seed ${seed}`).toEqual([]);
    expect(simulate(kernel, args).unwritten).toEqual([]);
    const { outputs, findings } = simulate(kernel, args, { check: "values" });
    expect([...wrong(outputs, one), ...findings]).toEqual([]);
  });

  const kinds = [
    ...(["barrier", "pdlWait", "clusterArrive", "clusterWait", "await", "arrive", "asyncArrive"] as const),
    ...(["asyncCommit", "asyncWait", "asyncFence", "wgmmaFence", "wgmmaCommit", "wgmmaWait"] as const),
  ];
  test("needs every barrier, wait, arrival and fence that it has", () => {
    const unnoticed = kinds.flatMap((kind) =>
      statements(kernel, kind).flatMap((stmt, i) =>
        simulate(without(kernel, stmt), args).findings.length > 0 ? [] : [`${kind} ${i}`],
      ),
    );
    expect(unnoticed).toEqual(spare);
  });
});

test("the router of 8 tokens takes seconds at most", { timeout: 30_000 }, () => {
  const [M, N, K] = [8, 256, 7168];
  for (const make of [llGemmDotBf16, llGemmMmaBf16]) {
    const one = gemm("router", make({ M, N, K, out }), bf16, [M, N, K]);
    const start = performance.now();
    expect(wrong(runClean(one.kernel, one.args as Args), one)).toEqual([]);
    expect(performance.now() - start).toBeLessThan(10_000);
  }
});
