/** Binding arguments to a kernel's parameters: what is refused, with which words. No launch reaches a device here. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { checkArguments } from "../../backends/bind.ts";
import { DeviceTensor, deviceTensor } from "../../backends/tensor.ts";
import { openWgsl, type WgslBackend } from "../../backends/wgsl/index.ts";
import {
  ArgumentError,
  bf16,
  DisposedError,
  dims,
  f32,
  frozen,
  HostTensor,
  i32,
  input,
  kernel,
  output,
  scalar,
  ShapeError,
  size,
  u32,
} from "../../dsl/index.ts";

let backend: WgslBackend;
beforeAll(async () => {
  backend = await openWgsl();
});
afterAll(() => backend.dispose());

const [M, K] = [size("M", { max: 16 }), size("K", { multipleOf: 8, min: 16 })];
const device = kernel(
  {
    name: "bound",
    grid: [M, dims.sub(K, 16)],
    block: 32,
    params: {
      w: frozen(bf16, [4, K], { alignBytes: 16 }),
      x: input(f32, [M, K]),
      y: output(f32, [M]),
      alpha: scalar(f32),
      i: scalar(i32),
      u: scalar(u32),
    },
  },
  (t) => {
    const { y } = t.pdl.wait();
    y.store([t.block.x], t.dim(K).to(f32));
  },
);

type Given = Readonly<Record<string, unknown>>;

const fine = (m = 2, k = 24) => ({
  w: deviceTensor(backend, bf16, [4, k]).freeze(),
  x: deviceTensor(backend, f32, [m, k]),
  y: deviceTensor(backend, f32, [m]),
  alpha: 0.5,
  i: -1,
  u: 2 ** 32 - 1,
});
const place = ({ storage, offsetBytes }: DeviceTensor) => ({ space: storage, begin: BigInt(offsetBytes) });
const bound = (change: Given) =>
  checkArguments(device, { ...fine(), ...change } as unknown as ReturnType<typeof fine>, backend, place);

/** The error's message without its "at" lines. */
function refusal(change: () => Given): string {
  try {
    bound(change());
  } catch (error) {
    expect(error).toBeInstanceOf(error instanceof DisposedError ? DisposedError : ArgumentError);
    return error instanceof Error ? (error.message.split("\n")[0] ?? "") : "";
  }
  return "none";
}

test("right arguments become tensors in the kernel's order, scalars, then sizes, and the grid", () => {
  const launch = bound({ alpha: 0.25 });
  expect(launch.tensors.map(String)).toEqual(["bf16[4, 24]", "f32[2, 24]", "f32[2]"]);
  expect(launch.scalars.map(({ name, dtype, value }) => [name, dtype.name, value])).toEqual([
    ["alpha", "f32", 0.25],
    ["i", "i32", -1],
    ["u", "u32", 2 ** 32 - 1],
    ["K", "i32", 24],
    ["M", "i32", 2],
  ]);
  expect(launch.grid).toEqual([2, 8, 1]);
});

