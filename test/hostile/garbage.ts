/** What a hostile caller may pass: values by name, made anew for each call, since calls may use them up. */
import { bf16, f32, HostTensor, size } from "../../dsl/index.ts";

/** Thrown by the garbage itself; a call may let it through, as any error of the caller's own code. */
export class HostileError extends Error {}

const throwing = (): never => {
  throw new HostileError("on purpose");
};

/** A sparse array whose elements nobody has the time to look at one by one. */
const endless = () => {
  const array: unknown[] = [1];
  array.length = 2 ** 32 - 1;
  return array;
};

const detached = () => {
  const bytes = new Uint8Array(16);
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
  return bytes;
};

/** Elements that are another number each time they are read. */
const fickle = (first: unknown, later: unknown) => {
  let reads = 0;
  return Object.defineProperty([0], 0, { get: () => (reads++ === 0 ? first : later), enumerable: true });
};

const cyclic = () => {
  const array: unknown[] = [1];
  array.push(array);
  return array;
};

const withoutPrototype = (fields: object): object => Object.assign(Object.create(null) as object, fields);

const numbers = [0, -0, 1, -1, 0.5, 7, 64, 65_536, 2 ** 31, 2 ** 32, 2 ** 53, 1e39, NaN, Infinity, -Infinity];
const bigints = [0n, 1n, -1n, 4096n, 0xdead_beef_0000n, 2n ** 57n, 2n ** 64n];
const strings = [
  "",
  "x",
  "a\0b",
  "__proto__",
  "constructor",
  "); return 1;",
  "-o/etc/passwd",
  "\ud800",
  "x".repeat(500),
];
const arrays: readonly (readonly unknown[])[] = [
  [],
  [0],
  [1],
  [4],
  [-1],
  [NaN],
  [0.5],
  [2 ** 31],
  [2 ** 53],
  [1n],
  ["4"],
];

/** Sizes that a machine may grant, and then be short of memory. */
export const large: readonly string[] = ["2147483648", "4294967296", "[2147483648]"];

export const garbage: ReadonlyMap<string, () => unknown> = new Map<string, () => unknown>([
  ...[undefined, null, true, false].map((value) => [String(value), () => value] as const),
  ...numbers.map((value) => [Object.is(value, -0) ? "-0" : String(value), () => value] as const),
  ...bigints.map((value) => [`${value}n`, () => value] as const),
  ...strings.map((value) => [JSON.stringify(value), () => value] as const),
  ...arrays.map(
    (value) =>
      [`[${value.map((one) => (typeof one === "string" ? `"${one}"` : String(one)))}]`, () => [...value]] as const,
  ),
  ["a symbol", () => Symbol("garbage")],
  // Functions.
  ["() => undefined", () => () => undefined],
  ["() => 2 ** 40", () => () => 2 ** 40],
  ["a function that throws", () => throwing],
  ["an async function", () => async () => undefined],
  ["a generator", () => function* () {}],
  // Objects.
  ["{}", () => ({})],
  ["{ length: 2 ** 32 }", () => ({ length: 2 ** 32 })],
  ["{ length: -1 }", () => ({ length: -1 })],
  ["{ toString: 1 }", () => ({ toString: 1, constructor: 1 })],
  ["{ then: function }", () => ({ then: (resolve: (value: unknown) => void) => resolve({}) })],
  ["an object without prototype", () => withoutPrototype({})],
  [
    "a tensor's fields without prototype",
    () => withoutPrototype({ storage: {}, dtype: f32, shape: [1], byteLength: 4 }),
  ],
  ["a host tensor's fields", () => ({ dtype: f32, shape: [1], bytes: new Uint8Array(4) })],
  ["a proxy", () => new Proxy({}, {})],
  ["a proxy that throws", () => new Proxy({}, { get: throwing, has: throwing, ownKeys: throwing })],
  ["getters that throw", () => ({ get dtype() { return throwing(); }, get shape() { return throwing(); }, get x() { return throwing(); } })], // prettier-ignore
  ["a date", () => new Date(0)],
  ["a map", () => new Map()],
  ["a promise", () => Promise.resolve(1)],
  ["a URL", () => new URL("file:///nowhere")],
  // Arrays.
  ["[[1]]", () => [[1]]],
  ["[a symbol]", () => [Symbol("element")]],
  ["[an object without prototype]", () => [withoutPrototype({})]],
  ["an array in itself", cyclic],
  ["an array of 2 ** 32 - 1", endless],
  ["an array of 100000", () => new Array<number>(100_000).fill(1)],
  ["an array with a hole", () => [, 1]],
  ["an array whose element throws", () => Object.defineProperty([0], 0, { get: throwing, enumerable: true })],
  ["an array that grows, 1 then 2 ** 20", () => fickle(1, 2 ** 20)],
  ["an array that shrinks, 2 then 1", () => fickle(2, 1)],
  ["a proxy of an array", () => new Proxy([1], {})],
  // Memory.
  ["a detached Uint8Array", detached],
  ["a detached ArrayBuffer", () => detached().buffer],
  ["a SharedArrayBuffer", () => new SharedArrayBuffer(16)],
  ["a Uint8Array of shared memory", () => new Uint8Array(new SharedArrayBuffer(16))],
  ["a Uint8Array(0)", () => new Uint8Array(0)],
  ["a Uint8Array(3)", () => new Uint8Array(3)],
  ["a Uint8Array(4)", () => new Uint8Array(4)],
  ["a Buffer", () => Buffer.from("abcd")],
  ["a Float32Array(4)", () => new Float32Array(4)],
  ["a BigUint64Array(1)", () => new BigUint64Array(1)],
  ["a DataView", () => new DataView(new ArrayBuffer(16))],
  ["an ArrayBuffer", () => new ArrayBuffer(16)],
  ["a proxy of a Uint8Array", () => new Proxy(new Uint8Array(16), {})],
  // Ours, or nearly.
  ["f32", () => f32],
  ["bf16", () => bf16],
  ['"f32"', () => "f32"],
  ["a copy of f32", () => structuredClone(f32)],
  ["f32 of 3 bytes", () => ({ ...f32, bytes: 3 })],
  ["f32 of -4 bytes", () => ({ ...f32, bytes: -4 })],
  ["a dtype that is none", () => ({ name: "f64", bytes: 8, kind: "float" })],
  ["a dtype of symbols", () => ({ name: Symbol("name"), bytes: Symbol("bytes"), kind: Symbol("kind") })],
  ["a size", () => size("G")],
  ["a host tensor", () => HostTensor.from(f32, [2], [1, 2])],
  ["a host tensor of bf16", () => HostTensor.from(bf16, [2], [1, 2])],
  ["an empty host tensor", () => HostTensor.from(f32, [0], [])],
  ["a host tensor that was detached", () => new HostTensor(f32, [0], detached() as Uint8Array<ArrayBuffer>)],
  [
    "a host tensor of shared memory",
    () => new HostTensor(f32, [4], new Uint8Array(new SharedArrayBuffer(16)) as never),
  ],
  ["no host tensor, but its class", () => Object.create(HostTensor.prototype) as unknown],
  ["a proxy of a host tensor", () => new Proxy(HostTensor.from(f32, [2], [1, 2]), {})],
]);
