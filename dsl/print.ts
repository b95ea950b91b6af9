/**
 * IR as text, for people and for snapshots in tests: one statement a line, each type once. Things go by the author's names,
 * a second `k` as `k.2`; values without a name by their id, `%7`.
 */
import { requireIR, requireOptions } from "./check.ts";
import {
  type CacheHint,
  type Block,
  formatType,
  infixSymbols,
  isLeaf,
  type KernelIR,
  type Memory,
  type Op,
  type Register,
  type Shared,
  type Stmt,
  type Value,
  walk,
} from "./ir.ts";
import { isTileStmt, type MatrixOperand, type Slot, type TileStmt } from "./ir-tile.ts";
import type { Size } from "./size.ts";
import { callerLocation, type Location } from "./source.ts";

export interface PrintOptions {
  /** Whether each line ends with a comment that names the author's file and line. Default false. */
  readonly lines?: boolean;
  /** Whether things go by the author's names. If not they are numbered, and what differs in names alone looks the same. Default true. */
  readonly names?: boolean;
}

/** @throws ArgumentError for what is no IR; ShapeError for unknown options */
export function printKernel(ir: KernelIR, options: PrintOptions = {}): string {
  requireIR("printKernel", ir);
  requireOptions(options, ["lines", "names"], callerLocation());
  const { lines = false, names = true } = options;
  return new Printer(ir, lines, names).print();
}

class Printer {
  private readonly ir: KernelIR;
  private readonly withLines: boolean;
  private readonly names = new Map<Register | Shared | Value, string>();
  private readonly output: string[] = [];

  constructor(ir: KernelIR, withLines: boolean, withNames: boolean) {
    this.ir = ir;
    this.withLines = withLines;
    this.nameAll(withNames);
  }

  print(): string {
    const { name, grid, cluster, block, tensors, scalars, sizes, shared, mbarriers, tensorMaps, body, at } = this.ir;
    const clusters = cluster > 1 ? `, cluster ${cluster}` : "";
    this.line(0, `kernel ${name}, grid [${grid.join(", ")}]${clusters}, block ${block}`, at);
    for (const { role, name, dtype, shape, alignBytes, at } of tensors) {
      const alignment = alignBytes > dtype.bytes ? ` align ${alignBytes}` : "";
      this.line(1, `${role} ${name}: ${dtype.name}[${shape.join(", ")}]${alignment}`, at);
    }
    for (const { name, dtype, at } of scalars) this.line(1, `scalar ${name}: ${dtype.name}`, at);
    for (const size of sizes) this.line(1, `size ${size}: ${range(size)}`, size.at);
    for (const memory of shared) {
      const { dtype, shape, at } = memory;
      this.line(1, `shared ${this.memory(memory)}: ${dtype.name}[${shape.join(", ")}]`, at);
    }
    for (const { name, length, arrivals, at } of mbarriers)
      this.line(1, `mbarrier ${name}[${length}]: ${arrivals}`, at);
    for (const { name, tensor, box, swizzleBytes, at } of tensorMaps) {
      this.line(1, `tensorMap ${name}: ${tensor.name} in [${box.join(", ")}], swizzle ${swizzleBytes}`, at);
    }
    this.block(body, 1);
    return `${this.output.join("\n")}\n`;
  }

  private nameAll(withNames: boolean): void {
    const { tensors, scalars, sizes, shared, body } = this.ir;
    const named: (Register | Shared | Value)[] = [...shared];
    walk(body, (stmt) => {
      if (stmt.kind === "declare") named.push(stmt.register);
      if (stmt.kind === "for") named.push(stmt.induction);
      if (stmt.kind === "let") named.push(stmt.value);
    });
    if (!withNames) {
      for (const [i, thing] of named.entries()) this.names.set(thing, `%${i}`);
      return;
    }
    const used = new Map<string, number>([...tensors, ...scalars].map(({ name }) => [name, 1]));
    for (const size of sizes) used.set(String(size), 1);
    for (const thing of named) {
      if (thing.name === undefined) continue;
      const ordinal = (used.get(thing.name) ?? 0) + 1;
      used.set(thing.name, ordinal);
      this.names.set(thing, ordinal === 1 ? thing.name : `${thing.name}.${ordinal}`);
    }
  }

  private block(block: Block, depth: number): void {
    for (const stmt of block) this.stmt(stmt, depth);
  }

