/**
 * How low-latency GEMMs cut their work: every number of warps, of blocks in a cluster and of columns gives each product to one
 * partial sum and each result to one thread. In the simulator, on integers, for shapes that leave something over everywhere.
 */
import { describe, expect, test } from "vitest";
import { simulate, formatFinding } from "../backends/simulator/index.ts";
import { bf16, type DType, e4m3, f32, HostTensor, type Kernel, size } from "../dsl/index.ts";
import {
  checkBits,
  chooseLinear,
  gemmReference,
  type LinearConfig,
  llGemmDotBf16,
  llGemmMmaBf16,
  llGemmMmaE4m3,
  randomTensor,
  seededRandom,
} from "../kernels/index.ts";
import { tableFor } from "../kernels/tuned.ts";

/** Runs a GEMM on integers: its result to the bit, no finding, nothing unwritten. */
function exact(kernel: object, dtype: DType<"bf16" | "e4m3">, [M, N, K]: readonly [number, number, number]): void {
  const traced = kernel as Kernel;
  const random = seededRandom(M + 31 * N + 977 * K);
  const [x, w] = [randomTensor(dtype, [M, K], "integers", random), randomTensor(dtype, [N, K], "integers", random)];
  const one = HostTensor.from(f32, [1], [1]);
  const scales = dtype.name === "e4m3" ? { xScale: one, wScale: one } : {};
  const args = { x, w, y: HostTensor.filled(f32, [M, N], 0xff), ...scales };
  const { outputs, findings, unwritten } = simulate(traced, args as never);
  expect(findings.map(formatFinding)).toEqual([]);
  expect(unwritten).toEqual([]);
  const { y } = outputs as unknown as { readonly y: HostTensor };
  expect(checkBits(y, gemmReference(x, w).y).first).toBeUndefined();
}

const out = f32;

describe("dot products", () => {
  // Beyond 16 warps a sum over them that takes 16 is wrong, and only where K gives work to the others.
  test.each([1, 2, 3, 5, 8, 15, 16, 17, 24, 31, 32])("of %i warps", (warps) => {
    for (const K of [warps * 256, warps * 256 - 8, warps * 256 + 1]) {
      exact(llGemmDotBf16({ M: 3, N: 2, K, out, warps, prefetch: 1 }), bf16, [3, 2, K]);
    }
  });
});

describe("products of matrices", () => {
  test.each([1, 2, 3, 7, 9, 16])("of %i warps", (warps) => {
    const K = warps * 64 + 40;
    exact(llGemmMmaBf16({ M: 5, N: 19, K, out, warps, cluster: 1, pieces: 1 }), bf16, [5, 19, K]);
    exact(llGemmMmaE4m3({ M: 11, N: 19, K, out, warps, cluster: 2, pieces: 1 }), e4m3, [11, 19, K]);
  });

  // Fewer threads than results, or a number that doesn't divide them.
  test.each([
    [16, 1],
    [32, 2],
    [32, 4],
    [64, 4],
    [64, 8],
  ] as const)("%i rows by clusters of %i", (rows, cluster) => {
    for (const [M, warps] of [
      [1, 3],
      [8, 1],
      [16, 3],
    ] as const) {
      const config = { M, N: rows + 7, K: 300, out, rows, cluster, warps };
      exact(llGemmMmaBf16(config), bf16, [M, rows + 7, 300]);
    }
  });
});

test("rings are cut for sizes that are known", () => {
  const [ring] = tableFor().filter(({ choice, dtype }) => choice.startsWith("stream") && dtype === "bf16");
  if (!ring) throw new Error("the table has no ring");
  const { M, N, K } = ring;
  const familyOf = (sizes: Pick<LinearConfig, "N" | "K">) =>
    chooseLinear({ M, ...sizes, weights: bf16, out: f32 }).choice.split(" ")[0];
  expect(familyOf({ N, K })).toBe("stream");
  expect(familyOf({ N: size("N", { max: N }), K })).not.toBe("stream");
  expect(familyOf({ N, K: size("K", { max: K, multipleOf: 8 }) })).not.toBe("stream");
  // Rows of whole 8 bytes only: TMA takes none.
  expect(familyOf({ N, K: K - 4 })).not.toBe("stream");
});
