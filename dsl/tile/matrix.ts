/** Matrix instructions over whole fragments and tiles: ldmatrix, mma, and wgmma with its descriptors of shared memory. */
import type { MmaAtom } from "../atoms/mma.ts";
import { copyAtoms } from "../atoms/copy.ts";
import type { DTypeName } from "../dtype.ts";
import { bool, i32 } from "../dtype.ts";
import { ShapeError, DTypeError } from "../errors.ts";
import { type Expr, toIndex, use, wrap } from "../expr.ts";
import type { BinaryFn, Value } from "../ir.ts";
import type { MatrixOperand } from "../ir-tile.ts";
import { crd2idx, get, size, zippedDivide } from "../layout/index.ts";
import type { Location } from "../source.ts";
import type { Trace } from "../trace.ts";
import { CopyPlan } from "./copy.ts";
import type { Fragment } from "./fragment.ts";
import type { Partition } from "./tiled-mma.ts";
import { hardwareSwizzle, type Tile } from "./tile.ts";

/**
 * Word w of a fragment in lanes 4 i .. 4 i + 3 is row i of an 8x8 matrix: 16 contiguous bytes. Lane l gives the address of row
 * l % 8 of matrix l / 8, which is where lane 4 (l % 8) has its word l / 8.
 */
export function loadMatrix<N extends DTypeName, R extends "A" | "B", M extends MmaAtom>(
  trace: Trace,
  from: Partition<N, "shared", R, M>,
  to: Fragment<N, R, M>,
  at: Location,
): CopyPlan {
  const { memory } = from.tensor;
  if (memory.kind !== "shared") throw new ShapeError("ldmatrix reads shared memory", { at });
  const perWord = 4 / from.dtype.bytes;
  const { whole, atom } = from;
  const [lanes, values] = [get(whole.layout, 0, 0), get(whole.layout, 1)];
  const words = (from.size(0) / perWord) as 1 | 2 | 4;
  const stepOf = (lane: number, value: number): number => {
    const [a, b] = [crd2idx(lane, lanes), crd2idx(value, values)];
    return (typeof a === "number" ? a : 0) + (typeof b === "number" ? b : 0);
  };
  for (let word = 0; word < words; word++) {
    for (let lane = 0; lane < 32; lane++) {
      for (let i = 0; i < perWord; i++) {
        const expected = stepOf(lane - (lane % 4), word * perWord) + (lane % 4) * perWord + i;
        if (stepOf(lane, word * perWord + i) === expected) continue;
        throw new ShapeError(`ldmatrix needs rows of 16 contiguous bytes; ${whole.layout} scatters them`, {
          at,
          related: [{ what: "the partition was made", at: from.at }],
          hint: "Keep K contiguous in shared memory, and don't permute it; or copy with t.copy",
        });
      }
    }
  }
  if (to.lanes !== from.size(0)) {
    throw new ShapeError(`ldmatrix fills a register of ${from.size(0)} elements for each instruction, not ${to}`, {
      at,
      related: [{ what: "the fragment was made", at: to.at }],
      hint: "Make the fragment by t.matrixFragment(partition)",
    });
  }
  // The lane whose address this lane gives, and that lane's word.
  const thread = toIndex(trace, from.thread, "a partition", at);
  const binary = (fn: BinaryFn, a: Value, b: number | Value): Value =>
    trace.let({ kind: "binary", fn, a, b: typeof b === "number" ? trace.constant(i32, b, at) : b }, at);
  const oneWarp = trace.facts.of(thread).max < 32;
  const lane = oneWarp ? thread : binary("and", thread, 31);
  const helped = binary("mul", binary("and", lane, 7), 4);
  const other = oneWarp ? helped : binary("add", binary("mul", binary("div", thread, 32), 32), helped);
  const word = words === 1 ? trace.constant(i32, 0, at) : binary("and", binary("shr", lane, 3), words - 1);
  const origin = whole.moved([get(whole.layout, 0)], [wrap(trace, other)], at);
  const rowOrigin = whole
    .with(whole.layout, at, origin)
    .moved([get(values, 0)], [wrap(trace, binary("mul", word, perWord))], at);
  const rows = whole.with(values, at, rowOrigin);
  let count = 0;
  for (let k = 0; k < to.size(2); k++) {
    for (let m = 0; m < to.size(1); m++) {
      const steps = from.steps([0, m, k]);
      const index = rows.indexAt(steps, at);
      const loaded = trace.let({ kind: "ldmatrix", memory, index, matrices: words, transposed: false }, at);
      count++;
      to.writeRegister(to.offset([0, m, k]) / to.lanes, loaded, at);
    }
  }
  const name = ({ 1: "x1", 2: "x2", 4: "x4" } as const)[words];
  return new CopyPlan(`${from} -> ${to}`, copyAtoms.ldmatrix[name], words * 4, count, [
    `${atom.name} has ${words} words`,
  ]);
}

