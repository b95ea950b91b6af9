/** The simulator as a backend: launches that come to findings, memory that nobody wrote, what it can't tell. */
import { inspect } from "node:util";
import { afterAll, expect, test } from "vitest";
import { deviceTensor, HazardError, openSimulator, run, simulate } from "../../backends/simulator/index.ts";
import {
  ArgumentError,
  DisposedError,
  f32,
  HostTensor,
  i32,
  input,
  kernel,
  output,
  printKernel,
  UnsupportedError,
} from "../../dsl/index.ts";

const range = (count: number): readonly number[] => Array.from({ length: count }, (_, i) => i);
const backend = await openSimulator();
afterAll(() => backend.dispose());

/** A warp whose lanes exchange what they store without a barrier. */
const hasty = kernel({ name: "hasty", grid: 1, block: 32, params: { y: output(i32, [32]) } }, (t) => {
  const { y } = t.pdl.wait();
  const s = t.shared(i32, [32]);
  s.store([t.thread], t.thread); // store
  y.store([t.thread], s.load([t.thread.xor(31)]));
});

const copy = (count: number) =>
  kernel({ name: "copy", grid: 1, block: 32, params: { x: input(f32, [32]), y: output(f32, [32]) } }, (t) => {
    const { x, y } = t.pdl.wait();
    t.when(t.lane.lt(count), () => y.store([t.lane], x.load([t.lane])));
  });

test("a launch that comes to findings throws them, after it has run", async () => {
  const y = deviceTensor(backend, i32, [32]);
  const launch = (await backend.compile(hasty)).bind({ y });
  const error = (() => {
    try {
      return launch.launch();
    } catch (error) {
      return error;
    }
  })();
  expect(error).toBeInstanceOf(HazardError);
  expect(String(error)).toMatch(
    /^HazardError: hasty: race: s\[\d+\] is read by warp \d, [^]*\n {2}at test\/simulator\/runtime\.test\.ts:\d+[^]*\n {2}it was written at test\/simulator\/runtime\.test\.ts:\d+/,
  );
  expect(String(error)).toMatch(/\n {2}Put t\.warpBarrier\(\) between the two, and at the end of a loop around them$/);
  expect(inspect(error)).not.toContain("simulation:");
  const { simulation } = error as HazardError;
  expect(simulation.findings).toMatchObject([{ kind: "race" }]);
  expect((await y.read()).bytes).toEqual((simulation.outputs as { readonly y: HostTensor }).y.bytes);
  await expect(run(backend, hasty, {})).rejects.toThrow(HazardError);
  expect(launch.simulate().findings).toHaveLength(1);
});

test("memory that nobody wrote is known as such, from kernel to kernel", async () => {
  const fresh = () => deviceTensor(backend, f32, [32]);
  const [x, y, z] = [fresh(), fresh(), fresh()];
  const [whole, half] = [await backend.compile(copy(32)), await backend.compile(copy(16))];
  expect(() => whole.bind({ x, y: fresh() }).launch()).toThrow(
    /uninitialised: x\[0\] is read by warp 0, lane 0: nobody has written it/,
  );
  x.write(HostTensor.from(f32, [32], range(32)));
  half.bind({ x, y }).launch();
  half.bind({ x: y, y: z }).launch();
  expect(() => whole.bind({ x: y, y: fresh() }).launch()).toThrow(/uninitialised: x\[16\] is read/);
  whole.bind({ x, y }).launch();
  whole.bind({ x: y, y: z }).launch();
  expect([...(await z.read()).values()]).toEqual(range(32));
  // Results alone: whoever reads anything is right.
  await using quick = await openSimulator({ check: "values" });
  const [u, v] = [deviceTensor(quick, f32, [32]), deviceTensor(quick, f32, [32])];
  (await quick.compile(copy(32))).bind({ x: u, y: v }).launch();
  expect([...(await v.read()).values()]).toEqual(new Array(32).fill(NaN));
});

test("its source is the IR; it has no compiler and no clock", async () => {
  const executable = await backend.compile(hasty);
  expect(executable.source).toBe(printKernel(hasty.ir));
  expect(executable.compileMs).toBe(0);
  const launch = executable.bind({ y: deviceTensor(backend, i32, [32]) });
  await expect(launch.timeUs()).rejects.toThrow(UnsupportedError);
  await expect(launch.timeUs()).rejects.toThrow(/no clock[^]*counts/);
});

test("a schedule is named by its seed", async () => {
  expect(backend.device).toBe("simulator");
  expect((await openSimulator({ seed: 7 })).device).toBe("simulator, schedule 7");
});

test("after dispose not even a launch without tensors is possible", async () => {
  const other = await openSimulator();
  const empty = kernel({ name: "empty", grid: 1, block: 32, params: {} }, (t) => void t.pdl.wait());
  const launch = (await other.compile(empty)).bind({});
  launch.launch();
  await other.dispose();
  expect(() => launch.launch()).toThrow(DisposedError);
});

test("an allocation beyond all room is refused, and the next one works", () => {
  expect(() => backend.allocate(2 ** 50)).toThrow(/There is no room for 1125899906842624 bytes/);
  expect(backend.allocate(4).byteLength).toBe(4);
});

test("simulate() is one launch of it: the same results, the same complaints about arguments", async () => {
  const x = HostTensor.from(f32, [32], range(32));
  const { y } = await run(backend, copy(32), { x });
  expect(simulate(copy(32), { x }).outputs.y.bytes).toEqual(y.bytes);
  const short = { x: HostTensor.from(f32, [2], [1, 2]) };
  expect(() => simulate(copy(32), short)).toThrow(ArgumentError);
  await expect(run(backend, copy(32), short)).rejects.toThrow("copy: x must have shape [32], got f32[2]");
});
