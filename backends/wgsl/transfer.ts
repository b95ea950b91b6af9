/** Bytes between the host and a GPUBuffer, at any offset and length. WebGPU itself moves whole 4-byte words only. */

/** Bits of GPUBufferUsage and GPUMapMode; Node has no such globals. */
export const usage = { mapRead: 0x1, copySrc: 0x4, copyDst: 0x8, uniform: 0x40, storage: 0x80 } as const;

/** The least multiple of `unit` that is >= `n`. */
export function roundUp(n: number, unit: number): number {
  return Math.ceil(n / unit) * unit;
}

/** words[i] = (words[i] & keep) | bits. */
const patchSource = `
struct Patch { word: u32, keep: u32, bits: u32 }
@group(0) @binding(0) var<storage, read_write> words: array<u32>;
@group(0) @binding(1) var<uniform> patch_: Patch;
@compute @workgroup_size(1) fn patchWord() {
  words[patch_.word] = (words[patch_.word] & patch_.keep) | patch_.bits;
}`;

/** Enqueues copies on one device, in order with its launches. */
export class Transfer {
  readonly #device: GPUDevice;
  #patch: { readonly pipeline: GPUComputePipeline; readonly uniform: GPUBuffer } | undefined;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /**
   * Enqueues a copy of host bytes. The buffer's size is a multiple of 4, its bytes from `end` on are padding.
   * A word of which only a part is written is merged on the device: a kernel may have written the other part.
   */
  write(buffer: GPUBuffer, end: number, offset: number, bytes: Uint8Array): void {
    if (bytes.byteLength === 0) return;
    const stop = offset + bytes.byteLength;
    const first = offset - (offset % 4);
    const last = roundUp(stop, 4);
    const aligned = new Uint8Array(last - first);
    aligned.set(bytes, offset - first);

    const headIsWhole = offset === first;
    const tailIsWhole = stop === last || stop === end;
    const from = headIsWhole ? first : first + 4;
    const to = tailIsWhole ? last : last - 4;
    if (to > from) this.#device.queue.writeBuffer(buffer, from, aligned, from - first, to - from);

    const view = new DataView(aligned.buffer);
    const ragged = new Set([...(headIsWhole ? [] : [first]), ...(tailIsWhole ? [] : [last - 4])]);
    for (const word of ragged) {
      let keep = 0;
      for (let byte = 0; byte < 4; byte++) if (word + byte < offset || word + byte >= stop) keep |= 0xff << (8 * byte);
      this.#patchWord(buffer, word / 4, keep, view.getUint32(word - first, true));
    }
  }

  /** Copies bytes back after everything enqueued so far. Rejects when the device is destroyed or lost meanwhile. */
  async read(buffer: GPUBuffer, offset: number, byteLength: number): Promise<Uint8Array<ArrayBuffer>> {
    if (byteLength === 0) return new Uint8Array(0);
    const first = offset - (offset % 4);
    const size = roundUp(offset + byteLength, 4) - first;
    const staging = this.#device.createBuffer({ label: "read", size, usage: usage.mapRead | usage.copyDst });
    try {
      const encoder = this.#device.createCommandEncoder({ label: "read" });
      encoder.copyBufferToBuffer(buffer, first, staging, 0, size);
      this.#device.queue.submit([encoder.finish()]);
      await staging.mapAsync(usage.mapRead);
      return new Uint8Array(staging.getMappedRange().slice(offset - first, offset - first + byteLength));
    } finally {
      staging.destroy();
    }
  }

  #patchWord(buffer: GPUBuffer, word: number, keep: number, bits: number): void {
    const device = this.#device;
    this.#patch ??= {
      pipeline: device.createComputePipeline({
        label: "patch",
        layout: "auto",
        compute: { module: device.createShaderModule({ label: "patch", code: patchSource }) },
      }),
      uniform: device.createBuffer({ label: "patch", size: 16, usage: usage.uniform | usage.copyDst }),
    };
    const { pipeline, uniform } = this.#patch;
    device.queue.writeBuffer(uniform, 0, new Uint32Array([word, keep, bits, 0]));
    const layout = pipeline.getBindGroupLayout(0);
    const entries = [buffer, uniform].map((resource, binding) => ({ binding, resource: { buffer: resource } }));
    const encoder = device.createCommandEncoder({ label: "patch" });
    const pass = encoder.beginComputePass({ label: "patch" });
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ label: "patch", layout, entries }));
    pass.dispatchWorkgroups(1);
    pass.end();
    device.queue.submit([encoder.finish()]);
  }
}
