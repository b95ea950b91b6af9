/** How the statements of tiles (dsl/ir-tile.ts) read in CUDA C: each is one call of a function of the prelude. */
import { type KernelIR, type Register, walk } from "../../dsl/ir.ts";
import type { MatrixOperand, MBarrier, Slot, TensorMap, TileStmt } from "../../dsl/ir-tile.ts";
import { atom, call, infix, type Text } from "../lowering/text.ts";
import { Expressions } from "./expressions.ts";

export class TileStatements extends Expressions {
  protected readonly barrierNames = new Map<MBarrier, string>();
  protected readonly mapNames = new Map<TensorMap, string>();
  /** Registers that wgmma adds to, while their declarations are in scope. */
  protected readonly accumulatorsInScope: Register[] = [];
  protected readonly accumulators: ReadonlySet<Register>;

  constructor(ir: KernelIR) {
    super(ir);
    const accumulators = new Set<Register>();
    walk(ir.body, (stmt) => {
      if (stmt.kind === "wgmma") accumulators.add(stmt.accumulator);
    });
    this.accumulators = accumulators;
  }

  /** Lines of code. */
  protected tile(stmt: TileStmt): readonly string[] {
    const { prelude } = this;
    const statement = (name: string, ...args: readonly Text[]): readonly string[] => [`${call(name, ...args).code};`];
    switch (stmt.kind) {
      case "stmatrix": {
        const to = atom(this.pointer(stmt.memory, stmt.index));
        return statement(prelude.stmatrix(stmt.value.type, stmt.transposed), to, this.text(stmt.value));
      }
      case "copyAsync": {
        const [to, from] = [this.pointer(stmt.to, stmt.toIndex), this.pointer(stmt.memory, stmt.index)];
        const guard = stmt.guard ? [this.text(stmt.guard)] : [];
        const name = prelude.copyAsync(stmt.lanes * stmt.to.dtype.bytes, stmt.guard !== undefined);
        return statement(name, atom(to), atom(from), ...guard);
      }
      case "asyncCommit":
        return statement(prelude.asyncCommit());
      case "asyncWait":
        return statement(prelude.asyncWait(stmt.pending));
      case "asyncArrive":
        return statement(prelude.asyncArrive(), this.slot(stmt));
      case "bulkCopy": {
        const [to, from] = [this.pointer(stmt.to, stmt.toIndex), this.pointer(stmt.memory, stmt.index)];
        const { bytes } = stmt.to.dtype;
        const count = this.text(stmt.count);
        const size = bytes === 1 ? count : infix("*", count, atom(String(bytes)));
        return statement(prelude.bulkCopy(), atom(to), atom(from), size, this.slot(stmt));
      }
      case "tensorCopy": {
        const to = atom(this.pointer(stmt.to, stmt.toIndex));
        const map = atom(`&${this.mapNames.get(stmt.map)}`);
        const coordinates = stmt.index.toReversed().map((value) => this.text(value));
        return statement(prelude.tensorCopy(stmt.index.length, stmt.cache), to, map, ...coordinates, this.slot(stmt));
      }
      case "arrive": {
        const name = prelude.mbarrierArrive(stmt.expectBytes !== undefined, stmt.peer !== undefined);
        const more = [stmt.expectBytes, stmt.peer].flatMap((value) => (value ? [this.text(value)] : []));
        return statement(name, this.slot(stmt), ...more);
      }
      case "await":
        return statement(
          prelude.mbarrierAwait(this.ir.cluster > 1 ? "cluster" : "block"),
          this.slot(stmt),
          this.text(stmt.parity),
        );
      case "clusterArrive":
        return statement(prelude.clusterBarrier("arrive"));
      case "clusterWait":
        return statement(prelude.clusterBarrier("wait"));
      case "namedBarrier":
        return statement(prelude.namedBarrier(stmt.action), atom(String(stmt.id)), atom(String(stmt.threads)));
      case "prefetch":
        return statement(prelude.prefetch(), atom(this.pointer(stmt.memory, stmt.index)));
      case "asyncFence":
        return statement(prelude.asyncFence());
      case "setRegisters":
        return statement(prelude.setRegisters(stmt));
      case "wgmmaFence":
        return [...this.pinAccumulators(), ...statement(prelude.wgmmaControl("fence"))];
      case "wgmma": {
        const name = this.objectNames.get(stmt.accumulator) ?? "";
        const first = atom(stmt.first === 0 ? name : `${name} + ${stmt.first}`);
        const operands = [this.matrix(stmt.a), this.matrix(stmt.b), this.text(stmt.accumulate)];
        return statement(prelude.wgmma(stmt.atom), first, ...operands);
      }
      case "wgmmaCommit":
        return statement(prelude.wgmmaControl("commit"));
      case "wgmmaWait":
        return [...statement(prelude.wgmmaWait(stmt.pending)), ...this.pinAccumulators()];
    }
  }

  /** Initialises all mbarriers before the first statement. */
  protected initBarriers(): readonly string[] {
    const { ir, prelude } = this;
    if (ir.mbarriers.length === 0) return [];
    let i = "";
    this.names.scope(() => (i = this.names.fresh("i")));
    const inits = ir.mbarriers.map((barrier) => {
      const name = this.barrierNames.get(barrier) ?? "";
      const init = prelude.mbarrierInit();
      if (barrier.length === 1) return `  ${init}(&${name}[0], ${barrier.arrivals});`;
      return `  for (int ${i} = 0; ${i} < ${barrier.length}; ++${i}) ${init}(&${name}[${i}], ${barrier.arrivals});`;
    });
    // Other blocks reach them after a cluster barrier of the author's only (dsl/verify/tile.ts).
    return ["if (threadIdx.x == 0) {", ...inits, `  ${prelude.mbarrierInitFence()}();`, "}", "__syncthreads();"];
  }

  private slot({ barrier, slot }: Slot): Text {
    return atom(`&${this.barrierNames.get(barrier)}[${this.text(slot).code}]`);
  }

  private matrix({ memory, index, swizzleBytes, strideBytes, leadingBytes }: MatrixOperand): Text {
    const numbers = [leadingBytes, strideBytes, swizzleBytes].map((value) => atom(String(value)));
    return call(this.prelude.matrixDescriptor(), atom(this.pointer(memory, index)), ...numbers);
  }

  /** Written before a fence, read after a wait. */
  private pinAccumulators(): readonly string[] {
    return this.accumulatorsInScope.map(
      (register) => `${this.prelude.pinRegisters()}(${this.objectNames.get(register)});`,
    );
  }
}
