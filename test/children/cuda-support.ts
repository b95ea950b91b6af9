/** Kernels for cuda-fault.ts: right ones, wrong ones, and what no author of ours could write. */
import { compileCuda, type CudaArch } from "../../backends/cuda/compile.ts";
import { PrimaryContext } from "../../backends/cuda/context.ts";
import { deviceInfo, openDriver } from "../../backends/cuda/driver.ts";
import { CudaExecutable } from "../../backends/cuda/executable.ts";
import { type CudaBackend } from "../../backends/cuda/index.ts";
import { Streams } from "../../backends/cuda/streams.ts";
import { f32, i32, inout, input, type Kernel, kernel, output, scalar } from "../../dsl/index.ts";
import { IrBuilder } from "../tile-cuda-ir.ts";

/** y += 1: a kernel with nothing wrong. */
export const count = kernel({ name: "count", grid: 1, block: 32, params: { y: inout(f32, [32]) } }, (t) => {
  const { y } = t.pdl.wait();
  y.store([t.lane], y.load([t.lane]).add(1));
});

/** Stores where the scalar says: what no check sees before it runs. */
export const far = kernel(
  { name: "far", grid: 1, block: 32, params: { y: output(f32, [32]), i: scalar(i32) } },
  (t, { i }) => {
    const { y } = t.pdl.wait();
    y.store([i], 1);
  },
);

/** The same in shared memory. */
export const farShared = kernel(
  { name: "far_shared", grid: 1, block: 32, params: { y: output(f32, [32]), i: scalar(i32) } },
  (t, { i }) => {
    const { y } = t.pdl.wait();
    const s = t.shared(f32, [32]);
    s.store([i.add(t.lane)], 1);
    t.barrier();
    y.store([t.lane], s.load([t.lane]));
  },
);

/** Four elements at once from the second on, which no verifier would let pass. */
export function misaligned(): Kernel {
  const b = new IrBuilder();
  const [x, y] = [b.tensor("x", "input", f32, [32]), b.tensor("y", "output", f32, [32])];
  b.stmt({ kind: "pdlWait", at: { file: "hand.ts", line: 2, column: 1 } });
  b.store(y, [b.int(0)], b.load(x, [b.int(1)], 4));
  const params = { x: input(f32, [32], { alignBytes: 16 }), y: output(f32, [32], { alignBytes: 16 }) };
  const ir = b.build("misaligned", { block: 32 });
  return { name: "misaligned", params, ir, at: ir.at } as unknown as Kernel;
}

export interface HandWritten {
  readonly name: string;
  readonly source: string;
  readonly block?: number;
  readonly cluster?: number;
  readonly dynamicSharedBytes?: number;
  readonly arch?: CudaArch;
}

/** Loads CUDA C that no emitter would write, by the backend's own loader. `use` is given what launches it, and waits. */
export async function handWritten(
  cuda: CudaBackend,
  { name, source, block = 32, cluster = 1, dynamicSharedBytes = 0, arch = cuda.arch }: HandWritten,
  use: (launch: () => void, wait: () => Promise<void>) => unknown,
): Promise<void> {
  const declared = kernel({ name, grid: 1, block, params: {} }, (t) => void t.pdl.wait());
  const shaped = { ...declared, ir: { ...declared.ir, cluster, grid: [cluster, 1, 1] as const } };
  const compiled = compileCuda(source, { arch, name, cache: false });
  const driver = openDriver();
  const context = PrimaryContext.open(driver, deviceInfo(driver, 0));
  const streams = new Streams(cuda, context, false);
  try {
    const module = { source, entry: name, dynamicSharedBytes, tensorMaps: [] };
    const executable = new CudaExecutable({ streams, kernel: shaped, module, compiled, arch, pdl: true });
    const launch = executable.bind({});
    await use(
      () => launch.launch(),
      () => streams.drain(),
    );
  } finally {
    streams.beginClosing();
    streams.close();
    context.close();
  }
}
