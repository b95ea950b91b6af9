/** A thread of cuda-fault.ts: tries its parent's tensor, adopts its memory instead, and adds 1 there. */
import { parentPort, workerData } from "node:worker_threads";
import { type DeviceTensor, openCuda } from "../../backends/cuda/index.ts";
import { f32, inout, kernel } from "../../dsl/index.ts";

const { y: stranger, pointer } = workerData as { readonly y: DeviceTensor<"f32">; readonly pointer: bigint };

const add = kernel({ name: "add", grid: 1, block: 32, params: { y: inout(f32, [32]) } }, (t) => {
  const { y } = t.pdl.wait();
  y.store([t.lane], y.load([t.lane]).add(1));
});

const answer = { error: "", message: "" };
const cuda = await openCuda();
const executable = await cuda.compile(add);
try {
  executable.bind({ y: stranger });
} catch (error) {
  if (error instanceof Error) Object.assign(answer, { error: error.name, message: error.message });
}
executable.bind({ y: cuda.adoptTensor({ pointer, dtype: f32, shape: [32] }) }).launch();
await cuda.synchronize();
await cuda.dispose();
parentPort?.postMessage(answer);
