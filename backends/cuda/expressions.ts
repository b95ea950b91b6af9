/** How values read in CUDA C: names where they have one, otherwise the text of their operation. */
import { f32, i32 } from "../../dsl/dtype.ts";
import {
  type IdName,
  isWritten,
  type KernelIR,
  type Memory,
  type Op,
  operands,
  type Register,
  type Type,
  type Value,
} from "../../dsl/ir.ts";
import { maxOf } from "../../dsl/size.ts";
import { FactsAnalysis } from "../../dsl/verify/facts.ts";
import { type InlinePlan, planInlining } from "../lowering/inline.ts";
import { type LaneWise, laneWiseName } from "../lowering/lane-wise.ts";
import { Names } from "../lowering/names.ts";
import { atom, call, infix, term, type Text } from "../lowering/text.ts";
import { binary, bitcast, constant, convert, noProof, type Proof, unary } from "./operations.ts";
import { TilePrelude } from "./prelude-tile.ts";
import { isWholeWords } from "./vectors.ts";
import { reserved } from "./reserved.ts";

export class Expressions {
  protected readonly ir: KernelIR;
  protected readonly prelude = new TilePrelude();
  protected readonly names = new Names(reserved);
  protected readonly plan: InlinePlan;
  protected readonly valueNames = new Map<Value, string>();
  protected readonly scalarNames = new Map<string, string>();
  protected readonly idNames = new Map<IdName, string>();
  protected readonly objectNames = new Map<Memory | Register, string>();
  private readonly facts: FactsAnalysis;

  constructor(ir: KernelIR) {
    this.ir = ir;
    this.facts = new FactsAnalysis(ir);
    this.plan = planInlining(ir);
  }

  protected text(value: Value): Text {
    const name = this.valueNames.get(value);
    return name === undefined ? this.operation(value) : atom(name);
  }

  /** The text of a value's own operation. */
  protected operation({ op, type }: Value): Text {
    switch (op.kind) {
      case "const":
        return constant(type.dtype, op.value, this.prelude);
      case "size":
        return atom(this.scalarNames.get(String(op.size)) ?? "");
      case "scalar":
        return atom(this.scalarNames.get(op.scalar.name) ?? "");
      case "id":
        return atom(this.idNames.get(op.id) ?? "");
      case "induction":
        throw new Error("an induction variable is named by its loop");
      case "unary":
      case "binary":
      case "fma":
      case "select":
      case "convert":
      case "bitcast":
        return type.lanes === 1 ? this.scalar(op, this.operandTexts(op), this.proof(op)) : this.vector(op, type);
      case "pack": {
        const [first] = op.lanes;
        const same = first && op.lanes.every((lane) => lane === first);
        if (same) return call(this.prelude.splat(type), this.text(first));
        return call(this.prelude.pack(type), ...op.lanes.map((lane) => this.text(lane)));
      }
      case "join": {
        const [first] = op.parts;
        if (!first) throw new Error("a join of nothing");
        const name = first.type.lanes === 1 ? this.prelude.pack(type) : this.prelude.join(first.type, type);
        return call(name, ...op.parts.map((part) => this.text(part)));
      }
      case "slice": {
        const a = this.text(op.a);
        if (op.lanes === op.a.type.lanes) return a;
        if (op.lanes === 1) return atom(this.prelude.lane(op.a.type, term(a), op.first));
        return call(this.prelude.slice(op.a.type, type), a, atom(String(op.first)));
      }
      case "extract":
        return atom(this.prelude.lane(op.a.type, term(this.text(op.a)), op.lane));
      case "dot":
        return call(this.prelude.dot(op.a.type, op.b.type), this.text(op.a), this.text(op.b), this.text(op.c));
      case "read":
        return atom(this.register(op.register, op.index));
      case "load":
        return this.load(op, type);
      case "shuffle": {
        const by = this.text(op.by);
        const { min, max } = this.facts.of(op.by);
        const inRange = min >= 0 && max < 32 ? by : infix("&", by, atom("31"));
        return call(shuffles[op.mode], atom("0xffffffffu"), this.text(op.a), inRange);
      }
      case "reduce": {
        const { dtype } = type;
        const combine = (a: string, b: string): string =>
          binary(op.fn, dtype, atom(a), atom(b), noProof, this.prelude).code;
        return call(this.prelude.warpReduce(op.fn, dtype, combine), this.text(op.a));
      }
      case "atomic": {
        const pointer = atom(this.pointer(op.memory, op.index));
        const args = op.compare ? [this.text(op.compare), this.text(op.a)] : [this.text(op.a)];
        return call(atomics[op.fn], pointer, ...args);
      }
      case "mma":
        return call(this.prelude.mma(op.atom), this.text(op.a), this.text(op.b), this.text(op.c));
      case "ldmatrix":
        return call(this.prelude.ldmatrix(type, op.transposed), atom(this.pointer(op.memory, op.index)));
    }
  }

  private operandTexts(op: LaneWise): readonly Text[] {
    return operands(op).map((value) => this.text(value));
  }

