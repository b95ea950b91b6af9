/**
 * Kernels whose warps wait for each other in ways that no workgroupBarrier expresses: mbarriers, named barriers, barriers
 * in branches of some warps or blocks. Each invocation runs in steps: on from `pc` until it must wait; then all meet, what
 * was waited for is advanced (sync-cells.ts), and the next step begins.
 *
 *   loop {
 *     loop { switch pc { case 0u: { ...; pc = 1u; } case 1u: { if (it must wait) { warp_waits = true; break; } ...; pc = 2u; } ... } }
 *     all meet; cells advance; leave when no warp runs any more, or none moved: they are stuck
 *   }
 *
 * Only control flow that contains something to wait for is cut into such states. What one state makes and another uses
 * stands in variables before the loop; a first pass finds out what that is.
 */
import type { MBarrier } from "../../dsl/ir-tile.ts";
import { type Block, innerBlocks, type KernelIR, type Register, type Stmt, type Value, walk } from "../../dsl/ir.ts";
import { Uniformity, UniformityAnalysis } from "../../dsl/verify/uniformity.ts";
import { atom, call, infix, Lines, type Text } from "../lowering/text.ts";
import type { Scratch } from "./memory.ts";
import { ModuleStatements } from "./module.ts";
import { SyncCells } from "./sync-cells.ts";

/** Whether workgroup barriers can't do what the kernel's synchronisation does. */
export function needsSteps(ir: KernelIR): boolean {
  const uniformity = new UniformityAnalysis(ir);
  let needed = false;
  walk(ir.body, (stmt) => {
    switch (stmt.kind) {
      case "arrive":
      case "asyncArrive":
      case "await":
      case "bulkCopy":
      case "tensorCopy":
      case "namedBarrier":
        needed = true;
        return;
      case "barrier":
        if (stmt.scope === "block" && ir.block > 32) needed ||= uniformity.controlOf(stmt) !== Uniformity.cluster;
        return;
      case "clusterArrive":
      case "clusterWait":
        needed ||= uniformity.controlOf(stmt) !== Uniformity.cluster;
        return;
      default:
    }
  });
  return needed;
}

export class SteppedStatements extends ModuleStatements {
  /** What one state makes and another uses. */
  readonly crossing = new Set<Value | Register>();
  /** One state may not see what another declares. */
  protected override readonly sharesArrays = false;
  private readonly known: ReadonlySet<Value | Register>;
  protected override readonly cells: SyncCells;
  private readonly states: Lines[] = [];
  private state = 0;
  private readonly madeIn = new Map<Value | Register, number>();
  private readonly hoisted = new Map<string, string>();

  /** `known`: what a first pass over the same kernel found. */
  constructor(ir: KernelIR, known: ReadonlySet<Value | Register> = new Set()) {
    super(ir);
    this.cells = new SyncCells(ir);
    this.known = known;
  }

  protected override body(scratch: Scratch | undefined): void {
    const outer = this.lines;
    this.enter(this.newState());
    this.warpLevel(this.ir.body);
    this.lines.add("atomicSub(&running_warps, 1);");
    this.goTo(this.states.length);
    this.lines = outer;

    const invocations = this.cells.invocations;
    for (const [name, type] of this.hoisted) outer.add(`var ${name}: ${type};`);
    outer.add("var pc = 0u;");
    outer.add("var wait_phase = 0u;");
    if (this.cells.hasCluster) outer.add("var cluster_phase = 0u;");
    outer.add("reset_cells_u32(invocation);");
    outer.add("workgroupBarrier();");
    outer.block("loop", () => {
      outer.add("var warp_moved = false;");
      outer.block("loop", () => {
        outer.add("var warp_waits = false;");
        outer.block("switch pc", () => {
          for (const [i, state] of this.states.entries()) {
            outer.block(`case ${i}u:`, () =>
              state
                .toString()
                .split("\n")
                .forEach((line) => outer.add(line)),
            );
          }
          outer.add("default: { warp_waits = true; }");
        });
        outer.add("if (warp_waits) { break; }");
        outer.add("warp_moved = true;");
      });
      outer.add("if (warp_moved) { atomicStore(&made_progress, 1u); }");
      outer.add("workgroupBarrier(); storageBarrier();");
      outer.block(`for (var cell = i32(invocation); cell < ${this.cells.count}; cell += ${invocations})`, () =>
        outer.add("advance_cell_i32(cell);"),
      );
      outer.block("if (invocation == 0u)", () => {
        outer.add("go_on = select(0u, atomicLoad(&made_progress), atomicLoad(&running_warps) > 0);");
        outer.add("atomicStore(&made_progress, 0u);");
      });
      outer.add("if (workgroupUniformLoad(&go_on) == 0u) { break; }");
    });
    if (scratch) outer.add(`if (invocation == 0u && atomicLoad(&running_warps) > 0) { ${scratch.report} }`);
  }

  private newState(): number {
    return this.states.push(new Lines()) - 1;
  }

  private enter(state: number): void {
    this.state = state;
    this.lines = this.states[state] ?? this.lines;
    this.lastComment = "";
  }

  private goTo(state: number): void {
    this.lines.add(`pc = ${state}u;`);
  }

  /** Ends a state; the next one holds until `waits` is false. */
  private waitWhile(waits: string): void {
    const next = this.newState();
    this.goTo(next);
    this.enter(next);
    this.lines.add(`if (${waits}) { warp_waits = true; break; }`);
  }

