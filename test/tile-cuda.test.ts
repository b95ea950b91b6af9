/** The CUDA C of tiles: what it looks like, and that nvcc takes all of it without spills or warnings. */
import { describe, expect, it } from "vitest";
import { compileCuda, compileReport } from "../backends/cuda/compile.ts";
import { emitCuda } from "../backends/cuda/emit.ts";
import { type MmaAtom, mmaAtoms, wgmmaAtom } from "../dsl/atoms/mma.ts";
import { bf16, bool, type DType, e4m3, e5m2, f16, f32, i32, i8 } from "../dsl/dtype.ts";
import type { KernelIR, LaneCount, Shared } from "../dsl/ir.ts";
import type { MatrixOperand } from "../dsl/ir-tile.ts";
import { fragmentTypes } from "../dsl/typing.ts";
import { noNvcc } from "./harness.ts";
import { at, IrBuilder } from "./tile-cuda-ir.ts";

type WgmmaInput = "f16" | "bf16" | "e4m3" | "e5m2";
type Mode = "plain" | "pipelined" | "promote";

/** Each statement once, and every form of it. */
function everything(): KernelIR {
  const b = new IrBuilder();
  const x = b.tensor("x", "input", bf16, [64, 64]);
  const y = b.tensor("y", "output", f32, [1024]);
  const s = b.shared("s", bf16, [2, 64, 64], 1024);
  const red = b.shared("red", f32, [32]);
  const full = b.mbarrier("full", 2, 1);
  const one = b.mbarrier("i", 1, 128);
  const map = b.tensorMap("xMap", x, [64, 64], 128);
  const t = b.id("thread"),
    lane = b.id("lane"),
    zero = b.int(0);
  const rank = b.id("rank");
  b.stmt({ kind: "setRegisters", change: "decrease", count: 40, at });
  b.stmt({ kind: "prefetch", memory: x, index: [t, zero], at });
  const guard = b.value({ kind: "binary", fn: "lt", a: t, b: b.int(50) });
  for (const lanes of [2, 4, 8] as const) {
    b.stmt({
      kind: "copyAsync",
      to: s,
      toIndex: [zero, lane, zero],
      memory: x,
      index: [lane, zero],
      lanes,
      guard: undefined,
      at,
    });
    b.stmt({
      kind: "copyAsync",
      to: s,
      toIndex: [zero, lane, zero],
      memory: x,
      index: [lane, zero],
      lanes,
      guard,
      at,
    });
  }
  b.stmt({ kind: "asyncCommit", at });
  b.stmt({ kind: "asyncWait", pending: 1, at });
  b.stmt({ kind: "asyncArrive", barrier: one, slot: zero, at });
  const first = b.value({ kind: "binary", fn: "eq", a: t, b: zero });
  b.if(first, () => {
    b.stmt({ kind: "arrive", barrier: full, slot: b.int(1), expectBytes: b.int(8192), peer: undefined, at });
    b.stmt({
      kind: "tensorCopy",
      cache: "normal",
      to: s,
      toIndex: [b.int(1), zero, zero],
      map,
      index: [b.int(8), zero],
      barrier: full,
      slot: b.int(1),
      at,
    });
    b.stmt({
      kind: "bulkCopy",
      to: s,
      toIndex: [zero, zero, zero],
      memory: x,
      index: [zero, zero],
      count: b.int(64),
      barrier: full,
      slot: b.int(1),
      at,
    });
  });
  b.stmt({ kind: "await", barrier: full, slot: b.int(1), parity: zero, at });
  b.stmt({ kind: "arrive", barrier: one, slot: zero, expectBytes: undefined, peer: undefined, at });
  b.stmt({ kind: "arrive", barrier: one, slot: zero, expectBytes: undefined, peer: rank, at });
  b.stmt({ kind: "arrive", barrier: one, slot: zero, expectBytes: b.int(16), peer: rank, at });
  b.stmt({ kind: "clusterArrive", at });
  b.stmt({ kind: "clusterWait", at });
  b.stmt({ kind: "namedBarrier", action: "sync", id: 1, threads: 64, at });
  b.stmt({ kind: "namedBarrier", action: "arrive", id: 2, threads: 64, at });
  b.stmt({ kind: "asyncFence", at });
  b.stmt({ kind: "setRegisters", change: "increase", count: 232, at });
  for (const transposed of [false, true])
    for (const matrices of [1, 2, 4] as const) {
      const v = b.value({ kind: "ldmatrix", memory: s, index: [zero, lane, zero], matrices, transposed }, "m");
      b.stmt({ kind: "stmatrix", memory: s, index: [b.int(1), lane, zero], value: v, transposed, at });
    }
  const f = b.value({ kind: "ldmatrix", memory: red, index: [zero], matrices: 4, transposed: false }, "f");
  const f1 = b.value({ kind: "ldmatrix", memory: red, index: [zero], matrices: 1, transposed: false }, "f1");
  b.store(y, [t], f1);
  b.stmt({ kind: "stmatrix", memory: red, index: [zero], value: f, transposed: false, at });
  b.store(red, [lane], b.constant(1, f32), rank);
  const p = b.load(red, [zero], 4, rank);
  b.store(red, [b.int(8)], p, b.int(1));
  b.store(y, [t], b.load(red, [lane], 1, rank));
  return b.build("everything", { cluster: 2, block: 128 });
}

