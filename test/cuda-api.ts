/**
 * One success of each public operation of `tegula/cuda`, in one walk through it all, on the stand-in for libcuda or a GPU;
 * and the books on which operations were called and came back well.
 */
import { readFileSync } from "node:fs";
import { expect } from "vitest";
import { type DevicePointer, openDriver } from "../backends/cuda/driver.ts";
import type * as cudaApi from "../backends/cuda/index.ts";
import { CudaEvent } from "../backends/cuda/event.ts";
import { CudaExecutable } from "../backends/cuda/executable.ts";
import { CudaGraph } from "../backends/cuda/graph.ts";
import { CudaLaunch } from "../backends/cuda/launch.ts";
import { PinnedTensor } from "../backends/cuda/pinned.ts";
import { CudaQueue } from "../backends/cuda/queue.ts";
import { CudaBackend } from "../backends/cuda/runtime.ts";
import { CudaStorage } from "../backends/cuda/storage.ts";
import { CudaStream } from "../backends/cuda/stream.ts";
import { PreparedRun } from "../backends/run.ts";
import { DeviceTensor } from "../backends/tensor.ts";
import { ceilDiv, f32, HostTensor, inout, input, kernel, scalar, size } from "../dsl/index.ts";

const N = size("N");

/** y += a * x, for any number of elements. */
export const axpy = kernel(
  {
    name: "axpy",
    grid: ceilDiv(N, 64),
    block: 64,
    params: { x: input(f32, [N]), y: inout(f32, [N]), a: scalar(f32) },
  },
  (t, { a }) => {
    const { x, y } = t.pdl.wait();
    const i = t.block.x.mul(64).add(t.thread);
    t.when(i.lt(t.dim(N)), () =>
      y.store(
        [i],
        x
          .load([i])
          .mul(a)
          .add(y.load([i])),
      ),
    );
  },
);

