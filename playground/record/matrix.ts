/** Matrix instructions on many tiles: every mma atom, and wgmma of one 64 x 8 tile, over all kinds of data. */
import {
  bf16,
  decode,
  type DType,
  e4m3,
  e5m2,
  encode,
  f16,
  f32,
  frozen,
  HostTensor,
  input,
  type Kernel,
  kernel,
  type LaneCount,
  type MmaAtom,
  mmaAtoms,
  output,
  size,
  tiledMma,
  wgmmaAtom,
} from "../../dsl/index.ts";
import { valuesOf } from "../../dsl/atoms/mma.ts";
import { composition, crd2idx, type Layout, makeLayout, select, Swizzle } from "../../dsl/layout/index.ts";
import { seededRandom } from "../../kernels/index.ts";
import { type DataKind, dataKinds, type Operands, operandsOf } from "./data.ts";
import { bitsOf, type Exact, type Specimen, type Tensors, tensorOfBits } from "./specimen.ts";

/** An instruction, and a kernel of one block that runs it on each of T tiles: d = a * b + c. */
export interface Instruction {
  readonly atom: MmaAtom;
  readonly kernel: Kernel;
}

const tiles = size("T");

/** Lanes hold their values side by side, as the atom numbers them. */
function mmaInstruction(atom: MmaAtom): Instruction {
  const counts = (["A", "B", "C"] as const).map((operand) => valuesOf(atom, operand));
  const [na, nb, nc] = counts as [LaneCount, LaneCount, LaneCount];
  const aligned = { alignBytes: 16 };
  const params = {
    a: frozen(atom.a, [tiles, 32 * na], aligned),
    b: frozen(atom.b, [tiles, 32 * nb], { alignBytes: Math.min(16, nb * atom.b.bytes) }),
    c: frozen(atom.c, [tiles, 32 * nc], aligned),
    d: output(atom.c, [tiles, 32 * nc], aligned),
  };
  const traced = kernel({ name: `${atom.name}_tiles`, grid: tiles, block: 32, params }, (t, { a, b, c }) => {
    const { d } = t.pdl.wait();
    const load = (from: typeof a, lanes: LaneCount) => from.loadVec([t.block.x, t.lane.mul(lanes)], lanes);
    const [x, y] = [load(a, na), load(b, nb)];
    d.storeVec([t.block.x, t.lane.mul(nc)], t.mmaVectors(atom, x, y, c.loadVec([t.block.x, t.lane.mul(nc)], nc)));
  });
  return { atom, kernel: traced as unknown as Kernel };
}

type WgmmaInput = "f16" | "bf16" | "e4m3" | "e5m2";

/** Tiles lie row by row; rows of a and b are 32 bytes long, in shared memory swizzled. */
function wgmmaInstruction(typeA: DType<WgmmaInput>, typeB: DType<WgmmaInput>): Instruction {
  // To tsc all four are alike.
  const [ofA, ofB] = [typeA as unknown as DType<"bf16">, typeB as unknown as DType<"bf16">];
  const atom = wgmmaAtom(8, ofA, ofB);
  const { M, N, K } = atom;
  const params = {
    a: frozen(ofA, [tiles, M, K]),
    b: frozen(ofB, [tiles, N, K]),
    c: input(atom.c, [tiles, M, N]),
    d: output(atom.c, [tiles, M, N]),
  };
  const traced = kernel({ name: `${atom.name}_tiles`, grid: tiles, block: 128, params }, (t, { a, b }) => {
    const { c, d } = t.pdl.wait();
    const swizzle = new Swizzle(1, 4 - Math.log2(ofA.bytes), 3);
    const shared = (dtype: DType<"bf16">, rows: number) =>
      t.sharedTile(dtype, composition(swizzle, makeLayout([rows, K], [K, 1])), { alignBytes: 256 });
    const [sA, sB] = [shared(ofA, M), shared(ofB, N)];
    const rows = (count: number) => makeLayout([count, K], [1, count]);
    for (let k = 0; k < K; k++) {
      t.when(t.thread.lt(M), () => sA.partition(rows(M), t.thread).store(k, a.load([t.block.x, t.thread, k])));
      t.when(t.thread.lt(N), () => sB.partition(rows(N), t.thread).store(k, b.load([t.block.x, t.thread, k])));
    }
    t.asyncFence();
    t.barrier();
    const mma = tiledMma(atom).slice(t.thread);
    const gC = mma.partitionC(c.tile([1, M, N], [t.block.x, 0, 0]).map((layout) => select(layout, 1, 2)));
    const gD = mma.partitionC(d.tile([1, M, N], [t.block.x, 0, 0]).map((layout) => select(layout, 1, 2)));
    const rC = t.fragment(gC);
    t.copy(gC, rC);
    t.wgmmaFence();
    t.wgmma(rC, sA, sB);
    t.wgmmaCommit();
    t.wgmmaWait(0);
    t.copy(rC, gD);
  });
  return { atom, kernel: traced as unknown as Kernel };
}

