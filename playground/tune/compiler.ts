/** A child process of `npm run tune`: compiles kernels into the cache on disk, from where the measuring process takes them. */
import { compileCuda, type CudaArch, emitCuda } from "../../backends/cuda/index.ts";
import { bf16, f32 } from "../../dsl/index.ts";
import { kernelOf, parseChoice, type Product } from "../../kernels/linear-space.ts";

/** What to compile. */
export interface Job extends Product {
  readonly arch: CudaArch;
  readonly out: "f32" | "bf16";
  readonly choices: readonly string[];
}

process.on("message", ({ arch, out, choices, ...product }: Job) => {
  for (const choice of choices) {
    try {
      const kernel = kernelOf(parseChoice(choice), { ...product, out: out === "f32" ? f32 : bf16 });
      compileCuda(emitCuda(kernel.ir).source, { arch, name: kernel.name });
    } catch {
      // Whoever takes it from the cache will meet the same error, and report it.
    }
  }
  process.send?.("done");
});
