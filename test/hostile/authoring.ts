/**
 * What authors call: the functions of `tegula`, and linear(); and every method of what they hold while a
 * kernel is traced, each call in a trace of its own.
 */
import * as tegula from "../../dsl/index.ts";
import {
  bf16,
  e4m3,
  f32,
  frozen,
  HostTensor,
  i32,
  inout,
  input,
  kernel,
  mmaAtoms,
  output,
  tiledMma,
} from "../../dsl/index.ts";
import { makeLayout, parseLayout } from "../../dsl/layout/index.ts";
import { chooseLinear, epilogue, linear, relu } from "../../kernels/index.ts";
import { Targets, type World } from "./calls.ts";
import { large } from "./garbage.ts";

/** Something of the trace that a call is made in: it exists only then. */
class InTrace {
  readonly pick: (scene: Scene) => unknown;

  constructor(pick: (scene: Scene) => unknown) {
    this.pick = pick;
  }
}

type Scene = ReturnType<typeof sceneOf>;
type Body = Parameters<typeof traced>[0];

function sceneOf(...[t, { w, x, y, acc }]: Parameters<Body>) {
  const [b, tile] = [t.lane.lt(3), w.tile([16, 16], [0, 0])];
  t.when(b, () => y.store([0], 1));
  const matrices = tiledMma(mmaAtoms.m16n8k16.bf16);
  const mma = matrices.slice(t.lane);
  const partition = mma.partitionA(tile);
  const sTile = t.sharedTile(bf16, makeLayout([16, 16], [16, 1]), { alignBytes: 128 });
  return {
    ...{ t, w, x, y, acc, tile, matrices, mma, partition, sTile },
    ...{ i: t.lane, f: t.const(f32, 1), b, v: w.loadVec([0, 0], 4), pdl: t.pdl, cluster: t.cluster },
    ...{ r: t.reg(f32, 0), rs: t.array(f32, 4), s: t.shared(f32, [4, 4]), fragment: t.fragment(partition) },
    ...{
      rC: t.accumulator(mma, [16, 8]),
      mbarrier: t.mbarrier(2, 32),
      ring: t.pipeline(2, { producers: 1, consumers: 4 }),
    },
  };
}

const params = {
  w: frozen(bf16, [64, 64], { alignBytes: 16 }),
  x: input(f32, [64], { alignBytes: 16 }),
  y: output(f32, [64], { alignBytes: 16 }),
  acc: inout(i32, [64]),
};
function traced(
  body: (
    t: tegula.Thread<tegula.Dependent<typeof params>>,
    tensors: tegula.Early<typeof params> & tegula.Dependent<typeof params>,
  ) => void,
) {
  return kernel({ name: "traced", grid: 2, block: 128, params }, (t, { w }) => body(t, { w, ...t.pdl.wait() }));
}

/** For the DSL's own files. */
const internal: ReadonlySet<string> = new Set(
  (
    "constructor read write reduce exchange named namedMbarrier slot offset vector with algebra parity readRegister " +
    "writeRegister steps coordinates indexAt loadAt boundsOf moved threadValue"
  ).split(" "),
);

/** Names of the methods of an object, its own (as of `t.pdl`) or its class's. */
function methodsOf(object: object): readonly string[] {
  const names: string[] = [];
  for (let level = object; level !== Object.prototype; level = Object.getPrototypeOf(level) as object) {
    for (const [name, { value }] of Object.entries<PropertyDescriptor>(Object.getOwnPropertyDescriptors(level))) {
      if (typeof value === "function" && !internal.has(name)) names.push(name);
    }
  }
  return [...new Set(names)];
}

const of = (pick: (scene: Scene) => unknown) => new InTrace(pick);
const [i, f, b] = [of((s) => s.i), of((s) => s.f), of((s) => s.b)];
const nothing = () => undefined;

/** Arguments of methods, by name, whatever they are methods of. */
const usual: Readonly<Record<string, readonly unknown[]>> = {
  ...{ const: [f32, 1], dim: [4], reg: [f32, 0], array: [f32, 4, { lanes: 2 }], pack: [f, f], shared: [f32, [4, 4]] },
  ...{ range: [0, 4, { unroll: true }], when: [b, nothing, nothing], warpSum: [f], shuffle: [f, i], sleep: [100] },
  ...{ load: [[i], { cache: "stream" }], loadVec: [[0, i], 4, { cache: "stream", guard: b }], store: [[i], f] },
  ...{ storeVec: [[i], of((s) => s.v)], atomicAdd: [[i], i], atomicCompareExchange: [[i], i, i] },
  ...{
    tile: [
      [16, 16],
      [0, 0],
    ],
    slice: [[null, 0]],
    partition: [parseLayout("(4,8):(8,1)"), i],
    size: [0],
  },
  ...{ sharedTile: [bf16, makeLayout([4, 4]), { alignBytes: 16 }], tileOf: [of((s) => s.w)] },
  ...{ copy: [of((s) => s.partition), of((s) => s.fragment), { cache: "stream", guard: "edges" }] },
  ...{
    copyAsync: [of((s) => s.tile), of((s) => s.sTile)],
    asyncWait: [0],
    wgmmaWait: [0],
    fragment: [of((s) => s.tile)],
  },
  ...{ tensorMap: [of((s) => s.w), [64, 64], { swizzleBytes: 128 }], prefetch: [of((s) => s.w), [0, 0]] },
  ...{ mbarrier: [2, 32], pipeline: [2, { producers: 1, consumers: 4 }], namedBarrier: [1, 64], namedArrive: [1, 64] },
  ...{
    setRegisters: ["increase", 232],
    accumulator: [of((s) => s.mma), [16, 8]],
    arrive: [0, { peer: 0 }],
    wait: [i, i],
  },
  ...{
    arriveExpect: [0, 128],
    add: [f],
    fma: [f, f],
    select: [f, f],
    to: [f32],
    bitcast: [i32],
    lane: [0],
    set: [0, f],
  },
  ...{
    get: [0],
    update: [(now: unknown) => now],
    addDot: [of((s) => s.v), of((s) => s.v)],
    fill: [0],
    map: [(now: unknown) => now],
  },
  ...{ partitionA: [of((s) => s.tile)], mma: [of((s) => s.rC), of((s) => s.fragment), of((s) => s.fragment)] },
};

