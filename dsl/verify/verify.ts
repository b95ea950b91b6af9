/**
 * The verifier: runs over every kernel after tracing, and over hand-built IR. What it accepts, backends may rely on.
 *
 *   structure   values are defined before their uses, in an enclosing block; types follow the typing rules
 *   roles       nothing stores to frozen or input tensors, nothing loads from output tensors
 *   PDL         some thread of each block waits; who has not waited, nor met at a barrier one who has, touches no dependent
 *               tensor and stores nothing global
 *   clusters    memory of other blocks is touched between two cluster barriers only
 *   divergence  barriers under block-uniform control flow, warp-wide operations under warp-uniform, wgmma for whole warpgroups
 *   in flight   accumulators of wgmma are touched after a wait only; somebody waits for every copy
 *   loops       no loop variable overflows
 *   accesses    vectors, and boxes that TMA writes, are proved to be aligned; nothing is certainly out of bounds, at sizes
 *               tried out too
 */
import { bool, i32 } from "../dtype.ts";
import { RoleError, ShapeError, VerifyError } from "../errors.ts";
import {
  isWritten,
  type Block,
  formatType,
  isLeaf,
  type KernelIR,
  type Leaf,
  type Memory,
  type Op,
  type Register,
  sameType,
  type Stmt,
  stmtOperands,
  type Type,
  type Value,
  walk,
} from "../ir.ts";
import { isTileStmt } from "../ir-tile.ts";
import type { Location } from "../source.ts";
import { resultType } from "../typing.ts";
import { checkAccesses } from "./access.ts";
import { checkBoxes } from "./alignment.ts";
import { checkDivergence } from "./divergence.ts";
import { FactsAnalysis } from "./facts.ts";
import { checkPdl } from "./pdl.ts";
import { checkInFlight } from "./in-flight.ts";
import { checkCluster, checkTileStmt } from "./tile.ts";
import { type Touch, touches } from "./touch.ts";
import { checkWarpgroups } from "./warpgroup.ts";

/** @throws TegulaError of the class that fits the first mistake found */
export function verify(ir: KernelIR): void {
  checkStructure(ir);
  checkRoles(ir);
  const facts = new FactsAnalysis(ir);
  checkPdl(ir, facts);
  checkDivergence(ir);
  checkSharedSize(ir);
  checkCluster(ir);
  checkWarpgroups(ir, facts);
  checkBoxes(ir, facts);
  checkInFlight(ir);
  checkLoops(ir, facts);
  checkAccesses(ir, facts);
}

function checkStructure(ir: KernelIR): void {
  const memories = new Set<Memory>([...ir.tensors, ...ir.shared]);
  const made = new Set<Value | Register>();
  const visit = (block: Block, values: ReadonlySet<Value>, registers: ReadonlySet<Register>): void => {
    const [defined, declared] = [new Set(values), new Set(registers)];
    const fail = (what: string, at: Location): never => {
      throw new VerifyError(`${what}, in the IR of ${ir.name}`, { at });
    };
    const needNew = (node: Value | Register, at: Location): void => {
      if (made.has(node)) fail(`${node.name ?? "A value"} is defined twice`, at);
      made.add(node);
    };
    const needRegister = (register: Register, at: Location): void => {
      if (!declared.has(register)) fail(`The register ${register.name} is used where it is not declared`, at);
    };
    const index: Type = { dtype: i32, lanes: 1 };
    const needType = (value: Value, type: Type, at: Location): void => {
      if (!sameType(value.type, type)) {
        fail(`${formatType(value.type)} stands where ${formatType(type)} is needed`, at);
      }
    };
    for (const stmt of block) {
      if (isTileStmt(stmt)) checkTileStmt(ir, stmt, fail);
      for (const value of stmtOperands(stmt)) {
        const free = isLeaf(value) && value.op.kind !== "induction";
        if (!free && !defined.has(value)) fail("A value is used where it is not defined", stmt.at);
        const { op } = value;
        if (op.kind === "scalar" && !ir.scalars.includes(op.scalar)) fail("Unknown scalar", stmt.at);
        if (op.kind === "size" && !ir.sizes.includes(op.size)) fail("Unknown size", stmt.at);
      }
      switch (stmt.kind) {
        case "let": {
          const { op, type } = stmt.value;
          if (isLeaf(stmt.value)) return fail("A leaf has a let", stmt.at);
          if (!sameType(resultType(op as Exclude<Op, Leaf>, stmt.at), type)) {
            fail(`A value of ${op.kind} has the wrong type ${formatType(type)}`, stmt.at);
          }
          needNew(stmt.value, stmt.at);
          if (op.kind === "ldmatrix" && !memories.has(op.memory)) fail("Unknown memory", stmt.at);
          if (op.kind === "read") needRegister(op.register, stmt.at);
          if ((op.kind === "load" || op.kind === "atomic") && !memories.has(op.memory)) fail("Unknown memory", stmt.at);
          defined.add(stmt.value);
          break;
        }
        case "declare":
          if (stmt.init) needType(stmt.init, stmt.register.type, stmt.at);
          needNew(stmt.register, stmt.at);
          declared.add(stmt.register);
          break;
        case "write":
          needRegister(stmt.register, stmt.at);
          needType(stmt.value, stmt.register.type, stmt.at);
          if ((stmt.index === undefined) !== (stmt.register.length === undefined)) {
            fail("A register array needs an index, a single register has none", stmt.at);
          }
          if (stmt.index) needType(stmt.index, index, stmt.at);
          break;
        case "store":
          if (!memories.has(stmt.memory)) fail("Unknown memory", stmt.at);
          needType(stmt.value, { dtype: stmt.memory.dtype, lanes: stmt.value.type.lanes }, stmt.at);
          if (stmt.index.length !== stmt.memory.shape.length) fail("A store has the wrong number of indices", stmt.at);
          for (const value of stmt.index) needType(value, index, stmt.at);
          break;
        case "for":
          for (const value of [stmt.induction, stmt.from, stmt.to]) needType(value, index, stmt.at);
          if (stmt.induction.op.kind !== "induction") fail("A loop's variable is no induction", stmt.at);
          needNew(stmt.induction, stmt.at);
          if (!Number.isInteger(stmt.step) || stmt.step < 1) fail("A loop's step must be at least 1", stmt.at);
          if (stmt.unroll && [stmt.from, stmt.to].some(({ op }) => op.kind !== "const")) {
            fail("An unrolled loop needs constant bounds", stmt.at);
          }
          visit(stmt.body, new Set([...defined, stmt.induction]), declared);
          break;
        case "if":
          needType(stmt.condition, { dtype: bool, lanes: 1 }, stmt.at);
          visit(stmt.then, defined, declared);
          visit(stmt.otherwise, defined, declared);
          break;
        case "barrier":
        case "pdlWait":
        case "pdlLaunch":
        case "sleep":
          break;
        case "wgmma":
          needRegister(stmt.accumulator, stmt.at);
          break;
        default:
          break; // tile statements: checkTileStmt
      }
    }
  };
  visit(ir.body, new Set(), new Set());
}

