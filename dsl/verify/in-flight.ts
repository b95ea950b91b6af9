/**
 * What runs beside the thread is waited for: accumulators of wgmma before they are touched, copies before the kernel ends.
 *
 *     wgmma           acc is in flight               copyAsync    the copies are in flight
 *     wgmmaCommit     ... in the newest group        asyncCommit  ... in the newest group
 *     wgmmaWait(p)    ... no more, if p groups are newer          asyncWait(p), asyncArrive
 *
 * In the other direction wgmmaFence lets wgmma see what ordinary instructions did to its registers. Copies that an mbarrier
 * counts need somebody who waits there; which of its phases, only the simulator can tell.
 *
 * Source: PTX ISA, "wgmma.fence", "wgmma.wait_group", "cp.async.wait_group".
 */
import { OrderError } from "../errors.ts";
import { type Block, type KernelIR, type Register, type Stmt, walk } from "../ir.ts";
import type { MBarrier } from "../ir-tile.ts";
import type { Location } from "../source.ts";

/** Those of cp.async are counted together. */
const copies = "copies";
type Subject = Register | typeof copies;

interface State {
  /** An operation on it that may still be under way. */
  readonly flight: Flight | undefined;
  /** Touched by ordinary instructions since the last fence. */
  readonly touched: Location | undefined;
}

interface Flight {
  readonly at: Location;
  /** Committed groups after its own; undefined as long as it belongs to none. */
  readonly newer: number | undefined;
}

type States = ReadonlyMap<Subject, State>;

/** More groups than anyone counts. */
const most = 16;

/** @throws OrderError */
export function checkInFlight(ir: KernelIR): void {
  checkCountedCopies(ir);
  const accumulators = new Set<Register>();
  let any = false;
  walk(ir.body, (stmt) => {
    if (stmt.kind === "wgmma") accumulators.add(stmt.accumulator);
    any ||= stmt.kind === "wgmma" || stmt.kind === "copyAsync";
  });
  if (!any) return;
  const end = new Flights(accumulators).block(ir.body, new Map());
  for (const [subject, { flight }] of end) {
    if (!flight) continue;
    const group = flight.newer === undefined ? " and committed" : "";
    throw new OrderError(
      subject === copies
        ? `The kernel may end before this asynchronous copy has${group ? ": it is in no group" : ""}`
        : `Nothing waits for this wgmma into ${subject.name}${group ? ": it is in no group" : ""}`,
      {
        at: flight.at,
        hint:
          subject === copies
            ? "Call t.asyncCommit(), and t.asyncWait(0) before its data is used, or let an mbarrier count: arriveAfterCopies"
            : "Call t.wgmmaCommit(), and t.wgmmaWait(0) before the sums are used",
      },
    );
  }
}

class Flights {
  private readonly accumulators: ReadonlySet<Register>;

  constructor(accumulators: ReadonlySet<Register>) {
    this.accumulators = accumulators;
  }

  block(block: Block, before: States): States {
    return block.reduce((states, stmt) => this.after(stmt, states), before);
  }

  private after(stmt: Stmt, states: States): States {
    switch (stmt.kind) {
      case "declare":
      case "write":
        return this.touch(stmt.register, stmt.at, states);
      case "let":
        return stmt.value.op.kind === "read" ? this.touch(stmt.value.op.register, stmt.at, states) : states;
      case "wgmma": {
        const { accumulator, at } = stmt;
        const touched = states.get(accumulator)?.touched;
        if (touched) {
          throw new OrderError(`wgmma may not see what was done to ${accumulator.name} before`, {
            at,
            related: touched.line === at.line ? [] : [{ what: "it was touched", at: touched }],
            hint: "Call t.wgmmaFence() in between",
          });
        }
        return withState(states, accumulator, { touched, flight: { at, newer: undefined } });
      }
      case "wgmmaFence":
        return each(states, (state) => ({ ...state, touched: undefined }));
      case "copyAsync":
        return withState(states, copies, { touched: undefined, flight: { at: stmt.at, newer: undefined } });
      case "wgmmaCommit":
        return each(states, committed, isRegister);
      case "asyncCommit":
        return each(states, committed, isCopies);
      case "wgmmaWait":
        return each(states, waited(stmt.pending), isRegister);
      case "asyncWait":
        return each(states, waited(stmt.pending), isCopies);
      case "asyncArrive":
        return each(states, (state) => ({ ...state, flight: undefined }), isCopies);
      case "if":
        return join(this.block(stmt.then, states), this.block(stmt.otherwise, states));
      case "for": {
        // What one turn leaves in flight, the next one meets.
        let [before, after] = [states, join(states, this.block(stmt.body, states))];
        while (!same(before, after)) [before, after] = [after, join(after, this.block(stmt.body, after))];
        return after;
      }
      default:
        return states;
    }
  }