/** accumulator += a * b, instruction by instruction. */
export function multiply(trace: Trace, accumulator: Fragment, a: Fragment, b: Fragment, at: Location): void {
  const { atom } = accumulator;
  const [m, n, k] = [a.size(1), b.size(1), a.size(2)];
  if (!atom || a.atom !== atom || b.atom !== atom) {
    throw new ShapeError("The three fragments belong to different matrix instructions", { at });
  }
  for (const [fragment, { name }] of [[a, atom.a] as const, [b, atom.b] as const]) {
    if (fragment.dtype.name === name) continue;
    throw new DTypeError(`${atom.name} takes ${name} as ${fragment.role}, not ${fragment.dtype.name}`, {
      at,
      related: [{ what: `the fragment ${fragment.register.name} was made`, at: fragment.at }],
      hint: `Convert it: ${fragment.register.name}.map((x) => x.to(${name}))`,
    });
  }
  if (accumulator.size(1) !== m || accumulator.size(2) !== n || b.size(2) !== k) {
    throw new ShapeError(`${accumulator.layout} += ${a.layout} * ${b.layout}: M, N or K differ`, {
      at,
      related: [accumulator, a, b].map((fragment) => ({
        what: `the fragment ${fragment.register.name} was made`,
        at: fragment.at,
      })),
    });
  }
  for (let k_ = 0; k_ < k; k_++) {
    const columns = Array.from({ length: n }, (_, n_) => b.vector(offsets(b, n_, k_), at));
    for (let m_ = 0; m_ < m; m_++) {
      const row = a.vector(offsets(a, m_, k_), at);
      for (const [n_, column] of columns.entries()) {
        const register = Math.floor(accumulator.offset([0, m_, n_]) / accumulator.lanes);
        const c = accumulator.readRegister(register, at);
        accumulator.writeRegister(register, trace.let({ kind: "mma", atom, a: row, b: column, c }, at), at);
      }
    }
  }
}

/** Where in a fragment the values of one instruction are. */
function offsets(fragment: Fragment, row: number, step: number): readonly number[] {
  return Array.from({ length: fragment.size(0) }, (_, value) => fragment.offset([value, row, step]));
}

/** accumulator += a * b from shared memory, instruction by instruction. */
export function multiplyShared(
  trace: Trace,
  accumulator: Fragment,
  a: Tile<DTypeName, "shared">,
  b: Tile<DTypeName, "shared">,
  given: Expr<"bool"> | boolean,
  at: Location,
): void {
  const { atom } = accumulator;
  if (!atom || atom.kind !== "wgmma") throw new ShapeError("The accumulator is none of a wgmma", { at });
  const [m, n, k] = [size(a.layout, 0) / atom.M, size(b.layout, 0) / atom.N, size(a.layout, 1) / atom.K];
  const perTile = (atom.M * atom.N) / 128;
  const fits =
    [m, n, k].every(Number.isInteger) &&
    size(b.layout, 1) === size(a.layout, 1) &&
    accumulator.size() === m * n * perTile;
  if (!fits) {
    throw new ShapeError(`${accumulator.layout} += ${a.layout} * ${b.layout}: no whole number of ${atom.name}`, {
      at,
      related: [{ what: "the accumulator was made", at: accumulator.at }],
    });
  }
  const first =
    typeof given === "boolean" ? trace.constant(bool, Number(given), at) : use(trace, given, "accumulate", at);
  for (let k_ = 0; k_ < k; k_++) {
    const accumulate = k_ === 0 ? first : trace.constant(bool, 1, at);
    for (let n_ = 0; n_ < n; n_++) {
      const right: MatrixOperand = matrixOperand(b, [atom.N, atom.K], [n_, k_], at);
      for (let m_ = 0; m_ < m; m_++) {
        const left = matrixOperand(a, [atom.M, atom.K], [m_, k_], at);
        const firstRegister = (n_ * m + m_) * perTile;
        const { register } = accumulator;
        trace.emit({
          kind: "wgmma",
          atom,
          accumulator: register,
          first: firstRegister,
          a: left,
          b: right,
          accumulate,
          at,
        });
      }
    }
  }
}

/** The descriptor of sub-tile `coordinate` of `shape` of a K-major tile. @throws ShapeError for layouts that wgmma can't read */
function matrixOperand(
  tile: Tile<DTypeName, "shared">,
  shape: readonly [rows: number, k: number],
  coordinate: readonly [number, number],
  at: Location,
): MatrixOperand {
  const { memory } = tile.tensor;
  if (memory.kind !== "shared") throw new ShapeError("wgmma reads shared memory", { at });
  const divided = zippedDivide(tile.layout, shape);
  const part = get(divided, 0);
  const bytes = tile.dtype.bytes;
  const at2 = (row: number, k: number): number => {
    const offset = crd2idx([row, k], part);
    return (typeof offset === "number" ? offset : 0) * bytes;
  };
  const known = hardwareSwizzle(tile);
  const swizzleBytes = known ?? 0;
  const perUnit = 16 / bytes;
  const rowBytes = swizzleBytes || 16;
  const [strideBytes, leadingBytes] = [shape[0] > 8 ? at2(8, 0) : 0, swizzleBytes ? 0 : at2(0, perUnit)];
  const fits = (): boolean => {
    if (known === undefined) return false;
    for (let row = 0; row < shape[0]; row++) {
      for (let k = 0; k < shape[1]; k++) {
        const within = swizzleBytes ? k * bytes : Math.floor(k / perUnit) * leadingBytes + (k % perUnit) * bytes;
        if (at2(row, k) !== Math.floor(row / 8) * strideBytes + (row % 8) * rowBytes + within) return false;
      }
    }
    return true;
  };
  if (!fits()) {
    throw new ShapeError(`wgmma can't read ${tile}: its rows are ${rowBytes} bytes apart, 8 of them make a group`, {
      at,
      related: [{ what: "the tile was made", at: tile.at }],
      hint: "Lay it out K-major: Sw<3,4,3> in bytes over (rows,64):(64,1) of 2-byte elements, or 128 of 1 byte",
    });
  }
  const steps = crd2idx(coordinate as readonly number[], get(divided, 1));
  // The swizzle is the descriptor's: the address itself is plain.
  const index = tile.coordinates([typeof steps === "number" ? steps : 0], at);
  return { memory, index, swizzleBytes, strideBytes, leadingBytes };
}
