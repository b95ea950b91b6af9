/**
 * Runs a program on every executor and says whether they agree: with what plain TypeScript expects, where it can tell, else
 * with the first of them. Results are compared bit by bit, but for the sign of zero and which NaN it is (O1); outputs with a
 * tolerance within it, sums of real numbers within what any order of f32 may give (O2), and on CUDA, where the simulator adds
 * as the tensor core does, bit by bit all the same (O3). In the simulator a hazard is a failure too, for no program here has one.
 */
import type { Backend } from "../../backends/backend.ts";
import type { Arguments } from "../../backends/bind.ts";
import { DeviceTensor } from "../../backends/tensor.ts";
import { HostTensor, type Kernel, UnsupportedError } from "../../dsl/index.ts";
import { isWritten } from "../../dsl/ir.ts";
import type { Executor } from "./executors.ts";
import { build, type Case, type Exact, hostTensor, type Program, rounded } from "./program.ts";

export type Results = Readonly<Record<string, HostTensor>>;

/** What is right of an output, and how far each element may be from it; without bounds to the bit. */
export interface Right {
  readonly tensor: HostTensor;
  readonly bounds: readonly number[];
}

export interface Failure {
  /** Whose result differs, or who threw; undefined: the program is refused while it is traced. */
  readonly executor: Executor | undefined;
  readonly kind: string;
  readonly message: string;
  readonly launch: Case;
  readonly expected: Readonly<Record<string, Right>>;
  /** Who says what is right. */
  readonly authority: string;
}

const zoneBytes = 256;
const zoneByte = 0xa5;

/** The first failure, or undefined. */
export async function judge(program: Program, executors: readonly Executor[]): Promise<Failure | undefined> {
  const [first] = executors;
  const failure = (error: unknown, rest: Partial<Failure>): Failure => {
    const { name: kind, message } = error instanceof Error ? error : new Error(String(error));
    return { executor: undefined, kind, message, launch: {}, expected: {}, authority: "tegula", ...rest };
  };
  let kernel: Kernel;
  try {
    kernel = build(program);
  } catch (error) {
    return failure(error, {});
  }
  for (const launch of program.cases) {
    const exact = program.expected?.(launch);
    let before: Results | undefined;
    for (const executor of executors) {
      const expected = exact ? ofExact(exact, launch, executor.backend.name) : ofResults(before, program.tolerances);
      const rest = { executor, launch, expected, authority: exact ? "plain TypeScript" : (first?.name ?? "") };
      try {
        // An element that nobody writes is never the same twice.
        const results = await execute(executor.backend, kernel, launch, executor === first && !exact ? 0xff : 0x5a);
        const difference = firstDifference(expected, results);
        if (difference !== undefined) return failure(difference, { ...rest, kind: "differs" });
        // O3: the simulator adds as tensor cores do.
        const added = executor.name === "cuda" && Object.values(exact ?? {}).some(({ sums }) => sums);
        const bits = added && first?.name === "simulator" ? ofResults(before, {}) : {};
        const other = firstDifference(bits, results);
        const emulated = { expected: bits, authority: "simulator", kind: "differs" };
        if (other !== undefined) return failure(other, { ...rest, ...emulated });
        before ??= results;
      } catch (error) {
        if (!(error instanceof UnsupportedError)) return failure(error, rest);
      }
    }
  }
  return undefined;
}

/** As the program's own TypeScript has it, for a device. */
function ofExact(exact: Readonly<Record<string, Exact>>, launch: Case, device: string): Failure["expected"] {
  const entries = Object.entries(exact).map(([name, { values, sums }]): readonly [string, Right] => {
    const data = launch[name];
    if (typeof data !== "object") throw new RangeError(`${name} is no tensor`);
    const bounds = values.map((value, i) => {
      if (!sums) return 0;
      const { magnitudes, terms, partials } = sums;
      const bound = (terms + partials + 4) * 2 ** -24 * (magnitudes[i] ?? 0);
      const wide = device === "wgsl" ? 2 * bound + terms * 2 ** -126 : bound;
      const ends = [rounded(data.dtype, value - wide), rounded(data.dtype, value + wide)];
      return Math.max(...ends.map((end) => Math.abs(end - rounded(data.dtype, value))));
    });
    return [name, { tensor: hostTensor({ ...data, values }, 0), bounds: sums ? bounds : [] }];
  });
  return Object.fromEntries(entries);
}

