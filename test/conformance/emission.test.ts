/** What the generated sources look like, where that is a promise: readable, with lines, with the right kinds of loads. */
import { describe, expect, test } from "vitest";
import { compileCuda } from "../../backends/cuda/compile.ts";
import { emitCuda } from "../../backends/cuda/emit.ts";
import { emitWgsl } from "../../backends/wgsl/emit.ts";
import {
  bf16,
  f32,
  frozen,
  i32,
  inout,
  input,
  kernel,
  type KernelIR,
  output,
  type Params,
  u8,
  UnsupportedError,
} from "../../dsl/index.ts";
import { compilerAvailable } from "./backends.ts";

/** y[m] += sum over k of x[m,k] * w[k], one warp per row; w is on its way before the wait. */
const small = kernel(
  {
    name: "small",
    grid: 4,
    block: 32,
    params: {
      w: frozen(bf16, [256], { alignBytes: 16 }),
      x: input(bf16, [4, 256], { alignBytes: 16 }),
      y: inout(f32, [4]),
    },
  },
  (t, { w }) => {
    const k = t.lane.mul(8);
    const rW = w.loadVec([k], 8, { cache: "stream" });
    t.pdl.launchDependents();
    const { x, y } = t.pdl.wait();
    const sum = t.reg(f32, 0);
    sum.addDot(x.loadVec([t.block.x, k], 8), rW);
    const total = t.warpSum(sum);
    t.when(t.lane.eq(0), () => y.store([t.block.x], y.load([t.block.x]).add(total)));
  },
);

const bodyOf = (source: string, entry: string): string =>
  source.slice(source.lastIndexOf("\n", source.indexOf(entry)) + 1);

