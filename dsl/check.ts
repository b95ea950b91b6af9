/** For callers without tsc: what is wrong with an argument, said before it breaks something deep inside. */
import { type DTypeName, dtypes } from "./dtype.ts";
import { DTypeError, ShapeError, StagingError } from "./errors.ts";
import { callerLocation, type Location } from "./source.ts";

/** For messages: what a JavaScript value is. */
export function describe(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}...` : value);
  if (typeof value === "function") return "a function";
  if (value === null || typeof value !== "object") return String(value);
  const kind = Array.isArray(value) ? "array" : value.constructor?.name || "object";
  return `${/^[AEIO]/i.test(kind) ? "an" : "a"} ${kind}`;
}

/** @throws ShapeError */
export function requireOptions(options: object, known: readonly string[], at: Location): void {
  const plain = typeof options === "object" && options !== null && Object.getPrototypeOf(options) === Object.prototype;
  const strange = plain ? Object.keys(options).find((key) => !known.includes(key)) : describe(options);
  if (strange === undefined) return;
  throw new ShapeError(`Options here are { ${known.join(", ")} }, not ${plain ? `{ ${strange} }` : strange}`, { at });
}

const allNames = Object.keys(dtypes) as DTypeName[];

/** @throws DTypeError */
export function requireDType(dtype: unknown, at: Location, allowed: readonly DTypeName[] = allNames): void {
  if (allowed.some((name) => dtypes[name] === dtype)) return;
  const known = allNames.find((name) => dtypes[name] === dtype);
  throw new DTypeError(`A dtype is needed here: ${allowed.join(", ")}; not ${known ?? describe(dtype)}`, {
    at,
    hint: `Pass the dtype itself, as imported from tegula: ${allowed[0]}`,
  });
}

/** Makes the methods of a class say what is wrong when one is called without its object, as after `const { range } = t`. */
export function checkReceivers(type: { readonly prototype: object; readonly name: string }, what = type.name): void {
  const members = Object.entries<{ value?: unknown }>(Object.getOwnPropertyDescriptors(type.prototype));
  for (const [name, { value: method }] of members) {
    if (typeof method !== "function" || name === "constructor") continue;
    Object.defineProperty(type.prototype, name, {
      value(this: unknown, ...args: readonly unknown[]): unknown {
        if (this instanceof (type as new () => unknown)) return Reflect.apply(method, this, args);
        throw new StagingError(`${name} was called without its ${what}`, {
          at: callerLocation(),
          hint: `Don't take methods off their object; call them on it: x.${name}(...)`,
        });
      },
    });
  }
}

type Kind = (abstract new (...args: never) => unknown) | undefined;

/**
 * Makes the methods of a class refuse arguments that are not of the listed classes, position by position; undefined: anything.
 * For callers without tsc.
 */
export function checkArguments(
  type: { readonly prototype: object },
  kinds: { readonly [method: string]: readonly Kind[] },
): void {
  const members = Object.getOwnPropertyDescriptors(type.prototype) as Record<string, { value?: unknown }>;
  for (const [name, expected] of Object.entries(kinds)) {
    const method = members[name]?.value;
    if (typeof method !== "function") throw new Error(`there is no method ${name}`);
    Object.defineProperty(type.prototype, name, {
      value(this: unknown, ...args: readonly unknown[]): unknown {
        for (const [i, kind] of expected.entries()) {
          if (!kind || args[i] instanceof kind) continue;
          const ordinal = ["first", "second", "third", "fourth", "fifth", "sixth"][i] ?? `${i + 1}th`;
          const wanted = kind === Array ? "an array" : `a ${kind.name}`;
          throw new StagingError(`The ${ordinal} argument of ${name} is ${wanted}, not ${describe(args[i])}`, {
            at: callerLocation(),
          });
        }
        return Reflect.apply(method, this, args);
      },
    });
  }
}
