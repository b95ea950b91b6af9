/**
 * Uniformity: over which threads a value is certain to be the same. Barriers need control flow that is uniform over the
 * block, warp-wide operations over the warp. Backends use the same analysis to place values.
 */
import {
  type BinaryFn,
  type Block,
  type KernelIR,
  type Memory,
  operands,
  type Register,
  type Stmt,
  type Value,
  walk,
} from "../ir.ts";

/** Ordered: what is uniform over the cluster is uniform over each block, and that over each warpgroup, and so on. */
export const Uniformity = Object.freeze({ cluster: 0, block: 1, warpgroup: 2, warp: 3, lane: 4 });
export type UniformityLevel = 0 | 1 | 2 | 3 | 4;

export class UniformityAnalysis {
  private readonly values = new Map<Value, UniformityLevel>();
  private readonly registers = new Map<Register, UniformityLevel>();
  /** Of the control flow that encloses a statement. */
  private readonly controls = new Map<Stmt, UniformityLevel>();
  /** What this kernel writes: lanes that load the same element may find different values there. */
  private readonly written: ReadonlySet<Memory>;
  private readonly block: number;
  private readonly oneBlock: boolean;
  private changed = false;

  /** `trustLoads`: as if nothing changed between the loads of a warp's lanes; to find out what loads are to blame for. */
  constructor(ir: KernelIR, { trustLoads = false } = {}) {
    this.written = trustLoads ? new Set() : memoryWritten(ir);
    this.block = ir.block;
    this.oneBlock = ir.cluster === 1;
    // Registers carry values around loops, so their levels rise until nothing changes; at most twice per register.
    do {
      this.changed = false;
      this.visit(ir.body, Uniformity.cluster);
    } while (this.changed);
  }

  of(value: Value): UniformityLevel {
    return this.values.get(value) ?? this.level(value);
  }

  ofRegister(register: Register): UniformityLevel {
    return this.registers.get(register) ?? Uniformity.cluster;
  }

  controlOf(stmt: Stmt): UniformityLevel {
    return this.controls.get(stmt) ?? Uniformity.cluster;
  }

  private visit(block: Block, control: UniformityLevel): void {
    for (const stmt of block) {
      this.controls.set(stmt, control);
      switch (stmt.kind) {
        case "let":
          this.values.set(stmt.value, this.level(stmt.value));
          break;
        case "declare":
          // What was there before differs from thread to thread.
          this.raise(stmt.register, stmt.init ? this.of(stmt.init) : Uniformity.lane);
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
        case "wgmma":
          this.raise(stmt.accumulator, Uniformity.lane);
          break;
        case "store":
        case "barrier":
        case "pdlWait":
        case "pdlLaunch":
        case "sleep":
          break;
        default:
          break; // the other tile statements set no values
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

  private level(value: Value): UniformityLevel {
    const level = this.levelAmongWarps(value);
    // Of a block's warps the first 4 are a warpgroup; there may be no others, and no other blocks.
    const most = this.block === 32 ? Uniformity.warp : this.block <= 128 ? Uniformity.warpgroup : Uniformity.block;
    const inBlock = level <= most ? min(level, Uniformity.block) : level;
    return this.oneBlock && inBlock === Uniformity.block ? Uniformity.cluster : inBlock;
  }

  private levelAmongWarps({ op }: Value): UniformityLevel {
    const inputs = join(...operands(op).map((value) => this.of(value)));
    switch (op.kind) {
      case "id":
        if (op.id === "thread" || op.id === "lane") return Uniformity.lane;
        if (op.id === "warp") return Uniformity.warp;
        // Clusters lie along x.
        return op.id === "block.y" || op.id === "block.z" ? Uniformity.cluster : Uniformity.block;
      case "mma":
      case "ldmatrix":
        return Uniformity.lane;
      case "read":
        return join(inputs, this.ofRegister(op.register));
      case "load":
        return this.written.has(op.memory) ? Uniformity.lane : inputs;
      case "binary":
        return min(inputs, levelOfPart(op.fn, op.a, op.b));
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

/** Stored to or changed by atomics. Shared memory that is never written has no content to rely on either. */
function memoryWritten(ir: KernelIR): ReadonlySet<Memory> {
  const written = new Set<Memory>(ir.shared);
  walk(ir.body, (stmt) => {
    if (stmt.kind === "store") written.add(stmt.memory);
    // Tile statements write only shared memory, which is in there already.
    if (stmt.kind === "let" && stmt.value.op.kind === "atomic") written.add(stmt.value.op.memory);
  });
  return written;
}

const mirrored: Partial<Record<BinaryFn, BinaryFn>> = { lt: "gt", le: "ge", gt: "lt", ge: "le", and: "and" };

/** Of a part of all threads or warps: `thread < 64`, `warp / 4`. */
function levelOfPart(fn: BinaryFn, a: Value, b: Value): UniformityLevel {
  if (b.op.kind === "id" && mirrored[fn] && a.op.kind === "const") return levelOfPart(mirrored[fn], b, a);
  if (a.op.kind !== "id" || b.op.kind !== "const") return Uniformity.lane;
  const { value } = b.op;
  const { id } = a.op;
  if (id === "thread" && endsWith(fn, value, 128)) return Uniformity.warpgroup;
  if (id === "thread" && endsWith(fn, value, 32)) return Uniformity.warp;
  return id === "warp" && endsWith(fn, value, 4) ? Uniformity.warpgroup : Uniformity.lane;
}

/** Whether numbers from one multiple of `unit` up to the next lie on the same side, or in the same part. */
function endsWith(fn: BinaryFn, value: number, unit: number): boolean {
  switch (fn) {
    case "lt":
    case "ge":
    case "and":
      return value % unit === 0;
    case "le":
    case "gt":
      return (value + 1) % unit === 0;
    case "div":
      return value % unit === 0 && value !== 0;
    case "shr":
      return (value & 31) >= Math.log2(unit);
    default:
      return false;
  }
}

function join(...levels: readonly UniformityLevel[]): UniformityLevel {
  return levels.reduce<UniformityLevel>((a, b) => (a > b ? a : b), 0);
}

function min(a: UniformityLevel, b: UniformityLevel): UniformityLevel {
  return a < b ? a : b;
}
