/**
 * What the C compiler and the hardware are told besides what to compute: which accesses stay where the author put them, and what
 * the bits of a descriptor mean. No result on a CPU, and few on a GPU, would show a mistake here.
 */
import { describe, expect, test } from "vitest";
import { emitCuda } from "../backends/cuda/emit.ts";
import { MatrixPrelude } from "../backends/cuda/prelude-matrix.ts";
import { bf16, type CacheHint, f32, frozen, inout, input, kernel, mmaAtoms, output } from "../dsl/index.ts";

/** All `asm` statements of a generated file: whether volatile, their instructions, and whether memory is clobbered. */
function asmOf(source: string) {
  const statements = source.matchAll(/asm( volatile)?\("((?:[^"\\]|\\.)*)"([^]*?)\);/g);
  return [...statements].map(([, isVolatile, text = "", rest = ""]) => ({
    text,
    isVolatile: isVolatile !== undefined,
    clobbersMemory: /:\s*"memory"\s*$/.test(rest),
  }));
}

const hints = ["normal", "stream", "evictFirst", "evictLast"] as const satisfies readonly CacheHint[];

/** Loads with every hint, before and after the wait, and stores. */
const chained = kernel(
  {
    name: "chained",
    grid: 1,
    block: 32,
    params: {
      w: frozen(bf16, [4, 256], { alignBytes: 16 }),
      x: input(bf16, [4, 256], { alignBytes: 16 }),
      y: inout(f32, [32]),
      z: output(bf16, [256], { alignBytes: 16 }),
    },
  },
  (t, { w }) => {
    const k = t.lane.mul(8);
    const weights = hints.map((cache, row) => w.loadVec([row, k], 8, { cache }));
    t.pdl.launchDependents();
    const { x, y, z } = t.pdl.wait();
    const sum = t.reg(f32, y.load([t.lane], { cache: "stream" }));
    for (const [row, weight] of weights.entries()) {
      sum.addDot(x.loadVec([row, k], 8, { cache: hints[row] ?? "normal" }), weight);
    }
    y.store([t.lane], sum);
    z.storeVec([k], x.loadVec([0, k], 8), { cache: "stream" });
  },
);

describe("the C compiler", () => {
  const statements = asmOf(emitCuda(chained.ir).source);
  const those = (begin: string) => {
    const found = statements.filter(({ text }) => text.startsWith(begin));
    expect(found, begin).not.toEqual([]);
    return found;
  };

  test("neither drops, repeats nor moves across each other: wait, launch, loads and stores with hints", () => {
    for (const begin of ["griddepcontrol.wait", "griddepcontrol.launch_dependents", "ld.global", "st.global"]) {
      for (const statement of those(begin)) expect(statement).toMatchObject({ isVolatile: true });
    }
  });

  test("moves no access of memory across the wait or the launch, nor across those to what others write", () => {
    for (const begin of ["griddepcontrol.", "st.global", "ld.global.L1"]) {
      for (const statement of those(begin)) expect(statement).toMatchObject({ clobbersMemory: true });
    }
  });

  test("may keep what it knows of memory over loads of weights, which nobody changes", () => {
    for (const statement of those("ld.global.nc")) expect(statement).toMatchObject({ clobbersMemory: false });
  });

  test("keeps matrix instructions together with the barriers around them", () => {
    const { m16n8k16 } = mmaAtoms;
    const both = new MatrixPrelude();
    both.mma(m16n8k16.bf16);
    both.ldmatrix({ dtype: bf16, lanes: 8 }, false);
    both.stmatrix({ dtype: bf16, lanes: 8 }, false);
    const found = asmOf(both.render());
    expect(found.map(({ text }) => text.split(".")[0])).toEqual(["mma", "ldmatrix", "stmatrix"]);
    for (const { isVolatile } of found) expect(isVolatile).toBe(true);
    for (const { clobbersMemory } of found.slice(1)) expect(clobbersMemory).toBe(true);
  });
});

/** PTX ISA, "Matrix Descriptor Format": address, leading and stride bytes, all in units of 16 bytes; the swizzle in the last bits. */
test("a matrix descriptor has its fields where wgmma reads them", () => {
  const prelude = new MatrixPrelude();
  prelude.matrixDescriptor();
  const source = prelude.render();
  const [, fields = ""] = /return (start .*);/.exec(source) ?? [];
  const [, mode = ""] = /mode = (.*);/.exec(source) ?? [];
  const [, start = ""] = /start = \((.*?) & 0x3ffff\) >> 4;/.exec(source) ?? [];
  expect(start).toBe("shared_address(p)");
  const modeOf = new Function("swizzle_bytes", `return ${mode}`) as (bytes: number) => number;
  expect([0, 128, 64, 32].map(modeOf)).toEqual([0, 1, 2, 3]);
  // JavaScript has the same operators on BigInt, but for the types of literals.
  const big = fields.replaceAll("(unsigned long long)", "").replaceAll(/\b\d+\b/g, "$&n");
  const descriptor = new Function("start", "leading_bytes", "stride_bytes", "mode", `return ${big}`) as (
    ...of: readonly bigint[]
  ) => bigint;
  for (const [address, leading, stride, swizzle] of [
    [0x3fffn, 0x3fff0n, 0x3fff0n, 3n],
    [5n, 16n, 1024n, 1n],
  ] as const) {
    expect(descriptor(address, leading, stride, swizzle)).toBe(
      address + ((leading >> 4n) << 16n) + ((stride >> 4n) << 32n) + (swizzle << 62n),
    );
  }
});
