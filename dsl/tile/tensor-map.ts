/** TMA: tensors seen in boxes, by a map that the host makes at launch. */
import { checkReceivers, describe, describeAll, requireOptions } from "../check.ts";
import type { DTypeName } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { type Index, toIndex } from "../expr.ts";
import type { CopyHint, SwizzleBytes, TensorMap } from "../ir-tile.ts";
import { type Location, variableNameAt } from "../source.ts";
import type { Tensor } from "../tensor.ts";
import type { Trace } from "../trace.ts";
import type { Mbarrier } from "./barrier.ts";
import { hardwareSwizzle, type Tile } from "./tile.ts";

/** How TMA sees a tensor, made by t.tensorMap. */
export class TensorMapHandle<N extends DTypeName> {
  readonly map: TensorMap;
  readonly tensor: Tensor<N>;
  private readonly trace: Trace;

  constructor(trace: Trace, tensor: Tensor<N>, map: TensorMap) {
    this.trace = trace;
    this.tensor = tensor;
    this.map = map;
  }

  /** Of one box. */
  get bytes(): number {
    return this.map.box.reduce((count, extent) => count * extent, this.map.tensor.dtype.bytes);
  }

  /** @internal */
  copy(
    index: readonly Index[],
    to: Tile<N, "shared">,
    barrier: Mbarrier,
    slot: Index,
    cache: CopyHint,
    at: Location,
  ): void {
    const { memory } = to.tensor;
    this.trace.checkScope(`The tensor ${this.map.tensor.name}`, this.tensor);
    const bits = to.swizzle?.bits ?? 0;
    const swizzleBytes = bits > 0 ? 16 * 2 ** bits : 0;
    const count = this.map.box.reduce((product, extent) => product * extent, 1);
    if (memory.kind !== "shared" || to.size() !== count || swizzleBytes !== this.map.swizzleBytes) {
      throw new ShapeError(
        `A box [${this.map.box.join(", ")}] swizzled by ${this.map.swizzleBytes} bytes doesn't fit ${to}`,
        {
          at,
          related: [{ what: "the map was made", at: this.map.at }],
        },
      );
    }
    this.checkTarget(to, at);
    if (index.length !== this.map.box.length) {
      throw new ShapeError(`${this.map.tensor.name} takes ${this.map.box.length} coordinates, not ${index.length}`, {
        at,
      });
    }
    const coordinates = index.map((value) => toIndex(this.trace, value, "a tensor copy", at));
    // The swizzle is the instruction's: the address itself is plain.
    const toIndex_ = to.coordinates(to.steps(0), at);
    this.trace.emit({
      kind: "tensorCopy",
      to: memory,
      toIndex: toIndex_,
      map: this.map,
      index: coordinates,
      cache,
      ...barrier.slot(slot, at),
      at,
    });
  }

  /** TMA writes boxes row-major; where they may begin, the verifier checks. */
  private checkTarget(to: Tile<N, "shared">, at: Location): void {
    const { memory } = to.tensor;
    const { bytes } = to.dtype;
    const { box } = this.map;
    const fail = (what: string, hint: string): never => {
      throw new ShapeError(`TMA can't fill ${to}: ${what}`, {
        at,
        related: [
          { what: "the map was made", at: this.map.at },
          { what: `${memory.name} was made`, at: memory.at },
        ],
        hint,
      });
    };
    const columns = box.at(-1) ?? 1;
    // Numbered row by row, the box's elements lie one after the other.
    const elements = to.size();
    const rows = elements / columns;
    for (let i = 0; i < elements; i++) {
      const element = (i % columns) * rows + Math.floor(i / columns);
      if (box.length === 2 && to.steps(element)[0] !== i)
        fail("its rows are not one after the other", "(rows, columns):(columns, 1)");
    }
    const { swizzle } = to;
    if (swizzle && hardwareSwizzle(to) === undefined) {
      fail(`${swizzle} is not TMA's swizzle`, `Take Swizzle(${swizzle.bits}, ${4 - Math.log2(bytes)}, 3)`);
    }
  }

  static {
    checkReceivers(this);
  }
}

/** @throws ShapeError for boxes that TMA doesn't have; CUDA driver API, cuTensorMapEncodeTiled */
export function tensorMapOf<N extends DTypeName>(
  trace: Trace,
  tensor: Tensor<N>,
  box: readonly number[],
  options: { readonly swizzleBytes?: SwizzleBytes },
  at: Location,
): TensorMapHandle<N> {
  requireOptions(options, ["swizzleBytes"], at);
  const { swizzleBytes = 0 } = options;
  if (![0, 32, 64, 128].includes(swizzleBytes)) {
    throw new ShapeError(`swizzleBytes is 0, 32, 64 or 128, not ${describe(swizzleBytes)}`, { at });
  }
  const { memory, dtype } = tensor;
  const known = memory.kind === "tensor" && box.length === memory.shape.length && box.length <= 5;
  if (!known || !box.every((extent) => Number.isInteger(extent) && extent >= 1 && extent <= 256)) {
    throw new ShapeError(
      `A box of ${memory.name} has ${memory.shape.length} extents from 1 to 256, not ${describeAll(box)}`,
      { at },
    );
  }
  const innerBytes = (box.at(-1) ?? 0) * dtype.bytes;
  if (innerBytes % 16 !== 0 || (swizzleBytes > 0 && innerBytes > swizzleBytes)) {
    throw new ShapeError(
      `The rows of a box are a multiple of 16 bytes, at most the swizzle's ${swizzleBytes || "whatever"}; these have ${innerBytes}`,
      { at },
    );
  }
  const name = variableNameAt(at) ?? `${memory.name}_map`;
  const map: TensorMap = Object.freeze({
    kind: "tensorMap",
    name,
    tensor: memory,
    box: Object.freeze([...box]),
    swizzleBytes,
    at,
  });
  trace.tensorMaps.push(map);
  return new TensorMapHandle(trace, tensor, map);
}
