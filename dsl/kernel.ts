/** `kernel()`: traces an author's function into verified IR. */
import { NameError, ShapeError, StagingError } from "./errors.ts";
import { Expr } from "./expr.ts";
import type { KernelIR, Scalar, Tensor as TensorIR, Value } from "./ir.ts";
import { stmtOperands, walk } from "./ir.ts";
import type { Dependent, Early, Params } from "./params.ts";
import { type Dim, maxOf, minOf, namedSizes, type Size } from "./size.ts";
import { callerLocation, type Location } from "./source.ts";
import { Tensor } from "./tensor.ts";
import { Thread } from "./thread.ts";
import { rejectAsync, Trace } from "./trace.ts";
import { verify } from "./verify/verify.ts";

export interface KernelConfig<P extends Params> {
  /** An identifier; the kernel's name in profilers. */
  readonly name: string;
  /** Blocks along x, or along [x, y], [x, y, z]. */
  readonly grid: Dim | readonly [Dim, Dim?, Dim?];
  /** Threads per block: a multiple of 32, at most 1,024. */
  readonly block: number;
  readonly params: P;
}

/** A traced and verified kernel. */
export interface Kernel<P extends Params = Params> {
  readonly name: string;
  readonly params: P;
  readonly ir: KernelIR;
  readonly at: Location;
}

/**
 * Traces `body` once and verifies what it recorded. `body` receives the thread's view `t` and the parameters that may be
 * used at once (frozen tensors, scalars); `t.pdl.wait()` yields the others.
 * @throws a TegulaError that names the author's file and line
 */
export function kernel<const P extends Params>(
  config: KernelConfig<P>,
  body: (t: Thread<Dependent<P>>, early: Early<P>) => void,
): Kernel<P> {
  const at = callerLocation();
  const { name, block, params } = config;
  requireIdentifier("A kernel's name", name, at);
  const grid = gridOf(config.grid, at);
  if (!Number.isInteger(block) || block < 32 || block > 1024 || block % 32 !== 0) {
    throw new ShapeError(`A block has a multiple of 32 threads, 32 to 1,024, not ${block}`, { at });
  }

  const tensors: TensorIR[] = [];
  const scalars: Scalar[] = [];
  const trace = new Trace(name, at);
  const early: Record<string, unknown> = {};
  const late: Record<string, unknown> = {};
  for (const [key, spec] of Object.entries(params)) {
    requireIdentifier("A parameter's name", key, spec.at);
    if (spec.kind === "scalar") {
      const scalar: Scalar = Object.freeze({ name: key, dtype: spec.dtype, at: spec.at });
      scalars.push(scalar);
      const leaf = trace.leaf(`scalar ${key}`, spec.dtype, { kind: "scalar", scalar }, spec.at);
      early[key] = new Expr(trace, trace.root, leaf);
    } else {
      const { role, dtype, shape, alignBytes } = spec;
      const memory: TensorIR = Object.freeze({
        kind: "tensor",
        name: key,
        role,
        dtype,
        shape,
        alignBytes,
        at: spec.at,
      });
      tensors.push(memory);
      (role === "frozen" ? early : late)[key] = new Tensor(trace, trace.root, memory, role);
    }
  }

  const t = new Thread(trace, grid, block, () => late as Dependent<P>);
  rejectAsync(body(t, early as Early<P>), at);
  const ir: KernelIR = Object.freeze({
    name,
    grid,
    block,
    tensors: Object.freeze(tensors),
    scalars: Object.freeze(scalars),
    sizes: collectSizes(tensors, grid, trace, params, at),
    shared: Object.freeze([...trace.shared]),
    body: trace.close(trace.root),
    at,
  });
  rejectUnusedConditions(ir);
  verify(ir);
  return Object.freeze({ name, params, ir, at });
}

/** Sizes in the order in which shapes first name them; every size used anywhere must be in some shape. */
function collectSizes(
  tensors: readonly TensorIR[],
  grid: readonly Dim[],
  trace: Trace,
  params: Params,
  at: Location,
): readonly Size[] {
  const known = new Map<string, Size>();
  for (const size of tensors.flatMap((tensor) => tensor.shape.flatMap(namedSizes))) {
    const name = String(size);
    requireIdentifier("A size's name", name, size.at);
    const before = known.get(name);
    if ((before && before !== size) || name in params) {
      throw new ShapeError(`The name ${name} stands for two things`, {
        at: size.at,
        related: [{ what: "the other is", at: before?.at ?? at }],
        hint: "Declare each size once and give every parameter and size a name of its own",
      });
    }
    known.set(name, size);
  }
  for (const size of [...grid.flatMap(namedSizes), ...trace.usedSizes.values()]) {
    if (known.get(String(size)) === size) continue;
    throw new ShapeError(`No parameter's shape contains the size ${size}, so a launch could not know its value`, {
      at: size.at,
      hint: "Put it into a parameter's shape, or pass it as scalar(i32)",
    });
  }
  return Object.freeze([...known.values()]);
}

function gridOf(grid: KernelConfig<Params>["grid"], at: Location): readonly [Dim, Dim, Dim] {
  const axes: readonly (Dim | undefined)[] = Array.isArray(grid) ? grid : [grid as Dim];
  const [x = 1, y = 1, z = 1] = axes;
  const limits = [2 ** 31 - 1, 65_535, 65_535];
  for (const [axis, dim] of [x, y, z].entries()) {
    const limit = limits[axis] ?? 0;
    const wrong = typeof dim === "number" ? !Number.isInteger(dim) || dim > limit : minOf(dim) > limit;
    if (wrong || maxOf(dim) < 1 || minOf(dim) < (typeof dim === "number" ? 1 : 0)) {
      throw new ShapeError(`The grid has ${dim} blocks along ${"xyz"[axis]}; it may have 1 to ${limit}`, {
        at,
        hint: typeof dim === "number" && !Number.isInteger(dim) ? "Round up with ceilDiv(n, tile)" : undefined,
      });
    }
  }
  return [x, y, z];
}

/** `if (!c)` and `!c` see only that an object is there. What they leave behind is a condition that nothing uses. */
function rejectUnusedConditions(ir: KernelIR): void {
  const used = new Set<Value>();
  walk(ir.body, (stmt) => stmtOperands(stmt).forEach((value) => used.add(value)));
  walk(ir.body, (stmt) => {
    if (stmt.kind !== "let" || used.has(stmt.value)) return;
    const { op, type } = stmt.value;
    if (type.dtype.name !== "bool" || (op.kind !== "binary" && op.kind !== "unary")) return;
    throw new StagingError("The condition made here is never used", {
      at: stmt.at,
      related: [{ what: `the kernel ${ir.name} begins`, at: ir.at }],
      hint: "JavaScript's `!c`, `if (!c)`, `c == d` can't see run-time values: write t.when(c.not(), ...); or delete it",
    });
  });
}

const identifier = /^[A-Za-z][A-Za-z0-9_]*$/;

function requireIdentifier(what: string, name: string, at: Location): void {
  if (typeof name === "string" && identifier.test(name) && name.length <= 200 && !name.includes("__")) return;
  throw new NameError(
    `${what} must be an identifier of letters, digits and single underscores, got ${JSON.stringify(name)}`,
    {
      at,
      hint: "It becomes a name in generated code",
    },
  );
}
