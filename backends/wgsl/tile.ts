/** Tile operations as WGSL: those of single lanes, and those that a warp's 32 lanes do together. Copies are done at once. */
import type { MBarrier, TileStmt } from "../../dsl/ir-tile.ts";
import {
  type Block,
  innerBlocks,
  type KernelIR,
  type Pinned,
  type Register,
  type Shared,
  stmtOperands,
  type Value,
  walk,
} from "../../dsl/ir.ts";
import { atom, call, infix, type Lines, type Text } from "../lowering/text.ts";
import { Expressions } from "./expressions.ts";
import { dimTexts } from "./prelude-tile.ts";

/** Statements of the tile grammar that each lane does by itself. */
export type LaneTileStmt = Exclude<
  TileStmt,
  { readonly kind: "stmatrix" | "await" | "clusterArrive" | "clusterWait" | "namedBarrier" | "wgmma" }
>;

export abstract class TileOperations extends Expressions {
  protected abstract lines: Lines;
  private taken: ReadonlySet<Value> | undefined;

  /** The number of a barrier's sync cell. */
  protected abstract cellOf(barrier: MBarrier, slot: Value, peer?: Value): Text;
  /** Runs `body` once per lane. */
  protected abstract lanes(body: () => void): void;
  /** Declares a variable that may be pointed to. */
  protected abstract variable(named: Value | undefined, base: string, type: string): string;

  protected laneTileStmt(stmt: LaneTileStmt): void {
    const { lines, prelude } = this;
    switch (stmt.kind) {
      case "copyAsync": {
        const type = { dtype: stmt.memory.dtype, lanes: stmt.lanes };
        const [from, to] = [this.binding(stmt.memory), this.binding(stmt.to)];
        const offset = this.offset(stmt.memory, stmt.index);
        const value = stmt.guard
          ? call(prelude.guardedLoad(from, type), this.text(stmt.guard), offset)
          : call(prelude.load(from, type), offset);
        lines.add(`${call(prelude.store(to, type), this.offset(stmt.to, stmt.toIndex), value).code};`);
        return;
      }
      case "bulkCopy": {
        const copy = prelude.bulkCopy(this.binding(stmt.to), this.binding(stmt.memory));
        const [to, from] = [this.offset(stmt.to, stmt.toIndex), this.offset(stmt.memory, stmt.index)];
        lines.add(`${call(copy, to, from, this.text(stmt.count)).code};`);
        const bytes = infix("*", this.text(stmt.count), atom(String(stmt.to.dtype.bytes)));
        lines.add(`atomicSub(&cell_bytes[${this.cellOf(stmt.barrier, stmt.slot).code}], ${bytes.code});`);
        return;
      }
      case "tensorCopy": {
        const { map, to } = stmt;
        const dims = dimTexts(map.tensor, (name) => this.field(name));
        const copy = prelude.tensorCopy(map, this.binding(to), this.binding(map.tensor), dims);
        const [base, element] = [this.base(to) ?? atom("0"), this.element(to, stmt.toIndex)];
        lines.add(`${call(copy, base, element, ...stmt.index.map((value) => this.text(value))).code};`);
        const bytes = map.box.reduce((a, b) => a * b, to.dtype.bytes);
        lines.add(`atomicSub(&cell_bytes[${this.cellOf(stmt.barrier, stmt.slot).code}], ${bytes});`);
        return;
      }
      case "arrive": {
        const cell = this.cellOf(stmt.barrier, stmt.slot, stmt.peer).code;
        if (stmt.expectBytes) lines.add(`atomicAdd(&cell_bytes[${cell}], i32(${this.text(stmt.expectBytes).code}));`);
        lines.add(`atomicSub(&cell_pending[${cell}], 1);`);
        return;
      }
      case "asyncArrive":
        lines.add(`atomicSub(&cell_pending[${this.cellOf(stmt.barrier, stmt.slot).code}], 1);`);
        return;
      // Copies and products are complete when the next statement begins.
      case "asyncCommit":
      case "asyncWait":
      case "prefetch":
      case "asyncFence":
      case "setRegisters":
      case "wgmmaFence":
      case "wgmmaCommit":
      case "wgmmaWait":
        return;
    }
  }

