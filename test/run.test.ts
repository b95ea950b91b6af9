/** Running kernels on host data: what `run`, `prepare`, binding and `HostTensor` accept, and what they say otherwise. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../backends/backend.ts";
import { emitCuda } from "../backends/cuda/index.ts";
import { prepare, run } from "../backends/run.ts";
import { simulate } from "../backends/simulator/index.ts";
import { DeviceTensor, deviceTensor, frozenTensor } from "../backends/tensor.ts";
import { emitWgsl, openWgsl } from "../backends/wgsl/index.ts";
import {
  ArgumentError,
  DisposedError,
  f32,
  frozen,
  HostTensor,
  i32,
  inout,
  input,
  kernel,
  output,
  scalar,
  ShapeError,
  size,
  UnsupportedError,
} from "../dsl/index.ts";

let backend: Backend;
beforeAll(async () => {
  backend = await openWgsl();
});
afterAll(() => backend.dispose());

const double = kernel(
  { name: "double_it", grid: 1, block: 32, params: { x: input(f32, [32]), y: output(f32, [32]) } },
  (t) => {
    const { x, y } = t.pdl.wait();
    y.store([t.lane], x.load([t.lane]).mul(2));
  },
);
const counting = HostTensor.from(
  f32,
  [32],
  Array.from({ length: 32 }, (_, i) => i),
);

test("an output whose shape is known needs no argument", async () => {
  const { y } = await run(backend, double, { x: counting });
  expect([...y.values()]).toEqual(Array.from({ length: 32 }, (_, i) => 2 * i));
});

describe("an output with a run-time shape", () => {
  const [M, N] = [size("M", { max: 64 }), size("N", { max: 32 })];
  const config = {
    name: "copies",
    grid: M,
    block: 32,
    params: { y: output(f32, [M, 2, N]), x: input(f32, [N]), n: scalar(i32) },
  };
  /** x in both rows of each of the M pieces. */
  const copies = kernel(config, (t) => {
    const { x, y } = t.pdl.wait();
    t.when(t.lane.lt(N), () => {
      for (const row of [0, 1]) y.store([t.block.x, row, t.lane], x.load([t.lane]));
    });
  });
  const row = kernel({ ...config, params: { ...config.params, m: inout(i32, [M]) } }, (t) => {
    const { x, y } = t.pdl.wait();
    t.when(t.lane.lt(N), () => y.store([t.block.x, 1, t.lane], x.load([t.lane])));
  });
  const x = HostTensor.from(f32, [3], [1, 2, 3]);

  test("needs no argument where the other tensors fix it, and is NaN before the run", async () => {
    const args = { x, n: 0, m: HostTensor.filled(i32, [2], 0) };
    const [ran, { outputs, findings }] = [await run(backend, row, args), simulate(row, args)];
    for (const { y } of [ran, outputs]) {
      expect(y.shape).toEqual([2, 2, 3]);
      expect([...y.values()]).toEqual([NaN, NaN, NaN, 1, 2, 3, NaN, NaN, NaN, 1, 2, 3]);
    }
    expect(findings).toEqual([]);
  });

  test("needs one otherwise, and the message says which size is open and how", async () => {
    const said =
      "copies: y is an output whose shape [M, 2, N] is known only at launch, and no other argument fixes M\n" +
      "  Pass y: HostTensor.filled(f32, [m, 2, 3], 0xff)";
    await expect(run(backend, copies, { x, n: 0 })).rejects.toThrow(said);
    expect(() => simulate(copies, { x, n: 0 })).toThrow(said);
    expect(() => simulate(copies, { x, n: 0 })).toThrow(ArgumentError);
    const y = HostTensor.filled(f32, [1, 2, 3], 0xff);
    expect([...(await run(backend, copies, { x, n: 0, y })).y.values()]).toEqual([1, 2, 3, 1, 2, 3]);
  });

  test("takes no size from what doesn't fit: that is refused", () => {
    const m = HostTensor.filled(i32, [65], 0);
    expect(() => simulate(row, { x, n: 0, m })).toThrow("copies: the size M is 65");
    const flat = { x: HostTensor.filled(f32, [3, 1], 0), n: 0, m: HostTensor.filled(i32, [2], 0) };
    expect(() => simulate(row, flat)).toThrow(/copies: x must have shape \[N\], got/);
  });
});

test("what is no host tensor is refused with what to write", async () => {
  const wrong = { x: new Float32Array(32) } as never;
  await expect(run(backend, double, wrong)).rejects.toThrow(
    /double_it: x must be a HostTensor\n.*HostTensor\.from\(f32, \[32\], values\)/,
  );
});

