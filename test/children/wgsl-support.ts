/** Hand-written WGSL modules for the tests of the WGSL backend, and a way to launch them without a traced kernel. */
import type { Kernel } from "../../dsl/kernel.ts";
import { f32, u32 } from "../../dsl/dtype.ts";
import type { BoundLaunch, BoundScalar, Executable } from "../../backends/backend.ts";
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

/** Compiles a module under a name. */
export function compileModule(backend: WgslBackend, name: string, module: WgslModule): Promise<Executable> {
  return backend.executableFromModule({ name } as unknown as Kernel, module);
}

/** Scalars of `scaleModule`. */
export function scaleBy(scale: number, bias: number): readonly BoundScalar[] {
  return [
    { name: "scale", dtype: f32, value: scale },
    { name: "bias", dtype: u32, value: bias },
  ];
}

/** A launch of `slowModule`. */
export function slowLaunch({ kernel }: Executable, backend: WgslBackend, rounds: number): BoundLaunch {
  const y = new DeviceTensor(backend.allocate(4), u32, [1]);
  return { kernel, grid: [1, 1, 1], tensors: [y], scalars: [{ name: "rounds", dtype: u32, value: rounds }] };
}
