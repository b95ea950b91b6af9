/** For callers without tsc: what is wrong with an argument, said before it breaks something deep inside. */
import { type DType, type DTypeName, dtypes } from "./dtype.ts";
import { ArgumentError, DTypeError, ShapeError, StagingError } from "./errors.ts";
import { callerLocation, type Location } from "./source.ts";

/** For messages: what a JavaScript value is. */
export function describe(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}...` : value);
  if (typeof value === "function") return "a function";
  if (value === null || typeof value !== "object") return String(value);
  const name: unknown = value.constructor?.name;
  const kind = Array.isArray(value) ? "array" : typeof name === "string" && name ? name : "object";
  return `${/^[AEIO]/i.test(kind) ? "an" : "a"} ${kind}`;
}

/** For messages: an array, shortened. */
export function describeAll(array: readonly unknown[]): string {
  return `[${Array.from({ length: Math.min(array.length, 8) }, (_, i) => describe(array[i])).join(", ")}${array.length > 8 ? ", ..." : ""}]`;
}

/** @throws ShapeError */
export function requireOptions(options: object, known: readonly string[], at: Location): void {
  const plain = typeof options === "object" && options !== null && Object.getPrototypeOf(options) === Object.prototype;
  const strange = plain ? Object.keys(options).find((key) => !known.includes(key)) : describe(options);
  if (strange === undefined) return;
  throw new ShapeError(`Options here are { ${known.join(", ")} }, not ${plain ? `{ ${strange} }` : strange}`, { at });
}

const allNames = Object.keys(dtypes) as DTypeName[];

/** For messages: a dtype by its name. */
export function describeDType(dtype: unknown): string {
  return allNames.find((name) => dtypes[name] === dtype) ?? describe(dtype);
}

/** @throws DTypeError */
export function requireDType(dtype: unknown, at: Location, allowed: readonly DTypeName[] = allNames): void {
  if (allowed.some((name) => dtypes[name] === dtype)) return;
  throw new DTypeError(`A dtype is needed here: ${allowed.join(", ")}; not ${describeDType(dtype)}`, {
    at,
    hint: `Pass the dtype itself, as imported from tegula: ${allowed[0]}`,
  });
}

/**
 * Our own dtype for one that may come from anywhere, another thread or another copy of this package: such are known by their
 * fields. `where` finds the author's line.
 * @throws DTypeError
 */
export function ownDType<N extends DTypeName>(dtype: DType<N>, where = callerLocation): DType<N> {
  const given: Partial<DType> | null = typeof dtype === "object" ? dtype : null;
  const name: unknown = given?.name;
  const own = typeof name === "string" && Object.hasOwn(dtypes, name) ? dtypes[name as N] : undefined;
  if (own && (own === given || (own.bytes === given?.bytes && own.kind === given.kind))) return own;
  throw new DTypeError(`A dtype is needed here, e.g. f32, not ${describe(dtype)}`, { at: where() });
}

/** Of a tensor, or a coordinate. */
export const mostDimensions = 32;

/**
 * The dimensions of a tensor in memory, read once: what is checked is what is used, whatever getters the array has.
 * @throws ShapeError for what is no shape
 */
export function shapeOf(shape: readonly number[], where = callerLocation): readonly number[] {
  if (!Array.isArray(shape)) {
    throw new ShapeError(`A tensor's shape is an array of whole numbers, not ${describe(shape)}`, {
      at: where(),
      hint: "[4, 8]",
    });
  }
  if (shape.length > mostDimensions) {
    throw new ShapeError(`A tensor has at most ${mostDimensions} dimensions, not ${shape.length}`, { at: where() });
  }
  const sizes: readonly number[] = [...shape];
  if (sizes.every((size) => Number.isSafeInteger(size) && size >= 0)) return Object.freeze(sizes);
  throw new ShapeError(`A tensor's shape is a list of whole numbers, not [${sizes.map(describe).join()}]`, {
    at: where(),
  });
}

/** A coordinate of a layout: a number, or a short array of such. @throws ShapeError */
export function requireCoordinate(coordinate: unknown, depth = 0): void {
  if (Number.isSafeInteger(coordinate)) return;
  if (!Array.isArray(coordinate) || coordinate.length > mostDimensions || depth > 8) {
    throw new ShapeError(`A coordinate is a whole number, or an array of such, not ${describe(coordinate)}`, {
      at: callerLocation(),
    });
  }
  for (const inner of coordinate) requireCoordinate(inner, depth + 1);
}

/** Numbers of modes. @throws ShapeError */
export function requireModes(path: readonly unknown[]): void {
  const wrong = path.findIndex((mode) => !Number.isSafeInteger(mode));
  if (wrong < 0) return;
  throw new ShapeError(`A mode is named by its number, not by ${describe(path[wrong])}`, { at: callerLocation() });
}

/**
 * That something is a kernel's IR, as far as a look at its fields tells.
 * @throws ArgumentError
 */
export function requireIR(what: string, ir: unknown, where = callerLocation, fields = ["body"]): void {
  const lists = ["tensors", "scalars", "sizes", ...fields];
  const given: Readonly<Record<string, unknown>> = typeof ir === "object" && ir !== null ? { ...ir } : {};
  if (typeof given["name"] === "string" && lists.every((field) => Array.isArray(given[field]))) return;
  throw new ArgumentError(`${what} takes a kernel's ir, not ${describe(ir)}`, {
    at: where(),
    hint: `${what}(kernel.ir)`,
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
