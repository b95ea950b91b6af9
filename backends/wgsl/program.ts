/** A WGSL module made ready to run: shader, pipeline, bindings, uniform words. Knows nothing of kernels. */
import { ArgumentError, CompileError, UnsupportedError } from "../../dsl/errors.ts";
import type { BoundScalar } from "../bind.ts";
import type { WgslModule } from "./emit.ts";
import { roundUp, usage } from "./transfer.ts";

/** A piece of a buffer; sizes and offsets in bytes. */
export interface Slice {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly size: number;
}

type Grid = readonly [x: number, y: number, z: number];

/** A compiled module. `compileMs` is wall-clock time, pipeline creation included. */
export class Program {
  readonly name: string;
  readonly module: WgslModule;
  readonly compileMs: number;
  readonly #device: GPUDevice;
  readonly #pipeline: GPUComputePipeline;
  readonly #layout: GPUBindGroupLayout;
  /** One for all launches: queue.writeBuffer is ordered with submissions. */
  readonly #uniform: GPUBuffer;
  /** Grows with the largest launch. */
  #scratch: GPUBuffer | undefined;

  private constructor(
    device: GPUDevice,
    name: string,
    module: WgslModule,
    layout: GPUBindGroupLayout,
    pipeline: GPUComputePipeline,
    compileMs: number,
  ) {
    this.name = name;
    this.module = module;
    this.compileMs = compileMs;
    this.#device = device;
    this.#layout = layout;
    this.#pipeline = pipeline;
    const size = roundUp(module.uniformWords * 4, 16);
    this.#uniform = device.createBuffer({ label: name, size, usage: usage.uniform | usage.copyDst });
  }

  /**
   * @throws CompileError with the message and the line of WGSL; UnsupportedError when the module has more tensors than the
   * device binds
   */
  static async compile(device: GPUDevice, name: string, module: WgslModule): Promise<Program> {
    const most = device.limits.maxStorageBuffersPerShaderStage;
    if (module.tensors.length + (module.scratch ? 1 : 0) > most) {
      throw new UnsupportedError(
        `Kernel "${name}" has ${module.tensors.length} tensors${module.scratch ? " and scratch" : ""}, WGSL has room for ${most} (maxStorageBuffersPerShaderStage)`,
      );
    }
    const start = performance.now();
    // Scopes nest by call order, so nothing asynchronous may come between push and pop. What they catch, the messages
    // and the pipeline report better; without them Dawn prints it.
    device.pushErrorScope("validation");
    const shader = device.createShaderModule({ label: name, code: module.source });
    device.popErrorScope().catch(() => undefined);
    const { messages } = await shader.getCompilationInfo();
    const errors = messages.filter(({ type }) => type === "error");
    if (errors.length > 0) throw new CompileError(explain(name, module.source, errors));

    const layout = device.createBindGroupLayout({ label: name, entries: layoutEntries(module) });
    const pipelineLayout = device.createPipelineLayout({ label: name, bindGroupLayouts: [layout] });
    try {
      const pipeline = await device.createComputePipelineAsync({
        label: name,
        layout: pipelineLayout,
        compute: { module: shader, entryPoint: module.entry },
      });
      return new Program(device, name, module, layout, pipeline, performance.now() - start);
    } catch (error) {
      throw new CompileError(`Dawn can't make a pipeline of kernel "${name}": ${messageOf(error)}`);
    }
  }

  /**
   * Whether these pieces can be bound, one for each tensor.
   * @throws ArgumentError when two parameters share memory in a way that WebGPU forbids; UnsupportedError for an offset
   * that can't be bound
   */
  check(slices: readonly Slice[]): void {
    this.#checkOffsets(slices);
    this.#checkAliasing(slices);
  }

  /**
   * Enqueues `times` launches back to back with the same arguments, which were checked. What comes back is settled when they
   * are done: why they failed, where the kernel itself finds out.
   */
  enqueue(
    slices: readonly Slice[],
    scalars: readonly BoundScalar[],
    grid: Grid,
    times: number,
  ): Promise<string | undefined> | undefined {
    const [x, y, z] = this.#dispatch(grid);
    const scratch = this.#scratchFor(x * y * z);
    const bindGroup = this.#device.createBindGroup({
      label: this.name,
      layout: this.#layout,
      entries: [...slices, { buffer: this.#uniform }, ...(scratch ? [{ buffer: scratch }] : [])].map(
        (resource, binding) => ({ binding, resource }),
      ),
    });
    this.#device.queue.writeBuffer(this.#uniform, 0, uniformBytes(scalars, grid));
    const encoder = this.#device.createCommandEncoder({ label: this.name });
    if (scratch) encoder.clearBuffer(scratch, 0, this.module.scratch?.statusBytes);
    const pass = encoder.beginComputePass({ label: this.name });
    pass.setPipeline(this.#pipeline);
    pass.setBindGroup(0, bindGroup);
    for (let i = 0; i < times; i++) pass.dispatchWorkgroups(x, y, z);
    pass.end();
    const status =
      scratch && this.#device.createBuffer({ label: this.name, size: 4, usage: usage.mapRead | usage.copyDst });
    if (scratch && status) encoder.copyBufferToBuffer(scratch, 0, status, 0, 4);
    this.#device.queue.submit([encoder.finish()]);
    return status && this.#report(status);
  }