/** All of them. */
export function instructions(): readonly Instruction[] {
  const mmas = Object.values(mmaAtoms).flatMap((atoms) => Object.values<MmaAtom>(atoms));
  const pairs = [
    ...([f16, bf16, e4m3, e5m2] as const).map((dtype) => [dtype, dtype] as const),
    ...([
      [e4m3, e5m2],
      [e5m2, e4m3],
    ] as const),
  ];
  return [...mmas.map(mmaInstruction), ...pairs.map(([a, b]) => wgmmaInstruction(a, b))];
}

/** Kinds of data that say something of an instruction. Sums of i8 are exact whatever they are. */
export function kindsFor({ atom }: Instruction): readonly DataKind[] {
  return atom.a.kind === "signed" ? ["integers"] : dataKinds;
}

/** `count` tiles of one kind. */
export function matrixSpecimen({ atom, kernel }: Instruction, kind: DataKind, count: number, seed: number): Specimen {
  const places = placesOf(atom);
  const args = (): Tensors => {
    const random = seededRandom(seed);
    const data: Operands[] = Array.from({ length: count }, () => operandsOf(atom, kind, random));
    const tensor = (name: "a" | "b" | "c") =>
      tensorOfBits(
        atom[name],
        [count, ...shapesOf(atom)[name]],
        data.flatMap((operands) => places[name].map((place) => operands[name][place] ?? 0)),
      );
    const [a, b, c] = [tensor("a"), tensor("b"), tensor("c")];
    return { a, b, c, d: HostTensor.filled(atom.c, c.shape, 0xff) };
  };
  // Of wgmma in fp8 13 bits remain, for which O2 has no bound. WGSL may flush, and overflow on the way.
  const bounded = (kind === "normal" || kind === "cancellation") && !(atom.kind === "wgmma" && atom.a.bytes === 1);
  return {
    name: `${atom.name} ${kind}`,
    kernel,
    args,
    wgsl: kind === "integers" ? "bits" : bounded ? "interval" : "nothing",
    exact: (given) => exact(atom, places, given),
    explain: (given, element) => explain(atom, places, given, element),
  };
}

/** Tiles of each instruction and kind that are recorded. */
const recordedTiles = { mma: 64, wgmma: 16 } as const;

export function matrixSpecimens(): readonly Specimen[] {
  return instructions().flatMap((instruction) =>
    kindsFor(instruction).map((kind) =>
      matrixSpecimen(instruction, kind, recordedTiles[instruction.atom.kind], 1 + dataKinds.indexOf(kind)),
    ),
  );
}

type Places = Readonly<Record<"a" | "b" | "c", readonly number[]>>;

