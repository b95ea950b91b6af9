/**
 * How a kernel is cut for one WGSL invocation per warp.
 *
 * The 32 lanes of a warp are an inner loop. Statements between two warp-wide operations form a *region*: one loop over the
 * lanes. Warp-wide operations, barriers, and the loops and branches that contain them stand outside, at *warp level*.
 * What one region makes and another uses has to be kept for each lane, in an array of 32.
 */
import {
  type Block,
  innerBlocks,
  isLeaf,
  isPinned,
  type KernelIR,
  operands,
  type Register,
  type Stmt,
  stmtOperands,
  type Value,
} from "../../dsl/ir.ts";
import type { InlinePlan } from "../lowering/inline.ts";

/** A piece of a warp-level block: a run of statements per lane, or one statement at warp level. */
export type Piece =
  | { readonly kind: "region"; readonly uniform: readonly Value[]; readonly stmts: readonly Stmt[] }
  | { readonly kind: "collective"; readonly stmt: Stmt };

export interface Regions {
  /** Cuts a warp-level block. */
  pieces(block: Block): readonly Piece[];
  /** Whether a value or register must be kept for each lane beyond the region that makes it. */
  escapes(made: Value | Register): boolean;
  /** Of the block in which an escaping value or register is made, the last piece that needs it. */
  lastUse(made: Value | Register): Piece | undefined;
  /** Whether a value is computed once per warp. */
  isWarpLevel(value: Value): boolean;
}

/** Whether all lanes of a warp do it together. */
export function isCollective(stmt: Stmt): boolean {
  switch (stmt.kind) {
    case "barrier":
    case "stmatrix":
    case "await":
    case "clusterArrive":
    case "clusterWait":
    case "namedBarrier":
    case "wgmma":
      return true;
    case "let":
      return isWarpWide(stmt.value);
    default:
      return innerBlocks(stmt).some((inner) => inner.some(isCollective));
  }
}

function isWarpWide({ op }: Value): boolean {
  return op.kind === "reduce" || op.kind === "shuffle" || op.kind === "mma" || op.kind === "ldmatrix";
}

type Region = object;
const warpLevel: Region = { name: "warp level" };

export function cutRegions(ir: KernelIR, plan: InlinePlan): Regions {
  const cuts = new Map<Block, readonly Piece[]>();
  const uniform = new Set<Value>();
  const madeIn = new Map<Value | Register, Region>();
  const escaping = new Set<Value | Register>();
  const blockOf = new Map<Value | Register, Block>();
  /** Of each block that is being visited. */
  const current = new Map<Block, Piece>();
  const lastUses = new Map<Value | Register, Piece>();

  const use = (value: Value, region: Region): void => {
    // An inlined value is computed where it is used: what counts is where its operands are made.
    if (isLeaf(value) || plan.inlines(value)) {
      if (value.op.kind === "read") useMade(value.op.register, region);
      for (const operand of operands(value.op)) use(operand, region);
      return;
    }
    useMade(value, region);
  };
  const useMade = (made: Value | Register, region: Region): void => {
    if (madeIn.get(made) !== region) escaping.add(made);
    const block = blockOf.get(made);
    const piece = block && current.get(block);
    if (piece) lastUses.set(made, piece);
  };
  const visitStmt = (stmt: Stmt, region: Region): void => {
    if (stmt.kind === "let" && (plan.isDead(stmt.value) || plan.inlines(stmt.value))) return;
    for (const value of stmtOperands(stmt)) use(value, region);
    if (stmt.kind === "let") {
      madeIn.set(stmt.value, region);
      if (stmt.value.op.kind === "read") useMade(stmt.value.op.register, region);
    }
    if (stmt.kind === "declare") madeIn.set(stmt.register, region);
    if (stmt.kind === "write") useMade(stmt.register, region);
    for (const inner of innerBlocks(stmt)) for (const one of inner) visitStmt(one, region);
  };
  /** Uniform values need only what is known once per warp. */
  const oncePerWarp = (value: Value, loops: ReadonlySet<Value>): boolean => {
    const { op } = value;
    if (op.kind === "id") return op.id !== "thread" && op.id !== "lane";
    if (op.kind === "induction") return loops.has(value);
    if (isLeaf(value) || uniform.has(value)) return true;
    return !isPinned(value) && plan.inlines(value) && operands(op).every((operand) => oncePerWarp(operand, loops));
  };
  const visitBlock = (block: Block, loops: ReadonlySet<Value>): void => {
    const pieces: Piece[] = [];
    let run: Stmt[] = [];
    let hoisted: Value[] = [];
    const flush = (): void => {
      if (run.length > 0 || hoisted.length > 0) {
        const region: Piece = { kind: "region", uniform: hoisted, stmts: run };
        pieces.push(region);
        current.set(block, region);
        for (const stmt of run) {
          if (stmt.kind === "let") blockOf.set(stmt.value, block);
          if (stmt.kind === "declare") blockOf.set(stmt.register, block);
        }
        for (const value of hoisted) for (const operand of operands(value.op)) use(operand, warpLevel);
        for (const stmt of run) visitStmt(stmt, region);
      }
      [run, hoisted] = [[], []];
    };
    for (const stmt of block) {
      if (!isCollective(stmt)) {
        const pure =
          stmt.kind === "let" && !plan.isDead(stmt.value) && !plan.inlines(stmt.value) ? stmt.value : undefined;
        if (pure && !isPinned(pure) && operands(pure.op).every((operand) => oncePerWarp(operand, loops))) {
          uniform.add(pure);
          hoisted.push(pure);
          madeIn.set(pure, warpLevel);
        } else run.push(stmt);
        continue;
      }
      flush();
      const piece: Piece = { kind: "collective", stmt };
      pieces.push(piece);
      current.set(block, piece);
      // Warp-wide operations take their operands in a lane loop of their own.
      for (const value of stmtOperands(stmt)) use(value, stmt);
      if (stmt.kind === "wgmma") useMade(stmt.accumulator, stmt);
      if (stmt.kind === "let") {
        madeIn.set(stmt.value, warpLevel);
        if (stmt.value.op.kind === "reduce") uniform.add(stmt.value);
        else escaping.add(stmt.value);
      }
      const inner = stmt.kind === "for" ? new Set([...loops, stmt.induction]) : loops;
      for (const nested of innerBlocks(stmt)) visitBlock(nested, inner);
    }
    flush();
    cuts.set(block, pieces);
  };
  visitBlock(ir.body, new Set());
  for (const value of uniform) escaping.delete(value);
  return {
    pieces: (block) => cuts.get(block) ?? [],
    escapes: (made) => escaping.has(made),
    lastUse: (made) => lastUses.get(made),
    isWarpLevel: (value) => uniform.has(value),
  };
}
