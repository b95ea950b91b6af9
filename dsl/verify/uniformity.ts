/**
 * Uniformity: over which threads a value is certain to be the same. Barriers need control flow that is uniform over the
 * block, warp-wide operations over the warp. Backends use the same analysis to place values.
 */
import { type Block, type KernelIR, operands, type Register, type Stmt, type Value } from "../ir.ts";

/** Ordered: what is uniform over the block is uniform over each warp. */
export const Uniformity = Object.freeze({ block: 0, warp: 1, lane: 2 });
export type UniformityLevel = 0 | 1 | 2;

export class UniformityAnalysis {
  private readonly values = new Map<Value, UniformityLevel>();
  private readonly registers = new Map<Register, UniformityLevel>();
  /** Of the control flow that encloses a statement. */
  private readonly controls = new Map<Stmt, UniformityLevel>();
  private changed = false;

  constructor(ir: KernelIR) {
    // Registers carry values around loops, so their levels rise until nothing changes; at most twice per register.
    do {
      this.changed = false;
      this.visit(ir.body, Uniformity.block);
    } while (this.changed);
  }

  of(value: Value): UniformityLevel {
    return this.values.get(value) ?? this.level(value);
  }

  ofRegister(register: Register): UniformityLevel {
    return this.registers.get(register) ?? Uniformity.block;
  }

  controlOf(stmt: Stmt): UniformityLevel {
    return this.controls.get(stmt) ?? Uniformity.block;
  }

  private visit(block: Block, control: UniformityLevel): void {
    for (const stmt of block) {
      this.controls.set(stmt, control);
      switch (stmt.kind) {
        case "let":
          this.values.set(stmt.value, this.level(stmt.value));
          break;
        case "declare":
          this.raise(stmt.register, stmt.init ? this.of(stmt.init) : Uniformity.block);
          break;
        case "write":
          this.raise(stmt.register, join(control, this.of(stmt.value), stmt.index ? this.of(stmt.index) : 0));
          break;
        case "for": {
          const bounds = join(this.of(stmt.from), this.of(stmt.to));
          // The variable itself is the same in all threads that are in the loop together.
          this.values.set(stmt.induction, bounds);
          this.visit(stmt.body, join(control, bounds));
          break;
        }
        case "if": {
          const inner = join(control, this.of(stmt.condition));
          this.visit(stmt.then, inner);
          this.visit(stmt.otherwise, inner);
          break;
        }
        case "store":
        case "barrier":
        case "pdlWait":
        case "pdlLaunch":
        case "sleep":
          break;
      }
    }
  }

  private raise(register: Register, level: UniformityLevel): void {
    const before = this.registers.get(register);
    const after = join(before ?? 0, level);
    if (before === after) return;
    this.registers.set(register, after);
    this.changed = true;
  }

  private level({ op }: Value): UniformityLevel {
    const inputs = join(...operands(op).map((value) => this.of(value)));
    switch (op.kind) {
      case "id":
        if (op.id === "thread" || op.id === "lane") return Uniformity.lane;
        return op.id === "warp" ? Uniformity.warp : Uniformity.block;
      case "read":
        return join(inputs, this.ofRegister(op.register));
      case "load": {
        const { memory } = op;
        const readOnly = memory.kind === "tensor" && (memory.role === "frozen" || memory.role === "input");
        // Another warp may write between two warps' loads.
        return readOnly ? inputs : join(inputs, Uniformity.warp);
      }
      case "shuffle":
        return op.mode === "index" && this.of(op.by) < Uniformity.lane ? min(this.of(op.a), Uniformity.warp) : inputs;
      case "reduce":
        return min(inputs, Uniformity.warp);
      case "atomic":
        return Uniformity.lane;
      default:
        return inputs;
    }
  }
}

function join(...levels: readonly UniformityLevel[]): UniformityLevel {
  return levels.reduce<UniformityLevel>((a, b) => (a > b ? a : b), 0);
}

function min(a: UniformityLevel, b: UniformityLevel): UniformityLevel {
  return a < b ? a : b;
}
