/** How a ring of stages in shared memory is filled by TMA, in kernels that multiply frozen weights by tokens. */
import type { Expr, Pipeline, Thread } from "../dsl/index.ts";

/** Asks for the boxes of stage `i`; by one thread. */
type Ask = (i: Expr<"i32">) => void;

/**
 * By one whole warp. Weights of all stages are on their way before the wait for the kernel ahead, tokens follow after it;
 * then both, whenever a stage is free. Weights announce the bytes of both. `wait` waits, and says how tokens are asked for.
 */
export function fillRing(t: Thread, ring: Pipeline, steps: Expr<"i32">, weights: Ask, wait: () => Ask): void {
  const early = steps.min(ring.stages);
  const forAll = (ask: Ask) =>
    t.when(t.lane.eq(0), () => {
      for (const i of t.range(early)) ask(i);
    });
  forAll(weights);
  const tokens = wait();
  forAll(tokens);
  for (const i of t.range(early, steps)) {
    ring.acquire(i);
    t.when(t.lane.eq(0), () => {
      weights(i);
      tokens(i);
    });
  }
}
