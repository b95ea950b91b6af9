/**
 * A kernel's meaning, read off its IR: all threads of a block take each statement together, those that a branch or loop
 * leaves out stand still. Right for kernels without data races. Slow, exact, and knows nothing of any target.
 */
import type { HostArguments, HostResults } from "../../backends/run.ts";
import { type DTypeName, dtypes, encode, HostTensor, type Kernel, type Params } from "../../dsl/index.ts";
import type { Block, KernelIR, Memory, Op, Register, Stmt, Value } from "../../dsl/ir.ts";
import { type Dim, evaluate as evaluateDim } from "../../dsl/size.ts";
import { binary, convert, fma, fromBits, type Numeric, toBits, unary } from "./reference.ts";

/** A value of one thread: a number for each lane of the vector. */
type Lanes = readonly number[];
/** By thread; undefined where the thread has none. */
type PerThread = (Lanes | undefined)[];

export function evaluate<P extends Params>(kernel: Kernel<P>, args: HostArguments<P>): HostResults<P> {
  const { ir } = kernel;
  const given: Readonly<Record<string, unknown>> = args;
  const memory = new Map<Memory, Float64Array>();
  const sizes = new Map<string, number>();
  const scalars = new Map<string, number>();
  for (const tensor of ir.tensors) {
    const host = given[tensor.name];
    if (!(host instanceof HostTensor)) throw new Error(`${tensor.name} is missing`);
    memory.set(tensor, host.values());
    for (const [axis, dim] of tensor.shape.entries()) sizes.set(String(dim), host.shape[axis] ?? 0);
  }
  for (const { name, dtype } of ir.scalars) {
    const value = Number(given[name]);
    scalars.set(name, dtype.name === "f32" ? Math.fround(value) : value);
  }
  const [x = 1, y = 1, z = 1] = ir.grid.map((dim) => evaluateDim(dim, sizes));
  for (let i = 0; i < x * y * z; i++) {
    const block = [i % x, Math.floor(i / x) % y, Math.floor(i / x / y)] as const;
    new BlockRun(ir, memory, { ir, sizes, scalars, block }).run();
  }
  const results: Record<string, HostTensor> = {};
  for (const tensor of ir.tensors) {
    const { name, role, dtype } = tensor;
    const host = given[name] as HostTensor;
    if (role === "output" || role === "inout") {
      results[name] = HostTensor.from(dtype, host.shape, memory.get(tensor) ?? []);
    }
  }
  return results as HostResults<P>;
}

interface Launch {
  readonly ir: KernelIR;
  readonly sizes: ReadonlyMap<string, number>;
  readonly scalars: ReadonlyMap<string, number>;
  readonly block: readonly [x: number, y: number, z: number];
}

class BlockRun {
  private readonly values = new Map<Value, PerThread>();
  private readonly registers = new Map<Register, Lanes[][]>();
  private readonly memory: Map<Memory, Float64Array>;
  private readonly launch: Launch;
  private readonly threads: readonly number[];

  constructor(ir: KernelIR, memory: Map<Memory, Float64Array>, launch: Launch) {
    this.memory = memory;
    this.launch = launch;
    this.threads = Array.from({ length: ir.block }, (_, i) => i);
    for (const shared of ir.shared) memory.set(shared, new Float64Array(shared.shape.reduce((a, b) => a * b, 1)));
  }

  run(): void {
    this.block(this.launch.ir.body, this.threads);
  }

  /** `active`: the threads that are here. */
  private block(block: Block, active: readonly number[]): void {
    if (active.length > 0) for (const stmt of block) this.stmt(stmt, active);
  }

  private stmt(stmt: Stmt, active: readonly number[]): void {
    switch (stmt.kind) {
      case "let": {
        const results = this.operation(stmt.value.op, stmt.value, active);
        const kept = this.values.get(stmt.value) ?? [];
        for (const [i, thread] of active.entries()) kept[thread] = results[i];
        this.values.set(stmt.value, kept);
        return;
      }
      case "declare": {
        const { register, init } = stmt;
        const copies = this.registers.get(register) ?? [];
        for (const thread of active) {
          const value = init ? this.lanes(init, thread) : new Array<number>(register.type.lanes).fill(NaN);
          copies[thread] = new Array<Lanes>(register.length ?? 1).fill(value);
        }
        this.registers.set(register, copies);
        return;
      }
      case "write":
        for (const thread of active) {
          const copy = this.registers.get(stmt.register)?.[thread] ?? [];
          copy[stmt.index ? this.number(stmt.index, thread) : 0] = this.lanes(stmt.value, thread);
        }
        return;
      case "store":
        for (const thread of active) {
          const offset = this.offset(stmt.memory, stmt.index, thread);
          this.contentOf(stmt.memory).set(this.lanes(stmt.value, thread), offset);
        }
        return;
      case "for": {
        const counters: PerThread = [];
        for (const thread of active) counters[thread] = this.lanes(stmt.from, thread);
        const ends = new Map(active.map((thread) => [thread, this.number(stmt.to, thread)]));
        const counter = (thread: number): number => counters[thread]?.[0] ?? NaN;
        this.values.set(stmt.induction, counters);
        for (;;) {
          const inside = active.filter((thread) => counter(thread) < (ends.get(thread) ?? NaN));
          if (inside.length === 0) return;
          this.block(stmt.body, inside);
          for (const thread of inside) counters[thread] = [counter(thread) + stmt.step];
        }
      }
      case "if": {
        const holds = (thread: number): boolean => this.number(stmt.condition, thread) !== 0;
        const [yes, no] = [active.filter(holds), active.filter((thread) => !holds(thread))];
        this.block(stmt.then, yes);
        this.block(stmt.otherwise, no);
        return;
      }
      case "barrier":
      case "pdlWait":
      case "pdlLaunch":
      case "sleep":
        return;
    }
  }

