/**
 * Which values are written into the expression that uses them, and which get a name. A pure value used once goes in line,
 * unless that would move it into a loop; so does a register read or load, unless what it reads may change before the use.
 * What the author gave a name to keeps it.
 */
import {
  type Block,
  innerBlocks,
  isPinned,
  type KernelIR,
  operands,
  type Register,
  type Stmt,
  stmtOperands,
  type Value,
} from "../../dsl/ir.ts";

export interface InlinePlan {
  inlines(value: Value): boolean;
  /** Some statement needs the result. */
  isUsed(value: Value): boolean;
  /** No statement uses it and computing it does nothing. */
  isDead(value: Value): boolean;
}

/** Where a statement stands. */
interface Place {
  readonly stmt: Stmt;
  readonly block: Block;
  readonly position: number;
  readonly loopDepth: number;
}

/** Expressions longer than this many operations are broken up for readers. */
const maxOperations = 6;

export function planInlining(ir: KernelIR): InlinePlan {
  const uses = new Map<Value, Place[]>();
  const lets: { readonly value: Value; readonly place: Place }[] = [];
  const visit = (block: Block, loopDepth: number): void => {
    for (const [position, stmt] of block.entries()) {
      const place: Place = { stmt, block, position, loopDepth };
      for (const value of stmtOperands(stmt)) {
        const list = uses.get(value);
        if (list) list.push(place);
        else uses.set(value, [place]);
      }
      if (stmt.kind === "let") lets.push({ value: stmt.value, place });
      for (const inner of innerBlocks(stmt)) visit(inner, loopDepth + (stmt.kind === "for" ? 1 : 0));
    }
  };
  visit(ir.body, 0);

  const dead = new Set<Value>();
  const liveUses = (value: Value): readonly Place[] =>
    (uses.get(value) ?? []).filter(({ stmt }) => stmt.kind !== "let" || !dead.has(stmt.value));
  for (const { value } of lets.toReversed()) {
    const acts = isPinned(value) && value.op.kind !== "read";
    if (!acts && liveUses(value).length === 0) dead.add(value);
  }

  const inlined = new Set<Value>();
  const operationCount = new Map<Value, number>();
  for (const { value, place } of lets) {
    const counts = operands(value.op).map((operand) => (inlined.has(operand) ? (operationCount.get(operand) ?? 0) : 0));
    // Taking vectors apart and putting them together only names registers.
    const moves = value.op.kind === "slice" || value.op.kind === "join";
    const count = moves ? Math.max(1, ...counts) : counts.reduce((sum, one) => sum + one, 1);
    operationCount.set(value, count);
    const [use, another] = liveUses(value);
    if (!use || another || use.loopDepth !== place.loopDepth || count > maxOperations) continue;
    const isAuthors = value.name !== undefined && value.at.line !== use.stmt.at.line;
    if (isAuthors || (isPinned(value) && !canMove(value, place, liveUses))) continue;
    inlined.add(value);
  }
  return {
    inlines: (value) => inlined.has(value),
    isUsed: (value) => liveUses(value).length > 0,
    isDead: (value) => dead.has(value),
  };
}

/**
 * Follows a read or load through the values that absorb it, pure ones and other reads and loads: does what it reads stay
 * the same up to the last of them?
 */
function canMove(pinned: Value, from: Place, liveUses: (value: Value) => readonly Place[]): boolean {
  const { op } = pinned;
  if (op.kind !== "read" && op.kind !== "load") return false;
  const disturbs = (stmt: Stmt): boolean => (op.kind === "read" ? changes(stmt, op.register) : acts(stmt));
  let [value, position] = [pinned, from.position];
  for (;;) {
    const [use, another] = liveUses(value);
    if (!use || another) return value !== pinned;
    if (use.block !== from.block) return false;
    if (from.block.slice(position + 1, use.position).some(disturbs)) return false;
    // A loop tests its bound again after each iteration; everything else takes its operands once, before it acts.
    if (use.stmt.kind === "for" && disturbs(use.stmt)) return false;
    // An array's initial value is written once per element.
    if (use.stmt.kind === "declare" && use.stmt.register.length !== undefined && op.kind === "load") return false;
    if (use.stmt.kind !== "let") return true;
    const { kind } = use.stmt.value.op;
    if (isPinned(use.stmt.value) && kind !== "read" && kind !== "load") return true;
    [value, position] = [use.stmt.value, use.position];
  }
}

function changes(stmt: Stmt, register: Register): boolean {
  if (stmt.kind === "write" && stmt.register === register) return true;
  if (stmt.kind === "wgmma" && stmt.accumulator === register) return true;
  return innerBlocks(stmt).some((inner) => inner.some((one) => changes(one, register)));
}

/** Whether memory may differ, or time have passed, after the statement. */
function acts(stmt: Stmt): boolean {
  if (stmt.kind === "let") return isPinned(stmt.value) && stmt.value.op.kind !== "read";
  return stmt.kind !== "declare" && stmt.kind !== "write";
}
