/** The narrow float conversions of a device: what a kernel makes of 2^24 f32 patterns at a time. */
import { deviceTensor } from "../../backends/tensor.ts";
import { bf16, type DType, e4m3, e5m2, f16, f32, kernel, output, scalar, u32 } from "../../dsl/index.ts";
import { type DeviceName, openDevice } from "./devices.ts";

/** f32 patterns that share their top byte. */
export const chunkSize = 2 ** 24;
const threads = 256;
const lanes = 4;

/** What `.to(...)` converts f32 to, by the names in the vectors: fp8 saturates, the others overflow to infinity. */
const targets = { e4m3fn_satfinite: e4m3, e5m2_satfinite: e5m2, bf16_rne: bf16, f16_rne: f16 } as const;
export const deviceConversions: readonly string[] = Object.keys(targets);

const aligned = { alignBytes: 16 } as const;
/** Each conversion of single numbers and of vectors, which backends write in different ways. */
const convertChunk = kernel(
  {
    name: "convert_chunk",
    grid: chunkSize / threads / lanes,
    block: threads,
    params: {
      first: scalar(u32),
      e4m3: output(e4m3, [chunkSize]),
      e5m2: output(e5m2, [chunkSize]),
      bf16: output(bf16, [chunkSize]),
      f16: output(f16, [chunkSize]),
      e4m3s: output(e4m3, [chunkSize], aligned),
      e5m2s: output(e5m2, [chunkSize], aligned),
      bf16s: output(bf16, [chunkSize], aligned),
      f16s: output(f16, [chunkSize], aligned),
    },
  },
  (t, { first }) => {
    const y = t.pdl.wait();
    const i = t.block.x.mul(threads).add(t.thread).mul(lanes);
    const at = (lane: number) => i.to(u32).add(first).add(lane).bitcast(f32);
    const x = t.pack(at(0), at(1), at(2), at(3));
    y.e4m3s.storeVec([i], x.to(e4m3));
    y.e5m2s.storeVec([i], x.to(e5m2));
    y.bf16s.storeVec([i], x.to(bf16));
    y.f16s.storeVec([i], x.to(f16));
    for (let lane = 0; lane < lanes; lane++) {
      const [place, one] = [[i.add(lane)] as const, at(lane)];
      y.e4m3.store(place, one.to(e4m3));
      y.e5m2.store(place, one.to(e5m2));
      y.bf16.store(place, one.to(bf16));
      y.f16.store(place, one.to(f16));
    }
  },
);

/** What a device makes of a chunk, little-endian: of single numbers, of vectors. */
export interface DeviceCodes {
  /** Of the conversion. */
  readonly name: string;
  readonly single: Uint8Array;
  readonly vector: Uint8Array;
}

/** A device that converts. */
export interface DeviceConverter {
  readonly device: string;
  /** What it makes of f32 bits `chunk << 24` to `chunk << 24 | 0xffffff`. */
  convert(chunk: number): Promise<readonly DeviceCodes[]>;
}

/** Opens a device, for the life of the process, with the kernel and its 192 MiB. @throws as openDevice() */
export async function openConverter(name: DeviceName): Promise<DeviceConverter> {
  const backend = await openDevice(name);
  const make = <N extends DType["name"]>(dtype: DType<N>) => deviceTensor(backend, dtype, [chunkSize]);
  const tensors = {
    ...{ e4m3: make(e4m3), e5m2: make(e5m2), bf16: make(bf16), f16: make(f16) },
    ...{ e4m3s: make(e4m3), e5m2s: make(e5m2), bf16s: make(bf16), f16s: make(f16) },
  };
  const launch = (await backend.compile(convertChunk)).bind({ first: 0, ...tensors });
  return {
    device: backend.device,
    convert: async (chunk) => {
      launch.set({ first: (chunk << 24) >>> 0 });
      launch.launch();
      const codes: DeviceCodes[] = [];
      for (const [code, { name }] of Object.entries(targets)) {
        const [single, vector] = await Promise.all([tensors[name].read(), tensors[`${name}s`].read()]);
        codes.push({ name: code, single: single.bytes, vector: vector.bytes });
      }
      return codes;
    },
  };
}
