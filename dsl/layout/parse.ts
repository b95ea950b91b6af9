/**
 * Reading layouts as they are printed, by us or by CuTe: `((2,4),8):((1,2),8)`, `Sw<2,0,3> o _0 o (_8,_8):(_8,_1)`,
 * `(4,8):(1@0,1@1)`. The underscores of CuTe's static integers mean nothing here.
 */
import { ScaledBasis, type StrideLeaf } from "./basis.ts";
import { LayoutError } from "./errors.ts";
import type { IntTuple } from "./int-tuple.ts";
import { type AnyLayout, ComposedLayout, Layout, requireNumeric, requireOffsets } from "./layout.ts";
import { Swizzle } from "./swizzle.ts";
import { leaves, mapLeaves, type Nested } from "./tuple.ts";

/**
 * The layout with this text: print(parse(text)) is the text without spaces and underscores.
 * ```ts
 * parse("((2,4),8):((1,2),8)") // ((2,4),8):((1,2),8)
 * parse("Sw<2,0,3> o _0 o (_8,_8):(_8,_1)") // Sw<2,0,3> o 0 o (8,8):(8,1)
 * parse("(4,8):(_1@0,_1@1)") // (4,8):(1@0,1@1)
 * parse("(4,8:(1,4)") // LayoutError: "(4,8:(1,4)" is no layout: expected "," or ")" at ":(1,4)"
 * ```
 * @throws LayoutError that shows where the text goes wrong
 */
export function parse(text: string): AnyLayout {
  const reader = new Reader(text);
  const layout = reader.layout();
  reader.end();
  return layout;
}

/**
 * As parse, for a layout whose strides are numbers and that isn't composed.
 * ```ts
 * parseLayout("(4,8):(1,4)") // (4,8):(1,4)
 * ```
 */
export function parseLayout(text: string): Layout {
  return requireNumeric(parse(text), "parseLayout");
}

/** Reads from the left; each method consumes what it is named after. */
class Reader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  layout(): AnyLayout {
    const first = this.#take(/Sw?</y) === undefined ? this.#affine() : this.#swizzle();
    if (this.#take(/o\b/y) === undefined) return first instanceof Swizzle ? this.#fail('"o"') : first;
    const offset = this.#integer();
    if (this.#take(/o\b/y) === undefined) this.#fail('"o"');
    const a = first instanceof Swizzle ? first : requireNumeric(first, "A composed layout");
    return new ComposedLayout(a, offset, requireOffsets(this.layout(), "A composed layout"));
  }

  end(): void {
    if (this.#take(/$/y) === undefined) this.#fail("the end");
  }

  #swizzle(): Swizzle {
    const bits = this.#integer();
    this.#expect(",");
    const base = this.#integer();
    this.#expect(",");
    const shift = this.#integer();
    this.#expect(">");
    return new Swizzle(bits, base, shift);
  }

  #affine(): Layout<StrideLeaf> {
    const shape = this.#tuple();
    if (leaves(shape).some((extent) => typeof extent !== "number")) this.#fail("a shape of numbers before this");
    this.#expect(":");
    return new Layout(mapLeaves(shape, Number) as IntTuple, this.#tuple());
  }

  #tuple(): Nested<StrideLeaf> {
    if (this.#take(/\(/y) === undefined) return this.#leaf();
    const modes: Nested<StrideLeaf>[] = [];
    if (this.#take(/\)/y) !== undefined) return modes;
    do modes.push(this.#tuple());
    while (this.#take(/,/y) !== undefined);
    if (this.#take(/\)/y) === undefined) this.#fail('"," or ")"');
    return modes;
  }

  #leaf(): StrideLeaf {
    const value = this.#integer();
    const path: number[] = [];
    while (this.#take(/@/y) !== undefined) path.unshift(this.#integer());
    return path.length ? new ScaledBasis(value, path) : value;
  }

  #integer(): number {
    const digits = this.#take(/_?(-?\d+)/y) ?? this.#fail("a number");
    return Number(digits.replace("_", ""));
  }

  #expect(what: string): void {
    if (this.#take(new RegExp(what, "y")) === undefined) this.#fail(JSON.stringify(what));
  }

  /** What the pattern matches here, after spaces; undefined, and nothing consumed, when it doesn't. */
  #take(pattern: RegExp): string | undefined {
    const spaces = /\s*/y;
    spaces.lastIndex = this.#at;
    spaces.exec(this.#text);
    pattern.lastIndex = spaces.lastIndex;
    const match = pattern.exec(this.#text);
    if (match) this.#at = pattern.lastIndex;
    return match?.[0];
  }

  #fail(expected: string): never {
    const rest = this.#text.slice(this.#at).trim();
    const where = rest ? JSON.stringify(rest) : "its end";
    throw new LayoutError(`${JSON.stringify(this.#text)} is no layout: expected ${expected} at ${where}`);
  }
}
