/**
 * Programs that multiply matrices: each matrix instruction, spread over warps, K in run-time steps, operands straight to
 * fragments or through shared memory (ldmatrix, cp.async, swizzles), K split over warps, and an epilogue. The data are mostly
 * whole numbers small enough for every order of summation to be exact (O1), so plain TypeScript knows every bit.
 */
import { type DTypeName, dtypes, mmaAtoms } from "../../dsl/index.ts";
import type { Choices } from "./choices.ts";
import { layoutOfBits, partOf, range, rowMajor, shuffled, swizzled, threadValue } from "./layouts.ts";
import {
  type Case,
  casesOf,
  type Data,
  type Exact,
  kernelSource,
  type Program,
  randomData,
  rounded,
} from "./program.ts";

/** An instruction: how to write it, its extents and dtypes. */
interface Instruction {
  readonly code: string;
  readonly extents: readonly [M: number, N: number, K: number];
  readonly a: DTypeName;
  readonly b: DTypeName;
  readonly c: "f32" | "i32";
  readonly wide: boolean;
}

const instructions: readonly Instruction[] = Object.entries(mmaAtoms).flatMap(([shape, atoms]) =>
  Object.entries(atoms).map(([types, { M, N, K, a, b, c }]): Instruction => ({
    code: `mmaAtoms.${shape}.${types}`,
    extents: [M, N, K],
    ...{ a: a.name, b: b.name, c: c.name, wide: false },
  })),
);

/** One with operands in shared memory; its K is that of a tile here, one row of the swizzle. */
function wideInstruction(c: Choices): Instruction {
  const [a, N] = [c.pick(["bf16", "f16", "e4m3", "e5m2"] as const), c.pick([8, 16, 32])];
  const b = a === "e4m3" && c.once(2) ? "e5m2" : a;
  const K = c.pick([32, 64, 128]) / dtypes[a].bytes;
  return { code: `wgmmaAtom(${N}, ${a}, ${b})`, extents: [64, N, K], a, b, c: "f32", wide: true };
}

/** What happens to a sum, #, before it is stored. */
interface Step {
  readonly code: string;
  readonly apply: (sum: number, bias: number, residual: number) => number;
}

const steps: readonly Step[] = [
  { code: "#.mul(2)", apply: (sum) => 2 * sum },
  { code: "#.max(0)", apply: (sum) => Math.max(sum, 0) },
  { code: "#.add(bias.load([tY.coordinate(i)[1] ?? 0]))", apply: (sum, bias) => sum + bias },
  { code: "#.add(tR.load(i))", apply: (sum, _, residual) => sum + residual },
];