/** Pieces of all sizes, put together in reverse. */
function slices(): KernelIR {
  const b = new IrBuilder();
  let n = 0;
  for (const d of [bf16, f32, i8, e4m3, i32, bool]) {
    const x = b.tensor(`x${n}`, "input", d, [1024]),
      y = b.tensor(`y${n++}`, "output", d, [1024]);
    for (const lanes of [8, 4, 2] as const) {
      const v = b.load(x, [b.int(lanes * 16)], lanes);
      for (let l = lanes / 2; l >= 1; l /= 2) {
        const parts = Array.from({ length: lanes / l }, (_, i) =>
          b.value({ kind: "slice", a: v, first: i * l, lanes: l as LaneCount }),
        );
        b.store(y, [b.int(lanes * 16 + 256 * l)], b.value({ kind: "join", parts: parts.toReversed() }));
      }
    }
  }
  return b.build("slices");
}

function mma(atom: MmaAtom): KernelIR {
  const b = new IrBuilder();
  const types = fragmentTypes(atom);
  const [x, w] = [b.tensor("x", "input", atom.a, [4096]), b.tensor("w", "input", atom.b, [4096])];
  const y = b.tensor("y", "inout", atom.c, [4096]);
  const first = b.value({ kind: "binary", fn: "mul", a: b.id("lane"), b: b.int(16) }, "first");
  const [rA, rB] = [b.load(x, [first], types.a.lanes), b.load(w, [first], types.b.lanes)];
  const sum = b.value({ kind: "mma", atom, a: rA, b: rB, c: b.load(y, [first], types.c.lanes) }, "sum");
  b.store(y, [first], sum);
  return b.build("one_mma", { block: 32 });
}

