/** What tsc refuses of the run-time layer. Checked by `tsc`, not run: each `@ts-expect-error` fails where its line compiles. */
import { expectTypeOf, test } from "vitest";
import type { Executable } from "../backends/backend.ts";
import type { Arguments, Scalars } from "../backends/bind.ts";
import type { CudaBackend, CudaLaunch, CudaQueue, CudaStream, PinnedTensor } from "../backends/cuda/index.ts";
import type { DeviceTensor, FrozenTensor } from "../backends/tensor.ts";
import { bf16, f32, frozen, HostTensor, i32, inout, input, output, scalar } from "../dsl/index.ts";

const params = {
  w: frozen(bf16, [8]),
  x: input(f32, [8]),
  y: output(f32, [8]),
  z: inout(f32, [8]),
  alpha: scalar(f32),
  count: scalar(i32),
};
type P = typeof params;

interface Values {
  readonly executable: Executable<P>;
  readonly launch: CudaLaunch<P>;
  readonly cuda: CudaBackend;
  readonly stream: CudaStream;
  readonly weights: FrozenTensor<"bf16">;
  readonly plain: DeviceTensor<"bf16">;
  readonly floats: DeviceTensor<"f32">;
  readonly pinned: PinnedTensor<"f32">;
}

/** Type-checks a function without running it. */
const check = (_: (values: Values) => unknown): void => {};

test("frozen parameters take frozen tensors, the others any", () => {
  expectTypeOf<Arguments<P>>().toEqualTypeOf<{
    readonly w: FrozenTensor<"bf16">;
    readonly x: DeviceTensor<"f32">;
    readonly y: DeviceTensor<"f32">;
    readonly z: DeviceTensor<"f32">;
    readonly alpha: number;
    readonly count: number;
  }>();
  check(({ executable, weights, plain, floats }) => {
    const rest = { x: floats, y: floats, z: floats, alpha: 1, count: 2 };
    executable.bind({ w: weights, ...rest });
    executable.bind({ w: plain.freeze(), ...rest });
    executable.bind({ w: weights.view([8]), ...rest });
    executable.bind({ w: weights, ...rest, x: floats.freeze() });
    // @ts-expect-error not frozen
    executable.bind({ w: plain, ...rest });
    // @ts-expect-error a view of something that isn't frozen
    executable.bind({ w: plain.view([8]), ...rest });
    // @ts-expect-error frozen, but of another dtype
    executable.bind({ w: floats.freeze(), ...rest });
    // @ts-expect-error missing
    executable.bind(rest);
    // @ts-expect-error on the host
    executable.bind({ w: weights, ...rest, x: HostTensor.filled(f32, [8], 0) });
  });
});

test("set changes scalars", () => {
  expectTypeOf<Scalars<P>>().toEqualTypeOf<{ readonly alpha: number; readonly count: number }>();
  check(({ launch, floats }) => {
    launch.set({ alpha: 1 });
    launch.set({});
    // @ts-expect-error no such scalar
    launch.set({ beta: 1 });
    // @ts-expect-error a tensor
    launch.set({ x: floats });
  });
});

test("queues take copies of one dtype, and chains are ordinary functions", () => {
  check(({ cuda, stream, launch, floats, pinned, plain }) => {
    const chain = (on: CudaQueue) => {
      launch.launch(on);
      on.copy(pinned, floats);
      on.copy(floats, pinned);
      on.copy(floats, floats);
    };
    chain(stream);
    cuda.capture(chain).launch(stream);
    // @ts-expect-error of two dtypes
    stream.copy(pinned, plain);
    // @ts-expect-error ordinary host memory
    stream.copy(HostTensor.filled(f32, [8], 0), floats);
    // @ts-expect-error what is captured can neither wait nor be waited for
    cuda.capture((on) => on.synchronize());
    // @ts-expect-error an address is a bigint
    cuda.adoptTensor({ pointer: 4096, dtype: f32, shape: [1] });
  });
});
