/** What callers without tsc pass by mistake: what each refusal says; of some also the line of theirs that it names. */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { compileCuda, emitCuda } from "../backends/cuda/index.ts";
import { openSimulator } from "../backends/simulator/index.ts";
import { DeviceTensor, deviceTensor, emitWgsl, openWgsl, run, type WgslBackend } from "../backends/wgsl/index.ts";
import { decode, encode, f32, formatLocation, HostTensor, printKernel, TegulaError } from "../dsl/index.ts";
import { chooseLinear, llGemmMmaBf16 } from "../kernels/index.ts";
import { traced, untyped } from "./mistake.ts";

let backend: WgslBackend;
beforeAll(async () => void (backend = await openWgsl()));
afterAll(() => backend.dispose());

const kernel = traced(() => undefined);
const floats = untyped<Uint8Array<ArrayBuffer>>(new Float32Array(1));
const f64 = untyped<typeof f32>({ name: "f64", bytes: 8, kind: "float" });
const host = HostTensor.from(f32, [2], [1, 2]);
const source = readFileSync(new URL(import.meta.url), "utf8").split("\n");

interface Refusal {
  readonly error: string;
  /** The first line of its message. */
  readonly says: string | undefined;
  readonly at?: { readonly file: string; readonly line: number } | undefined;
}

async function refusal(call: () => unknown): Promise<Refusal> {
  try {
    await call();
  } catch (error) {
    if (!(error instanceof TegulaError)) throw error;
    return { error: error.name, says: error.message.split("\n")[0], at: error.at };
  }
  return { error: "none", says: undefined };
}

test.each<[error: string, says: string, call: () => unknown]>([
  // Tensors on the host.
  ["DTypeError", 'A dtype is needed here, e.g. f32, not "f32"', () => new HostTensor(untyped("f32"), [1], host.bytes)],
  ["ShapeError", "A tensor's shape is an array of whole numbers, not 4", () => HostTensor.filled(f32, untyped(4), 0)],
  ["ShapeError", "A tensor's shape is a list of whole numbers, not [2,-1]", () => HostTensor.filled(f32, [2, -1], 0)],
  ["ShapeError", "A tensor has at most 32 dimensions, not 1000", () => HostTensor.filled(f32, Array(1000).fill(1), 0)],
  ["ValueError", "A byte is a whole number from 0 to 255, not 256", () => HostTensor.filled(f32, [1], 256)],
  ["ValueError", 'Values are numbers, but element 1 is "2"', () => HostTensor.from(f32, [2], untyped([1, "2"]))],
  ["ValueError", "The values of a tensor are a list of numbers, not 1", () => HostTensor.from(f32, [1], untyped(1))],
  ["ValueError", "The bytes of a host tensor are a Uint8Array, not", () => new HostTensor(f32, [1], floats)],
  // Tensors on a device.
  ["ShapeError", "A tensor's shape is a list of whole numbers, not [0.5]", () => deviceTensor(backend, f32, [0.5])],
  ["DTypeError", "A dtype is needed here, e.g. f32, not an Object", () => deviceTensor(backend, f64, [1])],
  // IR.
  ["ArgumentError", "emitCuda takes a kernel's ir, not an Object", () => emitCuda(untyped(kernel))],
  ["ArgumentError", "emitWgsl takes a kernel's ir, not an Object", () => emitWgsl(untyped(kernel))],
  ["ArgumentError", "printKernel takes a kernel's ir, not undefined", () => printKernel(untyped(undefined))],
  ["ArgumentError", "compile takes a kernel's ir, not undefined", () => backend.compile(untyped({ name: "k" }))],
  // Kernels that are shipped.
  [
    "ShapeError",
    "llGemmMma takes whole numbers from 1 on, or sizes; K is undefined",
    () => llGemmMmaBf16(untyped({ M: 1, N: 64, out: f32 })),
  ],
  ["ArgumentError", "linear takes one object, not undefined", () => chooseLinear(untyped(undefined))],
  [
    "ArgumentError",
    'A device is named by a string, e.g. "NVIDIA H200", not by 0',
    () => chooseLinear({ M: 1, N: 1, K: 1, weights: f32, out: f32, device: untyped(0) }),
  ],
  [
    "ArgumentError",
    "Strides are [row, column] of x, w or y; x has 64",
    () => chooseLinear({ M: 1, N: 1, K: 1, weights: f32, out: f32, strides: { x: untyped(64) } }),
  ],
])("%s with the author's line: %s", async (error, says, call) => {
  const { at, ...refused } = await refusal(call);
  expect(refused).toEqual({ error, says: expect.stringContaining(says) });
  expect(at?.file).toBe("test/mistakes-arguments.test.ts");
  // The call stands in the line of what it says, or in the next.
  const line = source.findIndex((text) => text.includes(says)) + 1;
  expect([line, line + 1]).toContain(at?.line);
});

