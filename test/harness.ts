/** What tests of kernels share: the devices that are here, and runs whose outputs stand between poisoned red zones. */
import { expect } from "vitest";
import type { Backend } from "../backends/backend.ts";
import type { Arguments } from "../backends/bind.ts";
import { compileReport } from "../backends/cuda/compile.ts";
import { cudaAvailable, emitCuda, openCuda } from "../backends/cuda/index.ts";
import { openNvcc } from "../backends/cuda/nvcc.ts";
import type { HostArguments, HostResults } from "../backends/run.ts";
import { openSimulator } from "../backends/simulator/index.ts";
import { DeviceTensor } from "../backends/tensor.ts";
import { openWgsl } from "../backends/wgsl/index.ts";
import { HostTensor, type Kernel, type Params } from "../dsl/index.ts";

/**
 * Devices to run on. WGSL and the simulator are always there: that a device for WGSL is missing is a failure. CUDA tests are
 * skipped without a GPU. In the simulator a launch that comes to any finding throws.
 */
export const devices = [
  { name: "wgsl", missing: false, open: (): Promise<Backend> => openWgsl() },
  { name: "simulator", missing: false, open: (): Promise<Backend> => openSimulator() },
  { name: "cuda", missing: !cudaAvailable(), open: (): Promise<Backend> => openCuda() },
] as const;

const redZoneBytes = 256;
const redZoneByte = 0xa5;
/** NaN in every float type. */
const poisonByte = 0xff;

/**
 * Runs a kernel. Every output begins as NaN and lies between red zones, which must be untouched afterwards; `inout`
 * tensors begin with their data.
 */
export async function runGuarded<P extends Params>(
  backend: Backend,
  kernel: Kernel<P>,
  args: HostArguments<P>,
): Promise<HostResults<P>> {
  mustCompile(kernel);
  const executable = await backend.compile(kernel);
  const given: Readonly<Record<string, unknown>> = args;
  const tensors = new Map<string, DeviceTensor>();
  for (const { name, role } of kernel.ir.tensors) {
    const data = given[name];
    if (!(data instanceof HostTensor)) throw new Error(`no data for ${name}`);
    const padded = Math.ceil(data.bytes.length / 4) * 4;
    const storage = backend.allocate(redZoneBytes + padded + redZoneBytes);
    const image = new Uint8Array(storage.byteLength).fill(redZoneByte);
    if (role === "output") image.fill(poisonByte, redZoneBytes, redZoneBytes + data.bytes.length);
    else image.set(data.bytes, redZoneBytes);
    backend.write(storage, 0, image);
    const tensor = new DeviceTensor(storage, data.dtype, data.shape, redZoneBytes);
    tensors.set(name, role === "frozen" ? tensor.freeze() : tensor);
  }
  const onDevice: Record<string, unknown> = { ...args, ...Object.fromEntries(tensors) };
  executable.bind(onDevice as Arguments<P>).launch();
  const results: Record<string, HostTensor> = {};
  for (const { name, role } of kernel.ir.tensors) {
    const tensor = tensors.get(name);
    if (!tensor) continue;
    const image = await backend.read(tensor.storage, 0, tensor.storage.byteLength);
    const zones = [image.subarray(0, redZoneBytes), image.subarray(redZoneBytes + tensor.byteLength)];
    expect(
      zones.every((zone) => zone.every((byte) => byte === redZoneByte)),
      `${kernel.name} wrote outside ${name}`,
    ).toBe(true);
    const bytes = image.slice(redZoneBytes, redZoneBytes + tensor.byteLength);
    if (role === "output" || role === "inout") results[name] = new HostTensor(tensor.dtype, tensor.shape, bytes);
    tensor.free();
  }
  return results as HostResults<P>;
}

/** Why nvcc can't be used here, or undefined. */
export const noNvcc: string | undefined = (() => {
  try {
    openNvcc();
    return undefined;
  } catch (error) {
    return String(error);
  }
})();

const compiled = new Set<string>();

/** Compiles a kernel's CUDA C for sm_90a with nvcc, once per source, where there is no GPU to do it anyway. @throws CompileError */
export function mustCompile(kernel: Kernel): void {
  if (noNvcc || cudaAvailable()) return;
  const { source } = emitCuda(kernel.ir);
  if (!compiled.has(source)) nvccResources(kernel);
  compiled.add(source);
}

/** Compiles a kernel's CUDA C with nvcc and returns its resources. @throws CompileError */
export function nvccResources(kernel: Kernel, arch: "sm_90a" | "sm_100a" | "sm_120a" = "sm_90a") {
  const { source, entry } = emitCuda(kernel.ir);
  const [resources] = compileReport(source, { arch, name: entry, compiler: "nvcc" });
  if (!resources) throw new Error(`nvcc reported nothing on ${entry}`);
  return resources;
}
