/**
 * Checks one kernel: the simulator looks for hazards, in the order of warps that comes by itself and in random ones; then
 * every device that is here must compute the same. One verdict for each class of hazard, and for each device.
 */
import type { Backend } from "../../backends/backend.ts";
import { run } from "../../backends/run.ts";
import {
  type Counts,
  type Finding,
  type FindingKind,
  formatFinding,
  simulate,
  type Simulation,
} from "../../backends/simulator/index.ts";
import { ArgumentError, type HostTensor, type Kernel, TegulaError, UnsupportedError } from "../../dsl/index.ts";
import { operands, stmtOperands, type Value, walk } from "../../dsl/ir.ts";
import { seededRandom } from "../../kernels/index.ts";
import { argumentsFor, sizeCases } from "./cases.ts";
import { type Difference, differences } from "./compare.ts";
import type { Sizes, Subject } from "./subjects.ts";

export interface Verdict {
  readonly what: string;
  /** note: worth knowing, and no mistake. */
  readonly status: "ok" | "FOUND" | "note" | "skipped";
  readonly details: readonly string[];
}

export interface Checked {
  readonly cases: number;
  readonly verdicts: readonly Verdict[];
  /** What the case that loads most asks of the machine. */
  readonly counts: { readonly of: Counts; readonly sizes: Sizes } | undefined;
}

/** Where kernels run besides the simulator. */
export interface Device {
  readonly name: Backend["name"];
  /** What to say where it is not: "no GPU". */
  readonly missing: string | undefined;
  open(): Promise<Backend>;
}

const classes: { readonly [K in FindingKind]: string } = {
  "out-of-bounds": "out-of-bounds access",
  misaligned: "misaligned access",
  uninitialised: "uninitialised read",
  race: "race",
  divergence: "barrier divergence",
  deadlock: "deadlock",
  "early-access": "input before the wait",
  "early-store": "write before the wait",
  "in-flight": "copy or wgmma still under way",
  lifetime: "lifetime of other blocks",
  arrivals: "arrivals at an mbarrier",
};

/** Steps between neighbouring numbers by which results may differ where functions are not exact on every device. */
const closeSteps = 64;

/**
 * `schedules`: random orders of warps for each case, besides the usual one. `progress` hears of each case.
 * @throws ArgumentError when no case can be launched
 */
export async function check(
  { kernel, given }: Subject,
  devices: readonly Device[],
  schedules: number,
  seed: number,
  progress: (done: number, all: number) => void,
): Promise<Checked> {
  const found = new Map<string, { readonly finding: Finding; readonly sizes: Sizes }>();
  const unwritten = new Map<string, string>();
  const byDevice = new Map(devices.map(({ name, missing }) => [name, new DeviceVerdict(name, missing)]));
  let order: string | undefined;
  let counts: Checked["counts"];
  let refusal: unknown;
  let ran = 0;
  const cases = sizeCases(kernel);
  for (const [i, sizes] of cases.entries()) {
    progress(i, cases.length);
    const args = argumentsFor(kernel, sizes, seededRandom(seed + i), given) as never;
    let first: Simulation;
    try {
      first = simulate(kernel, args);
    } catch (error) {
      if (!(error instanceof ArgumentError)) throw error;
      refusal = error; // these sizes don't go together
      continue;
    }
    ran++;
    const all = [first, ...Array.from({ length: schedules }, (_, s) => simulate(kernel, args, { seed: seed + s }))];
    for (const finding of all.flatMap(({ findings }) => findings)) {
      const key = `${finding.kind} ${JSON.stringify([finding.at, finding.other?.at])}`;
      if (!found.has(key)) found.set(key, { finding, sizes });
    }
    const ended = first.findings.every(({ kind }) => kind !== "deadlock");
    for (const { tensor, count, first: index } of ended ? first.unwritten : []) {
      const text = `${tensor}[${index.join(", ")}] and ${count - 1} more elements${at(sizes)} are written by nobody`;
      if (!unwritten.has(tensor)) unwritten.set(tensor, text);
    }
    if (!counts || first.counts.total.globalLoadBytes > counts.of.globalLoadBytes) {
      counts = { of: first.counts.total, sizes };
    }
    const isClean = all.every(({ findings }) => findings.length === 0);
    const others = all.flatMap(({ outputs }) => differences(first.outputs, outputs));
    if (isClean && others[0]) order ??= describe(others[0], sizes, ["usually", "in another order of warps"]);
    if (!isClean || order !== undefined) continue;
    for (const { name, missing, open } of devices) {
      if (missing === undefined) await byDevice.get(name)?.run(await open(), kernel, args, first.outputs, sizes);
    }
  }
  progress(cases.length, cases.length);
  if (ran === 0) throw refusal;

  const hazards = Object.entries(classes).map(([kind, what]): Verdict => {
    const details = [...found.values()]
      .filter(({ finding }) => finding.kind === kind)
      .map(({ finding, sizes }) => formatFinding(finding).replace(/^[\w-]+: /, "") + at(sizes));
    return { what, status: details.length > 0 ? "FOUND" : "ok", details };
  });
  const rest: Verdict = {
    what: "outputs all written",
    status: unwritten.size > 0 ? "FOUND" : "ok",
    details: [...unwritten.values()],
  };
  const orders: Verdict = {
    what: "any order of warps",
    status: order === undefined ? "ok" : "note",
    details: order === undefined ? [] : [order],
  };
  const why = found.size > 0 ? "what the simulator found comes first" : order && "results depend on the order of warps";
  return {
    cases: ran,
    counts,
    verdicts: [...hazards, rest, orders, ...[...byDevice.values()].map((one) => one.of(kernel, why))],
  };
}

