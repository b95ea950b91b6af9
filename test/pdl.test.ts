/**
 * Programmatic dependent launch: the wait is what makes a consumer right. The producer lets its dependents start at once,
 * sleeps, and only then stores; whoever reads without waiting reads old data.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../backends/backend.ts";
import { emitCuda } from "../backends/cuda/index.ts";
import { deviceTensor, frozenTensor } from "../backends/tensor.ts";
import { f32, frozen, HostTensor, input, type Kernel, kernel, output, type Params, PdlError } from "../dsl/index.ts";
import { verify } from "../dsl/verify/verify.ts";
import { devices, mustCompile } from "./harness.ts";

const count = 1024;
const poison = -1;

const lateProducer = kernel(
  {
    name: "late_producer",
    grid: count / 32,
    block: 32,
    params: { value: input(f32, [1]), data: output(f32, [count]) },
  },
  (t) => {
    t.pdl.launchDependents();
    const { value, data } = t.pdl.wait();
    t.sleep(100_000);
    data.store([t.block.x.mul(32).add(t.lane)], value.load([0]));
  },
);

const consumer = kernel(
  {
    name: "consumer",
    grid: count / 32,
    block: 32,
    params: { bias: frozen(f32, [1]), data: input(f32, [count]), result: output(f32, [count]) },
  },
  (t, { bias }) => {
    const early = bias.load([0]);
    t.pdl.launchDependents();
    const { data, result } = t.pdl.wait();
    const i = t.block.x.mul(32).add(t.lane);
    const value = data.load([i]);
    result.store([i], value.add(early));
  },
);

/** The consumer with its wait moved behind the load: what the types keep an author from writing. */
function hurried<P extends Params>(good: Kernel<P>): Kernel<P> {
  const wait = good.ir.body.find((stmt) => stmt.kind === "pdlWait");
  const load = good.ir.body.findLastIndex((stmt) => stmt.kind === "let" && stmt.value.op.kind === "load");
  if (!wait) throw new Error("no wait");
  const body = good.ir.body.flatMap((stmt, i) => (stmt === wait ? [] : i === load ? [stmt, wait] : [stmt]));
  return { ...good, ir: { ...good.ir, name: "hurried_consumer", body } };
}

test("the verifier rejects a consumer that reads before it waits, and names both lines", () => {
  const broken = hurried(consumer);
  expect(() => verify(broken.ir)).toThrow(PdlError);
  expect(() => verify(broken.ir)).toThrow(
    /A load of data, which is an input, stands before the wait\n {2}at test\/pdl\.test\.ts:\d+:\d+\n.*the wait is at test\/pdl\.test\.ts:/,
  );
});

test("the wait and the launch stand in the CUDA C where the author put them", () => {
  const { source } = emitCuda(consumer.ir, { lineDirectives: false });
  const body = source.slice(source.indexOf("__global__"));
  const places = ["bias", "pdl_launch_dependents()", "pdl_wait()", "= data[", "result["].map((text) =>
    body.lastIndexOf(text),
  );
  expect(places).toEqual(places.toSorted((a, b) => a - b));
  expect(places).not.toContain(-1);
});

describe.each(devices)("a late producer on $name", ({ name, missing, open }) => {
  let backend: Backend;
  beforeAll(async () => {
    if (!missing) backend = await open();
  });
  afterAll(() => backend?.dispose());

  /** Rounds in which some element was not what the producer wrote in that round. */
  async function staleRounds(second: typeof consumer, rounds: number): Promise<number> {
    mustCompile(lateProducer);
    mustCompile(second);
    const [first, then] = [await backend.compile(lateProducer), await backend.compile(second)];
    const old = HostTensor.from(f32, [count], new Array<number>(count).fill(poison));
    const bias = frozenTensor(backend, HostTensor.from(f32, [1], [1000]));
    const [value, data] = [deviceTensor(backend, f32, [1]), deviceTensor(backend, old)];
    const result = deviceTensor(backend, old);
    const launches = [first.bind({ value, data }), then.bind({ bias, data, result })];
    let stale = 0;
    for (let round = 1; round <= rounds; round++) {
      value.write(HostTensor.from(f32, [1], [round]));
      data.write(old);
      for (const launch of launches) launch.launch();
      if ((await result.read()).values().some((read) => read !== round + 1000)) stale++;
    }
    return stale;
  }

  test.skipIf(missing)("our consumer reads the new data, every time", async () => {
    expect(await staleRounds(consumer, name === "cuda" ? 100 : 5)).toBe(0);
  });

  test.skipIf(missing || name !== "cuda")(
    "the hurried consumer reads old data: on a GPU the test can tell",
    async () => {
      expect(await staleRounds(hurried(consumer), 20)).toBeGreaterThan(0);
    },
  );
});
