/** A world of a backend without handles of C: WGSL, the simulator. */
import type { Backend } from "../../backends/backend.ts";
import type { FrozenTensor, HostArguments } from "../../backends/wgsl/index.ts";
import { DeviceTensor, deviceTensor, frozenTensor, prepare, run } from "../../backends/wgsl/index.ts";
import { ceilDiv, f32, frozen, HostTensor, inout, input, kernel, scalar, size } from "../../dsl/index.ts";
import { Targets, type World } from "./calls.ts";
import { large } from "./garbage.ts";

const N = size("N", { max: 4096 });

/** y += a * x * w[0] */
export const scaled = kernel(
  {
    name: "scaled",
    grid: ceilDiv(N, 32),
    block: 32,
    params: { w: frozen(f32, [1]), a: scalar(f32), x: input(f32, [N]), y: inout(f32, [N]) },
  },
  (t, { w, a }) => {
    const { x, y } = t.pdl.wait();
    const i = t.block.x.mul(32).add(t.lane);
    t.when(i.lt(N), () => {
      const product = x
        .load([i])
        .mul(a)
        .mul(w.load([0]));
      y.store([i], y.load([i]).add(product));
    });
  },
);

const host = (...values: readonly number[]) => HostTensor.from(f32, [values.length], values);
const at = { file: "hostile.ts", line: 1, column: 1 };
const hostArguments = (): HostArguments<(typeof scaled)["params"]> => ({
  w: host(1),
  a: 2,
  x: host(1, 2),
  y: host(9, 9),
});

