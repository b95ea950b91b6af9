/**
 * How a kernel's tensors and shared memory are declared: arrays of 32-bit words, within the limits that every device has.
 * The shared memory of all blocks of a cluster lies in workgroup memory, or where that is too small in scratch: a storage
 * buffer of the runtime's with a piece for each workgroup.
 */
import { UnsupportedError } from "../../dsl/errors.ts";
import { isWritten, type KernelIR, type Memory, type Tensor, walk } from "../../dsl/ir.ts";
import type { Names } from "../lowering/names.ts";
import type { Binding } from "./prelude.ts";

/** The default limits of WebGPU. */
const maxWorkgroupBytes = 16_384;
const maxStorageBuffers = 8;

/** Words at the start of scratch that report; word 0: a cluster was stuck. */
export const statusWords = 4;

/** The storage buffer that the runtime adds. */
export interface Scratch {
  /** 0: it holds the status only. */
  readonly wordsPerBlock: number;
  /** `scratch[0] = 1u` as WGSL writes it. */
  readonly report: string;
}

export interface MemoryDeclarations {
  readonly declarations: readonly string[];
  readonly bindings: ReadonlyMap<Memory, Binding>;
  readonly scratch: Scratch | undefined;
}

export const accessOf = ({ role }: Tensor): "read" | "read_write" => (isWritten(role) ? "read_write" : "read");

const wordsOf = ({ shape }: { readonly shape: readonly number[] }): number => shape.reduce((a, b) => a * b, 1);

/**
 * `syncBytes`: workgroup memory that synchronisation takes; undefined where barriers do.
 * @throws UnsupportedError that names what there is no room for
 */
export function declareMemory(ir: KernelIR, names: Names, syncBytes: number | undefined): MemoryDeclarations {
  const most = `WGSL binds at most ${maxStorageBuffers}`;
  if (ir.tensors.length > maxStorageBuffers) {
    throw new UnsupportedError(`${ir.name} has ${ir.tensors.length} tensors; ${most}`, { at: ir.at });
  }
  const sharedBytes = ir.shared.reduce((sum, memory) => sum + Math.ceil((wordsOf(memory) * ir.cluster) / 4) * 16, 0);
  const spills = sharedBytes > 0 && sharedBytes + (syncBytes ?? 0) > maxWorkgroupBytes;
  const isFull = ir.tensors.length === maxStorageBuffers;
  if (spills && isFull) {
    throw new UnsupportedError(
      `${ir.name} needs ${sharedBytes} bytes of shared memory in WGSL, where each element takes 4 bytes; over ` +
        `${maxWorkgroupBytes} it lies in a buffer of its own beside the kernel's ${ir.tensors.length} tensors, and ${most}`,
      { at: ir.shared[0]?.at ?? ir.at },
    );
  }

  const atomics = atomicMemories(ir);
  const bindings = new Map<Memory, Binding>();
  const wordType = (isAtomic: boolean): string => (isAtomic ? "atomic<u32>" : "u32");
  const comment = (memory: Memory): string => `// ${memory.dtype.name} [${memory.shape.join(", ")}]`;
  const declarations = ir.tensors.map((tensor, i) => {
    const isAtomic = atomics.has(tensor);
    const name = names.fresh(tensor.name);
    bindings.set(tensor, { memory: tensor, name, isAtomic });
    return `@group(0) @binding(${i}) var<storage, ${accessOf(tensor)}> ${name}: array<${wordType(isAtomic)}>;  ${comment(tensor)}`;
  });

  let wordsPerBlock = 0;
  const scratchIsAtomic = spills && ir.shared.some((memory) => atomics.has(memory));
  for (const memory of ir.shared) {
    const words = wordsOf(memory);
    if (spills) {
      const offset = wordsPerBlock;
      bindings.set(memory, { memory, name: "scratch", isAtomic: scratchIsAtomic, offset });
      declarations.push(`// ${memory.name}: scratch word ${offset} on of each block  ${comment(memory)}`);
      wordsPerBlock += words;
      continue;
    }
    const isAtomic = atomics.has(memory);
    const name = names.fresh(memory.name);
    bindings.set(memory, { memory, name, isAtomic });
    declarations.push(
      `var<workgroup> ${name}: array<${wordType(isAtomic)}, ${words * ir.cluster}>;  ${comment(memory)}`,
    );
  }
  const needsScratch = spills || (syncBytes !== undefined && !isFull);
  if (!needsScratch) return { declarations, bindings, scratch: undefined };
  const binding = `@group(0) @binding(${ir.tensors.length + 1}) var<storage, read_write>`;
  declarations.push(`${binding} scratch: array<${wordType(scratchIsAtomic)}>;`);
  const report = scratchIsAtomic ? "atomicStore(&scratch[0], 1u);" : "scratch[0] = 1u;";
  return { declarations, bindings, scratch: { wordsPerBlock, report } };
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
