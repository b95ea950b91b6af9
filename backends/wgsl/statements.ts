/**
 * Statements as WGSL. One invocation runs one warp, its 32 lanes as an inner loop (regions.ts), so that blocks of 1,024
 * threads fit, and shuffles and warp reductions need no barrier.
 */
import type { MBarrier } from "../../dsl/ir-tile.ts";
import type { Block, Register, Stmt, Value } from "../../dsl/ir.ts";
import type { Location } from "../../dsl/source.ts";
import { atom, infix, Lines, type Text } from "../lowering/text.ts";
import { binary } from "./operations.ts";
import type { Piece } from "./regions.ts";
import { type LaneTileStmt, TileOperations } from "./tile.ts";

/** The array of a value or register that outlives a lane loop. */
interface Kept {
  readonly type: string;
  readonly name: string;
}

export class Statements extends TileOperations {
  protected lines = new Lines();
  protected lastComment = "";
  /** Whether arrays of values that nobody needs any more take others: SwiftShader has a limit to what it can place. */
  protected readonly sharesArrays: boolean = true;
  /** Such arrays of the block at hand, by type. */
  private free = new Map<string, string[]>();

  /** A block that all lanes go through together. */
  protected warpLevel(block: Block): void {
    const [outer, ending] = [this.free, new Map<Piece, Kept[]>()];
    this.free = new Map();
    for (const piece of this.regions.pieces(block)) {
      if (piece.kind === "collective") this.collective(piece.stmt);
      else this.region(piece.uniform, piece.stmts, ending);
      for (const { type, name } of ending.get(piece) ?? []) this.free.set(type, [...(this.free.get(type) ?? []), name]);
    }
    this.free = outer;
  }

  /** `ending`: what is needed no longer after which piece of the block. */
  private region(uniform: readonly Value[], stmts: readonly Stmt[], ending: Map<Piece, Kept[]>): void {
    for (const value of uniform) {
      const { code } = this.operation(value);
      const name = this.constant(value, value.name ?? "v", code);
      this.valueNames.set(value, name);
    }
    const quiet = (stmt: Stmt): boolean =>
      stmt.kind === "pdlWait" ||
      stmt.kind === "pdlLaunch" ||
      stmt.kind === "sleep" ||
      doesNothing.has(stmt.kind) ||
      (stmt.kind === "let" && (this.plan.isDead(stmt.value) || this.plan.inlines(stmt.value)));
    if (stmts.every(quiet)) return;
    for (const stmt of stmts) this.declareEscaping(stmt, ending);
    this.lanes(() => {
      for (const stmt of stmts) this.stmt(stmt);
    });
  }

  /** Room for what outlives the lane loop. */
  private declareEscaping(stmt: Stmt, ending: Map<Piece, Kept[]>): void {
    const share = (made: Value | Register, type: string, declared: () => string): string => {
      const name = this.free.get(type)?.pop() ?? declared();
      const last = this.sharesArrays ? this.regions.lastUse(made) : undefined;
      if (last) ending.set(last, [...(ending.get(last) ?? []), { type, name }]);
      return name;
    };
    if (stmt.kind === "let" && this.regions.escapes(stmt.value)) {
      const { value } = stmt;
      const type = this.prelude.ofLanes(value.type);
      this.valueNames.set(
        value,
        share(value, type, () => this.variable(value, value.name ?? "v", type)),
      );
    }
    if (stmt.kind === "declare" && this.regions.escapes(stmt.register)) {
      const { register } = stmt;
      const type = `array<${this.registerType(register)}, 32>`;
      this.registerNames.set(
        register,
        share(register, type, () => this.variable(register, register.name, type)),
      );
    }
  }

  protected lanes(body: () => void): void {
    const before = this.lane;
    this.lane = "lane";
    this.lines.block("for (var lane = 0; lane < 32; lane++)", () => this.names.scope(body));
    this.lane = before;
  }

  /** Barriers, warp-wide operations, and the control flow around them. */
  protected collective(stmt: Stmt): void {
    const { lines, names } = this;
    switch (stmt.kind) {
      case "barrier":
        // The lanes of a warp are in step already: one loop over them has ended.
        if (stmt.scope === "block" && this.ir.block > 32) lines.add("workgroupBarrier(); storageBarrier();");
        return;
      case "clusterArrive":
        return;
      case "clusterWait":
        if (this.ir.block * this.ir.cluster > 32) lines.add("workgroupBarrier(); storageBarrier();");
        return;
      case "stmatrix":
        this.comment(stmt.at);
        return this.stmatrix(stmt);
      case "wgmma":
        this.comment(stmt.at);
        return this.wgmma(stmt);
      case "let":
        return this.warpWide(stmt.value);
      case "for":
        this.comment(stmt.at);
        names.scope(() => this.loop(stmt, () => names.scope(() => this.warpLevel(stmt.body))));
        return;
      case "if": {
        this.comment(stmt.at);
        const scoped = (block: Block) => () => names.scope(() => this.warpLevel(block));
        const otherwise = stmt.otherwise.length > 0 ? scoped(stmt.otherwise) : undefined;
        lines.block(`if (${this.text(stmt.condition).code})`, scoped(stmt.then), otherwise);
        return;
      }
      default:
        throw new Error(`${stmt.kind} is not collective`);
    }
  }

