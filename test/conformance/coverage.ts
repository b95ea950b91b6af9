/**
 * What of the IR conformance kernels must have: every kind of statement and operation, and of most every variant that typing
 * allows. Each belongs to one file of tests. A new kind is an error of tsc here until it has a file, and then a failing test
 * until a kernel of that file has it.
 */
import { mmaAtoms } from "../../dsl/atoms/mma.ts";
import { type DType, dtypes, type KernelIR } from "../../dsl/index.ts";
import {
  type AtomicFn,
  type BinaryFn,
  type CacheHint,
  type IdName,
  type Memory,
  type Op,
  operands,
  type ReduceFn,
  type ShuffleMode,
  type Stmt,
  stmtOperands,
  type UnaryFn,
  type Value,
  walk,
} from "../../dsl/ir.ts";
import { resultType } from "../../dsl/typing.ts";

export type TestFile = "operations" | "conversions" | "memory" | "control" | "warps" | "tiles";

const fileOf: { readonly [K in Op["kind"] | Stmt["kind"]]: TestFile } = {
  const: "operations",
  unary: "operations",
  binary: "operations",
  fma: "operations",
  select: "operations",
  extract: "operations",
  pack: "operations",
  let: "operations",
  convert: "conversions",
  bitcast: "conversions",
  load: "memory",
  store: "memory",
  atomic: "memory",
  size: "control",
  scalar: "control",
  induction: "control",
  id: "control",
  dot: "control",
  read: "control",
  declare: "control",
  write: "control",
  for: "control",
  if: "control",
  pdlWait: "control",
  pdlLaunch: "control",
  sleep: "control",
  shuffle: "warps",
  reduce: "warps",
  barrier: "warps",
  join: "tiles",
  slice: "tiles",
  mma: "tiles",
  ldmatrix: "tiles",
  stmatrix: "tiles",
  copyAsync: "tiles",
  asyncCommit: "tiles",
  asyncWait: "tiles",
  asyncArrive: "tiles",
  bulkCopy: "tiles",
  tensorCopy: "tiles",
  arrive: "tiles",
  await: "tiles",
  clusterArrive: "tiles",
  clusterWait: "tiles",
  namedBarrier: "tiles",
  prefetch: "tiles",
  asyncFence: "tiles",
  setRegisters: "tiles",
  wgmmaFence: "tiles",
  wgmma: "tiles",
  wgmmaCommit: "tiles",
  wgmmaWait: "tiles",
};

/** All members of a union, which tsc counts. */
const all = <K extends string>(members: { readonly [M in K]: 0 }) => Object.keys(members) as K[];

const ids = all<IdName>({ "block.x": 0, "block.y": 0, "block.z": 0, rank: 0, thread: 0, warp: 0, lane: 0 });
const unaryFns = all<UnaryFn>({
  ...{ neg: 0, abs: 0, not: 0, exp: 0, log: 0, sqrt: 0, rsqrt: 0 },
  ...{ tanh: 0, floor: 0, ceil: 0, round: 0, popcount: 0, clz: 0 },
});
const binaryFns = all<BinaryFn>({
  ...{ add: 0, sub: 0, mul: 0, div: 0, rem: 0, min: 0, max: 0, and: 0, or: 0, xor: 0, shl: 0, shr: 0 },
  ...{ eq: 0, ne: 0, lt: 0, le: 0, gt: 0, ge: 0 },
});
const reduceFns = all<ReduceFn>({ add: 0, min: 0, max: 0, and: 0, or: 0 });
const shuffleModes = all<ShuffleMode>({ xor: 0, up: 0, down: 0, index: 0 });
const atomicFns = all<AtomicFn>({ add: 0, min: 0, max: 0, and: 0, or: 0, xor: 0, exchange: 0, compareExchange: 0 });
const hints = all<CacheHint>({ normal: 0, stream: 0, evictFirst: 0, evictLast: 0 });
const types: readonly DType[] = Object.values(dtypes);
const widths = [1, 2, 4, 8, 16] as const;

const space = ({ kind }: Memory): string => (kind === "tensor" ? "global" : "shared");

