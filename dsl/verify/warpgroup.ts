/**
 * What four warps do together: wgmma reads its operands whole and well placed; registers that one warpgroup takes, another
 * one gave back.
 *
 * Source: PTX ISA, "Matrix descriptor", "Strides" of the wgmma layouts; "setmaxnreg".
 */
import { AlignmentError, ShapeError } from "../errors.ts";
import { type Block, type KernelIR, type Stmt, type Value, walk } from "../ir.ts";
import type { MatrixOperand, TileStmt } from "../ir-tile.ts";
import type { Location } from "../source.ts";
import { FactsAnalysis } from "./facts.ts";

type Wgmma = Extract<TileStmt, { readonly kind: "wgmma" }>;
type SetRegisters = Extract<TileStmt, { readonly kind: "setRegisters" }>;

/** Of a matrix as every wgmma reads it. */
const rowBytes = 32;

/** Both operands of a wgmma, each with its rows. */
export function matricesOf({ atom, a, b }: Wgmma): readonly (readonly [MatrixOperand, rows: number])[] {
  return [
    [a, atom.M],
    [b, atom.N],
  ];
}

/** Bytes from the first element to behind the last. */
export function spanOf({ swizzleBytes, strideBytes, leadingBytes }: MatrixOperand, rows: number): number {
  const groups = (rows / 8 - 1) * strideBytes;
  return swizzleBytes > 0 ? groups + 7 * swizzleBytes + rowBytes : groups + 7 * 16 + leadingBytes + 16;
}

/** @throws AlignmentError, ShapeError */
export function checkWarpgroups(ir: KernelIR, facts: FactsAnalysis): void {
  const changes: SetRegisters[] = [];
  let whole: Stmt | undefined;
  walk(ir.body, (stmt) => {
    if (stmt.kind === "wgmma") for (const [operand] of matricesOf(stmt)) checkPlace(operand, facts, stmt.at);
    if (stmt.kind === "setRegisters") changes.push(stmt);
    if (stmt.kind === "wgmma" || stmt.kind === "setRegisters") whole ??= stmt;
  });
  if (whole && ir.block % 128 !== 0) {
    const what = whole.kind === "wgmma" ? "wgmma" : "A change of the register count";
    throw new ShapeError(`${what} is for whole warpgroups of 128 threads; the block has ${ir.block} threads`, {
      at: whole.at,
      related: [{ what: "the kernel was made", at: ir.at }],
      hint: `Write kernel({ ..., block: ${Math.ceil(ir.block / 128) * 128} }, ...)`,
    });
  }
  if (changes.length > 0) checkRegisterCounts(ir, changes);
}

/** A swizzled matrix begins in the first row of its pattern: the hardware swizzles by the address alone. */
function checkPlace({ memory, index, swizzleBytes }: MatrixOperand, facts: FactsAnalysis, at: Location): void {
  const { bytes } = memory.dtype;
  const pattern = Math.max(16, swizzleBytes * 8);
  const fail = (what: string, hint: string): never => {
    throw new AlignmentError(`wgmma reads ${memory.name} with a swizzle of ${swizzleBytes} bytes, ${what}`, {
      at,
      related: [{ what: `${memory.name} was made`, at: memory.at }],
      hint,
    });
  };
  if (memory.alignBytes % pattern !== 0) {
    fail(
      `which needs ${pattern}-byte alignment; it has ${memory.alignBytes}`,
      `Promise it: { alignBytes: ${pattern} }`,
    );
  }
  const [first] = index;
  if (!first || index.length > 1) return fail("which needs one index", "Make it by t.sharedTile");
  const { multipleOf, beyond } = placeOf(first, facts);
  if ((multipleOf * bytes) % pattern !== 0) {
    fail(
      `from a multiple of ${multipleOf * bytes} bytes on; its pattern repeats every ${pattern}`,
      `Let stages and sub-tiles begin at multiples of ${pattern / bytes} elements`,
    );
  }
  const within = (((beyond * bytes) % pattern) + pattern) % pattern;
  const fits = within % 16 === 0 && (swizzleBytes === 0 || within + rowBytes <= swizzleBytes);
  if (!fits) {
    fail(
      `from byte ${within} of its pattern on; it can begin in the first row only`,
      "Take rows in whole groups of 8, and columns inside one row of the swizzle",
    );
  }
}

/** An index as a multiple of something, and a constant beyond it. */
function placeOf(value: Value, facts: FactsAnalysis): { readonly multipleOf: number; readonly beyond: number } {
  const { op } = value;
  if (op.kind === "const") return { multipleOf: 0, beyond: op.value };
  if (op.kind === "binary" && op.fn === "add" && op.b.op.kind === "const") {
    const { multipleOf, beyond } = placeOf(op.a, facts);
    return { multipleOf, beyond: beyond + op.b.op.value };
  }
  return { multipleOf: facts.of(value).multipleOf, beyond: 0 };
}

/**
 * A block starts with equal shares of the 65,536 registers of its multiprocessor, in steps of 8 a thread. Who waits for more
 * than others give back waits for ever.
 */
function checkRegisterCounts(ir: KernelIR, changes: readonly SetRegisters[]): void {
  const share = Math.min(256, Math.floor(65_536 / ir.block / 8) * 8);
  for (const { change, count, at } of changes) {
    if (change === "increase" ? count >= share : count <= share) continue;
    throw new ShapeError(`A thread of ${ir.block} starts with ${share} registers; ${change} to ${count} is none`, {
      at,
    });
  }
  const counts = Array.from({ length: ir.block / 128 }, (_, group) => {
    const facts = new FactsAnalysis(ir, undefined, { first: 4 * group, last: 4 * group + 3 });
    return mostRegisters(ir.body, facts) ?? share;
  });
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (total <= share * counts.length) return;
  const [first, ...others] = changes.toSorted((a, b) => b.count - a.count);
  throw new ShapeError(
    `The warpgroups want ${counts.join(" + ")} registers a thread; the block has ${counts.length} x ${share}`,
    {
      at: first?.at,
      related: others.map(({ count, at }) => ({ what: `${count} are asked for`, at })),
      hint: 'Let the warpgroups that copy keep fewer: t.setRegisters("decrease", 40)',
    },
  );
}

/** What a warpgroup may end up with; undefined where it never asks. */
function mostRegisters(block: Block, facts: FactsAnalysis): number | undefined {
  let most: number | undefined;
  const see = (count: number | undefined): void => {
    if (count !== undefined) most = Math.max(most ?? 0, count);
  };
  for (const stmt of block) {
    if (stmt.kind === "setRegisters") see(stmt.count);
    if (stmt.kind === "for") see(mostRegisters(stmt.body, facts));
    if (stmt.kind === "if") {
      const decided = facts.decides(stmt.condition);
      if (decided !== false) see(mostRegisters(stmt.then, facts));
      if (decided !== true) see(mostRegisters(stmt.otherwise, facts));
    }
  }
  return most;
}
