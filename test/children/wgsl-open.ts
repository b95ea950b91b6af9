/** Opens the WGSL backend, runs a module, and prints the device, or the error. */
import { f32 } from "../../dsl/dtype.ts";
import { DeviceTensor } from "../../backends/tensor.ts";
import { openWgsl } from "../../backends/wgsl/runtime.ts";
import { bind, compileScale } from "./wgsl-support.ts";

try {
  const backend = await openWgsl();
  const scale = await compileScale(backend);
  const [x, y] = [0, 0].map(() => new DeviceTensor(backend.allocate(16), f32, [4]));
  if (x === undefined || y === undefined) throw new Error("no tensors");
  backend.write(x.storage, 0, new Uint8Array(new Float32Array([1, 2, 3, 4]).buffer));
  bind(scale, { x, y, scale: 2, bias: 1 }).launch();
  const result = new Float32Array((await backend.read(y.storage, 0, 16)).buffer);
  console.log(`${backend.kind}: ${backend.device}: ${result.join(" ")}`);
} catch (error) {
  console.log(String(error));
}
