/** One kernel with its arguments in the simulator: what a launch computes, and what it was found to do wrong. */
import { DeviceError, UnsupportedError } from "../../dsl/errors.ts";
import { HostTensor } from "../../dsl/host.ts";
import { isWritten, type Tensor } from "../../dsl/ir.ts";
import type { Kernel } from "../../dsl/kernel.ts";
import type { Params } from "../../dsl/params.ts";
import type { Launch } from "../backend.ts";
import { type BoundArguments, changeScalars, requireWritableIn, type Scalars } from "../bind.ts";
import type { HostResults } from "../run.ts";
import { type Content, Context } from "./context.ts";
import type { KernelCounts } from "./counts.ts";
import { type Finding, unravel, type Unwritten } from "./findings.ts";
import { Machine } from "./machine.ts";
import type { SimulatorBackend } from "./runtime.ts";

/** What a launch computed, what it did wrong, and what it asked of the machine. */
export interface Simulation<P extends Params = Params> {
  readonly outputs: HostResults<P>;
  readonly findings: readonly Finding[];
  /** Outputs with elements that nobody wrote. Empty with `check: "values"`. */
  readonly unwritten: readonly Unwritten[];
  readonly counts: KernelCounts;
}

/** A launch came to findings. Its results are in memory, and in `simulation`. */
export class HazardError extends DeviceError {
  declare readonly simulation: Simulation;

  constructor({ name }: Kernel, simulation: Simulation) {
    const [first, ...others] = simulation.findings;
    super(`${name}: ${first?.kind}: ${first?.message}`, {
      at: first?.at,
      related: first?.other ? [first.other] : [],
      hint: [first?.hint ?? [], others.length > 0 ? `${others.length} more in error.simulation.findings` : []]
        .flat()
        .join("\n  "),
    });
    // Not enumerable: Node would print all of it below the message.
    Object.defineProperty(this, "simulation", { value: simulation });
  }
}

export class SimulatorLaunch<P extends Params = Params> implements Launch<P> {
  readonly kernel: Kernel<P>;
  readonly #backend: SimulatorBackend;
  #bound: BoundArguments;

  /** For the simulator only. */
  constructor(kernel: Kernel<P>, backend: SimulatorBackend, bound: BoundArguments) {
    this.kernel = kernel;
    this.#backend = backend;
    this.#bound = bound;
  }

  /** Runs the kernel. @throws HazardError when it comes to a finding; DisposedError, ArgumentError */
  launch(): void {
    const simulation = this.simulate();
    if (simulation.findings.length > 0) throw new HazardError(this.kernel, simulation);
  }

  /** Runs the kernel. What it does wrong is no error, but a finding. @throws DisposedError, ArgumentError */
  simulate(): Simulation<P> {
    const { ir } = this.kernel;
    const { grid, scalars, tensors: bound } = this.#bound;
    const { check, seed } = this.#backend;
    this.#backend.checkLive();
    const tensors = new Map<Tensor, Content>();
    for (const [i, tensor] of bound.entries()) {
      const declared = ir.tensors[i];
      if (!declared) continue;
      requireWritableIn(this.kernel, declared.name, declared.role, tensor);
      tensors.set(declared, this.#backend.content(tensor));
    }
    const values = new Map(scalars.map(({ name, value }) => [name, value]));
    const context = new Context(ir, { values, tensors }, check === "all");
    new Machine(context, grid, seed).run();

    const outputs: Record<string, HostTensor> = {};
    const unwritten: Unwritten[] = [];
    for (const [tensor, { bytes, dims, count, shadow }] of context.tensors) {
      const { name, role, dtype, at } = tensor;
      if (!isWritten(role)) continue;
      outputs[name] = new HostTensor(dtype, dims, new Uint8Array(bytes));
      const missing: number[] = [];
      for (let i = 0; i < count; i++) {
        if (shadow?.isWritten(i) === false) missing.push(i);
        else tensors.get(tensor)?.define?.(i);
      }
      const [first] = missing;
      if (role !== "output" || first === undefined) continue;
      unwritten.push({ tensor: name, count: missing.length, first: unravel(first, dims), at });
    }
    const { list: findings } = context.findings;
    return { outputs: outputs as HostResults<P>, findings, unwritten, counts: context.counters.result };
  }

  /** Changes scalars from the next launch on. @throws ArgumentError */
  set(scalars: Partial<Scalars<P>>): void {
    this.#bound = { ...this.#bound, scalars: changeScalars(this.kernel, this.#bound.scalars, scalars) };
  }

  /** @throws UnsupportedError: the simulator knows what is done, but not how long it takes */
  timeUs(): Promise<number> {
    const hint = "launch.simulate().counts has bytes, sectors, bank conflicts, products";
    return Promise.reject(new UnsupportedError("The simulator has no clock to time launches with", { hint }));
  }
}
