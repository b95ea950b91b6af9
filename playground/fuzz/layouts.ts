/** Layouts whose extents are powers of two, as TypeScript for programs. Such a layout says where each bit of a number goes. */
import type { Choices } from "./choices.ts";

export const range = (count: number, from = 0): readonly number[] => Array.from({ length: count }, (_, i) => from + i);

export function shuffled<T>(c: Choices, list: readonly T[]): readonly T[] {
  const rest = [...list];
  return list.map(() => rest.splice(c.below(rest.length), 1)).flat();
}

/** `((2,2),2):((1,8),4)`: each group of bits a mode, each bit an extent of 2 that steps over a power of two. */
export function layoutOfBits(groups: readonly (readonly number[])[]): string {
  const write = (of: (bit: number) => number, none: number): string =>
    groups.map((bits) => (bits.length > 1 ? `(${bits.map(of).join()})` : bits.map(of).join() || none)).join();
  return `parseLayout("(${write(() => 2, 1)}):(${write((bit) => 2 ** bit, 0)})")`;
}

/** 2^rows x 2^columns elements for 2^threads threads; an element's number counts along the rows' mode first. */
export interface Shape {
  readonly rows: number;
  readonly columns: number;
  readonly threads: number;
}

/** Which bits of an element's number the thread has, and which the value; `vector` of those are the lowest of the column. */
export interface ThreadValue {
  readonly threads: readonly number[];
  readonly values: readonly number[];
  readonly vector: number;
}

export function threadValue(c: Choices, { rows, columns, threads }: Shape): ThreadValue {
  const values = rows + columns - threads;
  const vector = c.below(Math.min(values, columns) + 1);
  const first = range(vector, rows);
  const others = range(rows + columns).filter((bit) => !first.includes(bit));
  const rest = shuffled(c, others);
  return { values: [...first, ...rest.slice(0, values - vector)], threads: rest.slice(values - vector), vector };
}

/** A thread's part of a tile. */
export const partOf = (tile: string, { threads, values }: ThreadValue): string =>
  `${tile}.partition(${layoutOfBits([threads, values])}, t.thread)`;

/** Rows one after the other, `pad` elements between them. */
export const rowMajor = (rows: number, columns: number, pad = 0): string =>
  `makeLayout([${rows}, ${columns}], [${columns + pad}, 1])`;

export const swizzled = (layout: string, bits: number, base: number, shift: number): string =>
  bits > 0 ? `composition(new Swizzle(${bits}, ${base}, ${shift}), ${layout})` : layout;
