/**
 * Loaded into the fuzzer's worker before it starts (NODE_OPTIONS=--import): an executor with a fault in it. TEGULA_PLANT says
 * which: "wrong" makes the simulator take abs for neg, "die" ends the process at a kernel with blocks of 96 threads.
 */
import { SimulatorBackend } from "../../backends/simulator/runtime.ts";
import type { Kernel, Params } from "../../dsl/index.ts";
import { rewritten } from "../simulator/mutate.ts";

/** The kernel with abs for neg. */
export function unsigned<P extends Params>(kernel: Kernel<P>): Kernel<P> {
  return rewritten(kernel, (op) => (op.kind === "unary" && op.fn === "neg" ? { ...op, fn: "abs" } : undefined));
}

const { compile } = SimulatorBackend.prototype;
const plant = process.env["TEGULA_PLANT"];
if (plant !== undefined) {
  SimulatorBackend.prototype.compile = function <P extends Params>(this: SimulatorBackend, kernel: Kernel<P>) {
    if (plant === "die" && kernel.ir.block === 96) process.exit(3);
    return compile.call(this, plant === "wrong" ? unsigned(kernel) : kernel) as ReturnType<typeof compile<P>>;
  };
}
