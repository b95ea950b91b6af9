/** Author's names that mean something in C, in WGSL or in the generated code around them. */
import { expect } from "vitest";
import {
  type Expr,
  f32,
  HostTensor,
  i32,
  input,
  kernel,
  output,
  type Params,
  scalar,
  size,
  type Tensor,
} from "../../dsl/index.ts";
import { conformance } from "./backends.ts";
import { evaluate } from "./evaluate.ts";

const tensorNames = [
  "float half array launch block warp lane",
  "dot min max select bitcast exp fma",
  "thread blockIdx threadIdx atomicAdd fmaf fminf expf",
  "f32 u32 i8 bf16x8 f32x4 load_x_f32 store_y_f32",
  "vec4 ptr fn var let loop override",
  "int unsigned const register asm template namespace",
  "e a b c i r v",
  "by group invocation no_bits f32_from_bits Launch first",
  "pdl_wait get_lane unpack splat_f32x4 warp_sum_f32 shared_memory struct",
  "compare guard shift bits result old sum",
  "NULL NAN assert errno stdin INFINITY EOF",
  "block_x block_y grid_x p_x thread_1 lane_1 x",
  "i32_1 if_y guarded_load_x main printf malloc index",
].map((names) => names.split(" "));

const kernelNames = [
  "main",
  "exp",
  "div",
  "y0",
  "index",
  "float",
  "vec4",
  "launch",
  "lane",
  "f32",
  "malloc",
  "dot",
  "array",
];

conformance((target, on) => {
  on("tensors and kernels", async () => {
    for (const [k, names] of tensorNames.entries()) {
      const params: Params = {
        ...Object.fromEntries(names.map((name) => [name, input(f32, [4], { alignBytes: 16 })])),
        out: output(f32, [32, 4]),
      };
      const device = kernel({ name: kernelNames[k] ?? "k", grid: 1, block: 32, params }, (t) => {
        const memories = t.pdl.wait() as Readonly<Record<string, Tensor<"f32", 1, "input">>>;
        const total = t.reg(f32, t.warpSum(t.lane.to(f32)).mul(0), 4);
        for (const [i, name] of names.entries()) {
          const loaded = memories[name]?.loadVec([0], 4);
          const more = memories[name]?.load([t.lane.and(3)]);
          if (loaded && more) total.update((sum) => sum.add(loaded.mul(2 ** i)).add(more.mul(0)));
        }
        const out = memories["out"] as unknown as Tensor<"f32", 2, "output">;
        for (let i = 0; i < 4; i++) out.store([t.lane, i], total.get().lane(i));
      });
      const values = (i: number): HostTensor => HostTensor.from(f32, [4], [i, i + 1, i + 2, i + 3]);
      const args: Readonly<Record<string, HostTensor>> = {
        ...Object.fromEntries(names.map((name, i) => [name, values(i)])),
        out: HostTensor.filled(f32, [32, 4], 0xff),
      };
      const { out }: Readonly<Record<string, HostTensor>> = await target.run(device, args as never);
      const expected = [0, 1, 2, 3].map((lane) => names.reduce((sum, _, i) => sum + (i + lane) * 2 ** i, 0));
      expect([...(out?.values() ?? [])], names.join()).toEqual(Array.from({ length: 32 }, () => expected).flat());
    }
  });

  on("scalars and sizes", async () => {
    const [uniform, long] = [size("uniform"), size("long")];
    const device = kernel(
      {
        name: "scalar_names",
        grid: uniform,
        block: 32,
        params: {
          x: input(i32, [long, uniform]),
          lane: scalar(i32),
          block: scalar(i32),
          double: scalar(i32),
          grid_x: scalar(i32),
          p_x: scalar(i32),
          y: output(i32, [uniform, 32]),
        },
      },
      (t, { lane, block, double, grid_x, p_x }) => {
        const { x, y } = t.pdl.wait();
        const volatile = x.load([t.dim(long).sub(1), t.block.x]);
        y.store([t.block.x, t.lane], volatile.add(lane).mul(block).add(double).sub(grid_x).xor(p_x).add(t.lane.mul(0)));
      },
    );
    const { y } = await target.run(device, {
      x: HostTensor.from(i32, [2, 3], [1, 2, 3, 4, 5, 6]),
      lane: 10,
      block: 3,
      double: 100,
      grid_x: 7,
      p_x: 5,
      y: HostTensor.filled(i32, [3, 32], 0x7f),
    });
    const expected = [4, 5, 6].map((x) => ((x + 10) * 3 + 100 - 7) ^ 5);
    expect([...y.values()]).toEqual(expected.flatMap((x) => Array.from({ length: 32 }, () => x)));
  });

  on("variables, shadowing and repeating each other", async () => {
    const device = kernel(
      { name: "variables", grid: 1, block: 32, params: { x: input(i32, [32]), y: output(i32, [8, 32]) } },
      (t) => {
        const { x: gX, y: gY } = t.pdl.wait();
        let row = 0;
        const put = (value: Expr<"i32">): void => gY.store([row++, t.lane], value);
        const x = gX.load([t.lane]);
        const y = x.add(1);
        const float = y.mul(x);
        const int = t.reg(i32, float);
        const unsigned = t.array(i32, 2, { init: y });
        const i = y.sub(float);
        const v = t.shuffleXor(i, 1);
        const by = t.shuffleDown(v, i.and(3));
        const warp = t.warpSum(by.add(i));
        const lane = warp.add(t.lane).add(i);
        const operand = t.warpSum(lane);
        put(x.add(y).add(float).add(int));
        put(i.add(v).add(by).add(warp).add(lane).add(operand));
        for (const i of t.range(2)) {
          const x = gX.load([t.lane.xor(i)]);
          for (const y of t.range(2)) {
            const i = x.mul(y);
            int.update((now) => now.add(i).add(x));
            unsigned.set(y, i);
          }
          const launch = t.warpMax(x);
          int.update((now) => now.add(launch));
        }
        for (const i of t.range(3)) {
          const launch = i.add(x);
          int.update((now) => now.xor(launch));
        }
        const abs = int.get().abs();
        const min = abs.min(x).max(y);
        const max = min.max(abs);
        const select = max.gt(min).select(abs, max);
        const bitcast = select.bitcast(f32).bitcast(i32);
        const f32x4 = t.pack(abs, min, max, select);
        const sum = f32x4.mul(f32x4);
        const extern = t.pack(sum.lane(0), bitcast).add(1);
        put(int.get());
        put(unsigned.get(1).add(abs));
        put(min.add(max).add(select).add(bitcast));
        put(sum.lane(3));
        put(extern.lane(1));
        put(extern.lane(0));
      },
    );
    const args = {
      x: HostTensor.from(
        i32,
        [32],
        Array.from({ length: 32 }, (_, k) => k * 3 - 40),
      ),
      y: HostTensor.filled(i32, [8, 32], 0x7f),
    };
    const { y } = await target.run(device, args);
    expect([...y.values()]).toEqual([...evaluate(device, args).y.values()]);
  });
});