describe("refused", () => {
  const tensor = (shape: readonly number[]): DeviceTensor => deviceTensor(backend, f32, shape);
  const cases: readonly (readonly [what: string, change: () => Given, message: string])[] = [
    ["unknown name", () => ({ z: 1 }), "bound: there is no parameter z"],
    ["unknown name that objects inherit", () => ({ toString: 1 }), "bound: there is no parameter toString"],
    ["missing tensor", () => ({ x: undefined }), "bound: x is missing"],
    [
      "host tensor",
      () => ({ x: HostTensor.filled(f32, [2, 24], 0) }),
      "bound: x must be a tensor on the device, not a HostTensor",
    ],
    ["wrong dtype", () => ({ x: deviceTensor(backend, i32, [2, 24]) }), "bound: x must be f32, got i32[2, 24]"],
    ["wrong rank", () => ({ x: tensor([48]) }), "bound: x must have shape [M, K], got f32[48]"],
    [
      "wrong number in the shape",
      () => ({ w: deviceTensor(backend, bf16, [5, 24]).freeze() }),
      "bound: w must have shape [4, K], got bf16[5, 24]",
    ],
    ["sizes that differ", () => ({ x: tensor([2, 32]) }), "bound: the size K is 24 in w and 32 in x"],
    ["a size over its maximum", () => fine(17), "bound: the size M is 17 (from x); promised were 1 to 16"],
    [
      "a size that is not the promised multiple",
      () => fine(2, 28),
      "bound: the size K is 28 (from w); promised were 16 to 1073741824 and a multiple of 8",
    ],
    ["an empty grid", () => fine(2, 16), "bound: the grid has 0 blocks along y"],
    ["a grid too large", () => fine(2, 65_560), "bound: the grid has 65544 blocks along y"],
    [
      "a misaligned view",
      () => ({ w: new DeviceTensor(backend.allocate(1000), bf16, [4, 24], 8).freeze() }),
      "bound: w is promised to be aligned to 16 bytes; it begins 8 bytes after a multiple of that",
    ],
    [
      "a tensor that isn't frozen",
      () => ({ w: deviceTensor(backend, bf16, [4, 24]) }),
      "bound: w is a frozen parameter, and may be read while earlier kernels still write; got a tensor that isn't frozen",
    ],
    [
      "a frozen output",
      () => ({ y: tensor([2]).freeze() }),
      "bound: y is output, but the tensor given is frozen: nothing writes it any more",
    ],
    ["a number for a tensor", () => ({ y: 5 }), "bound: y must be a tensor on the device, not 5"],
    ["a tensor for a number", () => ({ i: tensor([1]) }), "bound: i must be a number, got f32[1]"],
    ["no number", () => ({ alpha: undefined }), "bound: alpha must be a number, got undefined"],
    ["NaN", () => ({ alpha: NaN }), "bound: alpha is NaN"],
    [
      "NaN for an integer",
      () => ({ i: NaN }),
      "bound: i must be a whole number from -2147483648 to 2147483647, got NaN",
    ],
    ["a fraction", () => ({ i: 0.5 }), "bound: i must be a whole number from -2147483648 to 2147483647, got 0.5"],
    [
      "an i32 out of range",
      () => ({ i: 2 ** 31 }),
      "bound: i must be a whole number from -2147483648 to 2147483647, got 2147483648",
    ],
    ["a u32 out of range", () => ({ u: -1 }), "bound: u must be a whole number from 0 to 4294967295, got -1"],
    [
      "a u32 out of range",
      () => ({ u: 2 ** 32 }),
      "bound: u must be a whole number from 0 to 4294967295, got 4294967296",
    ],
    ["a bigint", () => ({ u: 1n }), "bound: u must be a number, got 1"],
    ["a finite f32 that overflows", () => ({ alpha: 1e39 }), "bound: alpha is 1e+39, beyond the range of f32"],
  ];
  test.each(cases)("%s: %#", (_, change, message) => expect(refusal(change)).toBe(message));

  test("freed memory", () => {
    const freed = tensor([2, 24]);
    freed.free();
    expect(refusal(() => ({ x: freed }))).toBe("bound: the memory of x was freed");
  });

  test("memory of another backend", async () => {
    const other = await openWgsl();
    const foreign = deviceTensor(other, f32, [2, 24]);
    expect(refusal(() => ({ x: foreign }))).toBe(`bound: x belongs to another backend (${other.device})`);
    await other.dispose();
  });
});

test("an infinite scalar is a scalar", () => {
  expect(bound({ alpha: -Infinity }).scalars[0]?.value).toBe(-Infinity);
});

describe("device tensors", () => {
  test("refuse shapes that are none, and pieces that their storage has no room for", () => {
    expect(() => deviceTensor(backend, f32, [2, -1])).toThrow(ShapeError);
    expect(() => deviceTensor(backend, f32, [0.5])).toThrow(ShapeError);
    expect(() => deviceTensor(backend, f32, 4 as never)).toThrow("an array of whole numbers, not 4");
    expect(() => deviceTensor(backend, [1, 2] as never)).toThrow(
      "from a HostTensor, or a dtype and a shape, not from an",
    );
    const storage = backend.allocate(64);
    expect(() => new DeviceTensor(storage, f32, [17])).toThrow("f32[17] at byte 0 needs 68 bytes, the storage has 64");
    expect(() => new DeviceTensor(storage, f32, [16], 4)).toThrow(ShapeError);
    expect(() => new DeviceTensor(storage, f32, [1], -4)).toThrow(ShapeError);
    expect(String(new DeviceTensor(storage, f32, [4, 4]))).toBe("f32[4, 4]");
  });

  test("write and read what they were given, until they are freed", async () => {
    const data = HostTensor.from(bf16, [3], [1, 2, 3]);
    const tensor = deviceTensor(backend, data);
    expect([...(await tensor.read()).values()]).toEqual([1, 2, 3]);
    expect(() => tensor.write(HostTensor.from(bf16, [2], [1, 2]) as never)).toThrow("Can't copy bf16[2] into bf16[3]");
    expect(() => tensor.write(new Float32Array(3) as never)).toThrow("copied from and to tensors, not a Float32Array");
    const Resizable = ArrayBuffer as unknown as new (
      bytes: number,
      options: object,
    ) => ArrayBuffer & { resize(n: number): void };
    const shrinking = new Resizable(6, { maxByteLength: 6 });
    const shrunk = new HostTensor(bf16, [3], new Uint8Array(shrinking));
    shrinking.resize(4);
    expect(() => tensor.write(shrunk)).toThrow("bf16[3] has only 4 bytes left: its memory was detached or shrunk");
    tensor.free();
    tensor.free();
    expect(() => tensor.write(data)).toThrow(DisposedError);
    await expect(tensor.read()).rejects.toThrow("bf16[3] was used after its memory was freed");
  });
});
