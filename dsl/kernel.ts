/** `kernel()`: traces an author's function into verified IR. */
import { describe, requireOptions } from "./check.ts";
import { NameError, PdlError, ShapeError, StagingError } from "./errors.ts";
import { Expr } from "./expr.ts";
import type { KernelIR, Scalar, Tensor as TensorIR, Value } from "./ir.ts";
import { stmtOperands, walk } from "./ir.ts";
import type { Dependent, Early, Params } from "./params.ts";
import { type Dim, isDim, maxOf, minOf, namedSizes, Size } from "./size.ts";
import { callerLocation, isLocation, type Location } from "./source.ts";
import { Tensor } from "./tensor.ts";
import { Thread } from "./tile/thread.ts";
import { rejectAsync, Trace } from "./trace.ts";
import { verify } from "./verify/verify.ts";

export interface KernelConfig<P extends Params> {
  /** An identifier; the kernel's name in profilers. */
  readonly name: string;
  /** Blocks along x, or along [x, y], [x, y, z]. */
  readonly grid: Dim | readonly [Dim, Dim?, Dim?];
  /** Threads per block: a multiple of 32, at most 1,024. */
  readonly block: number;
  /** Blocks along x that run together and see each other's shared memory: 1, 2, 4 or 8. Default 1. */
  readonly cluster?: number;
  readonly params: P;
  /** Whose line made it, for messages and generated code; from functions that make kernels for others. Default: this call's. */
  readonly at?: Location;
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
 * used at once (frozen tensors, scalars); `t.pdl.wait()` yields the others. What depends on data and timing, such as races,
 * reads of what nobody wrote and guards that let too much through, is found by the simulator: `simulate` of
 * `tegula/simulator`, or `npm run check`.
 * ```ts
 * const twice = kernel(
 *   { name: "twice", grid: 4, block: 32, params: { x: input(f32, [128]), y: output(f32, [128]) } },
 *   (t) => {
 *     const { x, y } = t.pdl.wait();
 *     const i = t.block.x.mul(32).add(t.lane);
 *     y.store([i], x.load([i]).mul(2));
 *   },
 * );
 * printKernel(twice.ir).split("\n")[0] // kernel twice, grid [4, 1, 1], block 32
 * ```
 * @throws a TegulaError that names the author's file and line
 */
export function kernel<const P extends Params>(
  config: KernelConfig<P>,
  body: (t: Thread<Dependent<P>>, early: Early<P>) => void,
): Kernel<P> {
  const here = callerLocation();
  requireObject("kernel() takes a configuration,", config, here);
  requireOptions(config, ["name", "grid", "block", "cluster", "params", "at"], here);
  const { at = here } = config;
  if (!isLocation(at)) {
    throw new ShapeError(`A kernel's at is a place, not ${describe(at)}`, {
      at: here,
      hint: "at: { file, line, column }",
    });
  }
  const { name, block, cluster = 1, params } = config;
  requireIdentifier("A kernel's name", name, at);
  const grid = gridOf(config.grid, at);
  if (!Number.isInteger(block) || block < 32 || block > 1024 || block % 32 !== 0) {
    throw new ShapeError(`A block has a multiple of 32 threads, 32 to 1,024, not ${describe(block)}`, { at });
  }
  if (![1, 2, 4, 8].includes(cluster)) {
    throw new ShapeError(`A cluster has 1, 2, 4 or 8 blocks, not ${describe(cluster)}`, { at });
  }
  if (grid[0] instanceof Size ? grid[0].multipleOf % cluster !== 0 : grid[0] % cluster !== 0) {
    throw new ShapeError(
      `The grid has ${grid[0]} blocks along x, which is not a whole number of clusters of ${cluster}`,
      {
        at,
        hint: `Write dims.mul(ceilDiv(n, tile), ${cluster})`,
      },
    );
  }
  requireObject("A kernel's params are an object,", params, at);
  if (typeof body !== "function") {
    throw new StagingError(`A kernel's body is a function, not ${describe(body)}`, {
      at,
      hint: "Write kernel({ ... }, (t, { weights }) => { ... })",
    });
  }

  const tensors: TensorIR[] = [];
  const scalars: Scalar[] = [];
  const trace = new Trace(name, at, { grid, block, cluster });
  const early: Record<string, unknown> = {};
  for (const [key, spec] of Object.entries(params)) {
    if (spec?.kind !== "scalar" && spec?.kind !== "tensor") {
      throw new ShapeError(`The parameter ${key} is ${describe(spec)}`, {
        at,
        hint: `Declare it: ${key}: input(f32, [M, N]); frozen, output and inout are the other roles, scalar(f32) a number`,
      });
    }
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
      if (role === "frozen") early[key] = new Tensor(trace, trace.root, memory, role);
      else explainAbsence(early, memory);
    }
  }

