/**
 * A roofline of bandwidth: each cell by the bytes that it must move, and by how many of them it moves in a second. Above are
 * the two roofs: what memory delivers, and what is left of that when a launch costs what an empty one does.
 */
import type { Cell } from "./measure.ts";
import type { Run } from "./report.ts";

const [width, height] = [860, 520];
const frame = { left: 70, right: 20, top: 40, bottom: 50 } as const;

interface Scale {
  readonly low: number;
  readonly high: number;
  place(value: number): number;
}

/** Logarithmic, over whole decades. */
function scale(values: readonly number[], from: number, to: number): Scale {
  const low = 10 ** Math.floor(Math.log10(Math.min(...values)));
  const high = 10 ** Math.ceil(Math.log10(Math.max(...values)));
  const share = (value: number): number => Math.log(value / low) / Math.log(high / low);
  return { low, high, place: (value) => from + (to - from) * share(value) };
}

export function roofline({ cells, limits, device, date }: Run): string {
  const rate = (bytes: number, us: number): number => bytes / us / 1000; // GB/s
  const roof = (bytes: number): number => rate(bytes, Math.max(bytes / limits.streamBytesPerUs, limits.emptyUs));
  const series = [
    { name: "Tegula", color: "#c0392b", usOf: ({ ours }: Cell) => ours.median },
    { name: "cuBLASLt, best of 8", color: "#7f8c8d", usOf: ({ cublasBest }: Cell) => cublasBest?.median },
  ] as const;
  const points = series.flatMap(({ color, usOf }) =>
    cells.flatMap((cell) => {
      const us = usOf(cell);
      return us === undefined
        ? []
        : [{ color, bytes: cell.bytes, rate: rate(cell.bytes, us), title: titleOf(cell, us) }];
    }),
  );
  const x = scale(
    points.map(({ bytes }) => bytes),
    frame.left,
    width - frame.right,
  );
  const y = scale([...points.map((point) => point.rate), roof(x.high)], height - frame.bottom, frame.top);
  const knee = limits.streamBytesPerUs * limits.emptyUs;
  const path = [x.low, knee, x.high]
    .map((bytes) => `${x.place(bytes)},${y.place(Math.max(roof(bytes), y.low))}`)
    .join(" ");
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${width}" height="${height}" fill="white"/>`,
    `<text x="${frame.left}" y="22" font-size="14">Bandwidth reached, by bytes moved: ${escape(device)}, ${escape(date)}</text>`,
    ...decades(x).map((value) => vertical(x.place(value), bytesText(value))),
    ...decades(y).map((value) => horizontal(y.place(value), `${value} GB/s`)),
    `<polyline points="${path}" fill="none" stroke="black" stroke-width="1.5"/>`,
    `<text x="${width - frame.right}" y="${y.place(roof(x.high)) - 6}" text-anchor="end">stream read ${roof(x.high).toFixed(0)} GB/s</text>`,
    ...points.map(
      (point) =>
        `<circle cx="${x.place(point.bytes).toFixed(1)}" cy="${y.place(point.rate).toFixed(1)}" r="3" fill="${point.color}" fill-opacity="0.7"><title>${escape(point.title)}</title></circle>`,
    ),
    ...series.map(
      ({ name, color }, i) =>
        `<g transform="translate(${frame.left + 16}, ${frame.top + 14 + 18 * i})"><circle r="4" fill="${color}"/><text x="10" y="4">${name}</text></g>`,
    ),
    "</svg>\n",
  ].join("\n");
}

function titleOf({ M, N, K, dtype }: Cell, us: number): string {
  return `${M} x ${N} x ${K} ${dtype}: ${us.toFixed(2)} us`;
}

const decades = ({ low, high }: Scale): readonly number[] =>
  Array.from({ length: Math.round(Math.log10(high / low)) + 1 }, (_, i) => low * 10 ** i);

const vertical = (x: number, text: string): string =>
  `<line x1="${x}" y1="${frame.top}" x2="${x}" y2="${height - frame.bottom}" stroke="#ddd"/>` +
  `<text x="${x}" y="${height - frame.bottom + 18}" text-anchor="middle">${text}</text>`;

const horizontal = (y: number, text: string): string =>
  `<line x1="${frame.left}" y1="${y}" x2="${width - frame.right}" y2="${y}" stroke="#ddd"/>` +
  `<text x="${frame.left - 6}" y="${y + 4}" text-anchor="end">${text}</text>`;

const bytesText = (bytes: number): string => (bytes >= 1e6 ? `${bytes / 1e6} MB` : `${bytes / 1e3} kB`);

const escape = (text: string): string => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
