/**
 * Programs over tiles: a matrix goes through registers and shared memory by random layouts (thread-value layouts, swizzles,
 * padding, tiles of tiles, stages), and comes out element by element as it was, or transposed, changed by simple functions.
 * So plain TypeScript knows the result without any layout.
 */
import { dtypes } from "../../dsl/index.ts";
import type { Choices } from "./choices.ts";
import { layoutOfBits, partOf, range, rowMajor, shuffled, swizzled, threadValue } from "./layouts.ts";
import { type Case, casesOf, kernelSource, type Program, randomData, rounded } from "./program.ts";

/** A function of elements, in the DSL and in TypeScript. */
interface Change {
  readonly code: string;
  readonly apply: (x: number) => number;
}

const changes: { readonly [kind in "float" | "signed" | "unsigned" | "bool"]: readonly Change[] } = {
  float: [
    { code: ".to(f32).neg()", apply: (x) => -x },
    { code: ".to(f32).mul(2)", apply: (x) => 2 * x },
    { code: ".to(f32).add(1)", apply: (x) => x + 1 },
    { code: ".to(f32).abs().mul(0.5)", apply: (x) => Math.abs(x) / 2 },
  ],
  signed: [
    { code: ".to(i32).xor(5)", apply: (x) => x ^ 5 },
    { code: ".to(i32).min(20)", apply: (x) => Math.min(x, 20) },
  ],
  unsigned: [
    { code: ".to(u32).xor(5)", apply: (x) => x ^ 5 },
    { code: ".to(u32).max(20)", apply: (x) => Math.max(x, 20) },
  ],
  bool: [{ code: ".not()", apply: (x) => 1 - x }],
};