/** The variants of an operation, as texts. */
function variantsOf(op: Op): readonly string[] {
  switch (op.kind) {
    case "id":
      return [op.id];
    case "scalar":
      return [op.scalar.dtype.name];
    case "unary":
      return [`${op.fn} ${op.a.type.dtype.name}`];
    case "binary":
      return [`${op.fn} ${op.a.type.dtype.name}`];
    case "convert":
    case "bitcast":
      return [`${op.a.type.dtype.name} to ${op.to.name}`];
    case "load": {
      const { memory, lanes, cache, guard, peer } = op;
      const hint = [cache, ...(guard ? ["guarded"] : []), ...(peer ? ["of a peer"] : [])];
      return [`${space(memory)} ${memory.dtype.name} x${lanes}`, ...hint];
    }
    case "shuffle":
      return [`${op.mode} ${op.a.type.dtype.name}`];
    case "reduce":
      return [`${op.fn} ${op.a.type.dtype.name}`];
    case "atomic":
      return [`${op.fn} ${op.memory.dtype.name} ${space(op.memory)}`];
    case "mma":
      return [op.atom.name];
    case "ldmatrix":
      return [`x${op.matrices}${op.transposed ? " transposed" : ""}`];
    default:
      return [];
  }
}

/** The same of a statement. */
function stmtVariantsOf(stmt: Stmt): readonly string[] {
  switch (stmt.kind) {
    case "store":
      return [
        `${space(stmt.memory)} ${stmt.memory.dtype.name} x${stmt.value.type.lanes}`,
        ...[stmt.cache, ...(stmt.peer ? ["to a peer"] : [])],
      ];
    case "for":
      return [stmt.unroll ? "unrolled" : "not unrolled"];
    case "barrier":
      return [stmt.scope];
    case "copyAsync":
      return [`${stmt.lanes * stmt.to.dtype.bytes} bytes`, ...(stmt.guard ? ["guarded"] : [])];
    case "tensorCopy":
      return [`swizzled by ${stmt.map.swizzleBytes} bytes`];
    case "arrive":
      return [stmt.expectBytes ? "with bytes" : "without bytes", ...(stmt.peer ? ["at a peer's"] : [])];
    case "namedBarrier":
      return [stmt.action];
    case "setRegisters":
      return [stmt.change];
    case "stmatrix":
      return [`x${(stmt.value.type.lanes * stmt.memory.dtype.bytes) / 4}${stmt.transposed ? " transposed" : ""}`];
    default:
      return [];
  }
}

/** Everything that a kernel has, in words. */
export function featuresOf(ir: KernelIR): ReadonlySet<string> {
  const found = new Set<string>([`cluster of ${ir.cluster}`]);
  const seen = new Set<Value>();
  const add = (kind: string, variants: readonly string[]): void => {
    for (const text of [kind, ...variants.map((variant) => `${kind}: ${variant}`)]) found.add(text);
  };
  const visit = (value: Value): void => {
    if (seen.has(value)) return;
    seen.add(value);
    add(value.op.kind, variantsOf(value.op));
    operands(value.op).forEach(visit);
  };
  walk(ir.body, (stmt) => {
    add(stmt.kind, stmtVariantsOf(stmt));
    stmtOperands(stmt).forEach(visit);
    if (stmt.kind === "let") visit(stmt.value);
  });
  return found;
}

/** Whether typing allows the operation. */
function isLegal(op: Parameters<typeof resultType>[0]): boolean {
  try {
    return Boolean(resultType(op, nowhere));
  } catch {
    return false;
  }
}

const nowhere = { file: "", line: 0, column: 0 };
const valueOf = (dtype: DType): Value => ({
  ...{ id: 0, op: { kind: "const", value: 0 }, at: nowhere, name: undefined },
  type: { dtype, lanes: 1 },
});
const memoryOf = (dtype: DType, kind: "tensor" | "shared"): Memory => ({
  ...{ kind: kind as "tensor", role: "inout", name: "", shape: [1], alignBytes: 16, at: nowhere },
  dtype,
});

/** Those of `texts` whose operation is legal. */
const legal = (cases: readonly (readonly [text: string, op: Parameters<typeof resultType>[0]])[]): readonly string[] =>
  cases.filter(([, op]) => isLegal(op)).map(([text]) => text);

