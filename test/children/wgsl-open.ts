/** Opens the WGSL backend, runs a module, and prints the device, or the error. */
import { f32 } from "../../dsl/dtype.ts";
import { DeviceTensor } from "../../backends/tensor.ts";
import { openWgsl } from "../../backends/wgsl/runtime.ts";
import { compileModule, scaleBy, scaleModule } from "./wgsl-support.ts";

try {
  const backend = await openWgsl();
  const scale = await compileModule(backend, "scale", scaleModule);
  const [x, y] = [0, 0].map(() => new DeviceTensor(backend.allocate(16), f32, [4]));
  if (x === undefined || y === undefined) throw new Error("no tensors");
  backend.write(x.storage, 0, new Uint8Array(new Float32Array([1, 2, 3, 4]).buffer));
  backend.launch(scale, { kernel: scale.kernel, grid: [1, 1, 1], tensors: [x, y], scalars: scaleBy(2, 1) });
  const result = new Float32Array((await backend.read(y.storage, 0, 16)).buffer);
  console.log(`${backend.kind}: ${backend.device}: ${result.join(" ")}`);
} catch (error) {
  console.log(String(error));
}
