/** What makes a chain of kernels fast: weights are on their way before the wait, and the next kernel may start before it too. */
import { describe, expect, test } from "vitest";
import { bf16, e4m3, f32, type Kernel } from "../dsl/index.ts";
import { type Stmt, walk } from "../dsl/ir.ts";
import { touches } from "../dsl/verify/touch.ts";
import {
  gemmBf16,
  llGemmDotBf16,
  llGemmDotE4m3,
  llGemmDotF32,
  llGemmMmaBf16,
  llGemmMmaE4m3,
  llGemmPipelineBf16,
  llGemmStreamBf16,
  llGemmStreamE4m3,
} from "../kernels/index.ts";

const sizes = { M: 8, N: 128, K: 2048 };
const kernels: readonly Kernel[] = [
  llGemmDotBf16({ ...sizes, out: f32 }),
  llGemmDotE4m3({ ...sizes, out: f32 }),
  llGemmDotF32({ ...sizes, out: f32 }),
  llGemmMmaBf16({ ...sizes, out: f32 }),
  llGemmMmaE4m3({ ...sizes, out: e4m3 }),
  llGemmStreamBf16({ ...sizes, out: f32 }),
  llGemmStreamE4m3({ ...sizes, out: bf16 }),
  gemmBf16({ ...sizes, out: bf16 }),
] as unknown as readonly Kernel[];

/** Statements in the order in which they are written. */
function written(kernel: Kernel): readonly Stmt[] {
  const all: Stmt[] = [];
  walk(kernel.ir.body, (stmt) => all.push(stmt));
  return all;
}

/** Of a warp that waits: what stands between its branch's begin, or the kernel's, and the wait. */
describe.each(kernels.map((kernel) => [kernel.name, kernel] as const))("%s", (_, kernel) => {
  const all = written(kernel);
  const waits = all.flatMap(({ kind }, i) => (kind === "pdlWait" ? [i] : []));
  const of = (name: string): readonly number[] =>
    all.flatMap((stmt, i) => (touches(stmt).some(({ memory }) => memory.name === name) ? [i] : []));

  test("asks for weights before the wait, for tokens after", () => {
    const [firstWeight = Infinity] = of("w");
    // The warp that asks for weights is the one that asks for tokens: its wait is the last one before the first token.
    const [firstToken = -1] = of("x");
    const before = waits.filter((wait) => wait < firstToken).at(-1) ?? -1;
    expect(firstWeight).toBeLessThan(before);
    expect(before).toBeLessThan(firstToken);
  });

  test("lets the next kernel start before it waits itself", () => {
    const launch = all.findIndex(({ kind }) => kind === "pdlLaunch");
    expect(launch).toBeGreaterThanOrEqual(0);
    expect(launch).toBeLessThan(waits.at(-1) ?? -1);
  });
});

test("of warps with tasks of their own those that copy weights never wait", () => {
  const pipeline = llGemmPipelineBf16({ ...sizes, out: f32 }) as unknown as Kernel;
  const visit = (block: readonly Stmt[]): readonly (readonly Stmt[])[] =>
    block.flatMap((stmt) =>
      stmt.kind === "if" ? [stmt.then, stmt.otherwise, ...visit(stmt.then), ...visit(stmt.otherwise)] : [],
    );
  const reads = (branch: readonly Stmt[], name: string): boolean => {
    let found = false;
    walk(branch, (stmt) => (found ||= touches(stmt).some(({ memory }) => memory.name === name)));
    return found;
  };
  const waits = (branch: readonly Stmt[]): boolean => {
    let found = false;
    walk(branch, ({ kind }) => (found ||= kind === "pdlWait"));
    return found;
  };
  const branches = visit(pipeline.ir.body);
  const copiers = branches.filter((branch) => reads(branch, "w"));
  expect(copiers.length).toBeGreaterThan(0);
  for (const branch of copiers) if (!reads(branch, "x")) expect(waits(branch)).toBe(false);
  for (const branch of branches.filter((one) => reads(one, "x"))) expect(waits(branch)).toBe(true);
});
