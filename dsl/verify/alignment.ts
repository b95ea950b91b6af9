/** Vector accesses, and boxes that TMA writes: their alignment is proved from facts about shapes and indices. */
import { AlignmentError, ShapeError } from "../errors.ts";
import { formatType, type KernelIR, type Value, walk } from "../ir.ts";
import { type Dim, gcd, maxOf, multipleOf, Size } from "../size.ts";
import { whereMade } from "../typing.ts";
import type { Access } from "./access.ts";
import type { FactsAnalysis } from "./facts.ts";

/** Row-major strides in elements. */
export function stridesOf(shape: readonly Dim[]): readonly StrideFacts[] {
  const strides: StrideFacts[] = [];
  let stride: StrideFacts = { multipleOf: 1, max: 1 };
  for (const dim of shape.toReversed()) {
    strides.unshift(stride);
    stride = { multipleOf: stride.multipleOf * multipleOf(dim), max: stride.max * maxOf(dim) };
  }
  return strides;
}

interface StrideFacts {
  readonly multipleOf: number;
  readonly max: number;
}

/** @throws AlignmentError naming the fact that is missing */
export function checkAlignment({ memory, index, type, at }: Access, facts: FactsAnalysis): void {
  const bytes = type.lanes * type.dtype.bytes;
  if (type.lanes === 1) return;
  const what = `A ${bytes}-byte access of ${formatType(type)} to ${memory.name}`;
  const declared = { what: `${memory.name} was declared`, at: memory.at };
  if (bytes > 16) {
    throw new ShapeError(`${what} is wider than the 16 bytes that one access moves`, {
      at,
      hint: `Use ${16 / type.dtype.bytes} lanes or fewer`,
    });
  }
  if (memory.alignBytes % bytes !== 0) {
    throw new AlignmentError(
      `${what} needs its first element aligned to ${bytes} bytes; only ${memory.alignBytes} are promised`,
      {
        at,
        related: [declared],
        hint: `Promise it: ${memory.kind === "tensor" ? memory.role : "shared"}(${memory.dtype.name}, [...], { alignBytes: ${bytes} })`,
      },
    );
  }
  const strides = stridesOf(memory.shape);
  for (const [axis, value] of index.entries()) {
    const stride = strides[axis] ?? { multipleOf: 1, max: 1 };
    const step = facts.of(value).multipleOf;
    if ((step * stride.multipleOf) % type.lanes === 0) continue;
    const last = axis === index.length - 1;
    // The stride is at fault where a row of whole vectors would do; otherwise the index is.
    if (!last && gcd(stride.multipleOf, type.lanes) < type.lanes) {
      const size = memory.shape.slice(axis + 1).find((dim) => dim instanceof Size);
      throw new AlignmentError(
        `${what} needs rows that are a multiple of ${bytes} bytes apart; index ${axis} steps over ` +
          `${memory.shape.slice(axis + 1).join(" * ")} elements of ${memory.dtype.bytes} bytes`,
        {
          at,
          related: [declared],
          hint: size
            ? promise(size, type.lanes)
            : `Use ${gcd(stride.multipleOf, type.lanes)} lanes at a time, or pad the rows`,
        },
      );
    }
    throw new AlignmentError(
      `${what} needs index ${axis} to be a multiple of ${type.lanes}; it is only known to be a multiple of ${step}`,
      {
        at,
        related: whereMade("the index", value),
        hint: hintFor(value, type.lanes),
      },
    );
  }
}

function hintFor(index: Value, lanes: number): string {
  if (index.op.kind === "size") return promise(index.op.size, lanes);
  const offset = offsetOf(index);
  if (offset % lanes === 0) return `Index by vectors: i.mul(${lanes})`;
  return `The offset ${offset} is no multiple of ${lanes}: begin at one that is, or access single elements from there on`;
}

/** The constants that a sum has. */
function offsetOf({ op }: Value): number {
  if (op.kind === "const") return op.value;
  if (op.kind !== "binary" || (op.fn !== "add" && op.fn !== "sub")) return 0;
  return offsetOf(op.a) + (op.fn === "add" ? 1 : -1) * offsetOf(op.b);
}

/**
 * TMA swizzles by the address itself: the memory, and each box in it, begins at a multiple of the pattern.
 *
 * Source: PTX ISA, "Swizzling modes".
 * @throws AlignmentError
 */
export function checkBoxes(ir: KernelIR, facts: FactsAnalysis): void {
  walk(ir.body, (stmt) => {
    if (stmt.kind !== "tensorCopy") return;
    const { to, toIndex, map, at } = stmt;
    const needed = Math.max(128, 8 * map.swizzleBytes);
    const fail = (what: string, hint: string): never => {
      throw new AlignmentError(`TMA can't fill ${to.name}: ${what}`, {
        at,
        related: [
          { what: "the map was made", at: map.at },
          { what: `${to.name} was made`, at: to.at },
        ],
        hint,
      });
    };
    if (to.alignBytes % needed !== 0) {
      fail(`it is aligned to ${to.alignBytes} bytes only`, `Promise it: { alignBytes: ${needed} }`);
    }
    const strides = stridesOf(to.shape);
    for (const [axis, value] of toIndex.entries()) {
      const step = facts.of(value).multipleOf * (strides[axis]?.multipleOf ?? 1) * to.dtype.bytes;
      if (step % needed !== 0) {
        fail(`the box begins at a multiple of ${step} bytes only`, `Make stages a multiple of ${needed} bytes`);
      }
    }
  });
}

const promise = (size: Size, multiple: number): string => `Promise it: size("${size}", { multipleOf: ${multiple} })`;
