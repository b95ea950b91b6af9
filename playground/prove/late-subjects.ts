/** Every kernel of kernels/ that takes part in programmatic dependent launch, with data, for late.ts. */
import { bf16, e4m3, f32, HostTensor, type Kernel } from "../../dsl/index.ts";
import {
  gemmBf16,
  llGemmDotBf16,
  llGemmDotE4m3,
  llGemmDotF32,
  llGemmMmaBf16,
  llGemmMmaE4m3,
  llGemmMmaF32,
  llGemmPipelineBf16,
  llGemmPipelineE4m3,
  llGemmStreamBf16,
  llGemmStreamE4m3,
  randomTensor,
  rmsNorm,
  seededRandom,
} from "../../kernels/index.ts";
import type { LateSubject } from "./late.ts";

const sizes = { M: 8, N: 72, K: 1040 } as const;

export function lateSubjects(): readonly LateSubject[] {
  return [
    product(llGemmDotBf16({ ...sizes, out: f32 })),
    product(llGemmDotE4m3({ ...sizes, out: bf16 })),
    product(llGemmDotF32({ ...sizes, out: f32 })),
    product(llGemmMmaBf16({ ...sizes, out: bf16 })),
    product(llGemmMmaE4m3({ ...sizes, out: e4m3, rows: 32, cluster: 2 })),
    product(llGemmMmaF32({ ...sizes, out: f32 })),
    product(llGemmPipelineBf16({ ...sizes, out: f32 })),
    product(llGemmPipelineE4m3({ ...sizes, out: f32, cluster: 2 })),
    product(llGemmStreamBf16({ ...sizes, out: f32, stages: 2 })),
    product(llGemmStreamE4m3({ ...sizes, out: bf16, stages: 2 })),
    product(gemmBf16({ ...sizes, M: 72, out: bf16 }), 72),
    // Rows that TMA can't take: threads copy them.
    product(gemmBf16({ ...sizes, M: 72, K: 1038, out: f32 }), 72, 1038),
    norm(),
  ];
}

/** Any of the GEMMs, on small whole numbers. */
function product(kernel: unknown, M: number = sizes.M, K: number = sizes.K): LateSubject {
  const { N } = sizes;
  const gemm = kernel as Kernel;
  const dtypeOf = (name: string) => gemm.ir.tensors.find((tensor) => tensor.name === name)?.dtype;
  const [w, x, y] = [dtypeOf("w"), dtypeOf("x"), dtypeOf("y")];
  if (!w || !x || !y) throw new RangeError(`${gemm.name} has no w, x or y`);
  return {
    kernel: gemm,
    args: (seed) => ({
      w: randomTensor(w as typeof bf16, [N, K], "integers", seededRandom(3)),
      x: randomTensor(x as typeof bf16, [M, K], "integers", seededRandom(10 + seed)),
      y: HostTensor.filled(y, [M, N], 0),
      ...(w === e4m3 && { wScale: HostTensor.from(f32, [1], [0.5]), xScale: HostTensor.from(f32, [1], [seed]) }),
    }),
  };
}

function norm(): LateSubject {
  const [M, H] = [8, 2880];
  const tensor = (seed: number, shape: readonly number[]) => randomTensor(bf16, shape, "normal", seededRandom(seed));
  return {
    kernel: rmsNorm({ M, H }) as unknown as Kernel,
    args: (seed) => ({
      weight: tensor(4, [H]),
      x: tensor(20 + seed, [M, H]),
      residual: tensor(30 + seed, [M, H]),
      y: HostTensor.filled(bf16, [M, H], 0),
      eps: 1e-5,
    }),
  };
}
