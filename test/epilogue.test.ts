/** Epilogues of the low-latency GEMMs: exact on integers in every family, for every M; what they cost when absent; mistakes. */
import { afterAll, beforeAll, describe, expect, expectTypeOf, test } from "vitest";
import type { Backend } from "../backends/backend.ts";
import type { Arguments } from "../backends/bind.ts";
import { emitCuda } from "../backends/cuda/index.ts";
import type { DeviceTensor, FrozenTensor } from "../backends/tensor.ts";
import {
  bf16,
  type Dim,
  DivergenceError,
  DTypeError,
  e4m3,
  type Expr,
  f32,
  frozen,
  HostTensor,
  inout,
  input,
  type Kernel,
  NameError,
  output,
  scalar,
  ShapeError,
  size,
  StagingError,
  type TensorSpec,
} from "../dsl/index.ts";
import {
  checkBits,
  checkWithin,
  epilogue,
  geluTanh,
  gemmReference,
  llGemmDotBf16,
  llGemmDotE4m3,
  llGemmDotF32,
  llGemmMmaBf16,
  llGemmMmaE4m3,
  llGemmPipelineBf16,
  llGemmPipelineE4m3,
  llGemmStreamBf16,
  llGemmStreamE4m3,
  randomTensor,
  relu,
  seededRandom,
  silu,
} from "../kernels/index.ts";
import { devices, runGuarded } from "./harness.ts";
import { mistakesIn, untyped } from "./mistake.ts";

const families = {
  dot: { bf16: llGemmDotBf16, e4m3: llGemmDotE4m3 },
  mma: { bf16: llGemmMmaBf16, e4m3: llGemmMmaE4m3 },
  pipeline: { bf16: llGemmPipelineBf16, e4m3: llGemmPipelineE4m3 },
  stream: { bf16: llGemmStreamBf16, e4m3: llGemmStreamE4m3 },
} as const;
type Family = keyof typeof families;

/** Configurations that a software device is not busy with for long. */
const small = {
  dot: {},
  mma: { cluster: 2, pieces: 1 },
  pipeline: { cluster: 2, stages: 2 },
  stream: { stages: 2 },
} as const;

/** A row of neither 16 columns nor 64; K of two tiles and a rest. */
const [N, K] = [37, 304];

const names = Object.keys(families) as Family[];
const cases = devices.flatMap((device) => names.map((family) => ({ ...device, family })));

/** Runs a kernel whose parameters are not known to tsc. */
async function resultsOf(backend: Backend, kernel: unknown, args: Readonly<Record<string, HostTensor | number>>) {
  return (await runGuarded(backend, kernel as Kernel, args as never)) as { readonly [output: string]: HostTensor };
}

/** max(sum + bias[n], 0) + residual[m,n] */
const biasReluResidual = (M: Dim, columns: Dim) =>
  epilogue({ bias: frozen(bf16, [columns]), residual: input(bf16, [M, columns]) }, (sum, { m, n, bias, residual }) =>
    relu(sum.add(bias.load([n]).to(f32))).add(residual.load([m, n]).to(f32)),
  );