  protected mma(value: Value, op: Extract<Pinned, { readonly kind: "mma" }>): void {
    const name = this.prelude.mma(op.atom, op.a.type, op.b.type, op.c.type);
    this.lanes(() => {
      for (const operand of ["a", "b", "c"] as const) {
        this.lines.add(`${name}_${operand}[lane] = ${this.text(op[operand]).code};`);
      }
    });
    this.lines.add(`${name}();`);
    // A register takes the result before the next product: then it needs no array of its own.
    if (this.takenAtOnce(value)) {
      this.valueNames.set(value, `${name}_d`);
      return;
    }
    const result = this.variable(value, value.name ?? "d", this.prelude.ofLanes(value.type));
    this.lines.add(`${result} = ${name}_d;`);
  }

  /** Whether a value's only use is the write that follows it. */
  private takenAtOnce(value: Value): boolean {
    this.taken ??= valuesTakenAtOnce(this.ir);
    return this.taken.has(value);
  }

  protected ldmatrix(value: Value, op: Extract<Pinned, { readonly kind: "ldmatrix" }>): void {
    const offsets = this.allOffsets(op.memory, op.index);
    const result = this.variable(value, value.name ?? "v", this.prelude.ofLanes(value.type));
    const name = this.prelude.ldmatrix(this.binding(op.memory), value.type, op.transposed);
    this.lines.add(`${name}(&${offsets}, &${result});`);
  }

  protected stmatrix(stmt: Extract<TileStmt, { readonly kind: "stmatrix" }>): void {
    const offsets = this.allOffsets(stmt.memory, stmt.index);
    const values = this.allLanes(stmt.value);
    const name = this.prelude.stmatrix(this.binding(stmt.memory), stmt.value.type, stmt.transposed);
    this.lines.add(`${name}(&${offsets}, &${values});`);
  }

  protected wgmma(stmt: Extract<TileStmt, { readonly kind: "wgmma" }>): void {
    const { a, b, accumulator } = stmt;
    const [bindingA, bindingB] = [this.binding(a.memory), this.binding(b.memory)];
    const name = this.prelude.wgmma(stmt.atom, accumulator.length ?? 1, [a, bindingA], [b, bindingB]);
    const operands = [a, b].flatMap(({ memory, index }) => [
      this.base(memory) ?? atom("0"),
      this.element(memory, index),
    ]);
    const head = [atom(`&${this.registerName(accumulator)}`), atom(String(stmt.first)), this.text(stmt.accumulate)];
    this.lines.add(`${call(name, ...head, atom("warp"), ...operands).code};`);
  }

  private registerName(register: Register): string {
    this.used(register);
    return this.registerNames.get(register) ?? "";
  }

  /** An array variable with the values of all lanes. */
  private allLanes(value: Value): string {
    const kept = this.valueNames.get(value);
    if (kept !== undefined && this.regions.escapes(value)) {
      this.used(value);
      return kept;
    }
    const name = this.variable(undefined, "lanes", this.prelude.ofLanes(value.type));
    this.lanes(() => this.lines.add(`${name}[lane] = ${this.text(value).code};`));
    return name;
  }

  private allOffsets(memory: Shared, index: readonly Value[]): string {
    const name = this.variable(undefined, "offsets", "array<i32, 32>");
    this.lanes(() => this.lines.add(`${name}[lane] = ${this.offset(memory, index).code};`));
    return name;
  }
}

/** Values that the next statement writes to a register, and nothing else uses. */
function valuesTakenAtOnce(ir: KernelIR): ReadonlySet<Value> {
  const uses = new Map<Value, number>();
  walk(ir.body, (stmt) => {
    for (const value of stmtOperands(stmt)) uses.set(value, (uses.get(value) ?? 0) + 1);
  });
  const taken = new Set<Value>();
  const visit = (block: Block): void => {
    for (const [i, stmt] of block.entries()) {
      const next = block[i + 1];
      const written = stmt.kind === "let" && next?.kind === "write" && next.value === stmt.value;
      if (written && uses.get(stmt.value) === 1) taken.add(stmt.value);
      for (const inner of innerBlocks(stmt)) visit(inner);
    }
  };
  visit(ir.body);
  return taken;
}