/** 64 x N, a producer warpgroup and a consumer. "promote": each slice of K is added to totals of its own. */
function gemm<A extends WgmmaInput, B extends WgmmaInput>(N: number, a: DType<A>, b2: DType<B>, mode: Mode): KernelIR {
  const b = new IrBuilder();
  const atom = wgmmaAtom(N, a, b2);
  const x = b.tensor("x", "input", a, [64, 4096]),
    w = b.tensor("w", "input", b2, [N, 4096]),
    y = b.tensor("y", "output", f32, [64 * N]);
  const cols = 128 / a.bytes;
  const sA = b.shared("sA", a, [4, 64, cols], 1024),
    sB = b.shared("sB", b2, [4, N, cols], 1024);
  const full = b.mbarrier("full", 4, 1),
    empty = b.mbarrier("empty", 4, 1);
  const xMap = b.tensorMap("xMap", x, [64, cols], 128),
    wMap = b.tensorMap("wMap", w, [N, cols], 128);
  const zero = b.int(0),
    warp = b.id("warp"),
    thread = b.id("thread");
  const producer = b.value({ kind: "binary", fn: "ge", a: warp, b: b.int(4) });
  b.if(
    producer,
    () => {
      b.stmt({ kind: "setRegisters", change: "decrease", count: 40, at });
      const one = b.value({ kind: "binary", fn: "eq", a: thread, b: b.int(128) });
      b.if(one, () =>
        b.loop(64, (k) => {
          const slot = b.value({ kind: "binary", fn: "rem", a: k, b: b.int(4) }, "slot");
          const turn = b.value({ kind: "binary", fn: "div", a: k, b: b.int(4) });
          const parity = b.value({ kind: "binary", fn: "and", a: turn, b: b.int(1) }, "parity");
          b.stmt({ kind: "await", barrier: empty, slot, parity, at });
          b.stmt({ kind: "arrive", barrier: full, slot, expectBytes: b.int((64 + N) * 128), peer: undefined, at });
          const col = b.value({ kind: "binary", fn: "mul", a: k, b: b.int(cols) }, "col");
          b.stmt({
            kind: "tensorCopy",
            cache: "normal",
            to: sA,
            toIndex: [slot, zero, zero],
            map: xMap,
            index: [zero, col],
            barrier: full,
            slot,
            at,
          });
          b.stmt({
            kind: "tensorCopy",
            cache: "normal",
            to: sB,
            toIndex: [slot, zero, zero],
            map: wMap,
            index: [zero, col],
            barrier: full,
            slot,
            at,
          });
        }),
      );
    },
    () => {
      b.stmt({ kind: "setRegisters", change: "increase", count: 232, at });
      const acc = b.register(
        "acc",
        { dtype: f32, lanes: 1 },
        N / 2,
        mode === "promote" ? undefined : b.constant(0, f32),
      );
      const main = mode === "promote" ? b.register("total", { dtype: f32, lanes: 1 }, N / 2, b.constant(0, f32)) : acc;
      b.loop(64, (k) => {
        const slot = b.value({ kind: "binary", fn: "rem", a: k, b: b.int(4) }, "slot");
        const turn = b.value({ kind: "binary", fn: "div", a: k, b: b.int(4) });
        const parity = b.value({ kind: "binary", fn: "and", a: turn, b: b.int(1) }, "parity");
        b.stmt({ kind: "await", barrier: full, slot, parity, at });
        b.stmt({ kind: "wgmmaFence", at });
        for (let i = 0; i < 4; i++) {
          const start = b.int((i * 32) / a.bytes);
          const m = (memory: Shared): MatrixOperand => ({
            memory,
            index: [slot, zero, start],
            swizzleBytes: 128,
            strideBytes: 1024,
            leadingBytes: 16,
          });
          b.stmt({
            kind: "wgmma",
            atom,
            accumulator: acc,
            first: 0,
            a: m(sA),
            b: m(sB),
            accumulate: mode === "promote" && i === 0 ? b.constant(0, bool) : b.yes(),
            at,
          });
        }
        b.stmt({ kind: "wgmmaCommit", at });
        b.stmt({ kind: "wgmmaWait", pending: mode === "pipelined" ? 1 : 0, at });
        if (mode === "promote")
          b.loop(
            N / 2,
            (i) => {
              const s = b.value({
                kind: "binary",
                fn: "add",
                a: b.value({ kind: "read", register: main, index: i }),
                b: b.value({ kind: "read", register: acc, index: i }),
              });
              b.stmt({ kind: "write", register: main, index: i, value: s, at });
            },
            true,
          );
        b.stmt({ kind: "arrive", barrier: empty, slot, expectBytes: undefined, peer: undefined, at });
      });
      if (mode === "pipelined") b.stmt({ kind: "wgmmaWait", pending: 0, at });
      b.loop(
        N / 2,
        (i) => {
          const v = b.value({ kind: "read", register: main, index: i });
          const base = b.value({ kind: "binary", fn: "mul", a: i, b: b.int(128) });
          b.store(y, [b.value({ kind: "binary", fn: "add", a: base, b: thread })], v);
        },
        true,
      );
    },
  );
  return b.build(`gemm_${N}_${a.name}_${mode}`, { block: 256 });
}