  private scalar(op: LaneWise, texts: readonly Text[], proof: Proof): Text {
    const [a = atom(""), b = atom(""), c = atom("")] = texts;
    switch (op.kind) {
      case "unary":
        return unary(op.fn, op.a.type.dtype, a, this.prelude);
      case "binary":
        return binary(op.fn, op.a.type.dtype, a, b, proof, this.prelude);
      case "fma":
        return call("fmaf", a, b, c);
      case "select":
        return { code: `${term(a)} ? ${term(b)} : ${term(c)}`, operator: "?" };
      case "convert":
        return convert(op.a.type.dtype, op.to, a, this.prelude);
      case "bitcast":
        return bitcast(op.a.type.dtype, op.to, a, this.prelude);
    }
  }

  private vector(op: LaneWise, type: Type): Text {
    if (op.kind === "convert" && op.to === f32 && isWholeWords(op.a.type)) {
      return call(this.prelude.unpack(op.a.type), this.text(op.a));
    }
    const values = operands(op);
    const label = laneWiseName(op);
    const scalar = (lanes: readonly string[]): string => this.scalar(op, lanes.map(atom), noProof).code;
    const types = values.map((value) => value.type);
    return call(this.prelude.laneByLane(label, type, types, scalar), ...values.map((value) => this.text(value)));
  }

  private proof(op: LaneWise): Proof {
    if (op.kind !== "binary" || op.a.type.dtype.name === "f32") return noProof;
    const right = this.facts.of(op.b);
    const shift = op.fn === "shl" || op.fn === "shr";
    const safeRight = shift ? right.min >= 0 && right.max <= 31 : right.min >= 1;
    const probe = { id: -1, op, type: op.a.type, at: op.a.at, name: undefined };
    return { mayWrap: this.facts.mayWrap(probe), safeRight };
  }

  private load(op: Extract<Op, { readonly kind: "load" }>, type: Type): Text {
    const { memory, cache } = op;
    const plain = memory.kind === "shared" || (memory.role !== "frozen" && cache === "normal");
    const value = plain
      ? this.element(memory, op.index, type, op.peer)
      : call(this.prelude.load(type, memory.role, cache), atom(this.pointer(memory, op.index)));
    const isBool = plain && type.dtype.name === "bool" && type.lanes === 1;
    const whole = isBool ? infix("!=", value, atom("0")) : value;
    if (!op.guard) return whole;
    return { code: `${term(this.text(op.guard))} ? ${whole.code} : ${this.prelude.type(type)}{}`, operator: "?" };
  }

  /** An lvalue: the element, or the vector that starts there; of this block or of its peer. */
  protected element(memory: Memory, index: readonly Value[], type: Type, peer: Value | undefined): Text {
    if (peer) {
      const theirs = call(this.prelude.peer(), atom(this.pointer(memory, index)), this.text(peer)).code;
      const cast = type.lanes > 1 ? `(${this.prelude.type(type)}*)` : "";
      return { code: `*${cast}${theirs}`, operator: "dereference" };
    }
    if (type.lanes > 1) {
      const isConst = memory.kind === "tensor" && !isWritten(memory.role);
      const pointer = `(${isConst ? "const " : ""}${this.prelude.type(type)}*)${this.pointer(memory, index)}`;
      return { code: `*${pointer}`, operator: "dereference" };
    }
    return atom(`${this.objectNames.get(memory)}[${this.offset(memory, index).code}]`);
  }

  protected pointer(memory: Memory, index: readonly Value[]): string {
    return `&${this.objectNames.get(memory)}[${this.offset(memory, index).code}]`;
  }

  /** The element offset; in 64 bits where the tensor may have 2^31 elements or more. */
  private offset(memory: Memory, index: readonly Value[]): Text {
    const wide = memory.shape.reduce<number>((count, dim) => count * maxOf(dim), 1) > 2 ** 31 - 1;
    let sum: Text | undefined;
    for (const [axis, value] of index.entries()) {
      if (value.op.kind === "const" && value.op.value === 0 && !(axis === index.length - 1 && !sum)) continue;
      const strides = memory.shape.slice(axis + 1);
      const text = this.text(value);
      let part = wide ? atom(`(long long)${term(text)}`) : text;
      const constants = strides.reduce<number>((p, dim) => (typeof dim === "number" ? p * dim : p), 1);
      for (const dim of strides)
        if (typeof dim !== "number") part = infix("*", part, atom(this.scalarNames.get(String(dim)) ?? ""));
      if (constants !== 1) part = infix("*", part, constant(i32, constants, this.prelude));
      sum = sum ? infix("+", sum, part) : part;
    }
    return sum ?? atom("0");
  }

  protected register(register: Register, index: Value | undefined): string {
    const name = this.objectNames.get(register) ?? "";
    return index ? `${name}[${this.text(index).code}]` : name;
  }
}

const shuffles = {
  xor: "__shfl_xor_sync",
  up: "__shfl_up_sync",
  down: "__shfl_down_sync",
  index: "__shfl_sync",
} as const;

const atomics = {
  add: "atomicAdd",
  min: "atomicMin",
  max: "atomicMax",
  and: "atomicAnd",
  or: "atomicOr",
  xor: "atomicXor",
  exchange: "atomicExch",
  compareExchange: "atomicCAS",
} as const;
