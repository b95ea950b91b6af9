/**
 * wgmma: each warp of a warpgroup multiplies its 16 rows of A by all of B, beside its threads. The products are added at the
 * wait that covers them (or, under a random schedule, at any time before), from what is in shared memory then.
 */
import type { MatrixOperand, TileStmt } from "../../dsl/ir-tile.ts";
import { size } from "../../dsl/layout/index.ts";
import { swizzled } from "./async.ts";
import type { Context, Step } from "./context.ts";
import { addProducts, countMma, Operand, rowMajor } from "./matrix.ts";
import { Locator } from "./memory.ts";
import { made } from "./findings.ts";
import type { Clock } from "./order.ts";
import { checkWritten, markWritten } from "./registers.ts";
import type { Storage, Warp } from "./state.ts";
import type { InFlight } from "./sync.ts";

/** One warp's part of one wgmma. */
interface Product extends InFlight {
  readonly accumulator: number;
  /** Its commit group; -1 before the commit. */
  group: number;
  /** It is over, and known to whoever knows this segment of the agent. */
  finish(agent: number, segment: number): void;
}

/** A warp's wgmma that are under way, in order. */
export class WgmmaQueue {
  open: Product[] = [];
  /** By accumulator, the line that touched it by other means since the last fence; -1: none. */
  readonly touched = new Map<number, number>();
  /** How many there have been. */
  issued = 0;
  private committed = 0;
  /** Who reads for this warp beside its threads; all of them know of it after their wait. */
  private readonly agent: number;
  private readonly clock: Clock;
  private segment = 0;

  constructor(agent: number, clock: Clock) {
    this.agent = agent;
    this.clock = clock;
  }

  commit(): void {
    for (const product of this.open) if (product.group < 0) product.group = this.committed;
    this.committed++;
  }

  wait(pending: number): void {
    const isOver = ({ group }: Product): boolean => group >= 0 && group < this.committed - pending;
    this.segment++;
    for (const product of this.open) {
      if (!isOver(product)) continue;
      product.perform();
      product.finish(this.agent, this.segment);
    }
    this.clock.raise(this.agent, -1, this.segment);
    this.open = this.open.filter((product) => !isOver(product));
  }

  /** The first that works on an accumulator. */
  on(accumulator: number): Product | undefined {
    return this.open.find((product) => product.accumulator === accumulator);
  }
}

type Wgmma = Extract<TileStmt, { kind: "wgmma" }>;

export function compileWgmma(context: Context, stmt: Wgmma, site: number): Step {
  const { atom, accumulator, first } = stmt;
  const { N, K } = atom;
  const register = context.register(accumulator);
  const values = size(atom.layoutC, 1);
  const sums = rowMajor(atom.layoutC, values, atom.M, N);
  const [a, b] = [new Operand(16 * K, atom.a), new Operand(N * K, atom.b)];
  const [matrixA, matrixB] = [matrix(context, stmt.a, K, site), matrix(context, stmt.b, K, site)];
  const accumulate = context.place(stmt.accumulate);
  const keptBits = atom.a.bytes === 1 ? 13 : 25;
  return (warp) => {
    context.together(warp, site, atom.name);
    checkWarpgroup(context, warp, site);
    const { frame, wgmmas } = warp;
    const adds = frame.bytes[accumulate] !== 0;
    const touched = wgmmas.touched.get(register.place);
    if (touched !== undefined) {
      const message = (): string => `wgmma may not see what was done to ${accumulator.name}: a wgmmaFence is missing`;
      context.findings.add(warp, "in-flight", site, 0, message, context.findings.line("it was touched", touched));
    }
    for (let v = 0; v < values; v++) {
      if (adds) checkWritten(context, warp, register, first + v, -1, site);
      markWritten(warp, register, first + v, -1);
    }
    const rows = matrixA(warp, (warp.index % 4) * 16, 16);
    const columns = matrixB(warp, 0, N);
    const operands = [rows, columns];
    for (const { storage, elements } of operands) {
      for (const element of elements) storage.shadow?.beginDrain(warp, element, site);
    }
    let performed = false;
    const product: Product = {
      ...{ site, warp, accumulator: register.place, group: -1 },
      perform() {
        if (performed) return;
        performed = true;
        context.inFlight.delete(product);
        // What was issued before comes first.
        for (const earlier of wgmmas.open) {
          if (earlier === product) break;
          earlier.perform();
        }
        rows.elements.forEach((element, i) => a.set(i, rows.storage.bits[element] ?? 0));
        columns.elements.forEach((element, i) => b.set(i, columns.storage.bits[element] ?? 0));
        for (let v = 0; v < values; v++) {
          const place = register.place + (first + v) * 32;
          for (let lane = 0; lane < 32; lane++) {
            const element = sums[lane * values + v] ?? 0;
            const c = adds ? (frame.words[place + lane] ?? 0) : 0;
            const [i, j] = [Math.floor(element / N) * K, (element % N) * K];
            frame.words[place + lane] = addProducts(a, i, b, j, K, c, keptBits);
          }
        }
      },
      finish(agent, segment) {
        for (const { storage, elements } of operands) {
          for (const element of elements) storage.shadow?.endDrain(warp, element, agent, segment, site);
        }
      },
    };
    wgmmas.open.push(product);
    context.inFlight.add(product);
    countMma(context, site, atom, 16);
  };
}

