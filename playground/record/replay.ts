/** Runs specimens: to record what a device makes of them, and to compare others with what was recorded. */
import type { Backend } from "../../backends/backend.ts";
import { type HostArguments, run } from "../../backends/run.ts";
import { HostTensor } from "../../dsl/index.ts";
import { checkInterval } from "../../kernels/index.ts";
import {
  difference,
  inputsHash,
  type Recorded,
  type Recording,
  recordedOutput,
  requireFresh,
  sourceHash,
} from "./recording.ts";
import type { Specimen, Tensors } from "./specimen.ts";

/** What a device makes of a specimen. @throws as run() */
export async function outputsOf(backend: Backend, { kernel, args }: Specimen, given = args()): Promise<Tensors> {
  return run(backend, kernel, given as HostArguments<typeof kernel.params>);
}

/** What is kept of a specimen's outputs. */
export function recordedOf(specimen: Specimen, args: Tensors, outputs: Tensors): Recorded {
  const kept = Object.entries(outputs).map(([name, tensor]) => [name, recordedOutput(tensor)] as const);
  return {
    source: sourceHash(specimen.kernel),
    inputs: inputsHash(specimen, args),
    outputs: Object.fromEntries(kept),
  };
}

/**
 * Runs a specimen on WGSL or in the simulator and says what is wrong with its outputs; nothing where they are what they must
 * be. On any other device they must be the recorded bits, too.
 * @throws RecordingError when what was recorded is stale
 */
export async function replay(recording: Recording, specimen: Specimen, backend: Backend): Promise<readonly string[]> {
  const args = specimen.args();
  const recorded = requireFresh(recording, specimen, args);
  const { wgsl } = specimen;
  const must = backend.name === "wgsl" ? wgsl : "bits";
  if (must === "nothing") return [];
  const outputs = await outputsOf(backend, specimen, args);
  const wrong =
    must === "interval"
      ? []
      : Object.entries(outputs).flatMap(([name, tensor]) => difference(name, recorded.outputs[name], tensor) ?? []);
  return wgsl === "interval" ? [...wrong, ...outside(specimen, args, outputs, backend.name)] : wrong;
}

/** What lies outside of the interval around float64. */
function outside({ exact }: Specimen, args: Tensors, outputs: Tensors, device: Backend["name"]): readonly string[] {
  const known = exact?.(args);
  const tensor = known && outputs[known.output];
  if (!known || !(tensor instanceof HostTensor)) return ["nothing says what is right"];
  const { values, magnitudes, terms, partials } = known;
  const { wrong, first } = checkInterval(tensor, values, magnitudes, { terms, partials, device });
  if (!first) return [];
  const { index, actual, low, high } = first;
  return [
    `${wrong} elements of ${known.output} lie outside of their interval; first [${index.join(", ")}]: ${actual}, not in [${low}, ${high}]`,
  ];
}