/** The generated file's kernel. */
const body = (ir: KernelIR): string => {
  const { source } = emitCuda(ir, { lineDirectives: false });
  return source.slice(source.indexOf('extern "C"'));
};
/** The functions of the prelude whose names match. */
const prelude = (ir: KernelIR, names: RegExp): string => {
  const { source } = emitCuda(ir, { lineDirectives: false });
  const functions = source.slice(0, source.indexOf('extern "C"')).split(/\n(?=__device__|struct|using|template)/);
  return functions
    .filter((text) => names.test(text.split("(")[0] ?? ""))
    .join("\n")
    .trimEnd();
};

/** With nvcc for Hopper: no warnings (of serialized wgmma, say), no spills, no stack. */
function mustBeClean(ir: KernelIR): void {
  const { source, entry } = emitCuda(ir);
  const options = { arch: "sm_90a", name: entry, compiler: "nvcc" } as const;
  expect(compileCuda(source, options).log).toBe("");
  const [resources] = compileReport(source, options);
  expect(resources).toMatchObject({ stackBytes: 0, spillStoreBytes: 0, spillLoadBytes: 0 });
}

const atoms = Object.values(mmaAtoms).flatMap((shapes): MmaAtom[] => Object.values(shapes));

describe("CUDA C of tiles", () => {
  it("initialises mbarriers and calls one function a statement", () => {
    expect(body(everything())).toMatchInlineSnapshot(`
      "extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(128, 1)
      everything(const bf16* x, float* y, const __grid_constant__ TensorMap xMap) {
        const int thread = threadIdx.x;
        const int lane = threadIdx.x % 32;
        const int rank = cluster_rank();
        __shared__ __align__(1024) bf16 s[8192];  // [2, 64, 64]
        __shared__ __align__(16) float red[32];  // [32]
        __shared__ __align__(8) unsigned long long full[2];  // mbarrier, 1 arrival
        __shared__ __align__(8) unsigned long long i[1];  // mbarrier, 128 arrivals
        if (threadIdx.x == 0) {
          for (int i_1 = 0; i_1 < 2; ++i_1) mbarrier_init(&full[i_1], 1);
          mbarrier_init(&i[0], 128);
          mbarrier_init_fence();
        }
        __syncthreads();
        decrease_registers_to_40();
        prefetch_l2(&x[thread * 64]);
        const bool v = thread < 50;
        copy_async_4(&s[lane * 64], &x[lane * 64]);
        copy_async_4_or_zeros(&s[lane * 64], &x[lane * 64], v);
        copy_async_8(&s[lane * 64], &x[lane * 64]);
        copy_async_8_or_zeros(&s[lane * 64], &x[lane * 64], v);
        copy_async_16(&s[lane * 64], &x[lane * 64]);
        copy_async_16_or_zeros(&s[lane * 64], &x[lane * 64], v);
        copy_async_commit();
        copy_async_wait_1();
        copy_async_arrive(&i[0]);
        if (thread == 0) {
          mbarrier_arrive_expect(&full[1], 8192);
          tensor_copy_2d(&s[1 * 4096], &xMap, 0, 8, &full[1]);
          bulk_copy(&s[0], &x[0], 64 * 2, &full[1]);
        }
        mbarrier_await(&full[1], 0);
        mbarrier_arrive(&i[0]);
        mbarrier_arrive_peer(&i[0], rank);
        mbarrier_arrive_expect_peer(&i[0], 16, rank);
        cluster_arrive();
        cluster_wait();
        named_barrier_sync(1, 64);
        named_barrier_arrive(2, 64);
        async_fence();
        increase_registers_to_232();
        const bf16x2 m = ldmatrix_bf16x2(&s[lane * 64]);
        stmatrix_bf16x2(&s[1 * 4096 + lane * 64], m);
        const bf16x4 m_1 = ldmatrix_bf16x4(&s[lane * 64]);
        stmatrix_bf16x4(&s[1 * 4096 + lane * 64], m_1);
        const bf16x8 m_2 = ldmatrix_bf16x8(&s[lane * 64]);
        stmatrix_bf16x8(&s[1 * 4096 + lane * 64], m_2);
        const bf16x2 m_3 = ldmatrix_trans_bf16x2(&s[lane * 64]);
        stmatrix_trans_bf16x2(&s[1 * 4096 + lane * 64], m_3);
        const bf16x4 m_4 = ldmatrix_trans_bf16x4(&s[lane * 64]);
        stmatrix_trans_bf16x4(&s[1 * 4096 + lane * 64], m_4);
        const bf16x8 m_5 = ldmatrix_trans_bf16x8(&s[lane * 64]);
        stmatrix_trans_bf16x8(&s[1 * 4096 + lane * 64], m_5);
        const f32x4 f = ldmatrix_f32x4(&red[0]);
        const float f1 = ldmatrix_f32(&red[0]);
        y[thread] = f1;
        stmatrix_f32x4(&red[0], f);
        *of_peer(&red[lane], rank) = 1.0f;
        *(f32x4*)of_peer(&red[8], 1) = *(f32x4*)of_peer(&red[0], rank);
        y[thread] = *of_peer(&red[lane], rank);
      }
      "
    `);
  });

  it("writes a producer and a consumer", () => {
    expect(body(gemm(64, bf16, bf16, "plain"))).toMatchInlineSnapshot(`
      "extern "C" __global__ void __launch_bounds__(256, 1)
      gemm_64_bf16_plain(const bf16* x, const bf16* w, float* y, const __grid_constant__ TensorMap xMap, const __grid_constant__ TensorMap wMap) {
        const int warp = threadIdx.x / 32;
        const int thread = threadIdx.x;
        extern __shared__ __align__(1024) unsigned char shared_memory[];
        bf16* const sA = (bf16*)(shared_memory + 0);  // [4, 64, 64]
        bf16* const sB = (bf16*)(shared_memory + 32768);  // [4, 64, 64]
        unsigned long long* const full = (unsigned long long*)(shared_memory + 65536);  // mbarrier, 1 arrival
        unsigned long long* const empty = (unsigned long long*)(shared_memory + 65568);  // mbarrier, 1 arrival
        if (threadIdx.x == 0) {
          for (int i = 0; i < 4; ++i) mbarrier_init(&full[i], 1);
          for (int i = 0; i < 4; ++i) mbarrier_init(&empty[i], 1);
          mbarrier_init_fence();
        }
        __syncthreads();
        if (warp >= 4) {
          decrease_registers_to_40();
          if (thread == 128) {
            for (int k = 0; k < 64; ++k) {
              const int slot = k % 4;
              mbarrier_await(&empty[slot], (k / 4) & 1);
              mbarrier_arrive_expect(&full[slot], 16384);
              const int col = k * 64;
              tensor_copy_2d(&sA[slot * 4096], &xMap, col, 0, &full[slot]);
              tensor_copy_2d(&sB[slot * 4096], &wMap, col, 0, &full[slot]);
            }
          }
        } else {
          increase_registers_to_232();
          float acc[32] = {};
          for (int k = 0; k < 64; ++k) {
            const int slot = k % 4;
            mbarrier_await(&full[slot], (k / 4) & 1);
            pin_registers(acc);
            wgmma_fence();
            wgmma_m64n64k16_bf16(acc, matrix_descriptor(&sA[slot * 4096], 16, 1024, 128), matrix_descriptor(&sB[slot * 4096], 16, 1024, 128), true);
            wgmma_m64n64k16_bf16(acc, matrix_descriptor(&sA[slot * 4096 + 16], 16, 1024, 128), matrix_descriptor(&sB[slot * 4096 + 16], 16, 1024, 128), true);
            wgmma_m64n64k16_bf16(acc, matrix_descriptor(&sA[slot * 4096 + 32], 16, 1024, 128), matrix_descriptor(&sB[slot * 4096 + 32], 16, 1024, 128), true);
            wgmma_m64n64k16_bf16(acc, matrix_descriptor(&sA[slot * 4096 + 48], 16, 1024, 128), matrix_descriptor(&sB[slot * 4096 + 48], 16, 1024, 128), true);
            wgmma_commit();
            wgmma_wait_0();
            pin_registers(acc);
            mbarrier_arrive(&empty[slot]);
          }
          #pragma unroll
          for (int k = 0; k < 32; ++k) {
            y[k * 128 + thread] = acc[k];
          }
        }
      }
      "
    `);
  });

  it("writes instructions as functions", () => {
    expect(prelude(everything(), / (mbarrier_await|mbarrier_arrive_expect_peer|tensor_copy_2d|copy_async_8_or_zeros)$/))
      .toMatchInlineSnapshot(`
      "__device__ __forceinline__ void copy_async_8_or_zeros(void* to, const void* from, bool guard) { asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" :: "r"(shared_address(to)), "l"(from), "r"(guard ? 8 : 0) : "memory"); }
      __device__ __forceinline__ void tensor_copy_2d(void* to, const TensorMap* map, int i0, int i1, unsigned long long* barrier) {
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" :: "r"(shared_address(to)), "l"(map), "r"(shared_address(barrier)), "r"(i0), "r"(i1) : "memory");
      }
      __device__ __forceinline__ void mbarrier_await(unsigned long long* barrier, unsigned parity) {
        unsigned done;
        do {
          asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }" : "=r"(done) : "r"(shared_address(barrier)), "r"(parity) : "memory");
        } while (!done);
      }
      __device__ __forceinline__ void mbarrier_arrive_expect_peer(unsigned long long* barrier, unsigned bytes, unsigned rank) { asm volatile("{ .reg .b32 theirs; mapa.shared::cluster.u32 theirs, %0, %2; mbarrier.arrive.expect_tx.release.cluster.shared::cluster.b64 _, [theirs], %1; }" :: "r"(shared_address(barrier)), "r"(bytes), "r"(rank) : "memory"); }"
    `);
    expect(prelude(mma(mmaAtoms.m16n8k8.tf32), / mma_/)).toMatchInlineSnapshot(`
      "__device__ __forceinline__ f32x4 mma_m16n8k8_tf32(f32x4 a, f32x2 b, f32x4 c) {
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c.v[0]), "+f"(c.v[1]), "+f"(c.v[2]), "+f"(c.v[3])
            : "r"(__float_as_uint(a.v[0])), "r"(__float_as_uint(a.v[1])), "r"(__float_as_uint(a.v[2])), "r"(__float_as_uint(a.v[3])), "r"(__float_as_uint(b.v[0])), "r"(__float_as_uint(b.v[1])));
        return c;
      }"
    `);
    expect(prelude(gemm(16, e4m3, e5m2, "plain"), / wgmma_m64/)).toMatchInlineSnapshot(`
      "__device__ __forceinline__ void wgmma_m64n16k32_e4m3_e5m2(float* d, unsigned long long a, unsigned long long b, int accumulate) {
        asm volatile("{ .reg .pred p; setp.ne.b32 p, %10, 0; wgmma.mma_async.sync.aligned.m64n16k32.f32.e4m3.e5m2 {"
          "%0, %1, %2, %3, %4, %5, %6, %7"
          "}, %8, %9, p, 1, 1; }"
          : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
          : "l"(a), "l"(b), "r"(accumulate) : "memory");
      }"
    `);
  });

  it("copies whole words between vectors, else lanes", () => {
    expect(prelude(slices(), / (slice_bf16x4|join_i8x4)$/)).toMatchInlineSnapshot(`
      "__device__ __forceinline__ bf16x4 slice_bf16x4(bf16x8 a, int first) {
        bf16x4 r;
      #pragma unroll
        for (int i = 0; i < 2; ++i) r.w[i] = a.w[first / 2 + i];
        return r;
      }
      __device__ __forceinline__ i8x4 join_i8x4(i8x2 a0, i8x2 a1) {
        i8x4 r = {};
      #pragma unroll
        for (int i = 0; i < 2; ++i) set_lane(r, i, get_lane(a0, i));
      #pragma unroll
        for (int i = 0; i < 2; ++i) set_lane(r, 2 + i, get_lane(a1, i));
        return r;
      }"
    `);
  });

  it("keeps the read of an accumulator above the wgmma that changes it", () => {
    const b = new IrBuilder();
    const y = b.tensor("y", "output", f32, [128]);
    const s = b.shared("s", bf16, [64, 16], 128);
    const acc = b.register("acc", { dtype: f32, lanes: 1 }, 4, b.constant(0, f32));
    const [zero, thread] = [b.int(0), b.id("thread")];
    const before = b.value({ kind: "read", register: acc, index: zero });
    const m: MatrixOperand = { memory: s, index: [zero, zero], swizzleBytes: 32, strideBytes: 256, leadingBytes: 16 };
    b.stmt({
      kind: "wgmma",
      atom: wgmmaAtom(8, bf16, bf16),
      accumulator: acc,
      first: 0,
      a: m,
      b: m,
      accumulate: b.yes(),
      at,
    });
    b.stmt({ kind: "wgmmaWait", pending: 0, at });
    const after = b.value({ kind: "read", register: acc, index: zero });
    b.store(y, [thread], b.value({ kind: "binary", fn: "add", a: before, b: after }));
    const text = body(b.build("reads"));
    expect(text).toMatch(/const float v = acc\[0\];[^]*wgmma_wait_0\(\);\n.*pin_registers\(acc\);\n.*= v \+ acc\[0\];/);
  });

  it("lays shared memory out by alignment, statically and not", () => {
    const layout = (words: number): string => {
      const b = new IrBuilder();
      const bytes = b.shared("flags", bool, [3]);
      const big = b.shared("big", f32, [words], 1024);
      const rows = b.shared("rows", bf16, [64], 128);
      b.mbarrier("done", 1, 128);
      for (const [memory, dtype] of [
        [bytes, bool],
        [big, f32],
      ] as const)
        b.store(memory, [b.int(0)], b.constant(0, dtype));
      b.store(rows, [b.int(0)], b.load(rows, [b.int(1)], 1));
      return body(b.build("layout"))
        .split("\n")
        .filter((line) => /shared/.test(line))
        .join("\n");
    };
    expect(layout(256)).toMatchInlineSnapshot(`
      "  __shared__ __align__(1024) float big[256];  // [256]
        __shared__ __align__(128) bf16 rows[64];  // [64]
        __shared__ __align__(16) u8 flags[3];  // [3]
        __shared__ __align__(8) unsigned long long done[1];  // mbarrier, 128 arrivals"
    `);
    expect(layout(2 ** 14)).toMatchInlineSnapshot(`
      "  extern __shared__ __align__(1024) unsigned char shared_memory[];
        float* const big = (float*)(shared_memory + 0);  // [16384]
        bf16* const rows = (bf16*)(shared_memory + 65536);  // [64]
        u8* const flags = (u8*)(shared_memory + 65664);  // [3]
        unsigned long long* const done = (unsigned long long*)(shared_memory + 65672);  // mbarrier, 128 arrivals"
    `);
  });

  it("says no more about tiles than a kernel needs", () => {
    const b = new IrBuilder();
    b.store(b.tensor("y", "output", f32, [128]), [b.id("thread")], b.constant(0, f32));
    expect(emitCuda(b.build("plain"), { lineDirectives: false })).toMatchObject({
      source: expect.not.stringMatching(/cluster|mbarrier|TensorMap|shared|lane/),
      tensorMaps: [],
    });
  });
});

describe.skipIf(noNvcc)("nvcc takes", { timeout: 60_000 }, () => {
  it("every statement", () => mustBeClean(everything()));
  it("slices and joins", () => mustBeClean(slices()));
  it.each(atoms)("$name", (atom) => mustBeClean(mma(atom)));
  it.each([8, 64, 128, 256])("wgmma with N = %i", (N) => {
    for (const dtype of [bf16, f16]) mustBeClean(gemm<WgmmaInput, WgmmaInput>(N, dtype, dtype, "plain"));
    for (const [a, b] of [
      [e4m3, e4m3],
      [e5m2, e5m2],
      [e4m3, e5m2],
      [e5m2, e4m3],
    ] as const) {
      mustBeClean(gemm<WgmmaInput, WgmmaInput>(N, a, b, "plain"));
    }
    mustBeClean(gemm(N, bf16, bf16, "pipelined"));
    if (N < 256) mustBeClean(gemm(N, e4m3, e4m3, "promote"));
  });
});