describe.each(cases)("$family on $name", ({ family, missing, open }) => {
  let backend: Backend;
  beforeAll(async () => {
    if (!missing) backend = await open();
  });
  afterAll(() => backend?.dispose());

  /** Integers for one kernel with biasReluResidual, and what it makes of them. */
  async function exact(kernel: unknown, M: number, dtype: "bf16" | "e4m3", out: "f32" | "bf16" | "e4m3") {
    const random = seededRandom(M);
    const [x, w] = [M, N].map((rows) => randomTensor(dtype === "bf16" ? bf16 : e4m3, [rows, K], "integers", random));
    const bias = randomTensor(bf16, [N], "integers", random);
    const residual = randomTensor(bf16, [M, N], "integers", random);
    if (!x || !w) throw new Error("no data");
    const scales = { xScale: HostTensor.from(f32, [1], [0.5]), wScale: HostTensor.from(f32, [1], [4]) };
    const y = HostTensor.filled({ f32, bf16, e4m3 }[out], [M, N], 0);
    const args = { x, w, y, bias, residual, ...(dtype === "e4m3" ? scales : {}) };
    const sums = gemmReference(x, w, dtype === "e4m3" ? 2 : 1).y;
    const [b, r] = [bias.values(), residual.values()];
    const expected = sums.map((sum, i) => Math.max(sum + (b[i % N] ?? 0), 0) + (r[i] ?? 0));
    return checkBits((await resultsOf(backend, kernel, args))["y"] ?? y, expected);
  }

  test.skipIf(missing).each(["bf16", "e4m3"] as const)(
    "%s, M known at launch: bias, activation and residual are exact",
    async (dtype) => {
      const [M, columns] = [size("M", { max: 16 }), size("N")];
      const config = { M, N: columns, K, out: f32, ...small[family] };
      const kernel = families[family][dtype]({ ...config, epilogue: biasReluResidual(M, columns) });
      for (const tokens of [1, 3, 8, 13, 16]) {
        expect(await exact(kernel, tokens, dtype, "f32"), `M ${tokens}`).toMatchObject({ ok: true });
      }
    },
  );

  test.skipIf(missing).each([1, 13])("M = %i: the result is rounded once", async (M) => {
    const config = { M, N, K, ...small[family], epilogue: biasReluResidual(M, N) };
    const inBf16 = families[family].bf16({ ...config, out: bf16 });
    expect(await exact(inBf16, M, "bf16", "bf16")).toMatchObject({ ok: true });
    // To e4m3 these are often too large.
    const inE4m3 = families[family].e4m3({ ...config, out: e4m3 });
    expect(await exact(inE4m3, M, "e4m3", "e4m3")).toMatchObject({ ok: true });
  });

  test.skipIf(missing)("e4m3 with a scale for each channel, a scalar, and a second output", async () => {
    const M = 5;
    const end = epilogue(
      { channelScale: frozen(f32, [N]), alpha: scalar(f32), before: output(f32, [M, N]) },
      (sum, { m, n, channelScale, alpha, before }) => {
        before.store([m, n], sum);
        return sum.mul(channelScale.load([n])).mul(alpha);
      },
    );
    const kernel = families[family].e4m3({ M, N, K, out: bf16, ...small[family], epilogue: end });
    const random = seededRandom(1);
    const x = randomTensor(e4m3, [M, K], "integers", random);
    const w = randomTensor(e4m3, [N, K], "integers", random);
    const scales = { xScale: HostTensor.from(f32, [1], [0.5]), wScale: HostTensor.from(f32, [1], [8]) };
    const powers = Array.from({ length: N }, (_, n) => 2 ** ((n % 9) - 4));
    const channelScale = HostTensor.from(f32, [N], powers);
    const [y, before] = [bf16, f32].map((dtype) => HostTensor.filled(dtype, [M, N], 0));
    if (!y || !before) throw new Error("no outputs");
    const results = await resultsOf(backend, kernel, { x, w, y, before, alpha: -0.25, channelScale, ...scales });
    const sums = gemmReference(x, w, 4).y;
    const scaled = sums.map((sum, i) => sum * (powers[i % N] ?? 0) * -0.25);
    expect(checkBits(results["y"] ?? y, scaled)).toMatchObject({ ok: true });
    expect(checkBits(results["before"] ?? before, sums)).toMatchObject({ ok: true });
  });
});

