/**
 * What authors call: the functions of `tegula`, linear() and chooseLinear(); and every method of what they hold while a kernel
 * is traced, each call in a trace of its own.
 */
import * as tegula from "../../dsl/index.ts";
import {
  bf16,
  e4m3,
  f32,
  frozen,
  HostTensor,
  inout,
  input,
  kernel,
  mmaAtoms,
  output,
  tiledMma,
} from "../../dsl/index.ts";
import { parseLayout } from "../../dsl/layout/index.ts";
import { chooseLinear, epilogue, linear, relu } from "../../kernels/index.ts";
import { caught } from "../mistake.ts";
import { Targets, type World } from "./calls.ts";
import { large } from "./garbage.ts";
import { callInTrace, inTrace, usualArguments } from "./methods.ts";
import { endedScene, params, type Thing, tracedIr } from "./scene.ts";

const scene = endedScene();
const shape = () => [f32, [4, 4], { alignBytes: 16 }];
const [M, N, K] = [4, 64, 256];
const strides = { x: [K, 1], w: [K, 1], y: [N, 1] };
const linearConfig = () => [
  {
    M,
    N,
    K,
    weights: bf16,
    out: f32,
    device: "NVIDIA H200",
    batchInvariant: false,
    strides,
    epilogue: epilogue({}, relu),
  },
];

/** Functions, each with right arguments. */
const functions: Readonly<Record<string, readonly [call: unknown, valid: () => readonly unknown[]]>> = {
  frozen: [frozen, shape],
  input: [input, shape],
  output: [output, shape],
  inout: [inout, shape],
  scalar: [tegula.scalar, () => [f32]],
  size: [tegula.size, () => ["N", { min: 2, max: 64, multipleOf: 2 }]],
  ceilDiv: [tegula.ceilDiv, () => [tegula.size("N"), 4]],
  floorDiv: [tegula.floorDiv, () => [7, 4]],
  powerOfTwoDivisor: [tegula.powerOfTwoDivisor, () => [24, 16]],
  kernel: [
    kernel,
    () => [
      { name: "k", grid: [2, 1, 1], block: 32, cluster: 2, params: { ...params } },
      (t: tegula.Thread) => void t.pdl.wait(),
    ],
  ],
  printKernel: [tegula.printKernel, () => [tracedIr, { lines: true }]],
  decode: [tegula.decode, () => [bf16, 0x3f80]],
  encode: [tegula.encode, () => [e4m3, 1.5, "nosat"]],
  tiledMma: [tiledMma, () => [mmaAtoms.m16n8k16.bf16, { warps: [1, 1], permute: [null, null, null] }]],
  wgmmaAtom: [tegula.wgmmaAtom, () => [64, bf16, bf16]],
  formatLocation: [tegula.formatLocation, () => [{ file: "a.ts", line: 1, column: 1 }]],
  "new HostTensor": [
    (...args: ConstructorParameters<typeof HostTensor>) => new HostTensor(...args),
    () => [f32, [2], new Uint8Array(8)],
  ],
  "HostTensor.from": [HostTensor.from.bind(HostTensor), () => [f32, [2, 2], [1, 2, 3, 4]]],
  "HostTensor.filled": [HostTensor.filled.bind(HostTensor), () => [f32, [2], 255]],
  linear: [linear, linearConfig],
  chooseLinear: [chooseLinear, linearConfig],
};

/** Functions of `tegula` that no target stands for, and classes of it of which there is no object. */
export function leftOut({ targets }: World): readonly string[] {
  const objects: readonly unknown[] = [...Object.values(scene), tegula.size("N"), HostTensor.from(f32, [1], [0])];
  return Object.entries(tegula).flatMap(([name, value]) => {
    if (typeof value !== "function" || targets.has(name) || name.endsWith("Error")) return [];
    const isClass = /^[A-Z]/.test(name);
    return isClass && objects.some((object) => object instanceof (value as typeof HostTensor)) ? [] : [name];
  });
}

/** Functions, and methods of things of a class, that refuse even right arguments; methods that some such thing takes are none. */
export function withoutWork({ targets }: World): readonly string[] {
  const works = new Map<string, boolean>();
  for (const [name, { call, valid }] of targets) {
    const [thing = "", method] = name.split(".");
    const object = scene[thing as Thing] as object | undefined;
    const type = object && (object.constructor === Object ? thing : object.constructor.name);
    const key = type ? `${type}.${method}` : name;
    works.set(key, works.get(key) || caught(() => call(...valid())) === undefined);
  }
  return [...works].flatMap(([name, isRight]) => (isRight ? [] : [name]));
}

/** For the DSL's own files: by name, or where others have a public method of that name, by thing and name. */
const internal: ReadonlySet<string> = new Set([
  ...["mma.partition", "map.copy", "map.checkTarget"],
  ...["constructor", "slot", "parity", "algebra", "threadValue"],
  ...["read", "write", "readRegister", "writeRegister", "reduce", "exchange", "named", "namedMbarrier"],
  ...["offset", "vector", "with", "steps", "coordinates", "indexAt", "loadAt", "boundsOf", "moved"],
]);

/** Names of the methods of an object, its own (as of `t.pdl`) or its class's. */
function methodsOf(object: object): readonly string[] {
  const names: string[] = [];
  for (let level = object; level !== Object.prototype; level = Object.getPrototypeOf(level) as object) {
    for (const [name, { value }] of Object.entries<PropertyDescriptor>(Object.getOwnPropertyDescriptors(level))) {
      if (typeof value === "function") names.push(name);
    }
  }
  return [...new Set(names)];
}

export function authoringWorld(): World {
  const targets = new Targets();
  const things = new Map<string, () => unknown>();
  for (const name of Object.keys(scene) as Thing[]) {
    things.set(name, () => inTrace(name));
    things.set(`${name} of another kernel`, () => scene[name]);
    const type = scene[name].constructor.name;
    for (const method of methodsOf(scene[name])) {
      if (internal.has(method) || internal.has(`${name}.${method}`)) continue;
      const call = (...args: readonly unknown[]) => callInTrace(name, method, args);
      // Whose shape nobody checks, as yet: this one takes minutes.
      const without = method === "accumulator" ? ["an array of 2 ** 32 - 1"] : [];
      targets.free(`${name}.${method}`, call, () => usualArguments(name, type, method), without);
    }
  }
  things.set("a layout", () => parseLayout("((2,4),8):((1,2),8)"));
  for (const [name, [call, valid]] of Object.entries(functions)) {
    targets.free(name, call, valid, name.includes("HostTensor") ? large : []);
  }
  for (const [name, operation] of Object.entries(tegula.dims)) {
    targets.free(`dims.${name}`, operation, () => [4, tegula.size("N")]);
  }
  targets.member("HostTensor.values", [HostTensor.from(f32, [2], [1, 2])]);
  return { targets, things, end: () => Promise.resolve() };
}
