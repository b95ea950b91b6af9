/** Running a kernel on host data in one call: compile, upload, launch, download. For tests, scripts and first steps. */
import type { DTypeName } from "../dsl/dtype.ts";
import { HostTensor } from "../dsl/host.ts";
import type { Kernel } from "../dsl/kernel.ts";
import type { Params, ScalarSpec, TensorSpec } from "../dsl/params.ts";
import type { Backend } from "./backend.ts";
import { type Arguments, bind } from "./bind.ts";
import { type DeviceTensor, deviceTensor } from "./tensor.ts";

/** A host tensor or a number for each parameter; for outputs one that gives the shape and the content before the run. */
export type HostArguments<P extends Params> = {
  readonly [K in keyof P]: P[K] extends TensorSpec<infer _R, infer N, infer _Rank>
    ? HostTensor<N>
    : P[K] extends ScalarSpec
      ? number
      : never;
};

/** What came back: every output and inout tensor. */
export type HostResults<P extends Params> = {
  readonly [
    K in keyof P as P[K] extends TensorSpec<"output" | "inout", DTypeName, number> ? K : never
  ]: P[K] extends TensorSpec<infer _R, infer N, infer _Rank> ? HostTensor<N> : never;
};

/**
 * Compiles (or takes the backend's earlier executable), uploads, launches once, and reads the outputs back.
 * @throws ArgumentError, CompileError, DeviceError
 */
export async function run<P extends Params>(
  backend: Backend,
  kernel: Kernel<P>,
  args: HostArguments<P>,
): Promise<HostResults<P>> {
  const executable = await backend.compile(kernel);
  const tensors: DeviceTensor[] = [];
  try {
    const onDevice = Object.fromEntries(
      Object.entries<unknown>(args).map(([name, value]) => {
        if (!(value instanceof HostTensor)) return [name, value];
        const tensor = deviceTensor(backend, value);
        tensors.push(tensor);
        return [name, tensor];
      }),
    );
    backend.launch(executable, bind(kernel, onDevice as Arguments<P>, backend));
    const results: Record<string, HostTensor> = {};
    for (const { name, role } of kernel.ir.tensors) {
      if (role === "output" || role === "inout") results[name] = await (onDevice[name] as DeviceTensor).read();
    }
    return results as HostResults<P>;
  } finally {
    for (const tensor of tensors) tensor.free();
  }
}