interface Part {
  readonly storage: Storage;
  /** Row by row, K elements each. */
  readonly elements: Int32Array;
}

/** Where a warp finds rows of an operand. PTX ISA, "Matrix descriptor", "Strides". */
function matrix(context: Context, operand: MatrixOperand, K: number, site: number) {
  const { memory, swizzleBytes, strideBytes, leadingBytes } = operand;
  const { bytes } = memory.dtype;
  const perUnit = 16 / bytes;
  const locator = new Locator(context, memory, operand.index, 1, site, 16);
  const storageOf = context.storageOf(memory);
  return (warp: Warp, firstRow: number, rows: number): Part => {
    // All lanes give the same address.
    const inside = locator.locate(warp, 1);
    const storage = storageOf(warp);
    const base = (locator.offsets[0] ?? 0) * bytes;
    const elements = new Int32Array(inside ? rows * K : 0);
    for (let i = 0; i < elements.length; i += perUnit) {
      const [row, unit] = [firstRow + Math.floor(i / K), Math.floor((i % K) / perUnit)];
      const within = swizzleBytes ? (row % 8) * swizzleBytes + unit * 16 : unit * leadingBytes + (row % 8) * 16;
      const address = swizzled(base + Math.floor(row / 8) * strideBytes + within, swizzleBytes);
      for (let e = 0; e < perUnit; e++) elements[i + e] = address / bytes + e;
    }
    const outside = elements.find((element) => element >= storage.count);
    if (outside === undefined) return { storage, elements };
    const message = (): string => `wgmma reads element ${outside} of ${memory.name}, which has ${storage.count}`;
    context.findings.add(warp, "out-of-bounds", site, 0, message, made(memory));
    return { storage, elements: new Int32Array(0) };
  };
}

/** The warps of a warpgroup must come to the same wgmma, one after the other. */
function checkWarpgroup({ findings }: Context, warp: Warp, site: number): void {
  const { block, index, wgmmas } = warp;
  const history = (block.wgmmas[index >> 2] ??= []);
  const expected = (history[wgmmas.issued++] ??= site);
  if (expected === site) return;
  const message = (): string => "The four warps of a warpgroup come to different wgmma";
  findings.add(warp, "divergence", site, 0, message, findings.line("another of them came", expected));
}

/** At the end of a block: whether all warps of each warpgroup did the same. */
export function checkWarpgroupsEnd({ findings }: Context, warps: readonly Warp[]): void {
  for (const warp of warps) {
    const missed = warp.block.wgmmas[warp.index >> 2]?.[warp.wgmmas.issued];
    if (missed === undefined) continue;
    findings.add(warp, "divergence", missed, 0, () => "Not all four warps of a warpgroup come to this wgmma");
  }
}