  protected warpWide(value: Value): void {
    const { op, type } = value;
    this.comment(value.at);
    if (op.kind === "mma") return this.mma(value, op);
    if (op.kind === "ldmatrix") return this.ldmatrix(value, op);
    if (op.kind !== "reduce" && op.kind !== "shuffle") throw new Error(`${op.kind} is not warp-wide`);
    const base = value.name ?? "v";
    const operand = this.variable(undefined, `${base}_lanes`, this.prelude.ofLanes(type));
    this.lanes(() => this.lines.add(`${operand}[lane] = ${this.text(op.a).code};`));
    if (op.kind === "reduce") {
      const { dtype } = type;
      const combine = (a: string, b: string): string => binary(op.fn, dtype, atom(a), atom(b)).code;
      const name = this.constant(value, base, `${this.prelude.warpReduce(op.fn, dtype, combine)}(&${operand})`);
      this.valueNames.set(value, name);
    } else {
      const name = this.variable(value, base, this.prelude.ofLanes(type));
      this.lanes(() => {
        this.lines.add(`let by = (${this.text(op.by).code}) & 31;`);
        this.lines.add(`${name}[lane] = ${operand}[${shuffleSource[op.mode]}];`);
      });
    }
  }

  /** Names what is computed once per warp. */
  protected constant(_value: Value, base: string, code: string): string {
    const name = this.names.fresh(base);
    this.lines.add(`let ${name} = ${code};`);
    return name;
  }

  protected variable(named: Value | Register | undefined, base: string, type: string): string {
    const name = this.names.fresh(base);
    this.lines.add(`var ${name}: ${type};`);
    if (named && "op" in named) this.valueNames.set(named, name);
    return name;
  }

  protected cellOf({ name }: MBarrier, _slot: Value, _peer?: Value): Text {
    throw new Error(`${name} is waited for in steps`);
  }

  /** A block inside one lane. */
  protected block(block: Block): void {
    this.names.scope(() => {
      for (const stmt of block) this.stmt(stmt);
    });
  }

  /** A statement of one lane. */
  protected stmt(stmt: Stmt): void {
    const { lines } = this;
    switch (stmt.kind) {
      case "let":
        if (!this.plan.isDead(stmt.value) && !this.plan.inlines(stmt.value) && !this.regions.isWarpLevel(stmt.value)) {
          this.define(stmt.value);
        }
        return;
      case "declare":
        return this.declare(stmt.register, stmt.init);
      case "write":
        this.comment(stmt.at);
        lines.add(`${this.register(stmt.register, stmt.index)} = ${this.text(stmt.value).code};`);
        return;
      case "store": {
        this.comment(stmt.at);
        const store = this.prelude.store(this.binding(stmt.memory), stmt.value.type);
        lines.add(`${store}(${this.offset(stmt.memory, stmt.index, stmt.peer).code}, ${this.text(stmt.value).code});`);
        return;
      }
      case "for":
        this.comment(stmt.at);
        this.names.scope(() => this.loop(stmt, () => this.block(stmt.body)));
        return;
      case "if": {
        this.comment(stmt.at);
        const otherwise = stmt.otherwise.length > 0 ? () => this.block(stmt.otherwise) : undefined;
        lines.block(`if (${this.text(stmt.condition).code})`, () => this.block(stmt.then), otherwise);
        return;
      }
      // Each dispatch is complete and visible before the next begins.
      case "pdlWait":
      case "pdlLaunch":
      case "sleep":
        return;
      case "barrier":
      case "stmatrix":
      case "await":
      case "clusterArrive":
      case "clusterWait":
      case "namedBarrier":
      case "wgmma":
        throw new Error(`${stmt.kind} is collective`);
      default:
        if (!doesNothing.has(stmt.kind)) this.comment(stmt.at);
        return this.laneTileStmt(stmt satisfies LaneTileStmt);
    }
  }

  protected loop(stmt: Extract<Stmt, { readonly kind: "for" }>, body: () => void): void {
    const [from, to] = [this.text(stmt.from), this.text(stmt.to)];
    const i = this.names.fresh(stmt.induction.name ?? "i");
    this.valueNames.set(stmt.induction, i);
    this.lines.block(`for (var ${i}: i32 = ${from.code}; ${infix("<", atom(i), to).code}; ${i} += ${stmt.step})`, body);
  }

  protected define(value: Value): void {
    this.comment(value.at);
    const { code } = this.operation(value);
    const kept = this.valueNames.get(value);
    if (kept !== undefined && this.regions.escapes(value)) return this.lines.add(`${kept}[lane] = ${code};`);
    const name = this.names.fresh(value.name ?? "v");
    this.valueNames.set(value, name);
    this.lines.add(`let ${name} = ${code};`);
  }

  protected declare(register: Register, init: Value | undefined): void {
    if (!this.regions.escapes(register)) {
      const name = this.names.fresh(register.name);
      this.registerNames.set(register, name);
      this.lines.add(`var ${name}: ${this.registerType(register)};`);
    }
    const name = this.registerPlace(register);
    if (!init) return;
    const value = this.text(init).code;
    if (register.length === undefined) this.lines.add(`${name} = ${value};`);
    else this.lines.add(`for (var i = 0; i < ${register.length}; i++) { ${name}[i] = ${value}; }`);
  }

  protected comment(at: Location): void {
    const comment = `// ${at.file}:${at.line}`;
    if (comment !== this.lastComment && at.line > 0) this.lines.add(comment);
    this.lastComment = comment;
  }
}

const shuffleSource = {
  xor: "(lane ^ by) & 31",
  up: "select(lane, lane - by, lane >= by)",
  down: "select(lane, lane + by, lane + by < 32)",
  index: "by",
} as const;

/** Copies and products are done at once, so nothing waits for them. */
const doesNothing: ReadonlySet<Stmt["kind"]> = new Set([
  "asyncCommit",
  "asyncWait",
  "prefetch",
  "asyncFence",
  "setRegisters",
  "wgmmaFence",
  "wgmmaCommit",
  "wgmmaWait",
]);