/** As another executor has it. */
function ofResults(results: Results = {}, tolerances: Program["tolerances"]): Failure["expected"] {
  const entries = Object.entries(results).map(([name, tensor]): readonly [string, Right] => {
    const { ulps, absolute } = tolerances[name] ?? { ulps: 0, absolute: 0 };
    const bounds = tolerances[name] ? [...tensor.values()].map((x) => ulps * ulp(x) + absolute) : [];
    return [name, { tensor, bounds }];
  });
  return Object.fromEntries(entries);
}

/** Launches once; every tensor lies between red zones. @throws Error when one is not what it was */
async function execute(backend: Backend, kernel: Kernel, launch: Case, poison: number): Promise<Results> {
  const executable = await backend.compile(kernel);
  const args: Record<string, DeviceTensor | number> = {};
  const tensors = new Map<string, DeviceTensor>();
  try {
    for (const { name, role } of kernel.ir.tensors) {
      const data = launch[name];
      if (typeof data !== "object") throw new RangeError(`no data for ${name}`);
      const host = hostTensor(data, poison);
      const storage = backend.allocate(2 * zoneBytes + Math.ceil(host.bytes.length / 4) * 4);
      const image = new Uint8Array(storage.byteLength).fill(zoneByte);
      image.set(host.bytes, zoneBytes);
      backend.write(storage, 0, image);
      const tensor = new DeviceTensor(storage, host.dtype, host.shape, zoneBytes);
      tensors.set(name, tensor);
      args[name] = role === "frozen" ? tensor.freeze() : tensor;
    }
    for (const { name } of kernel.ir.scalars) args[name] = Number(launch[name]);
    executable.bind(args as Arguments<typeof kernel.params>).launch();
    const results: Record<string, HostTensor> = {};
    for (const { name, role } of kernel.ir.tensors) {
      const tensor = tensors.get(name);
      if (!tensor || !isWritten(role)) continue;
      const image = await backend.read(tensor.storage, 0, tensor.storage.byteLength);
      const zones = [...image.subarray(0, zoneBytes), ...image.subarray(zoneBytes + tensor.byteLength)];
      if (zones.some((byte) => byte !== zoneByte)) throw new RangeError(`bytes outside of ${name} were written`);
      const bytes = image.slice(zoneBytes, zoneBytes + tensor.byteLength);
      results[name] = new HostTensor(tensor.dtype, tensor.shape, bytes);
    }
    return results;
  } finally {
    for (const tensor of tensors.values()) tensor.free();
  }
}

/** The first element that differs, for people. */
export function firstDifference(expected: Failure["expected"], actual: Results): string | undefined {
  for (const [name, { tensor, bounds }] of Object.entries(expected)) {
    const other = actual[name];
    if (!other) return `${name} is missing`;
    if (Buffer.from(tensor.bytes).equals(other.bytes)) continue;
    const [a, b] = [tensor.values(), other.values()];
    const i = a.findIndex((x, k) => !agree(x, b[k] ?? 0, bounds[k] ?? 0));
    if (i >= 0)
      return `element ${i} of ${name}, ${tensor}, is ${b[i]}, not ${a[i]}${bounds[i] ? ` +- ${bounds[i]}` : ""}`;
  }
  return undefined;
}

function agree(a: number, b: number, bound: number): boolean {
  return a === b || (Number.isNaN(a) && Number.isNaN(b)) || Math.abs(a - b) <= bound;
}

/** The distance to the next f32. */
const ulp = (x: number): number => 2 ** (Math.floor(Math.log2(Math.max(Math.abs(x), 2 ** -126))) - 23);