  /** The result for each active thread. */
  private operation(op: Op, { type }: Value, active: readonly number[]): readonly Lanes[] {
    const each = (one: (thread: number) => Lanes): readonly Lanes[] => active.map(one);
    const lanewise = (operands: readonly Value[], compute: (...xs: number[]) => number): readonly Lanes[] =>
      each((thread) => {
        const lists = operands.map((value) => this.lanes(value, thread));
        return Array.from({ length: type.lanes }, (_, i) => compute(...lists.map((list) => list[i] ?? list[0] ?? NaN)));
      });
    switch (op.kind) {
      case "unary":
        return lanewise([op.a], (a = NaN) => unary(op.fn, op.a.type.dtype.name as Numeric, a));
      case "binary":
        return lanewise([op.a, op.b], (a = NaN, b = NaN) => binary(op.fn, op.a.type.dtype.name as Numeric, a, b));
      case "fma":
        return lanewise([op.a, op.b, op.c], (a = NaN, b = NaN, c = NaN) => fma(a, b, c));
      case "select":
        return lanewise([op.condition, op.yes, op.no], (condition, yes = NaN, no = NaN) => (condition ? yes : no));
      case "convert":
        return lanewise([op.a], (a = NaN) => convert(op.a.type.dtype.name, op.to.name, a));
      case "bitcast":
        return lanewise([op.a], (a = NaN) => fromBits(op.to.name, toBits(op.a.type.dtype.name, a)));
      case "pack":
        return each((thread) => op.lanes.map((lane) => this.number(lane, thread)));
      case "extract":
        return each((thread) => [this.lanes(op.a, thread)[op.lane] ?? NaN]);
      case "dot":
        return each((thread) => {
          const b = this.lanes(op.b, thread);
          return [this.lanes(op.a, thread).reduce((c, a, i) => fma(a, b[i] ?? NaN, c), this.number(op.c, thread))];
        });
      case "read":
        return each((thread) => {
          const copy = this.registers.get(op.register)?.[thread] ?? [];
          return copy[op.index ? this.number(op.index, thread) : 0] ?? [];
        });
      case "load":
        return each((thread) => {
          if (op.guard && !this.number(op.guard, thread)) return new Array<number>(op.lanes).fill(0);
          const offset = this.offset(op.memory, op.index, thread);
          return [...this.contentOf(op.memory).slice(offset, offset + op.lanes)];
        });
      case "shuffle":
        return each((thread) => {
          const [lane, by] = [thread % 32, this.number(op.by, thread) & 31];
          const source = { xor: lane ^ by, up: lane - by, down: lane + by, index: by }[op.mode];
          return this.lanes(op.a, thread - lane + (source < 0 || source > 31 ? lane : source));
        });
      case "reduce":
        return each((thread) => {
          const first = thread - (thread % 32);
          let list = this.threads.slice(first, first + 32).map((other) => this.number(op.a, other));
          for (let distance = 16; distance >= 1; distance /= 2) {
            list = list.map((x, i) => binary(op.fn, type.dtype.name as Numeric, x, list[i ^ distance] ?? NaN));
          }
          return [list[0] ?? NaN];
        });
      case "atomic":
        return each((thread) => {
          const [content, offset] = [this.contentOf(op.memory), this.offset(op.memory, op.index, thread)];
          const [old, a] = [content[offset] ?? NaN, this.number(op.a, thread)];
          if (op.fn === "exchange") content[offset] = a;
          else if (op.fn === "compareExchange") {
            if (op.compare && old === this.number(op.compare, thread)) content[offset] = a;
          } else content[offset] = binary(op.fn, type.dtype.name as Numeric, old, a);
          return [old];
        });
      default:
        throw new Error(`${op.kind} is a leaf`);
    }
  }

  private lanes(value: Value, thread: number): Lanes {
    const { op } = value;
    switch (op.kind) {
      case "const":
        return [op.value];
      case "size":
        return [this.launch.sizes.get(String(op.size)) ?? NaN];
      case "scalar":
        return [this.launch.scalars.get(op.scalar.name) ?? NaN];
      case "id": {
        const [x, y, z] = this.launch.block;
        const ids = { thread, warp: Math.floor(thread / 32), lane: thread % 32 };
        return [{ ...ids, "block.x": x, "block.y": y, "block.z": z, rank: 0 }[op.id]];
      }
      default: {
        const lanes = this.values.get(value)?.[thread];
        if (!lanes) throw new Error(`thread ${thread} has no value of ${op.kind} made at line ${value.at.line}`);
        return lanes;
      }
    }
  }

  private number(value: Value, thread: number): number {
    return this.lanes(value, thread)[0] ?? NaN;
  }

  private offset(memory: Memory, index: readonly Value[], thread: number): number {
    const size = (dim: Dim): number => evaluateDim(dim, this.launch.sizes);
    return index.reduce(
      (offset, value, axis) => offset * size(memory.shape[axis] ?? 1) + this.number(value, thread),
      0,
    );
  }

  private contentOf(memory: Memory): Float64Array {
    const content = this.memory.get(memory);
    if (!content) throw new Error(`${memory.name} has no content`);
    return content;
  }
}

/** The bits of each element; every NaN of a dtype counts as one. */
export function patterns(tensor: HostTensor<DTypeName>): readonly number[] {
  const dtype = dtypes[tensor.dtype.name];
  return [...tensor.values()].map((value) => encode(dtype, value, "nosat"));
}
