/** Registers, and what goes from lane to lane: shuffles and reductions. */
import type { Pinned, Stmt } from "../../dsl/ir.ts";
import type { Context, RegisterPlace, Step } from "./context.ts";
import { made } from "./findings.ts";
import { eachLane, firstLane, moveLanes } from "./frame.ts";
import { binaryFn } from "./numbers.ts";
import type { Warp } from "./state.ts";

export function compileDeclare(
  context: Context,
  { register, init }: Extract<Stmt, { kind: "declare" }>,
  site: number,
): Step {
  const { dtype, lanes } = register.type;
  const length = register.length ?? 1;
  const { place, written } = context.declare(register, init === undefined);
  const from = init && context.place(init);
  return (warp) => {
    touch(context, warp, place, site, register.name);
    const bits = warp.frame.bits(dtype.bytes);
    for (let i = 0; i < length; i++) {
      if (from !== undefined) moveLanes(bits, place + i * 32 * lanes, bits, from, lanes, warp.mask);
      else if (written >= 0) warp.written[written + i] = (warp.written[written + i] ?? 0) & ~warp.mask;
    }
  };
}

type Read = Extract<Pinned, { kind: "read" }>;
type Write = Extract<Stmt, { kind: "write" }>;

export function compileRead(context: Context, op: Read, to: number, site: number): Step {
  const { dtype, lanes } = op.register.type;
  const { bytes } = dtype;
  const declared = context.register(op.register);
  return access(context, declared, op.index, site, (warp, element, mask) => {
    const bits = warp.frame.bits(bytes);
    moveLanes(bits, to, bits, declared.place + element * 32 * lanes, lanes, mask);
    checkWritten(context, warp, declared, element, mask, site);
  });
}

export function compileWrite(context: Context, stmt: Write, site: number): Step {
  const { dtype, lanes } = stmt.register.type;
  const declared = context.register(stmt.register);
  const from = context.place(stmt.value);
  return access(context, declared, stmt.index, site, (warp, element, mask) => {
    const bits = warp.frame.bits(dtype.bytes);
    moveLanes(bits, declared.place + element * 32 * lanes, bits, from, lanes, mask);
    markWritten(warp, declared, element, mask);
  });
}

/** Visits each element that lanes address, with those lanes. */
function access(
  context: Context,
  { register, place }: RegisterPlace,
  index: Read["index"],
  site: number,
  visit: (warp: Warp, element: number, mask: number) => void,
): Step {
  const length = register.length ?? 1;
  const constant = index === undefined ? 0 : index.op.kind === "const" ? index.op.value : undefined;
  if (constant !== undefined && constant >= 0 && constant < length) {
    return (warp) => {
      touch(context, warp, place, site, register.name);
      visit(warp, constant, warp.mask);
    };
  }
  const at = index ? context.place(index) : 0;
  return (warp) => {
    touch(context, warp, place, site, register.name);
    for (let rest = warp.mask; rest !== 0;) {
      const lane = firstLane(rest);
      const element = warp.frame.words[at + lane] ?? 0;
      let same = 0;
      for (let other = lane; other < 32; other++) if (warp.frame.words[at + other] === element) same |= 1 << other;
      same &= rest;
      rest &= ~same;
      if (element >= 0 && element < length) visit(warp, element, same);
      else {
        const message = (): string => `${register.name}[${element}] is outside of its ${length} registers`;
        context.findings.add(warp, "out-of-bounds", site, lane, message, made(register));
      }
    }
  };
}

/** Ordinary instructions and wgmma must not meet at an accumulator. */
function touch({ findings, accumulators }: Context, warp: Warp, place: number, site: number, name: string): void {
  if (!accumulators.has(place)) return;
  const { wgmmas } = warp;
  const product = wgmmas.on(place);
  if (product) {
    const message = (): string => `The accumulator ${name} is touched while a wgmma may be adding to it`;
    findings.add(warp, "in-flight", site, 0, message, findings.line("the wgmma is", product.site));
  }
  wgmmas.touched.set(place, site);
}

/** `mask`: the lanes that need a value. */
export function checkWritten(
  { findings }: Context,
  warp: Warp,
  { register, written }: RegisterPlace,
  element: number,
  mask: number,
  site: number,
): void {
  if (written < 0) return;
  const missing = mask & ~(warp.written[written + element] ?? 0);
  const message = (): string => {
    const which = register.length === undefined ? "" : `[${element}]`;
    return `${register.name}${which} is read before it is written`;
  };
  eachLane(missing, (lane) => findings.add(warp, "uninitialised", site, lane, message, made(register)));
}

export function markWritten({ written: masks }: Warp, { written }: RegisterPlace, element: number, mask: number): void {
  if (written >= 0) masks[written + element] = (masks[written + element] ?? 0) | mask;
}

export function compileShuffle(
  context: Context,
  op: Extract<Pinned, { kind: "shuffle" }>,
  to: number,
  site: number,
): Step {
  const [a, by] = [context.place(op.a), context.place(op.by)];
  const sourceOf = {
    xor: (lane: number, amount: number) => lane ^ amount,
    up: (lane: number, amount: number) => lane - amount,
    down: (lane: number, amount: number) => lane + amount,
    index: (_: number, amount: number) => amount,
  }[op.mode];
  return (warp) => {
    context.together(warp, site, "shuffle");
    context.counters.add(site, "shuffles", 1);
    const { words } = warp.frame;
    for (let lane = 0; lane < 32; lane++) {
      const source = sourceOf(lane, (words[by + lane] ?? 0) & 31);
      words[to + lane] = words[a + (source >= 0 && source < 32 ? source : lane)] ?? 0;
    }
  };
}

export function compileReduce(
  context: Context,
  op: Extract<Pinned, { kind: "reduce" }>,
  to: number,
  site: number,
): Step {
  const { dtype } = op.a.type;
  const a = context.place(op.a);
  const compute = binaryFn(op.fn, dtype);
  const other = new Float64Array(32);
  return (warp) => {
    context.together(warp, site, "reduction");
    context.counters.add(site, "shuffles", 5);
    const numbers = warp.frame.numbers(dtype);
    for (let lane = 0; lane < 32; lane++) numbers[to + lane] = numbers[a + lane] ?? 0;
    for (let distance = 16; distance >= 1; distance /= 2) {
      for (let lane = 0; lane < 32; lane++) other[lane] = numbers[to + (lane ^ distance)] ?? 0;
      for (let lane = 0; lane < 32; lane++) numbers[to + lane] = compute(numbers[to + lane] ?? 0, other[lane] ?? 0);
    }
  };
}