describe.each(devices)("on $name", ({ missing, open }) => {
  let backend: Backend;
  beforeAll(async () => {
    if (!missing) backend = await open();
  });
  afterAll(() => backend?.dispose());

  test.skipIf(missing)("f32 weights take epilogues and M at launch", async () => {
    const M = size("M", { max: 16 });
    const end = epilogue({ bias: frozen(f32, [N]) }, (sum, { n, bias }) => sum.add(bias.load([n])));
    const kernel = llGemmDotF32({ M, N, K, out: e4m3, epilogue: end });
    for (const tokens of [1, 13]) {
      const random = seededRandom(tokens);
      const x = randomTensor(bf16, [tokens, K], "integers", random);
      const w = randomTensor(f32, [N, K], "integers", random);
      const bias = HostTensor.from(
        f32,
        [N],
        Array.from({ length: N }, (_, n) => (n % 3) * 300),
      );
      const y = HostTensor.filled(e4m3, [tokens, N], 0);
      const { y: result } = await runGuarded(backend, kernel, { w, x, y, bias });
      const expected = gemmReference(x, w).y.map((sum, i) => sum + (i % N % 3) * 300); // prettier-ignore
      expect(expected.some((value) => value > 464), "something saturates").toBe(true); // prettier-ignore
      expect(checkBits(result, expected)).toMatchObject({ ok: true });
    }
  });

  test.skipIf(missing)("a residual is updated in place", async () => {
    const [M, columns] = [3, 6];
    const end = epilogue({ residual: inout(f32, [M, columns]) }, (sum, { m, n, residual }) => {
      const added = sum.add(residual.load([m, n]));
      residual.store([m, n], added);
      return added;
    });
    const kernel = llGemmDotBf16({ M, N: columns, K: 64, out: bf16, epilogue: end });
    const random = seededRandom(3);
    const x = randomTensor(bf16, [M, 64], "integers", random);
    const w = randomTensor(bf16, [columns, 64], "integers", random);
    const residual = randomTensor(f32, [M, columns], "integers", random);
    const results = await runGuarded(backend, kernel, { x, w, residual, y: HostTensor.filled(bf16, [M, columns], 0) });
    const before = residual.values();
    const expected = gemmReference(x, w).y.map((sum, i) => sum + (before[i] ?? 0));
    expect(checkBits(results.residual, expected)).toMatchObject({ ok: true });
    expect(checkBits(results.y, expected)).toMatchObject({ ok: true });
  });

  const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
  /** Twice the argument of tanh: (1 + tanh(u)) / 2 is sigmoid(2 * u). */
  const geluGate = (x: number) => 2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3);
  test.skipIf(missing).each([
    { name: "relu", activation: relu, exactly: (x: number) => Math.max(x, 0), gate: () => 0 },
    { name: "silu", activation: silu, exactly: (x: number) => x * sigmoid(x), gate: (x: number) => x },
    { name: "geluTanh", activation: geluTanh, exactly: (x: number) => x * sigmoid(geluGate(x)), gate: geluGate },
  ])("$name is near its definition, far from zero too", async ({ activation, exactly, gate }) => {
    const columns = 256;
    const kernel = llGemmDotBf16({ M: 1, N: columns, K: 1, out: f32, epilogue: epilogue({}, activation) });
    // -1000 to 1000, densest around 0.
    const points = Array.from({ length: columns }, (_, i) => ((i - 128) / 12.8) ** 3);
    const w = HostTensor.from(bf16, [columns, 1], points);
    const [x, y] = [HostTensor.from(bf16, [1, 1], [1]), HostTensor.filled(f32, [1, columns], 0)];
    const { y: result } = await runGuarded(backend, kernel, { w, x, y });
    const xs = w.values();
    // What rounding does to the argument of exp, its result has as relative error; WGSL may be off by 3 + 2 * |gate| ulp.
    const bound = (x: number) => Math.abs(exactly(x)) * (8 * Math.abs(gate(x)) + 16) * 2 ** -24 + 2 ** -125;
    expect(checkWithin(result, xs.map(exactly), (i) => bound(xs[i] ?? 0))).toMatchObject({ ok: true });
  });
});

test.each(names)("%s: an epilogue that does nothing costs nothing", (family) => {
  for (const dtype of ["bf16", "e4m3"] as const) {
    const config = { M: 8, N: 256, K: 4096, out: bf16 } as const;
    const make = families[family][dtype];
    const [without, idle] = [make(config), make({ ...config, epilogue: epilogue({}, (sum) => sum) })];
    const source = ({ ir }: Pick<Kernel, "ir">) => emitCuda(ir, { lineDirectives: false }).source;
    expect(source(idle)).toBe(source(without));
  }
});

