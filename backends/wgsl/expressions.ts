/** How values read in WGSL: names where they have one, otherwise the text of their operation. */
import { type AtomicFn, type KernelIR, type Memory, operands, type Register, type Value } from "../../dsl/ir.ts";
import type { Dim } from "../../dsl/size.ts";
import { type InlinePlan, planInlining } from "../lowering/inline.ts";
import { type LaneWise, laneWiseName } from "../lowering/lane-wise.ts";
import { Names } from "../lowering/names.ts";
import { atom, call, infix, type Text } from "../lowering/text.ts";
import { binary, bitcast, constant, convert, hidden, unary } from "./operations.ts";
import type { Binding } from "./prelude.ts";
import { TilePrelude } from "./prelude-tile.ts";
import { cutRegions, type Regions } from "./regions.ts";
import { reserved } from "./reserved.ts";

export class Expressions {
  protected readonly ir: KernelIR;
  protected readonly prelude = new TilePrelude();
  protected readonly names = new Names(reserved);
  protected readonly plan: InlinePlan;
  protected readonly regions: Regions;
  protected readonly valueNames = new Map<Value, string>();
  protected readonly registerNames = new Map<Register, string>();
  protected bindings: ReadonlyMap<Memory, Binding> = new Map();
  /** Words of scratch that each block has. */
  protected scratchWords = 0;
  /** "lane" inside a lane loop; "0" at warp level, where only values that all lanes share are read. */
  protected lane = "0";

  constructor(ir: KernelIR) {
    this.ir = ir;
    this.plan = planInlining(ir);
    this.regions = cutRegions(ir, this.plan);
  }

  protected field(name: string): string {
    return `p_${name}`;
  }

  protected registerType({ type, length }: Register): string {
    const element = this.prelude.type(type);
    return length === undefined ? element : `array<${element}, ${length}>`;
  }

  /** Called with everything that has a name, where the name is used. */
  protected used(_named: Value | Register): void {}

  protected registerPlace(register: Register): string {
    this.used(register);
    const name = this.registerNames.get(register) ?? "";
    return this.regions.escapes(register) ? `${name}[${this.lane}]` : name;
  }

  protected register(register: Register, index: Value | undefined): string {
    return index ? `${this.registerPlace(register)}[${this.text(index).code}]` : this.registerPlace(register);
  }

  protected text(value: Value): Text {
    const name = this.valueNames.get(value);
    if (name === undefined) return this.operation(value);
    this.used(value);
    return atom(this.regions.escapes(value) ? `${name}[${this.lane}]` : name);
  }

  protected operation({ op, type }: Value): Text {
    switch (op.kind) {
      case "const":
        return constant(type.dtype, op.value, this.prelude);
      case "size":
        return atom(`launch.${this.field(String(op.size))}`);
      case "scalar":
        return atom(`launch.${this.field(op.scalar.name)}`);
      case "id":
        if (op.id === "thread") return { code: `warp * 32 + ${this.lane}`, operator: "+" };
        if (op.id === "rank" && this.ir.cluster === 1) return atom("0");
        return atom(op.id === "lane" ? this.lane : op.id.replace(".", "_"));
      case "unary":
      case "binary":
      case "fma":
      case "select":
      case "convert":
      case "bitcast": {
        const inputs = operands(op);
        const known = inputs.every((value) => value.op.kind === "const");
        const texts = inputs.map((value, i) =>
          (known && i === 0) || (isArithmetic(op) && isZeroF32(value)) ? this.hidden(value) : this.text(value),
        );
        if (type.lanes === 1) return this.scalar(op, texts);
        const label = laneWiseName(op);
        const types = inputs.map((value) => value.type);
        return call(
          this.prelude.laneByLane(label, type, types, (lanes) => this.scalar(op, lanes.map(atom)).code),
          ...texts,
        );
      }
      case "pack": {
        const [first] = op.lanes;
        const same = first && op.lanes.every((lane) => lane === first);
        const text = (lane: Value): Text => (isZeroF32(lane) ? this.hidden(lane) : this.text(lane));
        if (same) return call(this.prelude.splat(type), text(first));
        return call(this.prelude.pack(type), ...op.lanes.map(text));
      }
      case "extract":
        return atom(this.prelude.lane(op.a.type, this.text(op.a).code, op.lane));
      case "join": {
        const [first] = op.parts;
        if (!first) throw new Error("a join has parts");
        return call(this.prelude.join(first.type, op.parts.length), ...op.parts.map((part) => this.text(part)));
      }
      case "slice":
        if (type.lanes === 1) return atom(this.prelude.lane(op.a.type, this.text(op.a).code, op.first));
        return call(this.prelude.slice(op.a.type, op.first, type), this.text(op.a));
      case "dot":
        return call(this.prelude.dot(op.a.type, op.b.type), this.text(op.a), this.text(op.b), this.text(op.c));
      case "read":
        return atom(this.register(op.register, op.index));
      case "load": {
        const binding = this.binding(op.memory);
        const offset = this.offset(op.memory, op.index, op.peer);
        if (!op.guard) return call(this.prelude.load(binding, type), offset);
        return call(this.prelude.guardedLoad(binding, type), this.text(op.guard), offset);
      }
      case "atomic": {
        const { fn, memory } = op;
        const combine = (old: string): string =>
          fn === "exchange" || fn === "compareExchange" ? "a" : binary(fn, memory.dtype, atom(old), atom("a")).code;
        const name = this.prelude.atomic(this.binding(memory), fn satisfies AtomicFn, combine);
        const args = op.compare ? [this.text(op.compare), this.text(op.a)] : [this.text(op.a)];
        return call(name, this.offset(memory, op.index), ...args);
      }
      case "induction":
      case "shuffle":
      case "reduce":
      case "mma":
      case "ldmatrix":
        throw new Error(`${op.kind} is named where it is made`);
    }
  }