/** `api` is the module, or `recorded(...)` of it. */
export async function tour(api: typeof cudaApi, kernel: typeof axpy): Promise<void> {
  const host = (...values: readonly number[]) => HostTensor.from(f32, [values.length], values);
  const valuesOf = async (tensor: DeviceTensor) => [...(await tensor.read()).values()];

  // Devices and compiling.
  expect([api.cudaAvailable(), api.whyNoCuda()]).toEqual([true, undefined]);
  const cuda = await api.openCuda({ ordinal: 0, capability: undefined, pdl: true, debug: false });
  expect([cuda.name, cuda.pdl]).toEqual(["cuda", true]);
  expect(cuda.device).toContain(cuda.arch);
  const { source, entry } = api.emitCuda(kernel.ir);
  const options = { arch: cuda.arch, name: entry, cache: false };
  expect(api.compileCuda(source, options).cubin.length).toBeGreaterThan(0);
  for (const report of api.compileReport(source, options)) expect(report.registers).toBeGreaterThan(0);
  const executable = await cuda.compile(kernel);
  expect([executable.kernel, executable.backend, executable.source]).toEqual([kernel, cuda, source]);
  expect(executable.compiler).toMatch(/^(NVRTC|nvcc) \d/);
  expect(executable.compileMs).toBeGreaterThan(0);

  // Memory.
  {
    using storage = cuda.allocate(8);
    cuda.write(storage, 4, host(7).bytes);
    expect(await cuda.read(storage, 4, 4)).toEqual(host(7).bytes);
    expect([storage.backend, storage.byteLength, storage.freed, storage.frozenAt]).toEqual([cuda, 8, false, undefined]);
    const at = { file: "a.ts", line: 1, column: 1 };
    storage.freeze(at);
    expect(storage.frozenAt).toEqual(at);
    storage.free();
    expect(storage.freed).toBe(true);
  }
  using x = api.deviceTensor(cuda, host(1, 2));
  using y = api.deviceTensor(cuda, f32, [2]);
  y.write(host(0, 0));
  const second = x.view([1], 1);
  expect([second.dtype, second.shape, second.offsetBytes, second.byteLength]).toEqual([f32, [1], 4, 4]);
  expect(second.storage).toBe(x.storage);
  expect(`${x}`).toBe("f32[2]");
  expect(await valuesOf(second)).toEqual([2]);
  expect(new api.DeviceTensor(x.storage, f32, [2]).frozen).toBe(false);
  const frozen = [api.frozenTensor(cuda, host(1)), api.deviceTensor(cuda, host(1)).freeze()];
  expect(frozen.map((tensor) => tensor.frozen)).toEqual([true, true]);
  for (const tensor of frozen) tensor.free();

  // Launches.
  const launch = executable.bind({ x, y, a: 1 });
  launch.launch();
  launch.set({ a: 10 });
  launch.launch();
  expect(launch.kernel).toBe(kernel);
  await cuda.synchronize();
  expect(await valuesOf(y)).toEqual([11, 22]);
  expect(await launch.timeUs(2)).toBeGreaterThan(0);

  // Streams, events, pinned memory, other libraries.
  y.write(host(0, 0));
  launch.set({ a: 1 });
  {
    using stream = cuda.createStream();
    using adopted = cuda.adoptStream(0n);
    using pinned = cuda.pinned(f32, [2]);
    using start = cuda.stream.record();
    launch.launch(cuda.stream);
    using end = cuda.stream.record();
    stream.waitFor(end);
    stream.waitFor(cuda.stream);
    launch.launch(stream);
    await stream.synchronize();
    launch.launch(adopted);
    await adopted.synchronize();
    stream.foreign("looking", { reads: [x], writes: [y] }, (handle) => expect(typeof handle).toBe("bigint"));
    const driver = openDriver().api;
    const foreign = new BigUint64Array(1);
    expect(driver.cuMemAlloc(foreign, 8)).toBe(0);
    const [pointer = 0n] = foreign;
    const onFree = () => expect(driver.cuMemFree(pointer as DevicePointer)).toBe(0);
    using other = cuda.adoptTensor({ pointer, dtype: f32, shape: [2], onFree });
    expect(cuda.pointerOf(other)).toBe(pointer);
    stream.copy(y, other);
    stream.copy(other, pinned);
    await stream.synchronize();
    expect([...pinned.values()]).toEqual([3, 6]);
    await end.synchronize();
    expect(await end.elapsedUs(start)).toBeGreaterThan(0);
    for (const one of [pinned, start, end, stream]) one.dispose();
  }

  // Graphs.
  {
    using graph = cuda.capture((on) => {
      launch.launch(on);
      launch.launch(on);
      on.copy(y, x);
      on.foreign("looking", { reads: [x], writes: [] }, () => undefined);
    });
    expect(graph.nodeCount).toBe(3);
    expect(graph.programmaticEdges ?? 1).toBe(1);
    graph.launch();
    expect(await valuesOf(x)).toEqual([5, 10]);
    graph.update((on) => {
      launch.launch(on);
      launch.launch(on);
      on.copy(x, y);
    });
    graph.launch();
    expect(await valuesOf(y)).toEqual([5, 10]);
    expect(await graph.timeUs(2)).toBeGreaterThan(0);
    graph.dispose();
  }

  // All in one call.
  expect([...(await api.run(cuda, kernel, { x: host(1), y: host(2), a: 3 })).y.values()]).toEqual([5]);
  {
    using prepared = await api.prepare(cuda, kernel, { x: host(1), y: host(0), a: 1 });
    expect(prepared).toBeInstanceOf(api.PreparedRun);
    prepared.launch();
    prepared.launch();
    expect([...(await prepared.read()).y.values()]).toEqual([2]);
    expect(prepared.executable).toBe(executable);
    expect(await prepared.timeUs(1)).toBeGreaterThan(0);
    prepared.free();
  }
  executable.dispose();
  {
    using another = await cuda.compile(kernel);
    expect(another).not.toBe(executable);
  }
  await cuda.dispose();
  await using again = await api.openCuda();
  expect(again).toBeInstanceOf(api.CudaBackend);
}

/** Classes of the API, also those of which only the type is exported, and the files that say what is public in them. */
const classes = {
  CudaBackend: { made: CudaBackend, file: "cuda/runtime.ts" },
  CudaEvent: { made: CudaEvent, file: "cuda/event.ts" },
  CudaExecutable: { made: CudaExecutable, file: "cuda/executable.ts" },
  CudaGraph: { made: CudaGraph, file: "cuda/graph.ts" },
  CudaLaunch: { made: CudaLaunch, file: "cuda/launch.ts" },
  CudaQueue: { made: CudaQueue, file: "cuda/queue.ts" },
  CudaStream: { made: CudaStream, file: "cuda/stream.ts" },
  DeviceTensor: { made: DeviceTensor, file: "tensor.ts" },
  PinnedTensor: { made: PinnedTensor, file: "cuda/pinned.ts" },
  PreparedRun: { made: PreparedRun, file: "run.ts" },
  Storage: { made: CudaStorage, file: "backend.ts" },
} as const;

const sourceOf = (file: string) => readFileSync(new URL(`../backends/${file}`, import.meta.url), "utf8");

interface Member {
  readonly name: string;
  /** A field has no code that could be seen running. */
  readonly field: boolean;
}

const modifiers = "(?:static |override |abstract |async )*";
/** A doc comment, if there is one, and the public member right below it. */
const member = new RegExp(
  `((?:^ {2}/\\*\\*(?:(?!\\*/)[^])*\\*/\\n)?)^ {2}${modifiers}(readonly |get )?(\\[Symbol\\.\\w+\\]|[a-z]\\w*)(<[^(]*>)?( =|[(:?])`,
  "gm",
);