describe("types", () => {
  const M = size("M", { max: 16 });
  test("a kernel's parameters are its own and the epilogue's", () => {
    const end = epilogue({ bias: frozen(bf16, [N]), residual: input(f32, [M, N]), alpha: scalar(f32) }, (sum, place) => {
      expectTypeOf(place.bias.load([place.n])).toEqualTypeOf<Expr<"bf16">>();
      expectTypeOf(place.alpha).toEqualTypeOf<Expr<"f32">>();
      return sum.add(place.residual.load([place.m, place.n]));
    }); // prettier-ignore
    const kernel = llGemmMmaBf16({ M, N, K, out: e4m3, epilogue: end });
    expectTypeOf(kernel.params.residual).toEqualTypeOf<TensorSpec<"input", "f32", 2>>();
    expectTypeOf<Arguments<typeof kernel.params>>().toEqualTypeOf<{
      readonly w: FrozenTensor<"bf16">;
      readonly x: DeviceTensor<"bf16">;
      readonly y: DeviceTensor<"e4m3">;
      readonly bias: FrozenTensor<"bf16">;
      readonly residual: DeviceTensor<"f32">;
      readonly alpha: number;
    }>();
    expect(Object.keys(kernel.params)).toEqual(["w", "x", "y", "bias", "residual", "alpha"]);
    expectTypeOf<keyof typeof plain.params>().toEqualTypeOf<"w" | "x" | "y">();
    const plain = llGemmStreamBf16({ M, N, K, out: f32 });
  });

  test("what tsc refuses", () => {
    const bias = frozen(bf16, [N]);
    const compiled = () => {
      // @ts-expect-error a bf16 is no sum
      epilogue({ bias }, (sum, { n, bias }) => sum.add(bias.load([n])));
      // @ts-expect-error the kernel rounds, not the epilogue
      epilogue({}, (sum) => sum.to(bf16));
      // @ts-expect-error nothing is returned
      epilogue({}, (sum) => void sum.add(1));
      // @ts-expect-error not declared
      epilogue({ bias }, (sum, { n, scale }) => sum.mul(scale.load([n])));
      // @ts-expect-error an input is not written
      epilogue({ bias }, (sum, { n, bias }) => (bias.store([n], 1), sum));
      // @ts-expect-error the kernel has a w
      epilogue({ w: bias }, (sum) => sum);
      // @ts-expect-error a bare function: which parameters has it?
      llGemmDotBf16({ M, N, K, out: f32, epilogue: relu });
    };
    expect(compiled).toBeTypeOf("function");
  });
});

describe("mistakes", () => {
  const mistake = mistakesIn(import.meta.url);
  const dims = { M: 2, N: 8, K: 64, out: f32 } as const;

  mistake(
    "a parameter with a name of the kernel's",
    NameError,
    /can't be called x[^]*taken are w, x, y, wScale/,
    () => {
      const params = {
        x: input(bf16, [2, 8]), // wrong
      };
      epilogue(untyped(params), (sum) => sum);
    },
  );
  mistake("a scale for each channel under the name of the one", NameError, /called wScale[^]*channelScale/, () => {
    const params = { bias: frozen(bf16, [8]), wScale: frozen(f32, [8]) }; // wrong
    epilogue(untyped(params), (sum) => sum);
  });
  mistake(
    "parameters without a function",
    StagingError,
    /second argument is a function, not undefined[^]*\(sum,/,
    () => {
      epilogue({ bias: frozen(bf16, [8]) }, untyped(undefined)); // wrong
    },
  );
  mistake("an epilogue without return", StagingError, /returns the f32 to store, not undefined[^]*return sum/, () => {
    const end = epilogue({ bias: frozen(bf16, [8]) }, (sum, { n, bias }) => {
      const shifted = sum.add(bias.load([n]).to(f32)); // wrong
      return untyped(void shifted);
    });
    llGemmDotBf16({ ...dims, epilogue: end });
  });
  mistake(
    "a sum over lanes that have none",
    DivergenceError,
    /warp reduction stands where not all threads of the warp may come/,
    () => {
      const end = epilogue({}, (sum, { t }) => t.warpSum(sum)); // wrong
      llGemmDotBf16({ ...dims, epilogue: end });
    },
  );
  test("a bare function", () => {
    expect(() => llGemmDotBf16({ ...dims, epilogue: untyped(relu) })).toThrow(
      /is what epilogue\(\) makes, not a function[^]*epilogue\({}, relu\)/,
    );
  });
  mistake("an epilogue that rounds", DTypeError, /returns an f32, not bf16[^]*Leave rounding to the kernel/, () => {
    const end = epilogue({}, (sum) => untyped(sum.to(bf16))); // wrong
    llGemmMmaBf16({ ...dims, epilogue: end });
  });
  mistake("a size of the epilogue's that is not the kernel's", ShapeError, /The name M stands for two things/, () => {
    const end = epilogue({ residual: input(bf16, [size("M", { max: 16 }), 8]) }, (sum) => sum); // wrong
    llGemmDotBf16({ ...dims, M: size("M", { max: 16 }), epilogue: end }); // cause
  });
});
