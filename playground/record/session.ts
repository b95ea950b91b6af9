/** Recording: runs specimens on a device and in the simulator, and keeps what the device said whether they agree or not. */
import type { Backend } from "../../backends/backend.ts";
import type { HostTensor } from "../../dsl/index.ts";
import { dataKinds } from "./data.ts";
import { type Instruction, kindsFor, matrixSpecimen } from "./matrix.ts";
import { describeDifference, differingElements, type Recorded } from "./recording.ts";
import { outputsOf, recordedOf } from "./replay.ts";
import { bitsOf, type Specimen, type Tensors } from "./specimen.ts";

/** An element in which a device and the simulator differ, in bits, with what went into it. */
export interface Evidence {
  readonly specimen: string;
  readonly output: string;
  readonly element: number;
  readonly device: string;
  readonly simulator: string;
  readonly terms: string | undefined;
}

/** What became of a specimen. */
export interface Taken {
  readonly name: string;
  /** Undefined where the device failed. */
  readonly recorded: Recorded | undefined;
  /** Numbers in its outputs. */
  readonly results: number;
  /** In which the simulator differs. */
  readonly wrong: number;
  /** The first difference, or the error, in words. */
  readonly problem: string | undefined;
  readonly evidence: readonly Evidence[];
}

/** Elements of each output that are kept as evidence. */
const mostEvidence = 50;

/** Runs a specimen on both; errors become a problem, for one of them must not end the session. */
export async function take(device: Backend, simulator: Backend, specimen: Specimen): Promise<Taken> {
  const { name } = specimen;
  let recorded: Recorded | undefined;
  try {
    const args = specimen.args();
    const outputs = await outputsOf(device, specimen, args);
    recorded = recordedOf(specimen, args, outputs);
    const expected = await outputsOf(simulator, specimen, args);
    return { name, recorded, ...compare(specimen, args, outputs, expected) };
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error);
    return { name, recorded, results: 0, wrong: 0, problem, evidence: [] };
  }
}

/** What was taken of `tiles` tiles of an instruction, in batches with data of their own; nothing of it is kept. */
export async function* takeTiles(
  device: Backend,
  simulator: Backend,
  instruction: Instruction,
  tiles: number,
): AsyncGenerator<Taken> {
  const kinds = kindsFor(instruction);
  const batch = 2048;
  for (let done = 0, seed = 1000; done < tiles; seed++) {
    const kind = kinds[seed % kinds.length] ?? dataKinds[0];
    const count = Math.min(batch, tiles - done);
    yield take(device, simulator, matrixSpecimen(instruction, kind, count, seed));
    done += count;
  }
}

function compare(specimen: Specimen, args: Tensors, outputs: Tensors, expected: Tensors) {
  let [results, wrong] = [0, 0];
  const problems: string[] = [];
  const evidence: Evidence[] = [];
  for (const [output, tensor] of Object.entries(outputs)) {
    const other = expected[output];
    if (!other) throw new RangeError(`the simulator gives no ${output}`);
    const elements = differingElements(tensor, other);
    results += tensor.bytes.length / tensor.dtype.bytes;
    wrong += elements.length;
    problems.push(...(elements.length > 0 ? [describeDifference(output, tensor, other) ?? ""] : []));
    for (const element of elements.slice(0, mostEvidence)) {
      const [device, simulator] = [hex(tensor, element), hex(other, element)];
      const terms = specimen.explain?.(args, element);
      evidence.push({ specimen: specimen.name, output, element, device, simulator, terms });
    }
  }
  return { results, wrong, problem: problems[0], evidence };
}

function hex(tensor: HostTensor, element: number): string {
  return (bitsOf(tensor)[element] ?? 0).toString(16).padStart(2 * tensor.dtype.bytes, "0");
}