test.each<[error: string, says: string, call: () => unknown]>([
  ["ArgumentError", "A backend is needed here, not a HostTensor", () => deviceTensor(untyped(host), f32, [1])],
  [
    "ArgumentError",
    "A backend is needed here, not an Object",
    () => run(untyped(kernel), untyped(backend), untyped({})),
  ],
  [
    "ArgumentError",
    "compile takes what kernel(...) returns, not a function",
    () => backend.compile(untyped(() => kernel)),
  ],
  [
    "ArgumentError",
    "traced: its arguments are one object, by name, not undefined",
    () => run(backend, kernel, untyped(undefined)),
  ],
  ["ArgumentError", "A tensor lies in a storage, not in a HostTensor", () => new DeviceTensor(untyped(host), f32, [1])],
  [
    "ShapeError",
    'f32[1] can\'t begin at byte "4" of its storage',
    () => new DeviceTensor(backend.allocate(8), f32, [1], untyped("4")),
  ],
  [
    "ArgumentError",
    "freeze takes the line that freezes, not undefined",
    () => backend.allocate(4).freeze(untyped(undefined)),
  ],
  [
    "ArgumentError",
    "Bytes to copy are a Uint8Array, not a Float32Array",
    () => backend.write(backend.allocate(4), 0, untyped(new Float32Array(1))),
  ],
  ["ArgumentError", 'openWgsl takes its options as an object, not "gpu"', () => openWgsl(untyped("gpu"))],
  ["ArgumentError", 'There is no WGSL device "cpu"', () => openWgsl({ device: untyped("cpu") })],
  [
    "ArgumentError",
    'The source is a string and its options an object, not "" and undefined',
    () => compileCuda("", untyped(undefined)),
  ],
  [
    "ArgumentError",
    'There is no compiler "gcc"; nvrtc and nvcc are those that may be named',
    () => compileCuda("", { arch: "sm_90a", name: "k", compiler: untyped("gcc") }),
  ],
  ["ValueError", "1 is no number: encode(f32, 1.5)", () => encode(f32, untyped(1n))],
  [
    "ValueError",
    'Overflow is handled as "satfinite" or "nosat" says, not as "wrap"',
    () => encode(f32, 1, untyped("wrap")),
  ],
  ["ValueError", "-1 is not a bit pattern of f32", () => decode(f32, -1)],
  ["ArgumentError", "A location has a file, a line and a column", () => formatLocation(untyped({}))],
])("%s: %s", async (error, says, call) => {
  expect(await refusal(call)).toMatchObject({ error, says });
});

test("what only looks like a tensor is none", async () => {
  const tensor = deviceTensor(backend, host);
  const looks = [{ ...tensor }, Object.create(tensor), new Proxy(tensor, {}), structuredClone({ ...host })] as const;
  for (const like of looks) {
    expect(like instanceof DeviceTensor || like instanceof HostTensor).toBe(false);
    expect((await refusal(() => tensor.write(untyped(like)))).says).toMatch(
      /^A tensor is copied from and to tensors, not /,
    );
  }
  expect(Object.isFrozen(tensor)).toBe(true); // so that its shape is what was checked against its storage
});

test("a shape whose elements change is read once", () => {
  let reads = 0;
  const shape = Object.defineProperty([0], 0, { get: () => (reads++ === 0 ? 1 : 2 ** 20) });
  const tensor = new DeviceTensor(backend.allocate(4), f32, shape);
  expect([tensor.shape, tensor.byteLength, reads]).toEqual([[1], 4, 1]);
});

test("after dispose() nothing compiles, not even a kernel that was compiled before", async () => {
  for (const open of [openWgsl, openSimulator]) {
    const gone = await open();
    await gone.compile(kernel);
    await gone.dispose();
    expect((await refusal(() => gone.compile(kernel))).error).toBe("DisposedError");
  }
});
