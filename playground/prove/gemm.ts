/** One GEMM on a device, judged by an oracle: what `exact` and `bounds` have in common. */
import type { Backend } from "../../backends/backend.ts";
import { DeviceTensor } from "../../backends/tensor.ts";
import { bf16, type DType, e4m3, f32, HostTensor, type Kernel } from "../../dsl/index.ts";
import { isWritten } from "../../dsl/ir.ts";
import { type DataClass, type Difference, gemmReference, randomTensor, seededRandom } from "../../kernels/index.ts";
import type { InName, OutName } from "../../kernels/ll-gemm.ts";
import type { GemmSizes } from "./draw.ts";

export const dtypes = { f32, bf16, e4m3 } as const;

/** Takes a config that nobody's types know: sizes as numbers or not, an epilogue or none. */
export type Maker = (config: object) => Kernel;

/** A product, and the types of its parts. */
export interface Problem extends GemmSizes {
  /** Of the weights; tokens of f32 weights are bf16. */
  readonly dtype: InName;
  readonly out: OutName;
}

type Data = Readonly<Record<string, HostTensor>>;
type Operands = Data & { readonly w: HostTensor; readonly x: HostTensor };

const zoneBytes = 256;
const zoneByte = 0xa5;
/** NaN in every float type. */
const poisonByte = 0xff;

/** w and x, and scales where the type has them. Both scales are powers of two where `data` is exact. */
export function operandsOf({ M, N, K, dtype }: Problem, data: DataClass, seed: number): Operands {
  const random = seededRandom(seed);
  const x = randomTensor(dtype === "e4m3" ? e4m3 : bf16, [M, K], data, random);
  const w = randomTensor<InName>(dtypes[dtype], [N, K], data, random);
  if (dtype !== "e4m3") return { w, x };
  const [xScale, wScale] = data === "integers" ? [0.5, 4] : [0.25, 3];
  return { w, x, xScale: HostTensor.from(f32, [1], [xScale]), wScale: HostTensor.from(f32, [1], [wScale]) };
}

/** In float64, with the bound's magnitudes. */
export function referenceOf({ w, x, xScale, wScale }: Operands) {
  const scale = (xScale?.values()[0] ?? 1) * (wScale?.values()[0] ?? 1);
  return gemmReference(x, w, scale);
}

/**
 * Launches a kernel once, and returns what it writes. Outputs begin as NaN, and every tensor lies between red zones.
 * @throws RangeError when a kernel wrote outside of a tensor; as backend.compile()
 */
export async function runGuarded(backend: Backend, kernel: Kernel, data: Data): Promise<Data> {
  const executable = await backend.compile(kernel);
  const tensors = new Map<string, DeviceTensor>();
  try {
    for (const { name, role } of kernel.ir.tensors) {
      const host = data[name];
      if (!host) throw new RangeError(`${kernel.name}: there is no data for ${name}`);
      const storage = backend.allocate(2 * zoneBytes + Math.ceil(host.bytes.length / 4) * 4);
      const image = new Uint8Array(storage.byteLength).fill(zoneByte);
      if (role === "output") image.fill(poisonByte, zoneBytes, zoneBytes + host.bytes.length);
      else image.set(host.bytes, zoneBytes);
      backend.write(storage, 0, image);
      const tensor = new DeviceTensor(storage, host.dtype, host.shape, zoneBytes);
      tensors.set(name, role === "frozen" ? tensor.freeze() : tensor);
    }
    executable.bind(Object.fromEntries(tensors) as never).launch();
    const results: Record<string, HostTensor> = {};
    for (const { name, role } of kernel.ir.tensors) {
      const tensor = tensors.get(name);
      if (!tensor) continue;
      const image = await backend.read(tensor.storage, 0, tensor.storage.byteLength);
      const end = zoneBytes + tensor.byteLength;
      const zones = [image.subarray(0, zoneBytes), image.subarray(end)];
      if (zones.some((zone) => zone.some((byte) => byte !== zoneByte))) {
        throw new RangeError(`${kernel.name} wrote outside of ${name}`);
      }
      if (isWritten(role)) results[name] = new HostTensor(tensor.dtype, tensor.shape, image.slice(zoneBytes, end));
    }
    return results;
  } finally {
    for (const tensor of tensors.values()) tensor.free();
  }
}

/** y before a launch: NaN. */
export function outputOf({ M, N, out }: Problem): HostTensor {
  return HostTensor.filled(dtypes[out] as DType, [M, N], poisonByte);
}

/** For people. */
export function describeDifference(wrong: number, { index, actual, low, high }: Difference): string {
  const right = low === high ? `not ${low}` : `not in [${low}, ${high}]`;
  return `${wrong} elements are wrong, the first y[${index.join(", ")}] is ${actual}, ${right}`;
}
