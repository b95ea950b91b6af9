/** Shipped kernels on small ragged shapes: whole sums, in the order in which the kernel declares them. */
import { bf16, type DType, e4m3, f32, HostTensor, type Kernel } from "../../dsl/index.ts";
import {
  gemmBf16,
  gemmReference,
  llGemmDotBf16,
  llGemmDotE4m3,
  llGemmDotF32,
  llGemmMmaBf16,
  llGemmMmaE4m3,
  llGemmPipelineBf16,
  llGemmPipelineE4m3,
  llGemmStreamBf16,
  llGemmStreamE4m3,
  seededRandom,
} from "../../kernels/index.ts";
import { operandsOf } from "./data.ts";
import { type Exact, type Specimen, type Tensors, tensorOfBits } from "./specimen.ts";

interface Gemm {
  readonly kernel: Kernel;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

const [scaleX, scaleW] = [0.5, 4];

function gemms(): readonly Gemm[] {
  const one = (sizes: Omit<Gemm, "kernel">, make: (sizes: Omit<Gemm, "kernel">) => unknown): Gemm => {
    return { ...sizes, kernel: make(sizes) as Kernel };
  };
  return [
    one({ M: 3, N: 40, K: 1000 }, (of) => llGemmDotBf16({ ...of, out: f32, warps: 4 })),
    one({ M: 2, N: 24, K: 528 }, (of) => llGemmDotE4m3({ ...of, out: bf16, warps: 3 })),
    one({ M: 4, N: 16, K: 516 }, (of) => llGemmDotF32({ ...of, out: f32, warps: 2 })),
    one({ M: 8, N: 40, K: 1032 }, (of) => llGemmMmaBf16({ ...of, out: f32, rows: 16, cluster: 4, warps: 4 })),
    one({ M: 13, N: 40, K: 784 }, (of) => llGemmMmaE4m3({ ...of, out: f32, rows: 32, cluster: 2, warps: 3 })),
    one({ M: 5, N: 24, K: 1030 }, (of) => llGemmPipelineBf16({ ...of, out: f32, cluster: 2 })),
    one({ M: 16, N: 24, K: 1040 }, (of) => llGemmPipelineE4m3({ ...of, out: e4m3, cluster: 1 })),
    one({ M: 8, N: 72, K: 1032 }, (of) => llGemmStreamBf16({ ...of, out: f32, cluster: 2, groups: 2, boxes: 2 })),
    one({ M: 11, N: 72, K: 1040 }, (of) => llGemmStreamE4m3({ ...of, out: f32, cluster: 1, stages: 2 })),
    one({ M: 72, N: 72, K: 328 }, (of) => gemmBf16({ ...of, out: f32, tileM: 64, tileN: 64 })),
  ];
}

export function gemmSpecimens(): readonly Specimen[] {
  return gemms().flatMap((gemm) =>
    (["integers", "normal"] as const).map((kind): Specimen => {
      const { kernel, M, N, K } = gemm;
      const [w, x, y] = ["w", "x", "y"].map((name) => typeOf(kernel, name)) as [DType, DType, DType];
      const args = (): Tensors => {
        const random = seededRandom(kind === "integers" ? 21 : 22);
        const { a, b } = operandsOf({ M, N, K, a: x, b: w, c: f32 }, kind, random);
        return {
          w: tensorOfBits(w, [N, K], b),
          x: tensorOfBits(x, [M, K], a),
          y: HostTensor.filled(y, [M, N], 0xff),
          ...(w === e4m3 ? { wScale: scalar(scaleW), xScale: scalar(scaleX) } : {}),
        };
      };
      const wgsl = kind === "integers" ? "bits" : "interval";
      return { name: `${kernel.name} ${kind}`, kernel, args, wgsl, exact: (given) => exact(gemm, given) };
    }),
  );
}

const scalar = (value: number): HostTensor => HostTensor.from(f32, [1], [value]);

function typeOf({ ir }: Kernel, name: string): DType {
  const tensor = ir.tensors.find((one) => one.name === name);
  if (!tensor) throw new RangeError(`${ir.name} has no ${name}`);
  return tensor.dtype;
}

function exact({ kernel, K }: Gemm, { x, w, wScale }: Tensors): Exact {
  if (!x || !w) throw new RangeError(`${kernel.name} has x and w`);
  const { y, magnitudes } = gemmReference(x, w, wScale ? scaleX * scaleW : 1);
  return { output: "y", values: y, magnitudes, terms: K, partials: kernel.ir.block * kernel.ir.cluster };
}
