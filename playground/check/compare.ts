/** Whether two backends computed the same: values, any NaN as good as another. */
import type { HostTensor } from "../../dsl/index.ts";
import { unravel } from "../../backends/simulator/findings.ts";

export interface Difference {
  readonly tensor: string;
  readonly index: readonly number[];
  readonly values: readonly [number, number];
  /** Elements of the tensor that differ. */
  readonly count: number;
  /** The largest distance, in steps from one number of the dtype to the next; infinite where one is a NaN. */
  readonly steps: number;
}

/** The tensors that differ, with the first element of each. */
export function differences(
  a: Readonly<Record<string, HostTensor>>,
  b: Readonly<Record<string, HostTensor>>,
): readonly Difference[] {
  return Object.entries(a).flatMap(([tensor, one]): readonly Difference[] => {
    const other = b[tensor];
    if (!other) return [];
    const [xs, ys] = [one.values(), other.values()];
    let [first, count, steps] = [-1, 0, 0];
    const [ranksA, ranksB] = [ranks(one), ranks(other)];
    xs.forEach((x, i) => {
      const y = ys[i] ?? NaN;
      if (x === y || (Number.isNaN(x) && Number.isNaN(y))) return;
      if (count++ === 0) first = i;
      const distance = Number.isNaN(x) || Number.isNaN(y) ? Infinity : Math.abs(ranksA(i) - ranksB(i));
      steps = Math.max(steps, distance);
    });
    const values = [xs[first] ?? NaN, ys[first] ?? NaN] as const;
    return count > 0 ? [{ tensor, index: unravel(first, one.shape), values, count, steps }] : [];
  });
}

/** The number of each element among all of its dtype, in order. */
function ranks({ dtype: { bytes, kind }, bytes: content }: HostTensor): (i: number) => number {
  const view = new DataView(content.buffer, content.byteOffset);
  const bitsOf = (i: number): number =>
    bytes === 4 ? view.getUint32(4 * i, true) : bytes === 2 ? view.getUint16(2 * i, true) : view.getUint8(i);
  const sign = 2 ** (8 * bytes - 1);
  return (i) => {
    const bits = bitsOf(i);
    if (kind === "float") return bits >= sign ? sign - bits : bits;
    return kind === "signed" && bits >= sign ? bits - 2 * sign : bits;
  };
}
