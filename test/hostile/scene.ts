/** A kernel with one of each thing that authors hold while they trace. */
import {
  bf16,
  type Dependent,
  type Early,
  f32,
  frozen,
  i32,
  inout,
  input,
  kernel,
  mmaAtoms,
  output,
  type Thread,
  tiledMma,
  wgmmaAtom,
} from "../../dsl/index.ts";
import { composition, makeLayout, Swizzle } from "../../dsl/layout/index.ts";

export const params = {
  w: frozen(bf16, [64, 64], { alignBytes: 16 }),
  x: input(f32, [64], { alignBytes: 16 }),
  y: output(f32, [64], { alignBytes: 16 }),
  acc: inout(i32, [64]),
};
type Tensors = Early<typeof params> & Dependent<typeof params>;
type Body = (t: Thread<Dependent<typeof params>>, tensors: Tensors) => void;

export function traced(body: Body) {
  return kernel({ name: "traced", grid: 2, block: 128, cluster: 2, params }, (t, { w }) =>
    body(t, { w, ...t.pdl.wait() }),
  );
}

const atom = mmaAtoms.m16n8k16.bf16;

export function sceneOf(...[t, { w, x, y, acc }]: Parameters<Body>) {
  const b = t.lane.lt(3);
  t.when(b, () => y.store([0], 1));
  const matrices = tiledMma(atom);
  const mma = matrices.slice(t.lane);
  const tile = w.tile([16, 16], [0, 0]);
  const sTile = t.sharedTile(bf16, makeLayout([16, 16], [16, 1]), { alignBytes: 128 });
  const [partition, sPartition] = [mma.partitionA(tile), mma.partitionA(sTile)];
  const fragment = t.fragment(partition);
  const swizzled = composition(new Swizzle(3, 3, 3), makeLayout([64, 64], [64, 1]));
  return {
    // What `t` gives at once.
    t,
    pdl: t.pdl,
    cluster: t.cluster,
    // Values and registers.
    i: t.lane,
    f: t.const(f32, 1),
    b,
    v: w.loadVec([0, 0], 4),
    floats: x.loadVec([0], 4),
    v8: w.loadVec([0, 0], 8),
    r: t.reg(f32, 0),
    rs: t.array(f32, 4),
    // Tensors.
    w,
    x,
    y,
    acc,
    s: t.shared(f32, [4, 4], { alignBytes: 128 }),
    sRows: t.shared(bf16, [32, 8], { alignBytes: 128 }),
    // Tiles, and what holds or moves them.
    tile,
    sTile,
    matrices,
    mma,
    partition,
    sPartition,
    fragment,
    sFragment: t.matrixFragment(sPartition),
    rB: t.fragment(mma.partitionB(w.tile([8, 16], [0, 0]))),
    rC: t.accumulator(mma, [16, 8]),
    wide: t.accumulator(tiledMma(wgmmaAtom(64, bf16, bf16)).slice(t.thread), [64, 64]),
    operand: t.sharedTile(bf16, swizzled, { alignBytes: 1024 }),
    plan: t.copy(partition, fragment),
    map: t.tensorMap(w, [16, 16]),
    // Barriers.
    mbarrier: t.mbarrier(2, 32),
    ring: t.pipeline(2, { producers: 1, consumers: 4 }),
  };
}

export type Scene = ReturnType<typeof sceneOf>;
export type Thing = keyof Scene;

/** A scene whose trace has ended. */
export function endedScene(): Scene {
  const scenes: Scene[] = [];
  traced((...given) => void scenes.push(sceneOf(...given)));
  const [scene] = scenes;
  if (!scene) throw new Error("nothing was traced");
  return scene;
}

/** A kernel's IR. */
export const tracedIr = traced(() => undefined).ir;