test("memory that a kernel writes belongs to one parameter", async () => {
  const executable = await backend.compile(double);
  const tensor = deviceTensor(backend, f32, [32]);
  expect(() => executable.bind({ x: tensor, y: tensor })).toThrow(ArgumentError);
  expect(() => executable.bind({ x: tensor, y: tensor })).toThrow(
    /x and y share memory that the kernel writes\n.*\n.*inout/,
  );
  // WGSL needs more than CUDA: storage of its own for what is written.
  const wide = backend.allocate(1024);
  const [low, high] = [new DeviceTensor(wide, f32, [32], 0), new DeviceTensor(wide, f32, [32], 512)];
  expect(() => executable.bind({ x: low, y: high })).toThrow(
    /"x" and "y" of kernel "double_it" share memory, one is read/,
  );
});

test("frozen parameters take frozen tensors, which run and prepare make by themselves", async () => {
  const shift = kernel(
    { name: "shift", grid: 1, block: 32, params: { by: frozen(f32, [32]), y: inout(f32, [32]), scale: scalar(f32) } },
    (t, { by, scale }) => {
      const early = by.load([t.lane]);
      const { y } = t.pdl.wait();
      y.store([t.lane], y.load([t.lane]).mul(scale).add(early));
    },
  );
  const { y } = await run(backend, shift, { by: counting, y: counting, scale: 10 });
  expect([...y.values()]).toEqual(Array.from({ length: 32 }, (_, i) => 11 * i));

  const executable = await backend.compile(shift);
  const by = deviceTensor(backend, counting);
  const target = deviceTensor(backend, counting);
  expect(() => executable.bind({ by: by as never, y: target, scale: 0 })).toThrow(
    /shift: by is a frozen parameter.*\n.*\n.*frozenTensor\(backend, hostTensor\), or by\.freeze\(\)/,
  );
  const launch = executable.bind({ by: by.freeze(), y: target, scale: 0 });
  launch.launch();
  launch.set({ scale: 2 });
  launch.launch();
  expect([...(await target.read()).values()]).toEqual(Array.from({ length: 32 }, (_, i) => 3 * i));
  expect(() => launch.set({ scale: NaN })).toThrow("shift: scale is NaN");

  expect(() => by.write(counting)).toThrow(/This memory is frozen.*\n.*frozen at test\/run\.test\.ts:\d+/);
  target.freeze();
  expect(() => launch.launch()).toThrow(/shift: y is inout, but the tensor given is frozen/);
  expect(() => executable.bind({ by: frozenTensor(backend, counting), y: target, scale: 0 })).toThrow(
    /shift: y is inout, but the tensor given is frozen[^]*frozen at test\/run\.test\.ts:\d+/,
  );
});

test("a prepared run frees its tensors, by itself at the end of `using`", async () => {
  let prepared;
  {
    using inner = await prepare(backend, double, { x: counting });
    inner.launch();
    inner.launch();
    expect((await inner.read()).y.values()[31]).toBe(62);
    expect(await inner.timeUs(2)).toBeGreaterThan(0);
    prepared = inner;
  }
  expect(() => prepared.launch()).toThrow(DisposedError);
});

test("a kernel is compiled once per backend", async () => {
  expect(await backend.compile(double)).toBe(await backend.compile(double));
});

test("a grid beyond what WGSL dispatches is refused before it runs", () => {
  const wide = kernel(
    { name: "wide", grid: [70_000, 65_535], block: 32, params: { y: inout(f32, [1]) } },
    (t) => void t.pdl.wait(),
  );
  expect(() => emitWgsl(wide.ir).workgroupCount([70_000, 65_535, 1])).toThrow(UnsupportedError);
  expect(emitWgsl(wide.ir).workgroupCount([70_000, 2, 1])).toEqual([65_535, 3, 1]);
});

test("shapes and values of host tensors", () => {
  expect(() => HostTensor.filled(f32, [2.5], 0)).toThrow(ShapeError);
  expect(() => HostTensor.filled(f32, [-1, -4], 0)).toThrow(/whole numbers, not \[-1,-4\]/);
  expect(() => HostTensor.from(f32, [4], [1, 2, 3])).toThrow(
    /f32\[4\] has 4 elements, but 3 were given\n {2}at test\/run\.test\.ts/,
  );
  expect(() =>
    HostTensor.from(f32, [2, 2], [
      [1, 2],
      [3, 4],
    ] as never),
  ).toThrow(/one flat list/);
});

test("an array's initial value is loaded once", () => {
  const { ir } = kernel(
    { name: "init", grid: 1, block: 32, params: { w: frozen(i32, [32]), y: output(i32, [32]) } },
    (t, { w }) => {
      const copies = t.array(i32, 4, { init: w.load([t.lane]) });
      const { y } = t.pdl.wait();
      y.store([t.lane], copies.get(t.lane.rem(4)));
    },
  );
  const body = emitCuda(ir, { lineDirectives: false }).source.split("\n");
  expect(body.filter((line) => line.includes("load_frozen_i32(&")).every((line) => !line.includes("for ("))).toBe(true);
});