export function productsProgram(c: Choices): Program {
  const instruction = c.once(10) ? wideInstruction(c) : (c.pick(instructions) ?? wideInstruction(c));
  const { code, extents, a, b, c: sums, wide } = instruction;
  const [warpsM, warpsN] = wide ? [1, 1] : [c.pick([1, 2]), c.pick([1, 2])];
  // One extent at the most: compiling takes longer with each instruction that there is.
  const twice = c.below(wide ? 1 : 4) - 1;
  const [tileM = 0, tileN = 0, tileK = 0] = extents.map(
    (extent, i) => extent * ([warpsM, warpsN][i] ?? 1) * (i === twice ? 2 : 1),
  );
  const threads = (wide ? 128 : 32) * warpsM * warpsN;
  // Straight from memory to fragments, or through shared memory, where all meet.
  const isDirect = (): boolean => !wide && c.below(2) === 0;
  const operands = [
    { name: "a", dtype: a, rows: tileM, block: "y", direct: isDirect() },
    { name: "b", dtype: b, rows: tileN, block: "x", direct: isDirect() },
  ];
  const meets = operands.some(({ direct }) => !direct);
  const split = meets ? 1 : c.pick([1, 2, 4]);
  const bitsK = Math.log2(tileK);
  const permuted = !wide && c.once(3);
  const lines: string[] = [];

  /** Fills shared memory with an operand's tile, K contiguous, and says how a fragment gets its part. */
  const stage = (name: string, dtype: DTypeName, rows: number): readonly string[] => {
    const { bytes } = dtypes[dtype];
    const unit = Math.log2(16 / bytes);
    const swizzleBits = wide ? Math.log2((tileK * bytes) / 16) : c.below(3);
    const isSwizzled = swizzleBits > 0 && (wide || unit + 2 * swizzleBits <= Math.log2(rows) + bitsK);
    const plain = rowMajor(rows, tileK, isSwizzled ? 0 : c.pick([0, 16 / bytes]));
    const layout = swizzled(plain, isSwizzled ? swizzleBits : 0, unit, wide ? 3 : swizzleBits);
    lines.push(`const s_${name} = t.sharedTile(${dtype}, ${layout}, { alignBytes: 1024 });`);
    const by = threadValue(c, { rows: Math.log2(rows), columns: bitsK, threads: Math.log2(threads) });
    const [from, to] = [partOf(`g_${name}`, by), partOf(`s_${name}`, by)];
    const moved = 2 ** by.vector * bytes;
    if (moved >= 4 && moved <= 16 && c.once(2)) {
      return [`t.copyAsync(${from}, ${to}, { guard: "edges" });`, "t.asyncCommit();", "t.asyncWait(0);"];
    }
    lines.push(`const staged_${name} = t.fragment(${to});`);
    return [`t.copy(${from}, staged_${name}, { guard: "edges" });`, `t.copy(staged_${name}, ${to});`];
  };

  const options = wide
    ? ""
    : `, { warps: [${warpsM}, ${warpsN}]${permuted ? `, permute: [null, null, ${layoutOfBits(shuffled(c, range(bitsK)).map((bit) => [bit]))}]` : ""} }`;
  lines.push(`const mma = tiledMma(${code}${options}).slice(t.thread${split > 1 ? `.rem(${threads})` : ""});`);
  lines.push(`const tY = mma.partitionC(y.tile([${tileM}, ${tileN}], [t.block.y, t.block.x]));`);
  lines.push(`const rC = t.fragment(tY);`);
  const part = `t.warp.div(${threads / 32})`;
  const loads: string[] = [];
  for (const { name, dtype, rows, block, direct } of operands) {
    loads.push(`const g_${name} = ${name}.tile([${rows}, ${tileK}], [t.block.${block}, k]);`);
    if (!direct) loads.push(...stage(name, dtype, rows));
  }
  if (wide) loads.push("t.asyncFence();");
  if (meets) loads.push("t.barrier();");
  if (wide) loads.push("t.wgmmaFence();", "t.wgmma(rC, s_a, s_b);", "t.wgmmaCommit();", "t.wgmmaWait(0);");
  else {
    for (const { name, direct } of operands) {
      loads.push(`const t_${name} = mma.partition${name.toUpperCase()}(${direct ? "g" : "s"}_${name});`);
      // ldmatrix wants neighbours as they are.
      const [fragment, copy] =
        !direct && !permuted && c.once(2) ? ["matrixFragment", "copyMatrix"] : ["fragment", "copy"];
      const guard = direct ? `, { guard: "edges" }` : "";
      loads.push(`const r_${name} = t.${fragment}(t_${name});`, `t.${copy}(t_${name}, r_${name}${guard});`);
    }
    loads.push("t.mma(rC, r_a, r_b);");
  }
  if (meets) loads.push("t.barrier();");
  const bounds = split > 1 ? `${part}, floorDiv(K, ${tileK}), { step: ${split} }` : `floorDiv(K, ${tileK})`;
  lines.push(`for (const k of t.range(${bounds})) {`, ...loads, "}");

  let sum = "rC.get(i)";
  if (split > 1) {
    const layout = `makeLayout([${tileM}, ${tileN}, ${split}], [${tileN}, 1, ${tileM * tileN}])`;
    lines.push(`const sums = t.sharedTile(${sums}, ${layout});`);
    lines.push(`t.copy(rC, mma.partitionC(sums.slice([null, null, ${part}])));`, "t.barrier();");
    for (const p of range(split)) lines.push(`const sums${p} = mma.partitionC(sums.slice([null, null, ${p}]));`);
    sum = range(split).reduce((text, p) => (p === 0 ? "sums0.load(i)" : `${text}.add(sums${p}.load(i))`), "");
  }
  // Real numbers for once, where f32 sums have a bound (O2) and tensor cores an order (O3).
  const isReal = sums === "f32" && !(wide && dtypes[a].bytes === 1) && c.once(4);
  const applied: Step[] = [];
  c.repeat("step", isReal ? 0 : 3, 3, () => applied.push(c.pick(steps) ?? { code: "#", apply: (x) => x }));
  const result = c.pick(sums === "f32" ? (["f32", "bf16", "f16"] as const) : (["i32", "f32"] as const));
  const value = applied.reduce((inner, step) => step.code.replace("#", () => inner), sum);
  if (split === 1 && applied.length === 0 && result === sums && c.once(2)) {
    lines.push(`t.copy(rC, tY, { guard: "edges" });`);
  } else {
    const store = `tY.store(i, ${value}${result === sums ? "" : `.to(${result})`})`;
    if (value.includes("tR")) {
      lines.push(`const tR = mma.partitionC(residual.tile([${tileM}, ${tileN}], [t.block.y, t.block.x]));`);
    }
    const loop = ["for (let i = 0; i < tY.size(); i++) {", `t.when(tY.inBounds(i), () => ${store});`, "}"];
    lines.push(...(split > 1 ? [`t.when(${part}.eq(0), () => {`, ...loop, "});"] : loop));
  }

  const limits: Partial<Record<DTypeName, number>> = { f32: 4, bf16: 4, f16: 4, i8: 127, i32: 100, e4m3: 1, e5m2: 1 };
  const data = (dtype: DTypeName) => {
    if (!isReal) return randomData(c, dtype, limits[dtype]);
    // As tf32 has them, too.
    const made = randomData(c, dtype === "f32" ? "bf16" : dtype);
    return (shape: readonly number[], turn: number): Data => ({ ...made(shape, turn), dtype });
  };
  const [dataA, dataB, bias, residual] = [data(a), data(b), data(sums), data(sums)];
  const launch = (turn: number): Case => {
    const M = c.pick([tileM, 1, tileM + 1, 1 + c.below(2 * tileM)]);
    const N = c.pick([tileN, 1, tileN + 1, 1 + c.below(2 * tileN)]);
    const K = tileK * (1 + c.below(4));
    return {
      ...{ a: dataA([M, K], turn), b: dataB([N, K], turn), bias: bias([N], turn), residual: residual([M, N], turn) },
      y: { dtype: result, shape: [M, N], values: undefined },
    };
  };
  const cases = casesOf(c, launch);
  const role = () => c.pick(["input", "frozen"] as const);
  return {
    source: kernelSource(
      [
        ...["M", "N"].map((name) => `const ${name} = size("${name}", { max: 1024 });`),
        `const K = size("K", { min: ${tileK}, max: 4096, multipleOf: ${tileK} });`,
      ],
      `grid: [ceilDiv(N, ${tileN}), ceilDiv(M, ${tileM})], block: ${threads * split}`,
      {
        a: `${role()}(${a}, [M, K], { alignBytes: 16 })`,
        b: `${role()}(${b}, [N, K], { alignBytes: 16 })`,
        bias: `input(${sums}, [N])`,
        residual: `input(${sums}, [M, N])`,
        y: `output(${result}, [M, N])`,
      },
      lines,
    ),
    cases,
    tolerances: {},
    expected: (given) => ({ y: product(given, (x) => (isReal ? x : rounded(result, x)), applied, isReal ? split : 0) }),
  };
}

/** `partials`: how many sums are added up, where they are no exact ones. */
function product(given: Case, round: (x: number) => number, applied: readonly Step[], partials: number): Exact {
  const [a, b, bias, residual] = ["a", "b", "bias", "residual"].map((name) => {
    const data = given[name];
    return typeof data === "object" ? data : { shape: [], values: [] };
  });
  const [M = 0, K = 0] = a?.shape ?? [];
  const [N = 0] = b?.shape ?? [];
  const magnitudes: number[] = [];
  const values = range(M * N).map((i) => {
    const [m, n] = [Math.floor(i / N), i % N];
    let [sum, magnitude] = [0, 0];
    for (let k = 0; k < K; k++) {
      const term = (a?.values?.[m * K + k] ?? 0) * (b?.values?.[n * K + k] ?? 0);
      sum += term;
      magnitude += Math.abs(term);
    }
    magnitudes.push(magnitude);
    const [plus, other] = [bias?.values?.[n] ?? 0, residual?.values?.[i] ?? 0];
    return round(applied.reduce((x, { apply }) => apply(x, plus, other), sum));
  });
  return { values, sums: partials > 0 ? { magnitudes, terms: K, partials } : undefined };
}
