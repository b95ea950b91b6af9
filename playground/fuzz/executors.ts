/** Where programs run, by the names that --devices takes. */
import type { Backend } from "../../backends/backend.ts";
import { openCuda } from "../../backends/cuda/index.ts";
import { openSimulator } from "../../backends/simulator/index.ts";
import { openWgsl } from "../../backends/wgsl/index.ts";
import { ArgumentError, NotFoundError } from "../../dsl/index.ts";

/** A backend, and how a reproduction opens it. */
export interface Executor {
  readonly name: string;
  readonly backend: Backend;
  /** Where `open` is imported from. */
  readonly module: string;
  readonly open: string;
}

/** `seed`: of the order in which the simulator runs warps. */
function ways(seed: number): Readonly<Record<string, readonly [module: string, open: string, () => Promise<Backend>]>> {
  const wgsl = (device: "gpu" | "lavapipe" | "swiftshader") =>
    ["tegula/wgsl", `openWgsl({ device: "${device}" })`, () => openWgsl({ device })] as const;
  return {
    simulator: ["tegula/simulator", `openSimulator({ seed: ${seed} })`, () => openSimulator({ seed })],
    gpu: wgsl("gpu"),
    lavapipe: wgsl("lavapipe"),
    swiftshader: wgsl("swiftshader"),
    cuda: ["tegula/cuda", "openCuda()", () => openCuda()],
  };
}

/** Tried where nothing is said. Vulkan on a GPU is not among them: compilers of its drivers rearrange f32 arithmetic. */
const usual = ["simulator", "swiftshader", "lavapipe", "cuda"];

/**
 * Opens what was asked for, or all the usual ones that are here. The first is what the others are compared with.
 * @throws ArgumentError, NotFoundError when something that was asked for is missing, or nothing is there but the simulator
 */
export async function openExecutors(asked: readonly string[] | undefined, seed: number): Promise<readonly Executor[]> {
  const known = ways(seed);
  const executors: Executor[] = [];
  for (const name of asked ?? usual) {
    const way = Object.hasOwn(known, name) ? known[name] : undefined;
    if (!way) {
      throw new ArgumentError(`There is no device "${name}"`, {
        hint: `Choose among ${Object.keys(known).join(", ")}`,
      });
    }
    const [module, open, start] = way;
    try {
      executors.push({ name, module, open, backend: await start() });
    } catch (error) {
      if (asked || !(error instanceof NotFoundError)) throw error;
    }
  }
  if (asked || executors.length > 1) return executors;
  throw new NotFoundError("There is only the simulator here, and nothing to compare it with", {
    hint: "`npm run doctor` says what is missing; `--devices simulator` looks for hazards alone",
  });
}