/** What one device says of all cases. */
class DeviceVerdict {
  private readonly name: string;
  private problem: { readonly status: Verdict["status"]; readonly text: string } | undefined;
  private device = "";
  private ran = 0;
  private steps = 0;
  private difference: string | undefined;

  constructor(name: string, missing: string | undefined) {
    this.name = name;
    if (missing !== undefined) this.problem = { status: "skipped", text: `${missing}: skipped` };
  }

  async run(
    backend: Backend,
    kernel: Kernel,
    args: never,
    expected: Readonly<Record<string, HostTensor>>,
    sizes: Sizes,
  ): Promise<void> {
    if (this.problem) return;
    this.device = backend.device;
    try {
      for (const difference of differences(expected, await run(backend, kernel, args))) {
        this.steps = Math.max(this.steps, difference.steps);
        this.difference ??= describe(difference, sizes, ["in the simulator", `by ${this.name}`]);
      }
      this.ran++;
    } catch (error) {
      if (!(error instanceof TegulaError)) throw error;
      const status = error instanceof UnsupportedError ? "skipped" : "FOUND";
      this.problem = { status, text: error.message };
    }
  }

  of(kernel: Kernel, notRunBecause: string | undefined): Verdict {
    const what = `${this.name} agrees`;
    if (this.problem) return { what, status: this.problem.status, details: [this.problem.text] };
    if (this.ran === 0) return { what, status: "skipped", details: [`not run: ${notRunBecause}`] };
    const inexact = inexactIn(kernel);
    if (this.difference === undefined) return { what, status: "ok", details: [this.device] };
    if (inexact.length === 0 || this.steps > closeSteps) return { what, status: "FOUND", details: [this.difference] };
    const close = `${this.device}, within ${this.steps} steps: not every device rounds ${inexact.join(", ")} alike`;
    return { what, status: "ok", details: [close] };
  }
}

function describe({ tensor, index, values, count }: Difference, sizes: Sizes, [one, other]: readonly [string, string]) {
  const more = count > 1 ? `; ${count} elements differ` : "";
  return `${tensor}[${index.join(", ")}] is ${values[0]} ${one} and ${values[1]} ${other}${at(sizes)}${more}`;
}

/** The case, for the end of a sentence. */
export function at(sizes: Sizes): string {
  const values = Object.entries(sizes).map(([name, value]) => `${name} = ${value}`);
  return values.length > 0 ? `, at ${values.join(", ")}` : "";
}

/** Names of the functions in it that are not exact to the last bit everywhere. */
function inexactIn({ ir }: Kernel): readonly string[] {
  const found = new Set<string>();
  const visit = ({ op, type }: Value): void => {
    operands(op).forEach(visit);
    if (op.kind === "unary" && ["exp", "log", "sqrt", "rsqrt", "tanh"].includes(op.fn)) found.add(op.fn);
    if (op.kind === "fma" || op.kind === "dot") found.add(op.kind);
    if (op.kind === "binary" && op.fn === "div" && type.dtype.name === "f32") found.add("/");
  };
  walk(ir.body, (stmt) => {
    stmtOperands(stmt).forEach(visit);
  });
  return [...found].toSorted();
}
