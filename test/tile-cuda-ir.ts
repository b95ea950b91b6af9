/** Builds IR for tests of the tile statements, statement by statement, without tracing. */
import { bool, type DType, i32 } from "../dsl/dtype.ts";
import type {
  IdName,
  KernelIR,
  LaneCount,
  Leaf,
  Op,
  Register,
  Role,
  Shared,
  Stmt,
  Tensor,
  Type,
  Value,
} from "../dsl/ir.ts";
import type { MBarrier, SwizzleBytes, TensorMap } from "../dsl/ir-tile.ts";
import { resultType } from "../dsl/typing.ts";

const at = { file: "tile.ts", line: 1, column: 1 };

export class IrBuilder {
  private readonly body: Stmt[] = [];
  private readonly tensors: Tensor[] = [];
  private readonly shareds: Shared[] = [];
  private readonly mbarriers: MBarrier[] = [];
  private readonly tensorMaps: TensorMap[] = [];
  private open = this.body;
  private ids = 0;

  tensor(name: string, role: Role, dtype: DType, shape: readonly number[]): Tensor {
    const tensor: Tensor = { kind: "tensor", name, role, dtype, shape, alignBytes: 16, at };
    this.tensors.push(tensor);
    return tensor;
  }

  shared(name: string, dtype: DType, shape: readonly number[], alignBytes = 16): Shared {
    const shared: Shared = { kind: "shared", name, dtype, shape, alignBytes, at };
    this.shareds.push(shared);
    return shared;
  }

  mbarrier(name: string, length: number, arrivals: number): MBarrier {
    const barrier: MBarrier = { kind: "mbarrier", name, length, arrivals, at };
    this.mbarriers.push(barrier);
    return barrier;
  }

  tensorMap(name: string, tensor: Tensor, box: readonly number[], swizzleBytes: SwizzleBytes): TensorMap {
    const map: TensorMap = { kind: "tensorMap", name, tensor, box, swizzleBytes, at };
    this.tensorMaps.push(map);
    return map;
  }

  register(name: string, type: Type, length?: number, init?: Value): Register {
    const register: Register = { name, type, length, at };
    this.stmt({ kind: "declare", register, init, at });
    return register;
  }

  int = (value: number): Value => this.leaf({ kind: "const", value }, i32);
  yes = (): Value => this.leaf({ kind: "const", value: 1 }, bool);
  constant = (value: number, dtype: DType): Value => this.leaf({ kind: "const", value }, dtype);
  id = (id: IdName): Value => this.leaf({ kind: "id", id }, i32);

  private leaf(op: Leaf, dtype: DType): Value {
    return { id: this.ids++, op, type: { dtype, lanes: 1 }, at, name: undefined };
  }

  /** A `let`. */
  value(op: Exclude<Op, Leaf>, name?: string): Value {
    const value: Value = { id: this.ids++, op, type: resultType(op, at), at, name };
    this.stmt({ kind: "let", value, at });
    return value;
  }

  load(memory: Tensor | Shared, index: readonly Value[], lanes: LaneCount, peer?: Value): Value {
    return this.value({ kind: "load", memory, index, lanes, guard: undefined, cache: "normal", peer });
  }

  store(memory: Tensor | Shared, index: readonly Value[], value: Value, peer?: Value): void {
    this.stmt({ kind: "store", memory, index, value, cache: "normal", peer, at });
  }

  /** Any statement; `at` is added. */
  stmt(stmt: Stmt): void {
    this.open.push(stmt);
  }

  loop(to: number, body: (i: Value) => void, unroll = false): void {
    const induction: Value = { ...this.leaf({ kind: "induction" }, i32), name: "k" };
    const outer = this.open;
    this.open = [];
    body(induction);
    const stmt: Stmt = {
      kind: "for",
      induction,
      from: this.int(0),
      to: this.int(to),
      step: 1,
      unroll,
      body: this.open,
      at,
    };
    this.open = outer;
    this.stmt(stmt);
  }

  if(condition: Value, then: () => void, otherwise: () => void = () => undefined): void {
    const outer = this.open;
    const block = (body: () => void): Stmt[] => {
      this.open = [];
      body();
      return this.open;
    };
    const [yes, no] = [block(then), block(otherwise)];
    this.open = outer;
    this.stmt({ kind: "if", condition, then: yes, otherwise: no, at });
  }

  build(name: string, { block = 128, cluster = 1 } = {}): KernelIR {
    const { tensors, shareds: shared, mbarriers, tensorMaps, body } = this;
    return {
      ...{ name, grid: [cluster, 1, 1], cluster, block, tensors, scalars: [], sizes: [] },
      ...{ shared, mbarriers, tensorMaps, body, at },
    };
  }
}

export { at };
