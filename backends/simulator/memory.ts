/**
 * Loads, stores and atomics: where each lane's elements lie, whether it may touch them, and what comes of it. What must not be
 * touched is not: loads give 0xff in every byte, stores nothing.
 */
import type { AtomicFn, Memory, Pinned, Stmt, Value } from "../../dsl/ir.ts";
import type { Context, Step } from "./context.ts";
import { made } from "./findings.ts";
import { eachLane } from "./frame.ts";
import { binaryFn, popcount } from "./numbers.ts";
import type { Shadow } from "./shadow.ts";
import type { Storage, Warp } from "./state.ts";

/** Finds the elements that lanes access together, `width` consecutive ones each. */
export class Locator {
  /** Of each lane's first element. */
  readonly offsets = new Float64Array(32);
  private readonly context: Context;
  private readonly memory: Memory;
  private readonly places: readonly number[];
  private readonly dims: readonly number[];
  private readonly width: number;
  private readonly site: number;
  private readonly bytes: number;

  /** `alignBytes`: what the first element's address must be a multiple of. Default: the width. */
  constructor(
    context: Context,
    memory: Memory,
    index: readonly Value[],
    width: number,
    site: number,
    alignBytes?: number,
  ) {
    this.context = context;
    this.memory = memory;
    this.places = index.map((value) => context.place(value));
    this.dims = context.dimsOf(memory);
    this.width = width;
    this.site = site;
    this.bytes = alignBytes ?? width * memory.dtype.bytes;
  }

  /** The lanes of `mask` whose elements are all there. */
  locate(warp: Warp, mask: number): number {
    const { offsets, dims, places, width } = this;
    const { words } = warp.frame;
    let inside = mask;
    offsets.fill(0);
    for (let axis = 0; axis < dims.length; axis++) {
      const [dim, place] = [dims[axis] ?? 1, places[axis] ?? 0];
      const last = axis === dims.length - 1 ? dim - width : dim - 1;
      for (let lane = 0; lane < 32; lane++) {
        const index = words[place + lane] ?? 0;
        offsets[lane] = (offsets[lane] ?? 0) * dim + index;
        if (index < 0 || index > last) inside &= ~(1 << lane);
      }
    }
    if (inside !== mask) this.reportOutside(warp, mask & ~inside);
    if (this.bytes > this.memory.dtype.bytes) this.checkAlignment(warp, inside);
    return inside;
  }

  /** One request: the elements located last, of these lanes. */
  count(what: "Load" | "Store", mask: number): void {
    const { memory, offsets, width, site } = this;
    const { counters } = this.context;
    const { bytes } = memory.dtype;
    if (memory.kind === "tensor") counters.global(site, what, offsets, mask, bytes, width * bytes);
    else counters.shared(site, offsets, mask, bytes, width * bytes);
  }

  private checkAlignment(warp: Warp, mask: number): void {
    const { bytes, memory } = this;
    const promised = memory.alignBytes % bytes === 0;
    for (let lane = 0; lane < 32; lane++) {
      const address = (this.offsets[lane] ?? 0) * memory.dtype.bytes;
      if (((mask >>> lane) & 1) === 0 || (promised && address % bytes === 0)) continue;
      const where = promised ? `byte ${address}` : `aligned to ${memory.alignBytes} only`;
      const message = (): string => `An access to ${memory.name}, ${where}, needs a multiple of ${bytes} bytes`;
      this.context.findings.add(warp, "misaligned", this.site, lane, message, made(memory));
    }
  }

  private reportOutside(warp: Warp, mask: number): void {
    const { memory, width, places, dims } = this;
    eachLane(mask, (lane) => {
      const message = (): string => {
        const index = places.map((place) => warp.frame.words[place + lane] ?? 0).join(", ");
        const elements = width > 1 ? `, ${width} elements,` : "";
        return `${memory.name}[${index}]${elements} is outside of its shape [${dims.join(", ")}]`;
      };
      this.context.findings.add(warp, "out-of-bounds", this.site, lane, message, made(memory));
    });
  }
}

/** A lane's own block's memory, or that of the block it asks for; undefined where there is none. */
type Chooser = (warp: Warp, lane: number) => Storage | undefined;

export function compileLoad(context: Context, op: Extract<Pinned, { kind: "load" }>, to: number, site: number): Step {
  const { memory, lanes } = op;
  const { bytes, kind } = memory.dtype;
  const locator = new Locator(context, memory, op.index, lanes, site);
  const guard = op.guard ? context.place(op.guard) : -1;
  const choose = chooser(context, memory, op.peer, site);
  const isBool = kind === "bool";
  return (warp) => {
    const { mask, frame } = warp;
    const bits = frame.bits(bytes);
    const guarded = guard < 0 ? mask : mask & trueLanes(frame.bytes, guard);
    let inside = locator.locate(warp, guarded);
    inside &= ~context.early(warp, memory, inside, site, "load");
    for (let lane = 0; lane < 32; lane++) {
      if (((mask >>> lane) & 1) === 0) continue;
      const at = to + lane * lanes;
      const storage = (inside >>> lane) & 1 ? choose(warp, lane) : undefined;
      if (!storage) {
        const poison = (guarded >>> lane) & 1 ? (isBool ? 1 : -1) : 0;
        for (let i = 0; i < lanes; i++) bits[at + i] = poison;
        continue;
      }
      const from = locator.offsets[lane] ?? 0;
      const { bits: content, shadow } = storage;
      for (let i = 0; i < lanes; i++) bits[at + i] = content[from + i] ?? 0;
      if (isBool) for (let i = 0; i < lanes; i++) bits[at + i] = bits[at + i] ? 1 : 0;
      if (shadow) for (let i = 0; i < lanes; i++) shadow.read(warp, lane, from + i, site);
    }
    locator.count("Load", inside);
  };
}

