/** A world of `tegula/cuda` on the stand-in driver: every public operation, with two backends, and things alive and gone. */
import * as cudaApi from "../../backends/cuda/index.ts";
import type { DeviceTensor } from "../../backends/tensor.ts";
import { openSimulator } from "../../backends/simulator/index.ts";
import { f32, HostTensor, type Kernel } from "../../dsl/index.ts";
import type { FakeCuda } from "../fake-cuda/build.ts";
import { axpy } from "../fake-cuda/kernels.ts";
import { Targets, type World } from "./calls.ts";
import { large } from "./garbage.ts";
import type { Guard } from "./guard.ts";

type Api = typeof cudaApi;
const host = (...values: readonly number[]) => HostTensor.from(f32, [values.length], values);
const at = { file: "hostile.ts", line: 1, column: 1 };

for (const part of [axpy, axpy.ir, axpy.params]) Object.freeze(part); // as kernel() does

/** `traced` is a kernel that the stand-in doesn't know. */
export async function cudaWorld(fake: FakeCuda, guard: Guard, traced: Kernel): Promise<World> {
  fake.reset();
  fake.device(1, 9, 0);
  const [cuda, sibling, abroad, gone] = [
    await cudaApi.openCuda(),
    await cudaApi.openCuda(),
    await cudaApi.openCuda({ ordinal: 1 }),
    await cudaApi.openCuda(),
  ];
  const lost = cudaApi.deviceTensor(gone, host(1));
  const simulator = await openSimulator();
  const [x, y] = [cudaApi.deviceTensor(cuda, host(1, 2)), cudaApi.deviceTensor(cuda, host(0, 0))];
  const weights = cudaApi.frozenTensor(cuda, host(3, 4));
  const freed = cudaApi.deviceTensor(cuda, host(1, 2));
  const [executable, unloaded] = [await cuda.compile(axpy), await sibling.compile(axpy)];
  // Kernels of the stand-in have no types.
  const bind = (args: { readonly x: DeviceTensor; readonly y: DeviceTensor; readonly a?: number }, by = executable) =>
    by.bind({ a: 1, ...args } as never);
  const launch = bind({ x, y });
  const launchOfFreed = bind({ x: freed, y });
  const [sx, sy] = [cudaApi.deviceTensor(sibling, host(1, 2)), cudaApi.deviceTensor(sibling, host(0, 0))];
  const launchOfUnloaded = bind({ x: sx, y: sy }, unloaded);
  const [stream, closed, foreignStream] = [cuda.createStream(), cuda.createStream(), abroad.createStream()];
  const [start, event, spent, foreignEvent] = [
    stream.record(),
    stream.record(),
    stream.record(),
    foreignStream.record(),
  ];
  const graph = cuda.capture((on) => launch.launch(on));
  const endedGraph = cuda.capture((on) => launch.launch(on));
  const [pinned, unpinned] = [cuda.pinned(f32, [2]), cuda.pinned(f32, [2])];
  const prepared = await cudaApi.prepare(cuda, axpy, { x: host(1, 1), y: host(1, 1), a: 1 } as never);
  const storage = cuda.allocate(16);
  freed.free();
  unloaded.dispose();
  closed.dispose();
  spent.dispose();
  endedGraph.dispose();
  unpinned.dispose();
  await gone.dispose();

  const things = new Map<string, () => unknown>([
    ...Object.entries({ cuda, sibling, abroad, gone, simulator, x, y, weights, freed, lost, sx, executable, unloaded, launch }),
    ...Object.entries({ stream, closed, foreignStream, start, event, spent, foreignEvent, graph, endedGraph, pinned }),
    ...Object.entries({ unpinned, prepared, storage, launchOfFreed, launchOfUnloaded, kernel: axpy, traced, ir: traced.ir }),
  ].map(([name, thing]) => [name, () => thing] as const)); // prettier-ignore
  const abroadTensor = cudaApi.deviceTensor(abroad, host(1, 2));
  for (const [name, thing] of Object.entries({ x, storage, stream, event, launch, executable, pinned, graph, cuda })) {
    things.set(`the fields of ${name}`, () => ({ ...thing }));
    // None of a backend, since its own methods would be called: in a proxy they find no private members.
    if (thing !== cuda) things.set(`a proxy of ${name}`, () => new Proxy(thing, {}));
    things.set(`the class of ${name} alone`, () => Object.create(Object.getPrototypeOf(thing) as object) as unknown);
  }
  things.set("a tensor abroad", () => abroadTensor);
  things.set("a simulator's tensor", () => cudaApi.deviceTensor(simulator, host(1, 2)));
  things.set("a copy of x, posted by another thread", () => structuredClone({ ...x, storage: { ...x.storage, backend: null, lifetime: null } })); // prettier-ignore
  things.set("a claim of x", () => Object.create(x, { shape: { value: [2 ** 20] } }) as unknown);

  const chain = (on: { readonly copy: unknown }) => launch.launch(on as never);
  const kernelArgs = () => [cuda, axpy, { x: host(1, 2), y: host(0, 0), a: 1 }] as const;
  const source = () => [(axpy.ir as unknown as { module: { source: string } }).module.source, { arch: "sm_90a", name: "axpy", cache: false }]; // prettier-ignore
  const targets = new Targets();

  targets.free("openCuda", cudaApi.openCuda, () => [{ ordinal: 0, capability: [9, 0], pdl: true, debug: true }]);
  targets.free("cudaAvailable", cudaApi.cudaAvailable);
  targets.free("whyNoCuda", cudaApi.whyNoCuda);
  targets.free("emitCuda", cudaApi.emitCuda, () => [traced.ir, { lineDirectives: true }]);
  targets.free("compileCuda", cudaApi.compileCuda, source);
  targets.free("compileReport", cudaApi.compileReport, source);
  targets.free("deviceTensor", cudaApi.deviceTensor, () => [cuda, host(1, 2)], large);
  targets.free("deviceTensor of a shape", cudaApi.deviceTensor, () => [cuda, f32, [2]], large);
  targets.free("frozenTensor", cudaApi.frozenTensor, () => [cuda, host(1, 2)]);
  targets.free("new DeviceTensor", (...args: ConstructorParameters<Api["DeviceTensor"]>) => new cudaApi.DeviceTensor(...args), () => [storage, f32, [2], 8]); // prettier-ignore
  targets.free("run", cudaApi.run, kernelArgs);
  targets.free("prepare", cudaApi.prepare, kernelArgs);

  const backends = [cuda, gone];
  targets.member("CudaBackend.allocate", backends, () => [8]);
  targets.member("CudaBackend.write", backends, () => [storage, 4, new Uint8Array(8)]);
  targets.member("CudaBackend.read", backends, () => [storage, 4, 8]);
  targets.member("CudaBackend.compile", backends, () => [axpy]);
  targets.member("CudaBackend.pinned", backends, () => [f32, [2]], large);
  targets.member("CudaBackend.createStream", backends);
  targets.member("CudaBackend.adoptStream", backends, () => [guard.lend(fake.foreignStream())]);
  // What onFree throws becomes an uncaught exception.
  targets.member(
    "CudaBackend.adoptTensor",
    backends,
    () => [{ pointer: fake.foreignMemory(64), dtype: f32, shape: [2], strides: [1], onFree: () => undefined }],
    ["a function that throws"],
  );
  targets.member("CudaBackend.pointerOf", backends, () => [x]);
  targets.member("CudaBackend.capture", backends, () => [chain]);
  targets.member("CudaBackend.synchronize", backends);
  for (const name of ["stream", "dispose", "[Symbol.asyncDispose]"])
    targets.member(`CudaBackend.${name}`, [sibling, gone]);
  targets.member("CudaStream.record", [stream, cuda.stream, closed]);
  targets.member("CudaStream.waitFor", [stream, closed], () => [event]);
  targets.member("CudaStream.synchronize", [stream, closed]);
  targets.member("CudaStream.dispose", [stream, cuda.stream, closed]);
  targets.member("CudaStream.[Symbol.dispose]", [stream]);
  targets.member("CudaQueue.copy", [stream, cuda.stream, closed], () => [x, pinned]);
  targets.member("CudaQueue.foreign", [stream, closed], () => [
    "looking",
    { reads: [x], writes: [y] },
    () => undefined,
  ]);
  targets.member("CudaEvent.synchronize", [event, spent]);
  targets.member("CudaEvent.elapsedUs", [event, spent], () => [start]);
  for (const name of ["dispose", "[Symbol.dispose]"]) targets.member(`CudaEvent.${name}`, [start]);
  targets.member("CudaExecutable.bind", [executable, unloaded], () => [{ x, y, a: 1 }, { pdl: false }]);
  for (const name of ["dispose", "[Symbol.dispose]"]) targets.member(`CudaExecutable.${name}`, [executable]);
  targets.member("CudaLaunch.launch", [launch, launchOfFreed, launchOfUnloaded], () => [stream]);
  targets.member("CudaLaunch.set", [launch], () => [{ a: 2 }]);
  // The stand-in does one piece of work for each question.
  const slow = ["65536"];
  targets.member("CudaLaunch.timeUs", [launch], () => [2], slow);
  targets.member("CudaGraph.launch", [graph, endedGraph], () => [stream]);
  targets.member("CudaGraph.update", [graph, endedGraph], () => [chain]);
  targets.member("CudaGraph.timeUs", [graph, endedGraph], () => [2], slow);
  for (const name of ["nodeCount", "programmaticEdges", "dispose", "[Symbol.dispose]"]) targets.member(`CudaGraph.${name}`, [graph, endedGraph]); // prettier-ignore
  for (const name of ["dispose", "[Symbol.dispose]"]) targets.member(`PinnedTensor.${name}`, [pinned]);
  targets.member("DeviceTensor.view", [x, freed], () => [[1], 1]);
  targets.member("DeviceTensor.write", [x, weights, freed], () => [host(1, 2)]);
  targets.member("DeviceTensor.read", [x, freed]);
  for (const name of ["frozen", "freeze", "toString"]) targets.member(`DeviceTensor.${name}`, [sx, freed]);
  for (const name of ["free", "[Symbol.dispose]"]) targets.member(`DeviceTensor.${name}`, [freed, sy]);
  targets.member("Storage.freeze", [storage, freed.storage], () => [at]);
  targets.member("Storage.free", [storage, freed.storage]);
  targets.member("PreparedRun.launch", [prepared]);
  targets.member("PreparedRun.read", [prepared]);
  targets.member("PreparedRun.timeUs", [prepared], () => [2], slow);
  for (const name of ["free", "[Symbol.dispose]"]) targets.member(`PreparedRun.${name}`, [prepared]);

  return { targets, things, end };

  /** A launch still computes what it should, nothing wrong crossed the FFI, and nothing is left. */
  async function end(): Promise<void> {
    const [a, b] = [cudaApi.deviceTensor(cuda, host(1, 2)), cudaApi.deviceTensor(cuda, host(10, 10))];
    bind({ x: a, y: b, a: 2 }, await cuda.compile(axpy)).launch();
    const values = [...(await b.read()).values()];
    if (values.join() !== "12,14") throw new Error(`2 * [1, 2] + [10, 10] is [${values.join()}] now`);
    await Promise.all([cuda, sibling, abroad].map((one) => one.dispose()));
    const { complaints } = guard;
    if (complaints.length > 0) throw new Error(`The driver was called with garbage:\n${complaints.join("\n")}`);
    if (fake.violations() > 0) throw new Error(`The driver saw violations:\n${fake.log().join("\n")}`);
    if (fake.leaks() > 0) throw new Error("Something was not given back to the driver");
  }
}