/** In arrays, too. */
function resolved(value: unknown, scene: Scene): unknown {
  if (value instanceof InTrace) return value.pick(scene);
  if (!Array.isArray(value) || value.length > 4 || !value.some((one) => one instanceof InTrace)) return value;
  return value.map((one) => resolved(one, scene));
}

const [M, N, K] = [4, 64, 256];
const linearConfig = () => [
  {
    ...{ M, N, K, weights: bf16, out: f32, device: "NVIDIA H200", batchInvariant: false },
    ...{ strides: { x: [K, 1], w: [K, 1], y: [N, 1] }, epilogue: epilogue({}, relu) },
  },
];
const shapes = () => [f32, [4, 4], { alignBytes: 16 }] as const;
const body = (t: tegula.Thread) => void t.pdl.wait();

/** Of `tegula`, by name. What isn't named is a type, a dtype, a class of what traces make, or an error. */
const functions: Readonly<Record<string, readonly [call: unknown, valid: () => readonly unknown[]]>> = {
  ...{ frozen: [frozen, shapes], input: [input, shapes], output: [output, shapes], inout: [inout, shapes] },
  scalar: [tegula.scalar, () => [f32]],
  size: [tegula.size, () => ["N", { min: 2, max: 64, multipleOf: 2 }]],
  ceilDiv: [tegula.ceilDiv, () => [tegula.size("N"), 4]],
  floorDiv: [tegula.floorDiv, () => [7, 4]],
  powerOfTwoDivisor: [tegula.powerOfTwoDivisor, () => [24, 16]],
  kernel: [kernel, () => [{ name: "k", grid: [2, 1, 1], block: 32, cluster: 2, params: { ...params } }, body]],
  printKernel: [tegula.printKernel, () => [traced(nothing).ir, { lines: true }]],
  decode: [tegula.decode, () => [bf16, 0x3f80]],
  encode: [tegula.encode, () => [e4m3, 1.5, "nosat"]],
  tiledMma: [tiledMma, () => [mmaAtoms.m16n8k16.bf16, { warps: [1, 1], permute: [null, null, null] }]],
  wgmmaAtom: [tegula.wgmmaAtom, () => [64, bf16, bf16]],
  "new HostTensor": [(...args: ConstructorParameters<typeof HostTensor>) => new HostTensor(...args), () => [f32, [2], new Uint8Array(8)]], // prettier-ignore
  "HostTensor.from": [HostTensor.from.bind(HostTensor), () => [f32, [2, 2], [1, 2, 3, 4]]],
  "HostTensor.filled": [HostTensor.filled.bind(HostTensor), () => [f32, [2], 255]],
};

/** Exported by `tegula`, and called in a trace, or made there, or not at all. */
const uncalled =
  /^(Expr|Fragment|HostTensor|Mbarrier|Partition|Pipeline|Reg|RegArray|Size|Tensor|TensorMapHandle|ThreadMma|Thread|Tile|TiledMma|CopyPlan|\w+Error)$/;
/** Functions that no target stands for. */
export function leftOut(targets: ReadonlyMap<string, unknown>): readonly string[] {
  const called = Object.entries(tegula).filter(([name, value]) => typeof value === "function" && !uncalled.test(name));
  return called.map(([name]) => name).filter((name) => !targets.has(name));
}

export function authoringWorld(): World {
  const targets = new Targets();
  const things = new Map<string, () => unknown>();
  let scene: Scene | undefined;
  traced((...given) => void (scene = sceneOf(...given)));
  for (const [name, thing] of Object.entries(scene ?? {})) {
    things.set(name, () => of((scene) => scene[name as keyof Scene]));
    things.set(`${name} of another kernel`, () => thing);
    for (const method of methodsOf(thing)) {
      if (name === "mma" && method === "partition") continue; // private
      const call = (...args: readonly unknown[]) =>
        traced((...given) => {
          const scene = sceneOf(...given);
          const target: object = scene[name as keyof Scene];
          const f = (target as Record<string, (...args: unknown[]) => unknown>)[method];
          f?.apply(
            target,
            args.map((arg) => resolved(arg, scene)),
          );
        });
      targets.free(`${name}.${method}`, call, () => (Object.hasOwn(usual, method) ? usual[method] : undefined) ?? [i]);
    }
  }
  things.set("a layout", () => parseLayout("((2,4),8):((1,2),8)"));
  for (const [name, [call, valid]] of Object.entries(functions)) {
    targets.free(name, call, valid, name.includes("HostTensor") ? large : []);
  }
  for (const [name, operation] of Object.entries(tegula.dims))
    targets.free(`dims.${name}`, operation, () => [4, tegula.size("N")]);
  targets.free("formatLocation", tegula.formatLocation, () => [{ file: "a.ts", line: 1, column: 1 }]);
  targets.free("linear", linear, linearConfig);
  targets.free("chooseLinear", chooseLinear, linearConfig);
  targets.member("HostTensor.values", [HostTensor.from(f32, [2], [1, 2])]);
  return { targets, things, end: () => Promise.resolve() };
}