  private meet(cell: Text): void {
    this.lines.add(`wait_phase = atomicLoad(&cell_phase[${cell.code}]);`);
    this.lines.add(`atomicSub(&cell_pending[${cell.code}], 1);`);
    this.waitWhile(`atomicLoad(&cell_phase[${cell.code}]) == wait_phase`);
  }

  private blocks(stmt: Stmt): boolean {
    switch (stmt.kind) {
      case "barrier":
        return stmt.scope === "block" && this.ir.block > 32;
      case "await":
      case "clusterWait":
        return true;
      case "namedBarrier":
        return stmt.action === "sync";
      default:
        return innerBlocks(stmt).some((inner) => inner.some((one) => this.blocks(one)));
    }
  }

  protected override collective(stmt: Stmt): void {
    const { lines, cells } = this;
    switch (stmt.kind) {
      case "barrier":
        if (!this.blocks(stmt)) return;
        this.comment(stmt.at);
        return this.meet(this.ofBlock(cells.block));
      case "namedBarrier": {
        this.comment(stmt.at);
        const cell = this.ofBlock(cells.named(stmt.id));
        if (stmt.action === "sync") return this.meet(cell);
        lines.add(`atomicSub(&cell_pending[${cell.code}], 1);`);
        return;
      }
      case "clusterArrive":
        this.comment(stmt.at);
        lines.add(`cluster_phase = atomicLoad(&cell_phase[${cells.cluster}]);`);
        lines.add(`atomicSub(&cell_pending[${cells.cluster}], 1);`);
        return;
      case "clusterWait":
        this.comment(stmt.at);
        return this.waitWhile(`atomicLoad(&cell_phase[${cells.cluster}]) == cluster_phase`);
      case "await": {
        this.comment(stmt.at);
        const next = this.newState();
        this.goTo(next);
        this.enter(next);
        const phase = `atomicLoad(&cell_phase[${this.cellOf(stmt.barrier, stmt.slot).code}])`;
        this.lines.add(`if (${phase} == (u32(${this.text(stmt.parity).code}) & 1u)) { warp_waits = true; break; }`);
        return;
      }
      case "for":
        return this.blocks(stmt) ? this.flatLoop(stmt) : super.collective(stmt);
      case "if":
        return this.blocks(stmt) ? this.flatBranch(stmt) : super.collective(stmt);
      default:
        return super.collective(stmt);
    }
  }

  private flatLoop(stmt: Extract<Stmt, { readonly kind: "for" }>): void {
    this.comment(stmt.at);
    const i = this.hoist(stmt.induction.name ?? "i", "i32");
    this.valueNames.set(stmt.induction, i);
    this.lines.add(`${i} = ${this.text(stmt.from).code};`);
    const [head, body, after] = [this.newState(), this.newState(), this.newState()];
    this.goTo(head);
    this.enter(head);
    this.lines.add(`pc = select(${after}u, ${body}u, ${infix("<", atom(i), this.text(stmt.to)).code});`);
    this.enter(body);
    this.inner(stmt.body);
    this.lines.add(`${i} += ${stmt.step};`);
    this.goTo(head);
    this.enter(after);
  }

  private flatBranch(stmt: Extract<Stmt, { readonly kind: "if" }>): void {
    this.comment(stmt.at);
    const [then, otherwise, after] = [this.newState(), stmt.otherwise.length > 0 && this.newState(), this.newState()];
    this.lines.block(
      `if (${this.text(stmt.condition).code})`,
      () => this.goTo(then),
      () => this.goTo(otherwise || after),
    );
    this.enter(then);
    this.inner(stmt.then);
    this.goTo(after);
    if (otherwise !== false) {
      this.enter(otherwise);
      this.inner(stmt.otherwise);
      this.goTo(after);
    }
    this.enter(after);
  }

  private inner(block: Block): void {
    this.names.scope(() => this.warpLevel(block));
  }

  private hoist(base: string, type: string): string {
    let name = this.names.fresh(base);
    while (this.hoisted.has(name)) name = this.names.fresh(base);
    this.hoisted.set(name, type);
    return name;
  }

  protected override constant(value: Value, base: string, code: string): string {
    this.madeIn.set(value, this.state);
    if (!this.known.has(value)) return super.constant(value, base, code);
    const name = this.hoist(base, this.prelude.type(value.type));
    this.lines.add(`${name} = ${code};`);
    return name;
  }

  protected override variable(named: Value | Register | undefined, base: string, type: string): string {
    if (named) this.madeIn.set(named, this.state);
    if (!named || !this.known.has(named)) return super.variable(named, base, type);
    const name = this.hoist(base, type);
    if ("op" in named) this.valueNames.set(named, name);
    return name;
  }

  protected override used(named: Value | Register): void {
    const made = this.madeIn.get(named);
    if (made !== undefined && made !== this.state) this.crossing.add(named);
  }

  /** A cell of one block's. */
  private ofBlock(cell: number, peer?: Value): Text {
    if (this.ir.cluster === 1) return atom(String(cell));
    const rank = peer ? this.text(peer) : atom("rank");
    return infix("+", infix("*", rank, atom(String(this.cells.perBlock))), atom(String(cell)));
  }

  protected override cellOf(barrier: MBarrier, slot: Value, peer?: Value): Text {
    const first = this.ofBlock(this.cells.first(barrier), peer);
    return barrier.length === 1 ? first : infix("+", first, call("i32", this.text(slot)));
  }
}
