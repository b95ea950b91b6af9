/** Hostile calls: right arguments of a public operation, some of them replaced by garbage, and what may come of it. */
import fc from "fast-check";
import { TegulaError } from "../../dsl/errors.ts";
import { garbage, HostileError } from "./garbage.ts";
import type { Watchdog } from "./watchdog.ts";

/** A public operation, and arguments with which it would do its work. */
export interface Target {
  readonly call: (...args: readonly unknown[]) => unknown;
  readonly valid: () => readonly unknown[];
  /** Garbage that it isn't given: what it takes at the caller's risk, by its own promise. */
  readonly without: readonly string[];
}

/** Collects the operations of a world. */
export class Targets extends Map<string, Target> {
  /** A function of a module. */
  free(name: string, call: unknown, valid: Target["valid"] = () => [], without: readonly string[] = []): void {
    this.set(name, { call: call as Target["call"], valid, without });
  }

  /** `Class.member` or `Class.[Symbol.dispose]` of each of these objects. */
  member(
    name: string,
    receivers: readonly object[],
    valid: Target["valid"] = () => [],
    without: readonly string[] = [],
  ): void {
    const [, text = "", symbol] = /\.(\[Symbol\.(\w+)\]|\w+)$/.exec(name) ?? [];
    const key = symbol ? Symbol[symbol as "dispose" | "asyncDispose"] : text;
    for (const [i, receiver] of receivers.entries()) {
      const call = (...args: readonly unknown[]): unknown => {
        const value: unknown = (receiver as Record<string | symbol, unknown>)[key];
        return typeof value === "function" ? Reflect.apply(value, receiver, args) : value;
      };
      this.free(i === 0 ? name : `${name} of no. ${i}`, call, valid, without);
    }
  }
}

/** Things to call, and things to call them with; what calls changed goes with it. */
export interface World {
  readonly targets: ReadonlyMap<string, Target>;
  /** Of this world: freed tensors, disposed streams, what belongs to another backend. */
  readonly things: ReadonlyMap<string, () => unknown>;
  /** Checks that nothing was broken, and gives everything back. @throws Error */
  readonly end: () => Promise<void>;
}

/** Replaces the argument at `arg`, or what lies `path` below it, by the garbage of that name. */
interface Change {
  readonly arg: number;
  readonly path: readonly number[];
  readonly garbage: string;
}

/** A call that can be made in any world of its kind. */
export class Call {
  readonly target: string;
  readonly changes: readonly Change[];
  /** Whether its promise is left pending until the other calls were made. */
  readonly later: boolean;

  constructor(target: string, changes: readonly Change[], later: boolean) {
    this.target = target;
    this.changes = changes;
    this.later = later;
  }

  /** For counterexamples. */
  toString(): string {
    const changes = this.changes.map(({ arg, path, garbage }) => `${[arg, ...path].join(".")} = ${garbage}`);
    return `${this.target}(${changes.join("; ")})${this.later ? ", awaited later" : ""}`;
  }

  [fc.toStringMethod](): string {
    return this.toString();
  }

  argumentsIn({ targets, things }: World): readonly unknown[] {
    const { valid, without } = targets.get(this.target) ?? unknown(this.target);
    const args = [...valid()];
    for (const { arg, path, garbage: name } of this.changes) {
      if (without.includes(name)) continue;
      const value = (things.get(name) ?? garbage.get(name) ?? unknown(name))();
      const at = arg % (args.length + 1);
      args[at] = withReplaced(args[at], path, value);
    }
    return args;
  }
}

function unknown(name: string): never {
  throw new Error(`there is no ${name}`);
}

/** A copy with something replaced deep inside, as far as there are plain objects and arrays to go into. */
function withReplaced(whole: unknown, [step, ...rest]: readonly number[], value: unknown): unknown {
  if (step === undefined || typeof whole !== "object" || whole === null) return value;
  if (Object.isFrozen(whole)) return value; // kernels, their IR, dtypes
  const prototype: unknown = Object.getPrototypeOf(whole);
  const isShort = prototype === Array.prototype && (whole as readonly unknown[]).length <= 8;
  if (prototype !== Object.prototype && !isShort) return value;
  try {
    const keys = Object.keys(whole);
    const key = keys[step % (keys.length + 1)] ?? "surplus";
    const replaced = withReplaced((whole as Record<string, unknown>)[key], rest, value);
    return Array.isArray(whole) ? Object.assign([...whole], { [key]: replaced }) : { ...whole, [key]: replaced };
  } catch {
    return value; // garbage was there already
  }
}

/** Some calls of the operations of a world, one after the other. */
export function callsOf({ targets, things }: World): fc.Arbitrary<readonly Call[]> {
  const change = fc.record({
    arg: fc.nat(3),
    path: fc.array(fc.nat(7), { maxLength: 2 }),
    garbage: fc.constantFrom(...garbage.keys(), ...things.keys(), ...things.keys()),
  });
  const call = fc
    .tuple(fc.constantFrom(...targets.keys()), fc.array(change, { maxLength: 3 }), fc.boolean())
    .map(([target, changes, later]) => new Call(target, changes, later));
  return fc.array(call, { minLength: 1, maxLength: 24, size: "max" });
}

/** How long a call may keep the thread, or a promise may take: on two cores, shared with others. */
export const timeLimitMs = 20_000;

/**
 * Makes a call. A promise that is awaited later comes to `pending`.
 * @throws Error unless the call succeeds, or throws an error of a class of ours
 */
export async function make(call: Call, world: World, watchdog: Watchdog, pending: Promise<void>[]): Promise<void> {
  const args = call.argumentsIn(world);
  const target = world.targets.get(call.target) ?? unknown(call.target);
  let result: unknown;
  try {
    result = watchdog.watch(String(call), () => target.call(...args));
  } catch (error) {
    judge(call, error);
  }
  if (!(result instanceof Promise)) return;
  const outcome = settled(call, result);
  if (!call.later) return await outcome;
  outcome.catch(() => undefined); // whoever awaits it, awaits it at the end
  pending.push(outcome);
}

async function settled(call: Call, result: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${call} is pending after ${timeLimitMs} ms`)), timeLimitMs);
  });
  try {
    const value = await Promise.race([result.catch((error: unknown) => judge(call, error)), limit]);
    if (isDisposable(value)) await value[Symbol.asyncDispose]();
  } finally {
    clearTimeout(timer);
  }
}

/** A backend that a call opened. */
function isDisposable(value: unknown): value is AsyncDisposable {
  return typeof value === "object" && value !== null && Symbol.asyncDispose in value;
}

/** @throws Error for what no caller should see */
function judge(call: Call, error: unknown): void {
  if (error instanceof HostileError) return;
  if (error instanceof TegulaError && Object.getPrototypeOf(error) !== TegulaError.prototype && error.message) return;
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  throw new Error(`${call} threw ${text}`, { cause: error });
}
