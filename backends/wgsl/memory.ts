/** How a kernel's tensors and shared memory are declared: arrays of 32-bit words, within the limits that every device has. */
import { UnsupportedError } from "../../dsl/errors.ts";
import { isWritten, type KernelIR, type Memory, type Tensor, walk } from "../../dsl/ir.ts";
import type { Names } from "../lowering/names.ts";
import type { Binding } from "./prelude.ts";

/** The default limits of WebGPU. */
const maxWorkgroupBytes = 16_384;
const maxStorageBuffers = 8;

export interface MemoryDeclarations {
  readonly declarations: readonly string[];
  readonly bindings: ReadonlyMap<Memory, Binding>;
}

export const accessOf = ({ role }: Tensor): "read" | "read_write" => (isWritten(role) ? "read_write" : "read");

/** @throws UnsupportedError that names what there is no room for */
export function declareMemory(ir: KernelIR, names: Names): MemoryDeclarations {
  if (ir.tensors.length > maxStorageBuffers) {
    throw new UnsupportedError(`${ir.name} has ${ir.tensors.length} tensors; WGSL binds at most ${maxStorageBuffers}`, {
      at: ir.at,
    });
  }
  const atomics = atomicMemories(ir);
  const bindings = new Map<Memory, Binding>();
  /** `name: array<word, count>;  // dtype [shape]` */
  const declare = (memory: Memory, count?: number): string => {
    const isAtomic = atomics.has(memory);
    const name = names.fresh(memory.name);
    bindings.set(memory, { memory, name, isAtomic });
    const type = [isAtomic ? "atomic<u32>" : "u32", ...(count === undefined ? [] : [count])].join(", ");
    return `${name}: array<${type}>;  // ${memory.dtype.name} [${memory.shape.join(", ")}]`;
  };
  const tensors = ir.tensors.map(
    (tensor, i) => `@group(0) @binding(${i}) var<storage, ${accessOf(tensor)}> ${declare(tensor)}`,
  );
  let bytes = 0;
  const shared = ir.shared.map((memory) => {
    const count = memory.shape.reduce((a, b) => a * b, 1);
    bytes += Math.ceil((count * 4) / 16) * 16;
    if (bytes > maxWorkgroupBytes) {
      throw new UnsupportedError(
        `${ir.name} needs ${bytes} bytes of shared memory in WGSL, where each element takes 4 bytes; there are ${maxWorkgroupBytes}`,
        { at: memory.at },
      );
    }
    return `var<workgroup> ${declare(memory, count)}`;
  });
  return { declarations: [...tensors, ...shared], bindings };
}

/** Memories whose words must be atomic: those with atomics, and tensors with stores of less than a word. */
function atomicMemories(ir: KernelIR): ReadonlySet<Memory> {
  const atomics = new Set<Memory>();
  walk(ir.body, (stmt) => {
    if (stmt.kind === "let" && stmt.value.op.kind === "atomic") atomics.add(stmt.value.op.memory);
    if (stmt.kind !== "store" || stmt.memory.kind === "shared") return;
    if (stmt.value.type.lanes * stmt.memory.dtype.bytes < 4) atomics.add(stmt.memory);
  });
  return atomics;
}