describe("CUDA", () => {
  test("a small kernel", () => {
    expect(bodyOf(emitCuda(small.ir, { lineDirectives: false }).source, "\nsmall(")).toMatchInlineSnapshot(`
      "small(const bf16* w, const bf16* x, float* y) {
        const int lane = threadIdx.x % 32;
        const int block_x = blockIdx.x;
        const int k = lane * 8;
        const bf16x8 rW = load_frozen_bf16x8_stream(&w[k]);
        pdl_launch_dependents();
        pdl_wait();
        float sum = 0.0f;
        sum = dot(*(const bf16x8*)&x[block_x * 256 + k], rW, sum);
        const float total = warp_sum_f32(sum);
        if (lane == 0) {
          y[block_x] = y[block_x] + total;
        }
      }
      "
    `);
  });

  test("#line names this file and the author's lines", () => {
    const { source } = emitCuda(small.ir);
    const here = import.meta.url.replace(/^.*\/test\//, "test/");
    const lines = source.split("\n");
    const after = (text: string): string => lines[lines.findIndex((line) => line.includes(text)) - 1] ?? "";
    const numbers = [...source.matchAll(/^#line (\d+) "(.*)"$/gm)].map(([, line, file]) => ({
      line: Number(line),
      file,
    }));
    expect(new Set(numbers.map(({ file }) => file))).toEqual(new Set([here]));
    const [first = 0] = numbers.map(({ line }) => line);
    expect(after("const bf16x8 rW =")).toBe(`#line ${first + 1} "${here}"`);
    expect(after("pdl_launch_dependents();")).toBe(`#line ${first + 2} "${here}"`);
    expect(after("pdl_wait();")).toBe(`#line ${first + 3} "${here}"`);
  });

  test("only frozen tensors are read through the read-only path, nothing is __restrict__", () => {
    const { source } = emitCuda(small.ir);
    expect(source).not.toContain("__restrict__");
    expect(source).not.toContain("__ldg");
    expect(source.match(/ld\.global\.nc/g)).toHaveLength(1);
    const dependent = kernel(
      { name: "dependent", grid: 1, block: 32, params: { x: input(f32, [32]), y: inout(f32, [32]) } },
      (t) => {
        const { x, y } = t.pdl.wait();
        y.store([t.lane], x.load([t.lane], { cache: "evictFirst" }).add(y.load([t.lane], { cache: "stream" })));
      },
    );
    expect(emitCuda(dependent.ir).source).not.toMatch(/\.nc|__restrict__|__ldg/);
  });

  test("loads of frozen tensors, the trigger and the wait stay in the author's order", () => {
    const { source } = emitCuda(small.ir);
    const body = bodyOf(source, "\nsmall(");
    const order = ["load_frozen_bf16x8_stream(", "pdl_launch_dependents();", "pdl_wait();", "(const bf16x8*)&x"];
    const places = order.map((text) => body.indexOf(text));
    expect(places).not.toContain(-1);
    expect(places).toEqual([...places].sort((a, b) => a - b));
    expect(source).toContain("griddepcontrol.wait");
    expect(source).toContain("griddepcontrol.launch_dependents");
  });

  test("an atomic happens once, named or not, used or not", () => {
    const { ir } = kernel(
      { name: "once", grid: 1, block: 32, params: { counter: inout(i32, [2]), y: output(i32, [64]) } },
      (t) => {
        const { counter, y } = t.pdl.wait();
        y.store([t.lane], counter.atomicAdd([0], 1).add(5));
        counter.atomicAdd([1], 1);
        t.when(counter.atomicMax([0], 7).eq(3), () => y.store([t.lane], 0));
      },
    );
    expect(emitCuda(ir).source.match(/atomic(Add|Max)\(/g)).toHaveLength(3);
    expect(emitWgsl(ir).source.match(/(?<!fn )atomic_(add|max)_counter_i32\(/g)).toHaveLength(3);
  });

  test.skipIf(!compilerAvailable())("a small kernel compiles for every other tested architecture", () => {
    for (const arch of ["sm_100a", "sm_120a"] as const) compileCuda(emitCuda(small.ir).source, { arch, name: "small" });
  });
});

describe("WGSL", () => {
  test("a small kernel", () => {
    expect(bodyOf(emitWgsl(small.ir).source, "@compute")).toMatchInlineSnapshot(`
      "@compute @workgroup_size(1)
      fn small(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) invocation: u32) {
        let block = group.x + group.y * 65535u;
        if (block >= launch.grid_x * launch.grid_y * launch.grid_z) { return; }
        let block_x = i32(block % launch.grid_x);
        let block_y = i32(block / launch.grid_x % launch.grid_y);
        let block_z = i32(block / launch.grid_x / launch.grid_y);
        let warp = i32(invocation);
        var sum_1: array<f32, 32>;
        for (var lane = 0; lane < 32; lane++) {
          // test/conformance/emission.test.ts:35
          let k = lane * 8;
          // test/conformance/emission.test.ts:36
          let rW = load_w_bf16x8(k);
          sum_1[lane] = 0.0;
          // test/conformance/emission.test.ts:40
          sum_1[lane] = dot_bf16x8_bf16x8(load_x_1_bf16x8(block_x * 256 + k), rW, sum_1[lane]);
        }
        // test/conformance/emission.test.ts:41
        var total_lanes: array<f32, 32>;
        for (var lane = 0; lane < 32; lane++) {
          total_lanes[lane] = sum_1[lane];
        }
        let total = warp_sum_f32(&total_lanes);
        for (var lane = 0; lane < 32; lane++) {
          // test/conformance/emission.test.ts:42
          if (lane == 0) {
            store_y_f32(block_x, load_y_f32(block_x) + total);
          }
        }
      }
      "
    `);
  });

  test("core features only", () => {
    expect(emitWgsl(small.ir).source).not.toMatch(/^\s*(enable|requires)\b/m);
  });

  /** What UnsupportedError says about a kernel. */
  function refusal(ir: KernelIR): string {
    try {
      emitWgsl(ir);
    } catch (error) {
      if (error instanceof UnsupportedError) return error.message;
      throw error;
    }
    return "none";
  }

  test("shared memory over 16 KiB lies in storage", () => {
    const withShared = (count: number): KernelIR =>
      kernel({ name: "roomy", grid: 1, block: 32, params: { y: output(f32, [32]) } }, (t) => {
        const { y } = t.pdl.wait();
        const sBytes = t.shared(u8, [count]);
        sBytes.store([t.lane], t.const(u8, 1));
        t.barrier();
        y.store([t.lane], sBytes.load([t.lane.xor(1)]).to(f32));
      }).ir;
    expect(emitWgsl(withShared(4096)).source).toContain("var<workgroup> sBytes");
    expect(emitWgsl(withShared(4097)).source).not.toContain("var<workgroup> sBytes");
    expect(refusal(withShared(227 * 1024))).toBe("none");
  });

  test("refuses more than 8 tensors, and says so", () => {
    const withTensors = (count: number): KernelIR => {
      const names = Array.from({ length: count }, (_, i) => `y${i}`);
      const params: Params = Object.fromEntries(names.map((name) => [name, output(f32, [32])]));
      return kernel({ name: "many", grid: 1, block: 32, params }, (t) => void t.pdl.wait()).ir;
    };
    expect(refusal(withTensors(8))).toBe("none");
    expect(refusal(withTensors(9))).toContain("many has 9 tensors; WGSL binds at most 8");
  });
});