  private stmt(stmt: Stmt, depth: number): void {
    if (isTileStmt(stmt)) return this.line(depth, this.tile(stmt), stmt.at);
    switch (stmt.kind) {
      case "let": {
        const { value } = stmt;
        return this.line(depth, `${this.value(value)}: ${formatType(value.type)} = ${this.op(value.op)}`, stmt.at);
      }
      case "declare": {
        const { type, length } = stmt.register;
        const array = length === undefined ? "" : `[${length}]`;
        const init = stmt.init ? ` = ${this.value(stmt.init)}` : "";
        return this.line(depth, `reg ${this.register(stmt.register)}: ${formatType(type)}${array}${init}`, stmt.at);
      }
      case "write":
        return this.line(depth, `${this.register(stmt.register, stmt.index)} = ${this.value(stmt.value)}`, stmt.at);
      case "store": {
        const target = this.memory(stmt.memory, stmt.index);
        return this.line(
          depth,
          `store ${target}${this.peer(stmt.peer)} = ${this.value(stmt.value)}${hint(stmt.cache)}`,
          stmt.at,
        );
      }
      case "for": {
        const { induction, from, to, step, unroll, body } = stmt;
        const by = (step === 1 ? "" : ` step ${step}`) + (unroll ? " unroll" : "");
        this.line(depth, `for ${this.value(induction)} in ${this.value(from)}..${this.value(to)}${by} {`, stmt.at);
        this.block(body, depth + 1);
        return this.line(depth, "}");
      }
      case "if":
        this.line(depth, `if ${this.value(stmt.condition)} {`, stmt.at);
        this.block(stmt.then, depth + 1);
        if (stmt.otherwise.length > 0) {
          this.line(depth, "} else {");
          this.block(stmt.otherwise, depth + 1);
        }
        return this.line(depth, "}");
      case "barrier":
        return this.line(depth, stmt.scope === "block" ? "barrier" : "warpBarrier", stmt.at);
      case "pdlWait":
      case "pdlLaunch":
        return this.line(depth, stmt.kind, stmt.at);
      case "sleep":
        return this.line(depth, `sleep ${stmt.nanoseconds} ns`, stmt.at);
    }
  }

  private op(op: Op): string {
    const call = (fn: string, ...operands: readonly Value[]): string => `${fn}(${this.list(operands)})`;
    switch (op.kind) {
      case "const":
        return Object.is(op.value, -0) ? "-0" : String(op.value);
      case "size":
        return String(op.size);
      case "scalar":
        return op.scalar.name;
      case "id":
        return op.id;
      case "induction":
        return "induction";
      case "unary":
        return call(op.fn, op.a);
      case "binary": {
        const symbol = infixSymbols[op.fn];
        return symbol ? `${this.value(op.a)} ${symbol} ${this.value(op.b)}` : call(op.fn, op.a, op.b);
      }
      case "fma":
      case "dot":
        return call(op.kind, op.a, op.b, op.c);
      case "select":
        return call("select", op.condition, op.yes, op.no);
      case "convert":
      case "bitcast":
        return call(op.kind, op.a);
      case "pack":
        return new Set(op.lanes).size === 1 ? call("splat", ...op.lanes.slice(0, 1)) : call("pack", ...op.lanes);
      case "join":
        return call("join", ...op.parts);
      case "slice":
        return `${this.value(op.a)}.slice(${op.first}, ${op.lanes})`;
      case "mma":
        return `${op.atom.name}(${this.list([op.a, op.b, op.c])})`;
      case "ldmatrix": {
        const transposed = op.transposed ? ".transposed" : "";
        return `ldmatrix.x${op.matrices}${transposed} ${this.memory(op.memory, op.index)}`;
      }
      case "extract":
        return `${this.value(op.a)}.lane(${op.lane})`;
      case "read":
        return this.register(op.register, op.index);
      case "load": {
        const guard = op.guard ? `, if ${this.value(op.guard)}` : "";
        return `load ${this.memory(op.memory, op.index)}${this.peer(op.peer)}${hint(op.cache)}${guard}`;
      }
      case "shuffle":
        return call(`shuffle.${op.mode}`, op.a, op.by);
      case "reduce":
        return call(`warp.${op.fn}`, op.a);
      case "atomic": {
        const operands = op.compare ? [op.compare, op.a] : [op.a];
        return `atomic.${op.fn} ${this.memory(op.memory, op.index)}, ${this.list(operands)}`;
      }
    }
  }

