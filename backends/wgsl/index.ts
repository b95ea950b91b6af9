/** Public face of the WGSL backend: `import { openWgsl, run } from "tegula/wgsl"`. */
export { run } from "../run.ts";
export { DeviceTensor, deviceTensor } from "../tensor.ts";
export type { DeviceKind, DeviceOptions } from "./device.ts";
export { emitWgsl, type WgslModule } from "./emit.ts";
export { openWgsl, WgslBackend } from "./runtime.ts";
