/** Pictures of layouts as SVG, for documents and web pages. */
import type { AnyLayout } from "./layout.ts";
import { type Cell, type Picture, picturesOf, type ShowOptions } from "./show.ts";

const cellSize = 44;
const margin = 30;
const captionHeight = 26;

/** Eight hues that neighbours tell apart, for threads. */
const hues = [215, 130, 48, 0, 275, 175, 28, 320];

/**
 * The picture of `show` as a complete SVG document. Offsets are grey by their value modulo 8, as eight banks; cells of a
 * thread-value layout (with a tile) have a colour for each thread modulo 8.
 * ```ts
 * showSvg(parseLayout("(2,3):(3,1)")).includes(">5</text>") // true
 * showSvg(parseLayout("((2,2),2):((2,1),4)"), { tile: [2, 4] }).includes(">T3</tspan>") // true
 * ```
 */
export function showSvg(layout: AnyLayout, options: ShowOptions = {}): string {
  const pictures = picturesOf(layout, options);
  const columns = Math.max(...pictures.map(({ rows }) => rows[0]?.length ?? 0));
  let top = captionHeight;
  const parts = pictures.map((picture) => {
    const part = `<g transform="translate(${margin},${top})">\n${table(picture, options)}\n</g>`;
    top += captionHeight + margin + picture.rows.length * cellSize;
    return part;
  });
  const title = escaped(String(layout));
  const width = Math.max(2 * margin + columns * cellSize, 2 * margin + 7 * String(layout).length);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${top}" viewBox="0 0 ${width} ${top}" ` +
      `font-family="ui-monospace,Menlo,Consolas,monospace" font-size="12" text-anchor="middle">`,
    `<title>${title}</title>`,
    `<rect width="100%" height="100%" fill="white"/>`,
    text(margin, captionHeight - 8, title, `text-anchor="start" font-weight="bold"`),
    ...parts,
    "</svg>\n",
  ].join("\n");
}

function table({ caption, rows }: Picture, { tile }: ShowOptions): string {
  const y = caption ? captionHeight + margin - 10 : margin - 10;
  const center = (i: number) => (i + 0.5) * cellSize;
  const parts = [
    ...(caption ? [text(0, 16, escaped(caption), `text-anchor="start" fill="#555"`)] : []),
    ...(rows[0] ?? []).map((_, j) => text(center(j), y - 6, String(j), `fill="#555"`)),
    ...rows.map((_, i) => text(-margin / 2, y + center(i) + 4, String(i), `fill="#555"`)),
    ...rows.flatMap((row, i) => row.map((cell, j) => drawn(cell, j * cellSize, y + i * cellSize, tile !== undefined))),
  ];
  return parts.join("\n");
}

function drawn({ lines, colour }: Cell, x: number, y: number, threads: boolean): string {
  const fill = colour === undefined ? "#fff" : threads ? threadColour(colour) : grey(colour);
  const middle = x + cellSize / 2;
  const first = y + cellSize / 2 + 4 - (lines.length - 1) * 7;
  const label =
    lines.length === 1
      ? text(middle, first, escaped(lines[0] ?? ""))
      : `<text>${lines.map((line, i) => `<tspan x="${middle}" y="${first + i * 14}">${line}</tspan>`).join("")}</text>`;
  return `<rect x="${x}" y="${y}" width="${cellSize}" height="${cellSize}" fill="${fill}" stroke="#333"/>${label}`;
}

/** Of 16 in turn: eight hues, then the same paler. */
function threadColour(thread: number): string {
  return `hsl(${hues[thread % 8] ?? 0},85%,${Math.floor(thread / 8) % 2 ? 90 : 80}%)`;
}

/** Eight greys, those of neighbours far apart. */
function grey(offset: number): string {
  const bank = ((offset % 8) + 8) % 8;
  const place = (bank % 2) * 4 + (Math.floor(bank / 2) % 2) * 2 + Math.floor(bank / 4);
  return `hsl(0,0%,${100 - place * 6}%)`;
}

function text(x: number, y: number, content: string, attributes = ""): string {
  return `<text x="${x}" y="${y}"${attributes && ` ${attributes}`}>${content}</text>`;
}

function escaped(content: string): string {
  return content.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