/** What a class or interface offers to others: no constructor, nothing private, nothing `@internal`. */
function membersOf(name: string, file: string): readonly Member[] {
  const body = new RegExp(`^export (?:abstract )?(?:class|interface) ${name}\\b[^]*?\\{\\n([^]*?)^\\}`, "m");
  const text = body.exec(sourceOf(file))?.[1] ?? "";
  return [...text.matchAll(member)].flatMap(([, comment = "", modifier, member = "", , after]) => {
    if (member === "constructor" || comment.includes("@internal")) return [];
    return [{ name: member, field: after !== "(" && modifier !== "get " }];
  });
}

/** Every public operation, as `Class.member` or `function`, and fields as `.field`. */
export function publicNames(): { readonly operations: readonly string[]; readonly fields: readonly string[] } {
  const index = sourceOf("cuda/index.ts");
  const exported = [...index.matchAll(/^export (type )?\{([^}]*)\} from "(.*)";$/gm)].flatMap(
    ([, , names = "", file = ""]) => names.split(",").map((name) => ({ name: name.replace("type ", "").trim(), file })),
  );
  const kindOf = ({ name, file }: { readonly name: string; readonly file: string }) => {
    const source = sourceOf(file.startsWith("../") ? file.slice(3) : `cuda/${file.slice(2)}`);
    return new RegExp(`^export (?:async |abstract )?(function|class|interface|type) ${name}\\b`, "m").exec(source)?.[1];
  };
  const operations = exported.filter((one) => kindOf(one) === "function").map(({ name }) => name);
  const fields: string[] = [];
  for (const one of exported.filter((one) => kindOf(one) === "class")) expect(Object.keys(classes)).toContain(one.name);
  for (const [name, { file }] of Object.entries(classes)) {
    const members = membersOf(name, file);
    expect(members.length, name).toBeGreaterThan(0);
    for (const { name: member, field } of members) {
      if (field) fields.push(`.${member}`);
      else operations.push(`${name}.${member}`);
    }
  }
  return { operations, fields: [...new Set(fields)] };
}

/**
 * Notes in `done` what was called and ended well: functions of the module that it returns, and members of the classes, until
 * `restore` is called.
 */
export function recorded(api: typeof cudaApi, done: Set<string>): { readonly api: typeof cudaApi; restore(): void } {
  const noting = (name: string, f: (...args: never[]) => unknown) =>
    function (this: unknown, ...args: never[]): unknown {
      const result = f.apply(this, args);
      if (!(result instanceof Promise)) done.add(name);
      else result.then(() => done.add(name)).catch(() => undefined);
      return result;
    };
  const originals: (() => void)[] = [];
  for (const [name, { made }] of Object.entries(classes)) {
    const prototype: object = made.prototype;
    for (const key of Reflect.ownKeys(prototype)) {
      const descriptor = Object.getOwnPropertyDescriptor(prototype, key);
      if (key === "constructor" || !descriptor) continue;
      const member = `${name}.${typeof key === "symbol" ? symbolName(key) : key}`;
      const { get } = descriptor;
      const value: unknown = descriptor.value;
      if (get) Object.defineProperty(prototype, key, { ...descriptor, get: noting(member, get) });
      else if (typeof value === "function") {
        Object.defineProperty(prototype, key, { ...descriptor, value: noting(member, value as () => unknown) });
      }
      originals.push(() => Object.defineProperty(prototype, key, descriptor));
    }
  }
  const isClass = (name: string) => name in classes;
  const functions = Object.entries(api).map(([name, value]) => [
    name,
    isClass(name) ? value : noting(name, value as () => unknown),
  ]);
  return {
    api: Object.fromEntries(functions) as typeof cudaApi,
    restore: () => originals.forEach((restore) => restore()),
  };
}

/** As sources write it; Node 20 calls it `nodejs.dispose`. */
function symbolName(symbol: symbol): string {
  return symbol === Symbol.dispose ? "[Symbol.dispose]" : "[Symbol.asyncDispose]";
}

/** What the walk leaves out: operations that never ended well, fields that its text doesn't name. */
export function neverDone(done: ReadonlySet<string>): readonly string[] {
  const { operations, fields } = publicNames();
  const text = readFileSync(new URL(import.meta.url), "utf8").split("export async function tour")[1] ?? "";
  const walk = text.slice(0, text.indexOf("\n}\n"));
  return [
    ...operations.filter((name) => !done.has(name)),
    ...fields.filter((name) => !new RegExp(`\\${name}\\b`).test(walk)),
  ];
}