  /** Workgroups: no more than there may be scratch for. */
  #dispatch(grid: Grid): Grid {
    const [x, y, z] = this.module.workgroupCount(grid);
    const { statusBytes, groupBytes } = this.module.scratch ?? { statusBytes: 0, groupBytes: 0 };
    if (groupBytes === 0) return [x, y, z];
    const { maxStorageBufferBindingSize, maxBufferSize } = this.#device.limits;
    const most = Math.floor((Math.min(maxStorageBufferBindingSize, maxBufferSize) - statusBytes) / groupBytes);
    return [Math.min(x, most), y, z];
  }

  #scratchFor(groups: number): GPUBuffer | undefined {
    const { scratch } = this.module;
    if (!scratch) return undefined;
    const size = scratch.statusBytes + scratch.groupBytes * groups;
    if (this.#scratch && this.#scratch.size >= size) return this.#scratch;
    // Launches that use the smaller one are submitted: it goes when they are done.
    this.#scratch?.destroy();
    const bits = usage.storage | usage.copySrc | usage.copyDst;
    return (this.#scratch = this.#device.createBuffer({ label: `${this.name} scratch`, size, usage: bits }));
  }

  async #report(status: GPUBuffer): Promise<string | undefined> {
    try {
      await status.mapAsync(1);
      const stuck = new Uint32Array(status.getMappedRange())[0] !== 0;
      return stuck
        ? `Deadlock in "${this.name}": every warp that still runs waits for a barrier at which nobody arrives any more`
        : undefined;
    } finally {
      status.destroy();
    }
  }

  #checkOffsets(slices: readonly Slice[]): void {
    const unit = this.#device.limits.minStorageBufferOffsetAlignment;
    slices.forEach(({ offset }, i) => {
      if (offset % unit === 0) return;
      throw new UnsupportedError(
        `Tensor "${this.#tensorName(i)}" of kernel "${this.name}" starts at byte ${offset} of its storage, ` +
          `WGSL binds at multiples of ${unit}`,
        { hint: "Give it memory of its own, or place it at such a multiple." },
      );
    });
  }

  /** A buffer that a launch writes: every other use of it must be a write too, of other bytes. */
  #checkAliasing(slices: readonly Slice[]): void {
    slices.forEach((a, i) => {
      slices.slice(0, i).forEach((b, j) => {
        const writes = [i, j].filter((index) => this.module.tensors[index]?.access === "read_write").length;
        const overlap = a.offset < b.offset + b.size && b.offset < a.offset + a.size;
        if (a.buffer !== b.buffer || writes === 0 || (writes === 2 && !overlap)) return;
        throw new ArgumentError(
          `Parameters "${this.#tensorName(j)}" and "${this.#tensorName(i)}" of kernel "${this.name}" share memory, ` +
            (writes === 2 ? "and both are written" : "one is read, the other written"),
          { hint: "WGSL needs a storage of its own for each tensor that a kernel writes." },
        );
      });
    });
  }

  #tensorName(index: number): string {
    return this.module.tensors[index]?.name ?? String(index);
  }
}

function layoutEntries({ tensors, scratch }: WgslModule): GPUBindGroupLayoutEntry[] {
  const types: GPUBufferBindingType[] = tensors.map(({ access }) =>
    access === "read" ? "read-only-storage" : "storage",
  );
  const compute = 0x4;
  return [...types, "uniform" as const, ...(scratch ? ["storage" as const] : [])].map((type, binding) => ({
    binding,
    visibility: compute,
    buffer: { type },
  }));
}

function uniformBytes(scalars: readonly BoundScalar[], grid: Grid): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(roundUp((scalars.length + 3) * 4, 16)));
  scalars.forEach(({ dtype, value }, i) => {
    if (dtype.name === "f32") view.setFloat32(4 * i, value, true);
    else view.setUint32(4 * i, value, true);
  });
  grid.forEach((size, i) => view.setUint32(4 * (scalars.length + i), size, true));
  return new Uint8Array(view.buffer);
}

/** Dawn's messages, each with the line of WGSL that it is about. */
function explain(name: string, source: string, errors: readonly GPUCompilationMessage[]): string {
  const lines = source.split("\n");
  const described = errors.map(
    ({ message, lineNum }) => `  ${message}\n  WGSL line ${lineNum}: ${lines[lineNum - 1]?.trim() ?? ""}`,
  );
  return [`Dawn refused the WGSL of kernel "${name}":`, ...described].join("\n");
}

/** The message of something thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message.trim() : String(error);
}
