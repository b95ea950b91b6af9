/** Public face of the WGSL backend: `import { openWgsl, run } from "tegula/wgsl"`. */
export { type HostArguments, type HostResults, prepare, PreparedRun, run } from "../run.ts";
export type { Arguments, Scalars } from "../bind.ts";
export type { Backend, Executable, Launch, Storage } from "../backend.ts";
export { DeviceTensor, deviceTensor, type FrozenTensor, frozenTensor } from "../tensor.ts";
export type { DeviceKind, DeviceOptions } from "./options.ts";
export { emitWgsl, type WgslModule } from "./emit.ts";
export { openWgsl, WgslBackend } from "./runtime.ts";
