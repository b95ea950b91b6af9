/** Comparing a target with the evaluator, and the data for it. */
import { expect } from "vitest";
import type { HostArguments } from "../../backends/run.ts";
import {
  type Expr,
  f32,
  HostTensor,
  i32,
  input,
  type Kernel,
  kernel,
  output,
  type Params,
  type Thread,
} from "../../dsl/index.ts";
import { seededRandom } from "../../kernels/index.ts";
import type { Target } from "./backends.ts";
import { evaluate, patterns } from "./evaluate.ts";

/** Runs on the target and on the evaluator, and compares bits. */
export async function agrees<P extends Params>(
  target: Target,
  device: Kernel<P>,
  args: HostArguments<P>,
): Promise<void> {
  const expected: Readonly<Record<string, HostTensor>> = evaluate(device, args);
  const actual: Readonly<Record<string, HostTensor>> = await target.run(device, args);
  for (const [name, tensor] of Object.entries(expected)) {
    const result = actual[name];
    expect(result && patterns(result), name).toEqual(patterns(tensor));
  }
}

const random = seededRandom(11);
export const integers = (count: number, low = -50, high = 50): HostTensor<"i32"> =>
  HostTensor.from(
    i32,
    [count],
    Array.from({ length: count }, () => low + Math.floor(random() * (high - low))),
  );
export const floats = (count: number): HostTensor<"f32"> =>
  HostTensor.from(
    f32,
    [count],
    Array.from({ length: count }, () => Math.fround((random() - 0.5) * 2 ** (20 * random()))),
  );

type Body = (t: Thread, x: (i: Expr<"i32">) => Expr<"i32">, put: (value: Expr<"i32">) => void) => void;

/** A kernel with one input x[threads] and several results per thread. */
export async function perThread(
  target: Target,
  name: string,
  block: number,
  results: number,
  body: Body,
): Promise<void> {
  const blocks = 2;
  const threads = block * blocks;
  const device = kernel(
    { name, grid: blocks, block, params: { x: input(i32, [threads]), y: output(i32, [results, threads]) } },
    (t) => {
      const { x, y } = t.pdl.wait();
      const id = t.block.x.mul(block).add(t.thread);
      let row = 0;
      body(
        t as Thread,
        (i) => x.load([i.add(t.block.x.mul(block))]),
        (value) => y.store([row++, id], value),
      );
      expect(row).toBe(results);
    },
  );
  await agrees(target, device, { x: integers(threads), y: HostTensor.filled(i32, [results, threads], 0x7f) });
}