  const t = new Thread<Dependent<P>>(trace, { grid, block, cluster }, () => dependent(trace, tensors) as Dependent<P>);
  rejectAsync(body(t, early as Early<P>), at);
  for (const loop of trace.idleLoops) {
    throw new StagingError("A loop was described here, but nothing iterates it", {
      at: loop,
      hint: "Write for (const i of t.range(n)) { ... }, with `of`",
    });
  }
  const ir: KernelIR = Object.freeze({
    name,
    grid,
    cluster,
    block,
    tensors: Object.freeze(tensors),
    scalars: Object.freeze(scalars),
    sizes: collectSizes(tensors, grid, trace, params),
    shared: Object.freeze([...trace.shared]),
    mbarriers: Object.freeze([...trace.mbarriers]),
    tensorMaps: Object.freeze([...trace.tensorMaps]),
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
): readonly Size[] {
  const known = new Map<string, Size>();
  for (const size of tensors.flatMap((tensor) => tensor.shape.flatMap(namedSizes))) {
    const name = String(size);
    requireIdentifier("A size's name", name, size.at);
    requireOnlyOne(name, size.at, known.get(name), size);
    if (Object.hasOwn(params, name)) requireOnlyOne(name, size.at, params[name], size);
    known.set(name, size);
  }
  for (const size of [...grid.flatMap(namedSizes), ...trace.usedSizes]) {
    const declared = known.get(String(size));
    if (declared === size) continue;
    requireOnlyOne(String(size), size.at, declared, size);
    throw new ShapeError(`No parameter's shape contains the size ${size}, so a launch could not know its value`, {
      at: size.at,
      hint: "Put it into a parameter's shape, or pass it as scalar(i32)",
    });
  }
  return Object.freeze([...known.values()]);
}

function requireOnlyOne(name: string, at: Location, one: { readonly at: Location } | undefined, other: unknown): void {
  if (!one || one === other) return;
  throw new ShapeError(`The name ${name} stands for two things`, {
    at,
    related: [{ what: "the other is", at: one.at }],
    hint: "Declare each size once and give every parameter and size a name of its own",
  });
}

/** What a wait yields: handles that live in the block of the wait. */
function dependent(trace: Trace, tensors: readonly TensorIR[]): Record<string, unknown> {
  const late: Record<string, unknown> = {};
  for (const memory of tensors) {
    if (memory.role === "frozen") explainAbsence(late, memory);
    else late[memory.name] = new Tensor(trace, trace.current, memory, memory.role);
  }
  return late;
}

/** Without tsc nothing keeps an author from `(t, { input }) => ...`. */
function explainAbsence(record: Record<string, unknown>, { name, role, at: declaredAt }: TensorIR): void {
  Object.defineProperty(record, name, {
    get(): never {
      const late = role !== "frozen";
      throw new PdlError(
        late
          ? `${name} is an ${role}: it exists only after t.pdl.wait()`
          : `${name} is frozen: it is not what comes from the wait`,
        {
          at: callerLocation(),
          related: [{ what: "it was declared", at: declaredAt }],
          hint: late
            ? `Write const { ${name} } = t.pdl.wait()`
            : `It is in the body's arguments: (t, { ${name} }) => ...`,
        },
      );
    },
  });
}

function requireObject(what: string, value: unknown, at: Location): void {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return;
  throw new ShapeError(`${what} not ${describe(value)}`, {
    at,
    hint: "Write kernel({ name, grid, block: 128, params: { x: input(f32, [N]) } }, (t) => { ... })",
  });
}

function gridOf(grid: KernelConfig<Params>["grid"], at: Location): readonly [Dim, Dim, Dim] {
  const axes: readonly (Dim | undefined)[] = Array.isArray(grid) ? grid : [grid as Dim];
  const [first, y = 1, z = 1] = axes;
  if (first === undefined || axes.length > 3) {
    throw new ShapeError(`A grid is a number of blocks or an array of one to three, not ${describe(grid)}`, {
      at,
      hint: "Write grid: ceilDiv(N, tile) or grid: [x, y]",
    });
  }
  const x = first;
  const limits = [2 ** 31 - 1, 65_535, 65_535];
  for (const [axis, dim] of [x, y, z].entries()) {
    const limit = limits[axis] ?? 0;
    // A size of 0 blocks is refused when the kernel is launched.
    const fits = isDim(dim) && minOf(dim) <= limit && maxOf(dim) >= 1 && minOf(dim) >= (dim instanceof Size ? 0 : 1);
    if (fits) continue;
    const given = isDim(dim) ? String(dim) : describe(dim);
    throw new ShapeError(`The grid has ${given} blocks along ${"xyz"[axis]}; it may have 1 to ${limit}`, {
      at,
      hint: Number.isInteger(dim) ? undefined : "Write whole numbers or sizes; round up with ceilDiv(n, tile)",
    });
  }
  return Object.freeze([x, y, z] as const);
}

/** `if (!c)` and `!c` see only that an object is there. What they leave behind is a condition that nothing uses. */
function rejectUnusedConditions(ir: KernelIR): void {
  const used = new Set<Value>();
  walk(ir.body, (stmt) => stmtOperands(stmt).forEach((value) => used.add(value)));
  walk(ir.body, (stmt) => {
    if (stmt.kind !== "let" || used.has(stmt.value)) return;
    const { op, type } = stmt.value;
    // Reg.update reads, whether its function uses that or not.
    if (type.dtype.name !== "bool" || op.kind === "atomic" || op.kind === "read") return;
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
  throw new NameError(`${what} is an identifier of letters, digits and single underscores, not ${describe(name)}`, {
    at,
    hint: "It becomes a name in generated code; write for example rms_norm",
  });
}