/** Of each element in memory its number in a tile, row by row. */
function placesOf(atom: MmaAtom): Places {
  const { M, N, K, layoutA, layoutB, layoutC } = atom;
  const inOrder = (count: number) => Array.from({ length: count }, (_, i) => i);
  if (atom.kind === "wgmma") return { a: inOrder(M * K), b: inOrder(N * K), c: inOrder(M * N) };
  const ofLanes = (layout: Layout, rows: number, columns: number) =>
    inOrder(rows * columns).map((i) => {
      const values = (rows * columns) / 32;
      const place = crd2idx([Math.floor(i / values), i % values], layout);
      return (place % rows) * columns + Math.floor(place / rows);
    });
  return { a: ofLanes(layoutA, M, K), b: ofLanes(layoutB, N, K), c: ofLanes(layoutC, M, N) };
}

/** Of one tile of each tensor. */
function shapesOf({ kind, M, N, K }: MmaAtom): Readonly<Record<"a" | "b" | "c", readonly number[]>> {
  return kind === "mma" ? { a: [M * K], b: [N * K], c: [M * N] } : { a: [M, K], b: [N, K], c: [M, N] };
}

/** The row of a, the row of b and the element of c that make one element of d, in bits. */
function termsOf({ M, N, K }: MmaAtom, places: Places, { a, b, c }: Tensors, element: number) {
  if (!a || !b || !c) throw new RangeError("a tile has a, b and c");
  const tile = Math.floor(element / (M * N));
  const place = places.c[element % (M * N)] ?? 0;
  const row = (tensor: HostTensor, of: readonly number[], rows: number, index: number): readonly number[] => {
    const bits = bitsOf(tensor);
    const found = new Array<number>(K).fill(0);
    of.forEach((at, i) => {
      if (Math.floor(at / K) === index) found[at % K] = bits[tile * rows * K + i] ?? 0;
    });
    return found;
  };
  return {
    a: row(a, places.a, M, Math.floor(place / N)),
    b: row(b, places.b, N, place % N),
    c: bitsOf(c)[element] ?? 0,
  };
}

function explain(atom: MmaAtom, places: Places, args: Tensors, element: number): string {
  const { a, b, c } = termsOf(atom, places, args, element);
  const hex = (dtype: DType) => (bits: number) => bits.toString(16).padStart(2 * dtype.bytes, "0");
  return `a ${a.map(hex(atom.a)).join(" ")}; b ${b.map(hex(atom.b)).join(" ")}; c ${hex(atom.c)(c)}`;
}

function exact(atom: MmaAtom, places: Places, args: Tensors): Exact {
  const { M, N, K } = atom;
  const [a, b, c] = (["a", "b", "c"] as const).map((name) => {
    const values = args[name]?.values() ?? new Float64Array();
    const tile = places[name].length;
    const sorted = new Float64Array(values.length);
    values.forEach((value, i) => (sorted[i - (i % tile) + (places[name][i % tile] ?? 0)] = value));
    return sorted;
  }) as [Float64Array, Float64Array, Float64Array];
  const [values, magnitudes] = [new Float64Array(c.length), new Float64Array(c.length)];
  for (let i = 0; i < c.length; i++) {
    const [tile, place] = [Math.floor(i / (M * N)), places.c[i % (M * N)] ?? 0];
    const [row, column] = [(tile * M + Math.floor(place / N)) * K, (tile * N + (place % N)) * K];
    const start = c[tile * M * N + place] ?? 0;
    let [sum, magnitude] = [start, Math.abs(start)];
    for (let k = 0; k < K; k++) {
      const product = cut(atom, a[row + k] ?? 0) * cut(atom, b[column + k] ?? 0);
      sum += product;
      magnitude += Math.abs(product);
    }
    [values[i], magnitudes[i]] = [sum, magnitude];
  }
  return { output: "d", values, magnitudes, terms: K + 1, partials: 1 };
}

/** tf32 takes part without the low 13 bits. */
function cut({ tf32 }: MmaAtom, value: number): number {
  return tf32 ? decode(f32, (encode(f32, value, "nosat") & 0xffffe000) >>> 0) : value;
}
