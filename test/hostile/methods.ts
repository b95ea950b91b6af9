/** Right arguments for every method of the things of a scene, and calls with arguments in a trace of their own. */
import { types } from "node:util";
import { bf16, bool, Expr, f32, i32, mmaAtoms } from "../../dsl/index.ts";
import { makeLayout, parseLayout } from "../../dsl/layout/index.ts";
import { type Scene, sceneOf, type Thing, traced } from "./scene.ts";

/** Stands in arguments for what exists only in the trace that a call is made in: something of its scene, or the receiver. */
class InTrace {
  readonly pick: (scene: Scene, receiver: unknown) => unknown;

  constructor(pick: InTrace["pick"]) {
    this.pick = pick;
  }
}

export const inTrace = (name: Thing): InTrace => new InTrace((scene) => scene[name]);

const [b, f, i, v, w, x] = (["b", "f", "i", "v", "w", "x"] as const).map(inTrace);
const it = new InTrace((_, receiver) => receiver);
const nothing = (): void => undefined;

/**
 * Arguments of methods, found by thing and method, by class and method, or by the method alone. Those of no argument, and of
 * an index, are left out.
 */
const usual: Readonly<Record<string, readonly unknown[]>> = {
  // Values: operators take another like the receiver.
  add: [it],
  sub: [it],
  mul: [it],
  div: [it],
  rem: [it],
  min: [it],
  max: [it],
  and: [it],
  or: [it],
  xor: [it],
  shl: [it],
  shr: [it],
  eq: [it],
  ne: [it],
  lt: [it],
  le: [it],
  gt: [it],
  ge: [it],
  fma: [it, it],
  select: [f, f],
  to: [f32],
  bitcast: [i32],
  lane: [0],
  // Registers.
  "Reg.set": [f],
  "Reg.update": [(now: unknown) => now],
  addDot: [v, v],
  "RegArray.set": [0, f],
  "RegArray.get": [0],
  // Tensors.
  "w.load": [[0, i], { cache: "stream", guard: b }],
  "s.load": [[0, 0]],
  "Tensor.load": [[i], { cache: "stream" }],
  "w.loadVec": [[0, 0], 8, { cache: "stream", guard: b }],
  "Tensor.loadVec": [[0], 4],
  "s.store": [[0, 0], f],
  "acc.store": [[i], i],
  "Tensor.store": [[i], f],
  "Tensor.storeVec": [[0], inTrace("floats"), { cache: "stream" }],
  "x.tile": [[16], [0]],
  "y.tile": [[16], [0]],
  "acc.tile": [[16], [0]],
  atomicAdd: [[i], i],
  atomicMin: [[i], i],
  atomicMax: [[i], i],
  atomicAnd: [[i], i],
  atomicOr: [[i], i],
  atomicXor: [[i], i],
  atomicExchange: [[i], i],
  atomicCompareExchange: [[i], i, i],
  // Tiles and fragments.
  tile: [
    [16, 16],
    [0, 0],
  ],
  size: [0],
  map: [(now: unknown) => now],
  slice: [[null, 0]],
  partition: [parseLayout("(32,8):(8,1)"), i],
  coordinate: [0],
  inBounds: [0],
  "Partition.tile": [
    [8, 1, 1],
    [0, 0, 0],
  ],
  "Partition.slice": [[null, 0, 0]],
  "Partition.partition": [parseLayout("(1,8):(0,1)"), 0],
  load: [0],
  "sTile.load": [0, { peer: 0 }],
  store: [0, new InTrace(({ v }) => v.lane(0))],
  "matrices.slice": [i],
  partitionA: [inTrace("tile")],
  partitionB: [new InTrace(({ w }) => w.tile([8, 16], [0, 0]))],
  partitionC: [new InTrace(({ t }) => t.sharedTile(f32, makeLayout([16, 8], [8, 1])))],
  get: [0],
  fill: [0],
  update: [(now: unknown) => now],
  // The thread.
  const: [f32, 1],
  dim: [4],
  reg: [f32, 0],
  "rs.reg": [0],
  array: [f32, 4, { lanes: 2 }],
  pack: [f, f],
  shared: [f32, [4, 4], { alignBytes: 16 }],
  range: [0, 4, { unroll: true }],
  when: [b, nothing, nothing],
  shuffleXor: [f, 1],
  shuffleUp: [f, 1],
  shuffleDown: [f, i],
  shuffle: [f, i],
  warpSum: [f],
  warpMin: [f],
  warpMax: [f],
  warpAny: [b],
  warpAll: [b],
  sleep: [100],
  sharedTile: [bf16, makeLayout([4, 4]), { alignBytes: 16 }],
  tileOf: [w],
  fragment: [inTrace("tile")],
  copy: [inTrace("partition"), inTrace("fragment"), { cache: "stream", guard: "edges" }],
  copyAsync: [inTrace("tile"), inTrace("sTile"), { guard: "edges" }],
  asyncWait: [0],
  copyBulk: [x, [0], inTrace("s"), [0, 0], 16, inTrace("mbarrier"), 0],
  tensorMap: [w, [16, 16], { swizzleBytes: 32 }],
  copyTensor: [inTrace("map"), [0, 0], inTrace("sTile"), inTrace("mbarrier"), 0, { cache: "stream" }],
  prefetch: [w, [0, 0]],
  accumulator: [inTrace("mma"), [16, 8]],
  matrixFragment: [inTrace("sPartition")],
  mma: [inTrace("rC"), inTrace("fragment"), inTrace("rB")],
  mmaVectors: [mmaAtoms.m16n8k16.bf16, inTrace("v8"), v, inTrace("floats")],
  ldmatrix: [inTrace("sRows"), [i, 0], 4, { transposed: true }],
  stmatrix: [inTrace("sRows"), [i, 0], inTrace("v8"), { transposed: true }],
  copyMatrix: [inTrace("sPartition"), inTrace("sFragment")],
  wgmma: [inTrace("wide"), inTrace("operand"), inTrace("operand"), { accumulate: true }],
  wgmmaWait: [0],
  setRegisters: ["decrease", 40],
  // Barriers.
  mbarrier: [2, 32],
  pipeline: [2, { producers: 1, consumers: 4 }],
  namedBarrier: [1, 128],
  namedArrive: [1, 128],
  "mbarrier.arrive": [0, { peer: 0 }],
  arriveExpect: [0, 128],
  arriveAfterCopies: [0],
  "mbarrier.wait": [0, 0],
  "ring.tile": [0],
};