export function tilesProgram(c: Choices): Program {
  const threads = c.pick([5, 6, 7]);
  const rows = c.below(6);
  const columns = Math.min(7, threads - rows + c.pick([0, 1, 2, 3, 3, 4]));
  const shape = { rows, columns, threads };
  let by = threadValue(c, shape);
  const [tileM, tileN] = [2 ** rows, 2 ** columns];
  const dtype = c.pick(["f32", "bf16", "i32", "e4m3", "f16", "u8", "i8", "u32", "e5m2", "bool"] as const);
  const { bytes, kind } = dtypes[dtype];
  const multiple = c.pick([1, 16 / bytes, 4]);
  const role = c.pick(["input", "frozen"] as const);
  const transposed = c.once(3);
  const widened = kind === "float" && c.once(4);
  const applied: Change[] = [];
  const lines: string[] = [];
  let names = 0;

  const part = (tile: string): string => partOf(tile, by);
  const declare = (layout: string, stage = ""): string => {
    const name = `s${names++}`;
    lines.push(`const ${name} = t.sharedTile(${dtype}, ${layout})${stage};`);
    return name;
  };
  /** With any order of elements, or for copies of 2^aligned neighbours. */
  const sharedTile = (aligned: number): string => {
    const bits = rows + columns;
    const order = shuffled(c, range(bits));
    const any = layoutOfBits([order.slice(0, rows), order.slice(rows)]);
    const [pad, swizzleBits, base] = [c.pick([0, 16 / bytes]), c.below(4), aligned + c.below(4)];
    const plain = aligned === 0 && pad === 0 && c.once(2) ? any : rowMajor(tileM, tileN, pad);
    const fits = pad === 0 && base + 2 * swizzleBits <= bits;
    return declare(swizzled(plain, fits ? swizzleBits : 0, base, swizzleBits));
  };
  /** One of two stages. */
  const stagedTile = (): string => {
    const layout = `makeLayout([${tileM}, ${tileN}, 2], [1, ${tileM}, ${tileM * tileN}])`;
    return declare(layout, ".slice([null, null, t.block.x.and(1)])");
  };
  const fragment = (tile: string, guard = ""): string => {
    const name = `r${names++}`;
    lines.push(`const from${name} = ${part(tile)};`);
    lines.push(`const ${name} = t.fragment(from${name});`, `t.copy(from${name}, ${name}${guard});`);
    return name;
  };

  const half = c.once(3);
  const source = half
    ? `x.tile([${2 * tileM}, ${tileN}], [t.block.y.div(2), t.block.x]).tile([${tileM}, ${tileN}], [t.block.y.rem(2), 0])`
    : `x.tile([${tileM}, ${tileN}], [t.block.y, t.block.x])`;
  lines.push(`const gX = ${source};`);
  let held: string;
  const wide = 2 ** by.vector * bytes;
  const asynchronous = wide >= 4 && wide <= 16 && multiple % 2 ** by.vector === 0;
  const boxed = kind !== "bool" && (tileN * bytes) % 16 === 0 && (multiple * bytes) % 16 === 0;
  const way = c.below(4);
  if (way === 2 && asynchronous) {
    const s = sharedTile(by.vector);
    lines.push(`t.copyAsync(${part("gX")}, ${part(s)}, { guard: "edges" });`);
    if (c.once(2))
      lines.push(`const full = t.mbarrier(1, ${2 ** threads});`, "full.arriveAfterCopies(0);", "full.wait(0, 0);");
    else lines.push("t.asyncCommit();", "t.asyncWait(0);", "t.barrier();");
    by = threadValue(c, shape);
    held = fragment(s);
  } else if (way === 3 && boxed) {
    const swizzleBytes = [32, 64, 128].includes(tileN * bytes) ? c.pick([tileN * bytes, 0]) : 0;
    const layout = swizzled(
      rowMajor(tileM, tileN),
      Math.log2(Math.max(swizzleBytes, 16) / 16),
      Math.log2(16 / bytes),
      3,
    );
    lines.push(
      `const box = t.sharedTile(${dtype}, ${layout}, { alignBytes: 1024 });`,
      `const map = t.tensorMap(x, [${tileM}, ${tileN}], { swizzleBytes: ${swizzleBytes} });`,
      ...["const full = t.mbarrier(1, 1);", "t.when(t.thread.eq(0), () => {", "full.arriveExpect(0, map.bytes);"],
      `t.copyTensor(map, [t.block.y.mul(${tileM}), t.block.x.mul(${tileN})], box, full);`,
      ...["});", "full.wait(0, 0);"],
    );
    held = fragment("box");
  } else held = fragment("gX", `, { guard: "edges" }`);

  c.repeat("step", 3, 3, () => {
    const change = c.once(2) ? undefined : c.pick(changes[kind]);
    if (change) {
      applied.push(change);
      lines.push(`${held}.update((now) => now${change.code}${kind === "bool" ? "" : `.to(${dtype})`});`);
    } else {
      const s = c.once(4) ? stagedTile() : sharedTile(0);
      lines.push(`t.copy(${held}, ${part(s)});`, "t.barrier();");
      by = threadValue(c, shape);
      held = fragment(s);
    }
  });
  const turned = (bit: number): number => (bit < rows ? bit + columns : bit - rows);
  const toY = transposed ? { ...by, threads: by.threads.map(turned), values: by.values.map(turned) } : by;
  const tileY = transposed
    ? `[${tileN}, ${tileM}], [t.block.x, t.block.y]`
    : `[${tileM}, ${tileN}], [t.block.y, t.block.x]`;
  lines.push(`const tY = ${partOf(`y.tile(${tileY})`, toY)};`);
  if (widened || c.once(3)) {
    lines.push("for (let i = 0; i < tY.size(); i++) {");
    lines.push(`t.when(tY.inBounds(i), () => tY.store(i, ${held}.get(i)${widened ? ".to(f32)" : ""}));`, "}");
  } else lines.push(`t.copy(${held}, tY, { guard: "edges" });`);

  const result = widened ? "f32" : dtype;
  const data = randomData(c, dtype, kind === "float" ? 8 : 2 ** 20);
  const launch = (turn: number): Case => {
    const M = c.pick([1, tileM, 2 * tileM + 1, 1 + c.below(3 * tileM)]);
    const N = multiple * Math.ceil(c.pick([1, tileN, 2 * tileN - 1, 1 + c.below(3 * tileN)]) / multiple);
    return {
      x: data([M, N], turn),
      y: { dtype: result, shape: transposed ? [N, M] : [M, N], values: undefined },
    };
  };
  const cases = casesOf(c, launch);
  return {
    source: kernelSource(
      [
        `const M = size("M", { max: 1024 });`,
        `const N = size("N", { min: ${multiple}, max: 1024, multipleOf: ${multiple} });`,
      ],
      `grid: [ceilDiv(N, ${tileN}), ceilDiv(M, ${tileM})], block: ${2 ** threads}`,
      {
        x: `${role}(${dtype}, [M, N], { alignBytes: 16 })`,
        y: `output(${result}, [${transposed ? "N, M" : "M, N"}], { alignBytes: 16 })`,
      },
      lines,
    ),
    cases,
    tolerances: {},
    expected: ({ x }) => {
      if (typeof x !== "object") return {};
      const [M = 0, N = 0] = x.shape;
      const values = range(M * N).map((i) => {
        const v = x.values?.[transposed ? (i % M) * N + Math.floor(i / M) : i] ?? 0;
        return applied.reduce((u, { apply }) => rounded(dtype, apply(u)), v);
      });
      return { y: { values } };
    },
  };
}
