/** Hand-written WGSL modules for the tests of the WGSL backend, and a way to launch them without a traced kernel. */
import { type DType, f32, u32 } from "../../dsl/dtype.ts";
import type { KernelIR, Scalar } from "../../dsl/ir.ts";
import type { Kernel } from "../../dsl/kernel.ts";
import { size } from "../../dsl/size.ts";
import type { Executable, Launch } from "../../backends/backend.ts";
import { DeviceTensor } from "../../backends/tensor.ts";
import type { WgslModule } from "../../backends/wgsl/emit.ts";
import type { WgslBackend } from "../../backends/wgsl/runtime.ts";

/** y[i] = x[i] * scale + bias + i, one invocation an element; grid [words / 64, 1, 1]. */
export const scaleModule: WgslModule = {
  source: `
struct Launch { scale: f32, bias: u32, gx: u32, gy: u32, gz: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> launch: Launch;
@compute @workgroup_size(64) fn scale(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < 64u * launch.gx && id.x < arrayLength(&y)) {
    y[id.x] = x[id.x] * launch.scale + f32(launch.bias + id.x); // @scale.ts:7
  }
}`,
  entry: "scale",
  tensors: [
    { name: "x", access: "read" },
    { name: "y", access: "read_write" },
  ],
  uniformWords: 5,
  workgroupCount: (grid) => grid,
};

/** y[0] = a number that takes `rounds` steps to compute: seconds of work in software. */
export const slowModule: WgslModule = {
  source: `
struct Launch { rounds: u32, gx: u32, gy: u32, gz: u32 }
@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<uniform> launch: Launch;
@compute @workgroup_size(1) fn slow() {
  var state = 1u;
  for (var i = 0u; i < launch.rounds; i++) { state = state * 1664525u + 1013904223u; }
  y[0] = state;
}`,
  entry: "slow",
  tensors: [{ name: "y", access: "read_write" }],
  uniformWords: 4,
  workgroupCount: (grid) => grid,
};

/** What a kernel would say of a module: dtype of its tensors, its scalars by name, its grid. */
export interface ModuleUse {
  readonly dtype?: DType;
  readonly scalars?: Readonly<Record<string, Scalar["dtype"]>>;
  readonly grid?: KernelIR["grid"];
}

const anyLength = size("length");

/** Compiles a module under a name; its tensors have any length. */
export function compileModule(
  backend: WgslBackend,
  name: string,
  module: WgslModule,
  { dtype = f32, scalars = {}, grid = [1, 1, 1] }: ModuleUse = {},
): Promise<Executable> {
  const at = { file: `${name}.ts`, line: 1, column: 1 };
  const tensors = module.tensors.map(({ name, access }) => {
    const role = access === "read" ? "input" : "inout";
    return { kind: "tensor", name, role, dtype, shape: [anyLength], alignBytes: dtype.bytes, at };
  });
  const numbers = Object.entries(scalars).map(([name, dtype]) => ({ kind: "scalar", name, dtype, at }));
  const params = Object.fromEntries([...tensors, ...numbers].map((param) => [param.name, param]));
  const ir = { name, grid, cluster: 1, tensors, scalars: numbers, sizes: [] };
  return backend.executableFromModule({ name, at, params, ir } as unknown as Kernel, module);
}

/** Binds; of these kernels the types know no parameters. */
export function bind(executable: Executable, args: Readonly<Record<string, unknown>>): Launch {
  return executable.bind(args as never);
}

/** `scaleModule`, ready to be bound to x, y, scale and bias. */
export function compileScale(backend: WgslBackend, groups = 1): Promise<Executable> {
  return compileModule(backend, "scale", scaleModule, { scalars: { scale: f32, bias: u32 }, grid: [groups, 1, 1] });
}

/** A launch of `slowModule`, and what it writes. */
export async function slowLaunch(
  backend: WgslBackend,
  rounds: number,
  module = slowModule,
): Promise<{ readonly launch: Launch; readonly y: DeviceTensor }> {
  const slow = await compileModule(backend, "slow", module, { dtype: u32, scalars: { rounds: u32 } });
  const y = new DeviceTensor(backend.allocate(4), u32, [1]);
  return { launch: bind(slow, { y, rounds }), y };
}