  private tile(stmt: TileStmt): string {
    const slot = ({ barrier, slot }: Slot): string => `${barrier.name}[${this.value(slot)}]`;
    const matrix = ({ memory, index, swizzleBytes, strideBytes }: MatrixOperand): string =>
      `${this.memory(memory, index)} swizzle ${swizzleBytes} stride ${strideBytes}`;
    switch (stmt.kind) {
      case "stmatrix": {
        const transposed = stmt.transposed ? ".transposed" : "";
        return `stmatrix${transposed} ${this.memory(stmt.memory, stmt.index)} = ${this.value(stmt.value)}`;
      }
      case "copyAsync": {
        const [to, from] = [this.memory(stmt.to, stmt.toIndex), this.memory(stmt.memory, stmt.index)];
        return `copyAsync x${stmt.lanes} ${to} = ${from}${stmt.guard ? `, if ${this.value(stmt.guard)}` : ""}`;
      }
      case "bulkCopy": {
        const [to, from] = [this.memory(stmt.to, stmt.toIndex), this.memory(stmt.memory, stmt.index)];
        return `bulkCopy ${this.value(stmt.count)} ${to} = ${from}, ${slot(stmt)}`;
      }
      case "tensorCopy": {
        const to = this.memory(stmt.to, stmt.toIndex);
        return `tensorCopy ${to} = ${stmt.map.name}[${this.list(stmt.index)}]${hint(stmt.cache)}, ${slot(stmt)}`;
      }
      case "arrive": {
        const bytes = stmt.expectBytes ? `, ${this.value(stmt.expectBytes)} bytes` : "";
        return `arrive ${slot(stmt)}${this.peer(stmt.peer)}${bytes}`;
      }
      case "asyncArrive":
        return `asyncArrive ${slot(stmt)}`;
      case "await":
        return `await ${slot(stmt)}, parity ${this.value(stmt.parity)}`;
      case "namedBarrier":
        return `namedBarrier.${stmt.action} ${stmt.id}, ${stmt.threads}`;
      case "prefetch":
        return `prefetch ${this.memory(stmt.memory, stmt.index)}`;
      case "setRegisters":
        return `setRegisters.${stmt.change} ${stmt.count}`;
      case "wgmma": {
        const { atom, accumulator, first, a, b, accumulate } = stmt;
        return `${this.register(accumulator)}[${first}..] += ${atom.name}(${matrix(a)}; ${matrix(b)}), if ${this.value(accumulate)}`;
      }
      case "asyncWait":
      case "wgmmaWait":
        return `${stmt.kind} ${stmt.pending}`;
      case "asyncCommit":
      case "clusterArrive":
      case "clusterWait":
      case "asyncFence":
      case "wgmmaFence":
      case "wgmmaCommit":
        return stmt.kind;
    }
  }

  private peer(peer: Value | undefined): string {
    return peer ? ` of ${this.value(peer)}` : "";
  }

  /** How a value reads where it is used: its name, or what it is if it needs no `let`. */
  private value(value: Value): string {
    const leaf = isLeaf(value) && value.op.kind !== "induction";
    return this.names.get(value) ?? (leaf ? this.op(value.op) : `%${value.id}`);
  }

  private list(values: readonly Value[]): string {
    return values.map((value) => this.value(value)).join(", ");
  }

  private register(register: Register, index?: Value): string {
    return (this.names.get(register) ?? register.name) + (index ? `[${this.value(index)}]` : "");
  }

  private memory(memory: Memory, index?: readonly Value[]): string {
    const name = memory.kind === "shared" ? (this.names.get(memory) ?? memory.name) : memory.name;
    return name + (index ? `[${this.list(index)}]` : "");
  }

  private line(depth: number, text: string, at?: Location): void {
    const comment = this.withLines && at ? `  // ${at.file}:${at.line}` : "";
    this.output.push("  ".repeat(depth) + text + comment);
  }
}

function hint(cache: CacheHint): string {
  return cache === "normal" ? "" : `, ${cache}`;
}

function range({ min, max, multipleOf }: Size): string {
  const multiple = multipleOf === 1 ? "" : `, a multiple of ${multipleOf}`;
  return `${min} to ${max}${multiple}`;
}