function checkRoles(ir: KernelIR): void {
  walk(ir.body, (stmt) => {
    for (const access of touches(stmt)) checkRole(stmt, access);
  });
}

function checkRole(stmt: Stmt, { memory, reads, writes }: Touch): void {
  const refuse = (what: string, hint: string): never => {
    throw new RoleError(`${what} ${memory.name}, which is ${memory.role}`, {
      at: stmt.at,
      related: [{ what: "it was declared", at: memory.at }],
      hint,
    });
  };
  if (writes && !isWritten(memory.role)) {
    refuse("A store to", "Declare it as output or inout");
  }
  if (reads && memory.role === "output") refuse("A load of", "Declare it as inout, or as input");
}

/** @throws ShapeError for more than a block has */
function checkSharedSize(ir: KernelIR): void {
  const tiles = ir.shared.map(({ shape, dtype, alignBytes }) => [
    shape.reduce((a, b) => a * b, dtype.bytes),
    alignBytes,
  ]);
  // The most aligned come first, so that nothing is lost between them.
  const sharedBytes = [...tiles, ...ir.mbarriers.map(({ length }) => [8 * length, 8])]
    .sort(([, a = 0], [, b = 0]) => b - a)
    .reduce((end, [bytes = 0, align = 1]) => Math.ceil(end / align) * align + bytes, 0);
  const [first] = ir.shared;
  if (first && sharedBytes > 227 * 1024) {
    throw new ShapeError(
      `The kernel ${ir.name} uses ${sharedBytes} bytes of shared memory; a block has at most ${227 * 1024}`,
      {
        at: first.at,
        related: ir.shared.slice(1).map(({ name, at }) => ({ what: `${name} was made`, at })),
        hint: "Keep less of it at a time, or use smaller tiles",
      },
    );
  }
}

/** `i += step` must not pass 2^31 - 1: the loop would never end in WGSL, and is undefined in C. */
function checkLoops(ir: KernelIR, facts: FactsAnalysis): void {
  walk(ir.body, (stmt) => {
    if (stmt.kind !== "for") return;
    const { induction, from, to, step, at } = stmt;
    const runs = facts.of(to).max > facts.of(from).min;
    // From one multiple of the step to another it ends exactly there.
    const meets = facts.of(from).multipleOf % step === 0 && facts.of(to).multipleOf % step === 0;
    if (!runs || meets || facts.of(induction).max + step <= 2 ** 31 - 1) return;
    throw new ShapeError(
      `The loop's variable may pass 2^31 - 1: it goes up to ${facts.of(to).max} in steps of ${step}`,
      {
        at,
        related: to.at.line === at.line ? [] : [{ what: "the end was made", at: to.at }],
        hint: 'Give the size a max, as in size("N", { max: 1_000_000 }), or the end: n.min(1_000_000); or take smaller steps',
      },
    );
  });
}