const spaces = ["tensor", "shared"] as const;
const accesses = spaces.flatMap((kind) =>
  types.flatMap((dtype) =>
    widths
      .filter((lanes) => lanes * dtype.bytes <= 16)
      .map((lanes) => `${space(memoryOf(dtype, kind))} ${dtype.name} x${lanes}`),
  ),
);

const variants: { readonly [K in Op["kind"] | Stmt["kind"]]?: readonly string[] } = {
  id: ids.filter((id) => id !== "rank"),
  scalar: ["f32", "i32", "u32"],
  unary: unaryFns.flatMap((fn) =>
    legal(types.map((dtype) => [`${fn} ${dtype.name}`, { kind: "unary", fn, a: valueOf(dtype) }])),
  ),
  binary: binaryFns.flatMap((fn) =>
    legal(types.map((dtype) => [`${fn} ${dtype.name}`, { kind: "binary", fn, a: valueOf(dtype), b: valueOf(dtype) }])),
  ),
  ...Object.fromEntries(
    (["convert", "bitcast"] as const).map((kind) => [
      kind,
      types.flatMap((from) =>
        legal(
          types.filter((to) => to !== from).map((to) => [`${from.name} to ${to.name}`, { kind, a: valueOf(from), to }]),
        ),
      ),
    ]),
  ),
  load: [...accesses, ...hints, "guarded"],
  store: [...accesses, "normal", "stream"], // the hints that authors can give
  shuffle: shuffleModes.flatMap((mode) =>
    legal(
      types.map((dtype) => [
        `${mode} ${dtype.name}`,
        { kind: "shuffle", mode, a: valueOf(dtype), by: valueOf(dtypes.i32) },
      ]),
    ),
  ),
  // Of "and" and "or" authors have those of bool.
  reduce: reduceFns
    .flatMap((fn) => legal(types.map((dtype) => [`${fn} ${dtype.name}`, { kind: "reduce", fn, a: valueOf(dtype) }])))
    .filter((variant) => !/^(and|or) [iu]32$/.test(variant)),
  atomic: atomicFns.flatMap((fn) =>
    spaces.flatMap((kind) =>
      legal(
        types.map((dtype) => {
          const [a, memory] = [valueOf(dtype), memoryOf(dtype, kind)];
          const op = { kind: "atomic", fn, memory, index: [valueOf(dtypes.i32)], a, compare: undefined } as const;
          return [`${fn} ${dtype.name} ${space(memory)}`, op];
        }),
      ),
    ),
  ),
  for: ["unrolled", "not unrolled"],
  barrier: ["block", "warp"],
  mma: Object.values(mmaAtoms).flatMap((atoms) => Object.values(atoms).map(({ name }) => name)),
  ldmatrix: ["x1", "x2", "x4", "x1 transposed", "x2 transposed", "x4 transposed"],
  stmatrix: ["x1", "x2", "x4", "x1 transposed", "x2 transposed", "x4 transposed"],
  copyAsync: ["4 bytes", "8 bytes", "16 bytes", "guarded"],
  tensorCopy: [0, 32, 64, 128].map((bytes) => `swizzled by ${bytes} bytes`),
  arrive: ["with bytes", "without bytes", "at a peer's"],
  namedBarrier: ["sync", "arrive"],
  setRegisters: ["increase", "decrease"],
};

/** What only kernels of clusters have. */
const ofClusters = [
  ...[1, 2, 4, 8].map((blocks) => `cluster of ${blocks}`),
  ...["id: rank", "load: of a peer", "store: to a peer"],
];

/** What the kernels of a file must have between them. */
export function requiredOf(file: string): readonly string[] {
  const kinds = (Object.keys(fileOf) as (keyof typeof fileOf)[]).filter((kind) => fileOf[kind] === file);
  const features = kinds.flatMap((kind) => [kind, ...(variants[kind] ?? []).map((variant) => `${kind}: ${variant}`)]);
  return file === "tiles" ? [...features, ...ofClusters] : features;
}

/** Every file that something is required of. */
export const coveredFiles: readonly TestFile[] = [...new Set(Object.values(fileOf))];
