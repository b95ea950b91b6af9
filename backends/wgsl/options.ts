/** What a caller may say about the WGSL device. Apart from device.ts, so that shipped types need no WebGPU types. */

/** What runs the shaders: hardware, Mesa's software device, or Google's. */
export type DeviceKind = "gpu" | "lavapipe" | "swiftshader";

export interface DeviceOptions {
  /** The only kind to accept. Default: $TEGULA_WGSL_DEVICE, otherwise the first of the three that there is. */
  readonly device?: DeviceKind | undefined;
  /** File URLs of modules from which @sparticuz/chromium is resolved. Default: this file, then the working directory. */
  readonly roots?: readonly string[] | undefined;
}