  private hidden(value: Value): Text {
    const { op, type } = value;
    return op.kind === "const" ? hidden(type.dtype, op.value, this.prelude) : this.text(value);
  }

  private scalar(op: LaneWise, [a = atom(""), b = atom(""), c = atom("")]: readonly Text[]): Text {
    switch (op.kind) {
      case "unary":
        return unary(op.fn, op.a.type.dtype, a, this.prelude);
      case "binary":
        return binary(op.fn, op.a.type.dtype, a, b);
      case "fma":
        return call("fma", a, b, c);
      case "select":
        return call("select", c, b, a);
      case "convert":
        return convert(op.a.type.dtype, op.to, a, this.prelude);
      case "bitcast":
        return bitcast(op.a.type.dtype, op.to, a);
    }
  }

  /** Where an element lies in the array that `memory` is declared as. */
  protected offset(memory: Memory, index: readonly Value[], peer?: Value): Text {
    const [base, element] = [this.base(memory, peer), this.element(memory, index)];
    return base ? infix("+", base, element) : element;
  }

  /** Where shared memory of this block, or of that of rank `peer`, begins; undefined: at 0. */
  protected base(memory: Memory, peer?: Value): Text | undefined {
    if (memory.kind !== "shared") return undefined;
    const { cluster } = this.ir;
    const { offset } = this.binding(memory);
    const rank = cluster === 1 ? undefined : peer ? this.text(peer) : atom("rank");
    const words = offset === undefined ? memory.shape.reduce((a, b) => a * b, 1) : this.scratchWords;
    const block = rank && infix("*", rank, atom(String(words)));
    if (offset === undefined) return block;
    const start = infix("+", atom("scratch_start"), atom(String(offset)));
    return block ? infix("+", start, block) : start;
  }

  /** An element's number in row-major order. */
  protected element(memory: Memory, index: readonly Value[]): Text {
    let sum: Text | undefined;
    for (const [axis, value] of index.entries()) {
      let part = this.text(value);
      for (const dim of memory.shape.slice(axis + 1)) part = infix("*", part, this.dim(dim));
      sum = sum ? infix("+", sum, part) : part;
    }
    return sum ?? atom("0");
  }

  protected dim(dim: Dim): Text {
    return atom(typeof dim === "number" ? String(dim) : `launch.${this.field(String(dim))}`);
  }

  protected binding(memory: Memory): Binding {
    const binding = this.bindings.get(memory);
    if (!binding) throw new Error(`${memory.name} is not declared`);
    return binding;
  }
}

const isZeroF32 = ({ op, type }: Value): boolean => op.kind === "const" && op.value === 0 && type.dtype.name === "f32";

const isArithmetic = (op: LaneWise): boolean =>
  op.kind === "fma" || (op.kind === "binary" && ["add", "sub", "mul", "div"].includes(op.fn));
