/** Checks of tile statements: what hand-built IR may get wrong, and the lifetime of other blocks' shared memory. */
import { DivergenceError, DTypeError, ShapeError } from "../errors.ts";
import { type Block, innerBlocks, type KernelIR, peerOf, type Stmt } from "../ir.ts";
import type { Slot, TileStmt } from "../ir-tile.ts";
import type { Location } from "../source.ts";

type Fail = (what: string, at: Location) => never;

/** @throws VerifyError by `fail`; ShapeError, DTypeError for what no instruction does */
export function checkTileStmt(ir: KernelIR, stmt: TileStmt, fail: Fail): void {
  const { at } = stmt;
  const needSlot = ({ barrier }: Slot): void => {
    if (!ir.mbarriers.includes(barrier)) fail("Unknown mbarrier", at);
  };
  switch (stmt.kind) {
    case "copyAsync": {
      const bytes = stmt.lanes * stmt.memory.dtype.bytes;
      if (stmt.memory.dtype !== stmt.to.dtype) {
        throw new DTypeError(
          `An asynchronous copy moves bits: ${stmt.memory.name} is ${stmt.memory.dtype.name}, ${stmt.to.name} ${stmt.to.dtype.name}`,
          { at },
        );
      }
      if (bytes !== 4 && bytes !== 8 && bytes !== 16) {
        throw new ShapeError(`An asynchronous copy moves 4, 8 or 16 bytes, not ${bytes}`, {
          at,
          hint: "Narrower rows go through registers: t.copy to a fragment, then to shared memory",
        });
      }
      return;
    }
    case "asyncArrive":
    case "arrive":
    case "await":
    case "bulkCopy":
      return needSlot(stmt);
    case "tensorCopy":
      if (!ir.tensorMaps.includes(stmt.map)) fail("Unknown tensor map", at);
      return needSlot(stmt);
    case "namedBarrier": {
      const { id, threads } = stmt;
      if (id >= 1 && id <= 15 && threads >= 32 && threads <= ir.block && threads % 32 === 0) return;
      throw new ShapeError(
        `A named barrier has a number from 1 to 15 and whole warps of the block, not ${id} and ${threads}`,
        {
          at,
        },
      );
    }
    case "setRegisters":
      if (stmt.count >= 24 && stmt.count <= 256 && stmt.count % 8 === 0) return;
      throw new ShapeError(`A thread has 24 to 256 registers in steps of 8, not ${stmt.count}`, { at });
    case "wgmma":
      if (stmt.atom.kind !== "wgmma") fail(`${stmt.atom.name} is no wgmma`, at);
      if (stmt.first + (stmt.atom.M * stmt.atom.N) / 128 > (stmt.accumulator.length ?? 0)) {
        throw new ShapeError(`${stmt.atom.name} needs more accumulators than ${stmt.accumulator.name} has`, { at });
      }
      return;
    case "stmatrix":
    case "asyncCommit":
    case "asyncWait":
    case "clusterArrive":
    case "clusterWait":
    case "prefetch":
    case "asyncFence":
    case "wgmmaFence":
    case "wgmmaCommit":
    case "wgmmaWait":
      return;
  }
}

/** Where a thread is among the cluster barriers. */
interface ClusterState {
  /** It came through one: every block of the cluster has started. */
  readonly started: boolean;
  /** It arrived and has not waited yet. */
  readonly arrived: Location | undefined;
  /** An access to another block since the last arrival: no barrier covers it yet. */
  readonly open: Location | undefined;
  /** One that the arrival covers, as soon as the wait is over. */
  readonly covered: Location | undefined;
}

/**
 * A block's shared memory is there for others from the time it has started until it ends: cluster barriers must stand before
 * the first and after the last access to another block's. A barrier's halves alternate.
 *
 *     arrive   wait   access ...   arrive   wait   end
 *
 * @throws DivergenceError, ShapeError
 */
export function checkCluster(ir: KernelIR): void {
  const halves = (what: string, at: Location, other?: Location): never => {
    throw new DivergenceError(what, {
      at,
      related: other ? [{ what: "the arrival is", at: other }] : [],
      hint: "The halves alternate: t.cluster.arrive(), then t.cluster.wait(), both in the same block of statements",
    });
  };
  const after = (stmt: Stmt, state: ClusterState): ClusterState => {
    const { at } = stmt;
    if (stmt.kind === "clusterArrive") {
      if (state.arrived) halves("A cluster barrier is arrived at twice without a wait in between", at, state.arrived);
      return { ...state, arrived: at, open: undefined, covered: state.covered ?? state.open };
    }
    if (stmt.kind === "clusterWait") {
      if (!state.arrived) halves("A wait for a cluster barrier at which nothing arrived", at);
      return { ...state, started: true, arrived: undefined, covered: undefined };
    }
    if (peerOf(stmt)) {
      if (ir.cluster === 1) {
        throw new ShapeError("There are no other blocks: the kernel has no cluster", {
          at,
          hint: "Write kernel({ ..., cluster: 8 }, ...)",
        });
      }
      if (!state.started) {
        throw new DivergenceError("The other block may not have started yet", {
          at,
          hint: "Call t.cluster.barrier() before the first access to another block's shared memory",
        });
      }
      return { ...state, open: at };
    }
    // What a branch or loop does may not happen: it proves nothing, and may leave an access open.
    const ends = innerBlocks(stmt).map((inner) => visit(inner, state));
    for (const { arrived } of ends) {
      if (arrived !== state.arrived) halves("Half a cluster barrier stands in a branch or loop", arrived ?? at);
    }
    if (stmt.kind === "for") ends.push(state);
    return {
      started: ends.every(({ started }) => started),
      arrived: state.arrived,
      open: ends.find(({ open }) => open)?.open,
      covered: ends.find(({ covered }) => covered)?.covered,
    };
  };
  const visit = (block: Block, before: ClusterState): ClusterState =>
    block.reduce((state, stmt) => (touchesCluster(stmt) ? after(stmt, state) : state), before);
  const nothing: ClusterState = { started: false, arrived: undefined, open: undefined, covered: undefined };
  const { arrived, open, covered } = visit(ir.body, nothing);
  const unprotected = open ?? covered;
  if (unprotected) {
    throw new DivergenceError("The other block may have ended already", {
      at: unprotected,
      hint: "Call t.cluster.barrier() after the last access to another block's shared memory: it lives as long as its block",
    });
  }
  if (arrived) halves("Nothing waits for the cluster barrier that is arrived at here", arrived);
}

function touchesCluster(stmt: Stmt): boolean {
  const half = stmt.kind === "clusterArrive" || stmt.kind === "clusterWait";
  return half || peerOf(stmt) !== undefined || innerBlocks(stmt).length > 0;
}
