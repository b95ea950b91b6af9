/**
 * Pictures of layouts for a terminal. A cell shows the offset of its element; in the picture of a thread-value layout, which
 * thread holds the element of the tile, and as which of its values.
 */
import { crd2idx } from "./coordinate.ts";
import { LayoutError } from "./errors.ts";
import { type IntTuple, product } from "./int-tuple.ts";
import { type AnyLayout, cosize, rank, shape, size } from "./layout.ts";
import { append } from "./modes.ts";
import { isTuple, print } from "./tuple.ts";

export interface ShowOptions {
  /** Takes the layout as (thread, value) -> number of the element in a column-major tile of this shape. */
  readonly tile?: readonly [rows: number, columns: number];
}

export interface Cell {
  readonly lines: readonly string[];
  /** Of the offset, or of the thread; undefined for an element that no thread holds. */
  readonly colour: number | undefined;
}

/** One table: rows of cells. */
export interface Picture {
  /** Which slice of a layout of more than two modes. */
  readonly caption: string;
  readonly rows: readonly (readonly Cell[])[];
}

const maxCells = 2 ** 16;

/**
 * A table of a layout's offsets, mode 0 downwards and mode 1 to the right; further modes in tables of their own. With a tile,
 * the threads and values of a thread-value layout.
 * ```ts
 * show(parseLayout("(2,3):(3,1)")).split("\n")[3] // 0 | 0 | 1 | 2 |
 * show(parseLayout("((2,2),2):((2,1),4)"), { tile: [2, 4] }).split("\n")[4] // 0 | T0 V0 | T1 V0 | T0 V1 | T1 V1 |
 * ```
 */
export function show(layout: AnyLayout, options: ShowOptions = {}): string {
  const tables = picturesOf(layout, options).map(({ caption, rows }) => {
    const texts = rows.map((row) => row.map((cell) => cell.lines.join(" ")));
    const width = Math.max(...texts.flat().map((text) => text.length), String(texts[0]?.length ?? 0).length);
    const left = String(rows.length - 1).length;
    const rule = `${" ".repeat(left)} +${`-${"-".repeat(width)}-+`.repeat(texts[0]?.length ?? 0)}`;
    const line = (head: string, cells: readonly string[], bar: string) =>
      `${head.padStart(left)} ${bar}${cells.map((cell) => ` ${cell.padStart(width)} ${bar}`).join("")}`.trimEnd();
    const header = line(
      "",
      (texts[0] ?? []).map((_, j) => String(j)),
      " ",
    );
    const body = texts.flatMap((row, i) => [line(String(i), row, "|"), rule]);
    return [...(caption ? [caption] : []), header, rule, ...body].join("\n");
  });
  return [String(layout), ...tables].join("\n");
}

/** What to draw. @throws LayoutError when it is too large, or the tile too small for the layout */
export function picturesOf(layout: AnyLayout, { tile }: ShowOptions): readonly Picture[] {
  const count = tile ? product(tile) : size(layout);
  if (count > maxCells) throw new LayoutError(`${layout} has ${count} cells; a picture has at most ${maxCells}`);
  return tile ? [threadPicture(layout, tile)] : offsetPictures(layout);
}

function offsetPictures(layout: AnyLayout): readonly Picture[] {
  const flat = append(layout, Math.max(2, rank(layout)));
  const [rows, columns] = [size(flat, 0), size(flat, 1)];
  const others = Array.from({ length: rank(flat) - 2 }, (_, i) => size(flat, i + 2));
  return Array.from({ length: product(others) }, (_, number) => {
    let rest = number;
    const place = others.map((extent) => {
      const here = rest % extent;
      rest = Math.floor(rest / extent);
      return here;
    });
    return {
      caption: place.length ? `(_,_,${place.join(",")})` : "",
      rows: grid(rows, columns, (i, j) => offsetCell(crd2idx([i, j, ...place], flat))),
    };
  });
}

function offsetCell(offset: IntTuple): Cell {
  return { lines: [print(offset)], colour: isTuple(offset) ? undefined : offset };
}

function threadPicture(layout: AnyLayout, [rows, columns]: readonly [number, number]): Picture {
  if (rank(layout) !== 2 || cosize(layout) > rows * columns) {
    throw new LayoutError(
      `${layout} is no thread-value layout of a ${rows} x ${columns} tile`,
      "It maps (thread, value) to the number of an element in the tile, counted down the columns",
    );
  }
  const holders = new Map<number, { readonly thread: number; readonly value: number; readonly more: number }>();
  for (let value = 0; value < size(layout, 1); value++) {
    for (let thread = 0; thread < size(layout, 0); thread++) {
      const at = Number(crd2idx([thread, value], layout));
      const held = holders.get(at);
      holders.set(at, held ? { ...held, more: held.more + 1 } : { thread, value, more: 0 });
    }
  }
  return {
    caption: `${print(shape(layout, 0))} threads, ${print(shape(layout, 1))} values`,
    rows: grid(rows, columns, (i, j) => {
      const held = holders.get(i + j * rows);
      if (!held) return { lines: ["-"], colour: undefined };
      const others = held.more ? [`+${held.more}`] : [];
      return { lines: [`T${held.thread}`, `V${held.value}`, ...others], colour: held.thread };
    }),
  };
}

function grid(rows: number, columns: number, cell: (i: number, j: number) => Cell): Picture["rows"] {
  return Array.from({ length: rows }, (_, i) => Array.from({ length: columns }, (__, j) => cell(i, j)));
}
