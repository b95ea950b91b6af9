/**
 * The order that programmatic dependent launch asks for. The kernel before may still be running, so a thread touches what
 * that one writes, and stores anything global, only when it is ordered after it: it waited itself, or it came through a
 * barrier of the whole block, or of the cluster, after a thread of its block had waited.
 *
 * Warps with tasks of their own: those that read activations wait in their branch, the others can go on at once. In every
 * block some thread waits: else the kernel after this one would not be ordered after the one before.
 *
 * Source: CUDA C++ Programming Guide, "Programmatic Dependent Launch and Synchronization".
 */
import { PdlError } from "../errors.ts";
import { type Block, isWritten, type KernelIR, type Stmt, type Value, walk } from "../ir.ts";
import type { Location } from "../source.ts";
import type { FactsAnalysis } from "./facts.ts";
import { touches } from "./touch.ts";

interface Order {
  /** This thread is ordered after the kernels before. */
  readonly self: boolean;
  /** Some thread of its block is. */
  readonly someone: boolean;
  /** Some thread of its block was when this one last arrived at the cluster's barrier. */
  readonly arrived: boolean;
}

/** @throws PdlError */
export function checkPdl(ir: KernelIR, facts: FactsAnalysis): void {
  const waits: Stmt[] = [];
  walk(ir.body, (stmt) => {
    if (stmt.kind === "pdlWait") waits.push(stmt);
  });
  const [first] = waits;
  if (!first) {
    throw new PdlError(`The kernel ${ir.name} never waits for the kernel before it`, {
      at: ir.at,
      hint: "Call t.pdl.wait() once, in every kernel: without it the kernel after this one is not ordered after the one before",
    });
  }
  const end = new PdlOrder(facts, first).block(ir.body, { self: false, someone: false, arrived: false }, "top");
  if (!end.someone) {
    throw new PdlError("The wait stands inside a branch that perhaps no thread takes", {
      at: first.at,
      hint: "Call t.pdl.wait() at the top level, or under a condition that some warp of every block meets: t.warp.eq(0), t.warp.lt(4)",
    });
  }
}

type Depth = "top" | "branch" | "loop";

class PdlOrder {
  private readonly facts: FactsAnalysis;
  private readonly first: Stmt;

  constructor(facts: FactsAnalysis, first: Stmt) {
    this.facts = facts;
    this.first = first;
  }

  block(block: Block, before: Order, depth: Depth): Order {
    let order = before;
    for (const stmt of block) {
      if (!order.self) this.checkTouches(stmt);
      order = this.after(stmt, order, depth);
    }
    return order;
  }

  private after(stmt: Stmt, order: Order, depth: Depth): Order {
    switch (stmt.kind) {
      case "pdlWait":
        if (order.self) {
          const related = [{ what: "the first wait is", at: this.first.at }];
          throw new PdlError("A kernel waits once", { at: stmt.at, related });
        }
        if (depth === "loop") {
          throw new PdlError("The wait stands inside a loop", {
            at: stmt.at,
            hint: "Call t.pdl.wait() before the loop",
          });
        }
        return { ...order, self: true, someone: true };
      case "barrier":
        return stmt.scope === "block" ? { ...order, self: order.someone } : order;
      case "clusterArrive":
        return { ...order, arrived: order.someone };
      case "clusterWait":
        return { ...order, self: order.self || order.arrived };
      case "for":
        this.block(stmt.body, order, "loop");
        return order;
      case "if": {
        const inner = depth === "top" ? "branch" : depth;
        const [then, otherwise] = [this.block(stmt.then, order, inner), this.block(stmt.otherwise, order, inner)];
        const taken = (side: boolean): boolean => depth === "top" && this.isTaken(stmt.condition, side);
        const someone =
          (then.someone && otherwise.someone) || (then.someone && taken(true)) || (otherwise.someone && taken(false));
        return { self: then.self && otherwise.self, someone, arrived: then.arrived && otherwise.arrived };
      }
      default:
        return order;
    }
  }

  /** Whether in every block some thread goes to this side of a branch. */
  private isTaken(condition: Value, side: boolean): boolean {
    const decided = this.facts.decides(condition);
    if (decided !== undefined) return decided === side;
    const { op } = condition;
    if (op.kind === "unary" && op.fn === "not") return this.isTaken(op.a, !side);
    if (op.kind !== "binary") return false;
    const { min, max, attainedBy } = this.facts.of(op.a);
    const right = this.facts.of(op.b);
    const own = attainedBy && [...attainedBy].every((leaf) => leaf === "warp" || leaf === "lane");
    if (!own || right.min !== right.max) return false;
    const c = right.min;
    switch (op.fn) {
      case "lt":
        return side ? min < c : max >= c;
      case "le":
        return side ? min <= c : max > c;
      case "gt":
        return side ? max > c : min <= c;
      case "ge":
        return side ? max >= c : min < c;
      // All values in between occur for an index itself.
      case "eq":
        return side ? op.a.op.kind === "id" && min <= c && c <= max : min !== max;
      case "ne":
        return side ? min !== max : op.a.op.kind === "id" && min <= c && c <= max;
      default:
        return false;
    }
  }

  private checkTouches(stmt: Stmt): void {
    for (const { memory, writes } of touches(stmt)) {
      if (writes) this.early(`A store to ${memory.name} stands`, stmt.at);
      if (memory.role !== "frozen" || isWritten(memory.role)) {
        this.early(`A load of ${memory.name}, which is an ${memory.role}, stands`, stmt.at);
      }
    }
  }

  private early(what: string, at: Location): never {
    throw new PdlError(`${what} before the wait`, {
      at,
      related: [{ what: "the wait is", at: this.first.at }],
      hint: "The kernel before may still be running: only frozen tensors may be read, and nothing global written, until t.pdl.wait(), or a block barrier after another warp's wait",
    });
  }
}