/** `gone` was disposed; `functions` adds what the module of this backend has alone. */
export async function portableWorld(
  backend: Backend,
  other: Backend,
  gone: Backend,
  functions: (targets: Targets) => void,
): Promise<World> {
  const tensors: DeviceTensor[] = [];
  const own = (tensor: DeviceTensor<"f32">) => {
    tensors.push(tensor);
    return tensor;
  };
  const x = own(deviceTensor(backend, host(1, 2)));
  const y = own(deviceTensor(backend, host(0, 0)));
  const spare = own(deviceTensor(backend, host(0, 0)));
  const freed = own(deviceTensor(backend, host(1, 2)));
  const foreign = own(deviceTensor(other, host(1, 2)));
  const w: FrozenTensor<"f32"> = frozenTensor(backend, host(1));
  tensors.push(w);
  freed.free();
  const executable = await backend.compile(scaled);
  const [launch, stale] = [executable.bind({ w, a: 1, x, y }), executable.bind({ w, a: 1, x, y: spare })];
  spare.free();
  const storage = backend.allocate(16);
  const prepared = await prepare(backend, scaled, hostArguments());

  const things = new Map<string, () => unknown>([
    ["kernel", () => scaled],
    ["ir", () => scaled.ir],
  ]);
  const objects = {
    backend,
    other,
    gone,
    x,
    y,
    w,
    spare,
    freed,
    foreign,
    executable,
    launch,
    stale,
    storage,
    prepared,
  };
  for (const [name, thing] of Object.entries(objects)) things.set(name, () => thing);
  for (const [name, thing] of Object.entries({ x, storage, executable, launch, backend })) {
    things.set(`the fields of ${name}`, () => ({ ...thing }));
    things.set(`the class of ${name} alone`, () => Object.create(Object.getPrototypeOf(thing) as object) as unknown);
  }
  for (const [name, thing] of Object.entries({ x, storage }))
    things.set(`a proxy of ${name}`, () => new Proxy(thing, {}));
  things.set("a claim of x", () => Object.create(x, { shape: { value: [2 ** 20] } }) as unknown);

  const targets = new Targets();
  const backends = [backend, gone];
  targets.free("deviceTensor", (...args: Parameters<typeof deviceTensor>) => kept(deviceTensor(...args)), () => [backend, host(1, 2)]); // prettier-ignore
  targets.free("deviceTensor of a shape", (...args: Parameters<typeof deviceTensor>) => kept(deviceTensor(...args)), () => [backend, f32, [2]], large); // prettier-ignore
  targets.free("frozenTensor", (...args: Parameters<typeof frozenTensor>) => kept(frozenTensor(...args)), () => [backend, host(1, 2)]); // prettier-ignore
  targets.free("new DeviceTensor", (...args: ConstructorParameters<typeof DeviceTensor>) => new DeviceTensor(...args), () => [storage, f32, [2], 8]); // prettier-ignore
  targets.free("run", run, () => [backend, scaled, hostArguments()]);
  targets.free("prepare", prepare, () => [backend, scaled, hostArguments()]);
  functions(targets);
  targets.member("Backend.allocate", backends, () => [8], large);
  targets.member("Backend.write", backends, () => [storage, 4, new Uint8Array(8)]);
  targets.member("Backend.read", backends, () => [storage, 4, 8]);
  targets.member("Backend.compile", backends, () => [scaled]);
  targets.member("Backend.synchronize", backends);
  for (const name of ["dispose", "[Symbol.asyncDispose]", "disposed"]) targets.member(`Backend.${name}`, [gone]);
  targets.member("Executable.bind", [executable], () => [{ w, a: 1, x, y }]);
  for (const name of ["source", "compileMs"]) targets.member(`Executable.${name}`, [executable]);
  targets.member("Launch.launch", [launch, stale]);
  targets.member("Launch.simulate", [launch, stale]);
  targets.member("Launch.kernel", [launch]);
  targets.member("Launch.set", [launch], () => [{ a: 2 }]);
  targets.member("Launch.timeUs", [launch], () => [2]);
  targets.member("DeviceTensor.view", [x, freed], () => [[1], 1]);
  targets.member("DeviceTensor.write", [x, w, freed], () => [host(1, 2)]);
  targets.member("DeviceTensor.read", [x, freed]);
  for (const name of ["frozen", "freeze", "toString"]) targets.member(`DeviceTensor.${name}`, [foreign, freed]);
  for (const name of ["free", "[Symbol.dispose]"]) targets.member(`DeviceTensor.${name}`, [freed, foreign]);
  targets.member("Storage.freeze", [storage, freed.storage], () => [at]);
  for (const name of ["frozenAt", "freed", "free", "[Symbol.dispose]"]) targets.member(`Storage.${name}`, [storage, freed.storage]); // prettier-ignore
  for (const name of ["launch", "read"]) targets.member(`PreparedRun.${name}`, [prepared]);
  targets.member("PreparedRun.timeUs", [prepared], () => [2]);
  for (const name of ["free", "[Symbol.dispose]"]) targets.member(`PreparedRun.${name}`, [prepared]);

  return { targets, things, end };

  /** What a call allocated goes with the world. */
  function kept(tensor: DeviceTensor): DeviceTensor {
    tensors.push(tensor);
    return tensor;
  }

  /** A launch still computes what it should, and no invalid call reached the device. */
  async function end(): Promise<void> {
    for (const tensor of tensors) tensor.free();
    storage.free();
    prepared.free();
    const { y } = await run(backend, scaled, hostArguments());
    if ([...y.values()].join() !== "11,13") throw new Error(`[9, 9] + 2 * [1, 2] is [${[...y.values()].join()}] now`);
    for (const one of [backend, other]) await one.synchronize();
  }
}

/** What the objects of a backend can do, in the words of a world's targets. */
export function membersOf(backend: Backend, executable: object, launch: object, storage: object): readonly string[] {
  const named = { Backend: backend, Executable: executable, Launch: launch, Storage: storage };
  return Object.entries(named).flatMap(([type, object]) =>
    Reflect.ownKeys(Object.getPrototypeOf(object) as object)
      .filter((key) => key !== "constructor")
      .map((key) => `${type}.${typeof key === "symbol" ? disposal(key) : key}`),
  );
}

/** As sources write it; Node 20 calls it `nodejs.dispose`. */
const disposal = (symbol: symbol) => (symbol === Symbol.dispose ? "[Symbol.dispose]" : "[Symbol.asyncDispose]");