/** What else a kernel must do that calls a method of a thing. */
const company: Readonly<
  Record<string, { readonly before?: (scene: Scene) => void; readonly after?: (scene: Scene) => void }>
> = {
  "t.copyAsync": { after: ({ t }) => (t.asyncCommit(), t.asyncWait(0)) },
  "t.copyBulk": { after: ({ mbarrier }) => mbarrier.wait(0, 0) },
  "t.copyTensor": { after: ({ mbarrier }) => mbarrier.wait(0, 0) },
  "t.wgmma": { before: ({ t }) => t.wgmmaFence(), after: ({ t }) => (t.wgmmaCommit(), t.wgmmaWait(0)) },
  "mbarrier.arrive": { before: ({ cluster }) => cluster.barrier(), after: ({ cluster }) => cluster.barrier() },
  "mbarrier.arriveAfterCopies": { after: ({ mbarrier }) => mbarrier.wait(0, 0) },
  "sTile.load": { before: ({ cluster }) => cluster.barrier(), after: ({ cluster }) => cluster.barrier() },
  "cluster.arrive": { after: ({ cluster }) => cluster.wait() },
  "cluster.wait": { before: ({ cluster }) => cluster.arrive() },
};

/** Right arguments for a method of a thing. */
export function usualArguments(name: Thing, type: string, method: string): readonly unknown[] {
  const key = [`${name}.${method}`, `${type}.${method}`, method].find((key) => Object.hasOwn(usual, key));
  return (key === undefined ? undefined : usual[key]) ?? [i];
}

/** In arrays and options, too. What garbage does when it is read is left to the method. */
function resolved(value: unknown, scene: Scene, receiver: unknown): unknown {
  if (value instanceof InTrace) return value.pick(scene, receiver);
  if (typeof value !== "object" || value === null || types.isProxy(value)) return value;
  if (Array.isArray(value) ? value.length > 8 : Object.getPrototypeOf(value) !== Object.prototype) return value;
  const fields = Object.getOwnPropertyDescriptors(value) as Record<string, PropertyDescriptor>;
  if (!Object.values(fields).some((field) => field.value instanceof InTrace)) return value;
  for (const field of Object.values(fields)) {
    const inner: unknown = field.value;
    if (inner instanceof InTrace) field.value = inner.pick(scene, receiver);
  }
  return Object.defineProperties(Array.isArray(value) ? [] : {}, fields);
}

/** Traces a kernel in which a method of a thing is called. */
export function callInTrace(name: Thing, method: string, args: readonly unknown[]): void {
  traced((...given) => {
    const scene = sceneOf(...given);
    const receiver: object = scene[name];
    const { before, after } = company[`${name}.${method}`] ?? {};
    before?.(scene);
    const call = (receiver as Record<string, (...args: unknown[]) => unknown>)[method];
    const result = call?.apply(
      receiver,
      args.map((arg) => resolved(arg, scene, receiver)),
    );
    // A condition must be used, and a loop be run.
    if (result instanceof Expr && result.dtype === bool) scene.t.when((result as Expr<"bool">).lane(0), nothing);
    if (method === "range") for (const _ of result as Iterable<unknown>) continue;
    after?.(scene);
  });
}