export function compileStore(context: Context, stmt: Extract<Stmt, { kind: "store" }>, site: number): Step {
  const { memory, value } = stmt;
  const { lanes } = value.type;
  const { bytes } = memory.dtype;
  const locator = new Locator(context, memory, stmt.index, lanes, site);
  const choose = chooser(context, memory, stmt.peer, site);
  const from = context.place(value);
  return (warp) => {
    const { mask, frame } = warp;
    const bits = frame.bits(bytes);
    const inside = locator.locate(warp, mask);
    context.early(warp, memory, inside, site, "store");
    for (let lane = 0; lane < 32; lane++) {
      const storage = (inside >>> lane) & 1 ? choose(warp, lane) : undefined;
      if (storage)
        storeElements(storage, locator.offsets[lane] ?? 0, bits, from + lane * lanes, lanes, warp, lane, site);
    }
    locator.count("Store", inside);
  };
}

/** `count` elements, from `bits[from]` on, by one lane. */
export function storeElements(
  { bits: content, shadow }: Storage,
  to: number,
  bits: { readonly [i: number]: number },
  from: number,
  count: number,
  warp: Warp,
  lane: number,
  site: number,
): void {
  for (let i = 0; i < count; i++) {
    const value = bits[from + i] ?? 0;
    if (shadow) shadow.write(warp, lane, to + i, site, content[to + i] !== value);
    content[to + i] = value;
  }
}

export function compileAtomic(
  context: Context,
  op: Extract<Pinned, { kind: "atomic" }>,
  to: number,
  site: number,
): Step {
  const { memory } = op;
  const { dtype } = memory;
  const locator = new Locator(context, memory, op.index, 1, site);
  const choose = chooser(context, memory, undefined, site);
  const [a, compare] = [context.place(op.a), op.compare ? context.place(op.compare) : -1];
  const combine = combination(op.fn, op.a);
  return (warp) => {
    const { mask, frame } = warp;
    const [results, numbers] = [frame.words, frame.numbers(dtype)];
    const inside = locator.locate(warp, mask);
    context.early(warp, memory, inside, site, "store");
    for (let lane = 0; lane < 32; lane++) {
      if (((mask >>> lane) & 1) === 0) continue;
      const storage = (inside >>> lane) & 1 ? choose(warp, lane) : undefined;
      if (!storage) {
        results[to + lane] = -1;
        continue;
      }
      const element = locator.offsets[lane] ?? 0;
      const shadow: Shadow | undefined = storage.shadow;
      shadow?.atomic(warp, lane, element, site);
      results[to + lane] = storage.bits[element] ?? 0;
      const old = numbers[to + lane] ?? 0;
      if (compare < 0 || old === numbers[compare + lane]) {
        // Through a typed array of its type, which wraps or rounds, to its bits.
        scratch.numbers[dtype.name as "i32"][0] = combine(old, numbers[a + lane] ?? 0);
        storage.bits[element] = op.fn === "exchange" ? (results[a + lane] ?? 0) : (scratch.bits[0] ?? 0);
      }
    }
    context.counters.add(site, "atomics", popcount(inside));
  };
}

const scratch = (() => {
  const bits = new Int32Array(1);
  const numbers = { i32: bits, u32: new Uint32Array(bits.buffer), f32: new Float32Array(bits.buffer) };
  return { bits, numbers };
})();

function combination(fn: AtomicFn, a: Value): (old: number, a: number) => number {
  return fn === "exchange" || fn === "compareExchange" ? (_, value) => value : binaryFn(fn, a.type.dtype);
}

/** Lanes whose condition is true. */
export function trueLanes(bytes: Uint8Array, place: number): number {
  let mask = 0;
  for (let lane = 0; lane < 32; lane++) if (bytes[place + lane]) mask |= 1 << lane;
  return mask;
}

/** Which block's memory a lane's access goes to. */
function chooser(context: Context, memory: Memory, peer: Value | undefined, site: number): Chooser {
  const own = context.storageOf(memory);
  if (!peer) return own;
  const place = context.place(peer);
  return (warp, lane) => {
    const block = context.peer(warp, lane, warp.frame.words[place + lane] ?? 0, site);
    const [first] = block?.warps ?? [];
    return first && own(first);
  };
}