  private touch(register: Register, at: Location, states: States): States {
    if (!this.accumulators.has(register)) return states;
    const flight = states.get(register)?.flight;
    if (flight) {
      throw new OrderError(`The accumulator ${register.name} is touched while a wgmma may be adding to it`, {
        at,
        related: [{ what: "the wgmma is", at: flight.at }],
        hint:
          flight.newer === undefined
            ? "Call t.wgmmaCommit() and t.wgmmaWait(0) in between"
            : "Call t.wgmmaWait(0) in between",
      });
    }
    return withState(states, register, { flight, touched: at });
  }
}

const isCopies = (subject: Subject): boolean => subject === copies;
const isRegister = (subject: Subject): boolean => subject !== copies;

const committed = (state: State): State => {
  const { flight } = state;
  if (!flight) return state;
  const newer = flight.newer === undefined ? 0 : Math.min(flight.newer + 1, most);
  return { ...state, flight: { ...flight, newer } };
};

const waited =
  (pending: number) =>
  (state: State): State =>
    (state.flight?.newer ?? -1) >= Math.min(pending, most) ? { ...state, flight: undefined } : state;

function each(states: States, change: (state: State) => State, of: (subject: Subject) => boolean = () => true): States {
  return new Map([...states].map(([subject, state]) => [subject, of(subject) ? change(state) : state]));
}

function withState(states: States, subject: Subject, state: State): States {
  return new Map(states).set(subject, state);
}

/** What may be after either of two ways. */
function join(a: States, b: States): States {
  const joined = new Map(a);
  for (const [subject, state] of b) {
    const other = a.get(subject);
    const [one, two] = [other?.flight, state.flight];
    const least = Math.min(one?.newer ?? -1, two?.newer ?? -1);
    const flight =
      one && two ? (least < 0 ? { at: one.at, newer: undefined } : { at: one.at, newer: least }) : (one ?? two);
    joined.set(subject, { flight, touched: other?.touched ?? state.touched });
  }
  return joined;
}

function same(a: States, b: States): boolean {
  return [...b].every(([subject, { flight, touched }]) => {
    const other = a.get(subject);
    return (
      other !== undefined &&
      (other.flight === undefined) === (flight === undefined) &&
      other.flight?.newer === flight?.newer &&
      (other.touched === undefined) === (touched === undefined)
    );
  });
}

/** @throws OrderError for an mbarrier that counts copies, where nobody ever waits */
function checkCountedCopies(ir: KernelIR): void {
  const counting = new Map<MBarrier, Location>();
  const awaited = new Set<MBarrier>();
  walk(ir.body, (stmt) => {
    if (stmt.kind === "await") awaited.add(stmt.barrier);
    if (stmt.kind === "bulkCopy" || stmt.kind === "tensorCopy" || stmt.kind === "asyncArrive") {
      if (!counting.has(stmt.barrier)) counting.set(stmt.barrier, stmt.at);
    }
  });
  for (const [barrier, at] of counting) {
    if (awaited.has(barrier)) continue;
    throw new OrderError(`Nothing waits for the copies that ${barrier.name} counts`, {
      at,
      related: [{ what: `${barrier.name} was made`, at: barrier.at }],
      hint: `Call ${barrier.name}.wait(slot, parity) where their data is used, and before the kernel ends`,
    });
  }
}
