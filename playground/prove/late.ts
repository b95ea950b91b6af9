/**
 * Kernels behind a producer that is late: it lets them start at once, sleeps, and only then writes what they read. A kernel
 * that reads before its wait reads poison; one that stores before its wait is seen by the producer, which copies its outputs
 * at the same time.
 */
import type { Backend, Launch } from "../../backends/backend.ts";
import { CudaBackend, type CudaGraph, type CudaLaunch } from "../../backends/cuda/index.ts";
import { run } from "../../backends/run.ts";
import { DeviceTensor, deviceTensor, frozenTensor } from "../../backends/tensor.ts";
import { type Expr, HostTensor, input, type Kernel, kernel, output, type Params, u32 } from "../../dsl/index.ts";
import { type Block, type Stmt, walk } from "../../dsl/ir.ts";

type Data = Readonly<Record<string, HostTensor | number>>;
type Tensors = Readonly<Record<string, HostTensor>>;

/** A kernel, and data for it: outputs too, whose content doesn't count. */
export interface LateSubject {
  readonly kernel: Kernel;
  /** Frozen tensors and scalars are the same for every seed. Tensors are whole words long. */
  readonly args: (seed: number) => Data;
}

/** What came of some rounds. */
interface LateResult {
  /** Rounds with an output that is not what the kernel makes of the same data without a producer. */
  readonly stale: number;
  /** Rounds in which the producer, after its sleep, found an output that was written already. */
  readonly early: number;
}

const threads = 128;
/** Few blocks: a multiprocessor that runs one of them has too little shared memory set aside for a GEMM's block. */
const grid = 32;
const sleepNs = 100_000;
const poisonByte = 0xff;

/**
 * Runs `consumer`, by default the subject's kernel, behind a late producer. On CUDA every second round replays a graph.
 * @throws as backend.compile() and run()
 */
export async function lateRounds(
  backend: Backend,
  subject: LateSubject,
  rounds: number,
  consumer = subject.kernel,
): Promise<LateResult> {
  const caseOf = async (seed: number): Promise<{ readonly data: Data; readonly expected: Tensors }> => {
    const data = subject.args(seed);
    return { data, expected: await run(backend, subject.kernel, data as never) };
  };
  const [one, other] = [await caseOf(1), await caseOf(2)];
  const chain = await LateChain.make(backend, consumer, one.data);
  try {
    let [stale, early] = [0, 0];
    for (let round = 0; round < rounds; round++) {
      // Two rounds of each data: one by launches, one by a graph.
      const { data, expected } = round % 4 < 2 ? one : other;
      await chain.run(data, round % 2 === 1);
      if (!(await chain.holds(expected))) stale++;
      if (!(await chain.sawPoison())) early++;
    }
    return { stale, early };
  } finally {
    chain.free();
  }
}

/** The kernel with its waits at its end: what the types and the verifier keep an author from writing. */
export function withoutWaits({ ir, ...rest }: Kernel): Kernel {
  const waits: Stmt[] = [];
  walk(ir.body, (stmt) => {
    if (stmt.kind === "pdlWait") waits.push(stmt);
  });
  const kept = (block: Block): Block =>
    block.flatMap((stmt): readonly Stmt[] => {
      if (stmt.kind === "pdlWait") return [];
      if (stmt.kind === "for") return [{ ...stmt, body: kept(stmt.body) }];
      return stmt.kind === "if" ? [{ ...stmt, then: kept(stmt.then), otherwise: kept(stmt.otherwise) }] : [stmt];
    });
  return { ...rest, ir: { ...ir, name: `${ir.name}_hurried`, body: [...kept(ir.body), ...waits.slice(0, 1)] } };
}

/** A tensor that both kernels have, as words, and the tensor that the producer copies it from, or to. */
interface Twin {
  readonly name: string;
  readonly shared: DeviceTensor;
  readonly other: DeviceTensor;
}

/** Producer and consumer, and their memory. */
class LateChain {
  readonly #launches: readonly Launch[];
  readonly #graph: CudaGraph | undefined;
  readonly #tensors: ReadonlyMap<string, DeviceTensor>;
  /** The consumer's inputs, which the producer writes. */
  readonly #awaited: readonly Twin[];
  /** The consumer's outputs, of which the producer takes a copy. */
  readonly #watched: readonly Twin[];

  private constructor(
    backend: Backend,
    launches: readonly Launch[],
    tensors: ReadonlyMap<string, DeviceTensor>,
    awaited: readonly Twin[],
    watched: readonly Twin[],
  ) {
    this.#launches = launches;
    this.#tensors = tensors;
    this.#awaited = awaited;
    this.#watched = watched;
    if (backend instanceof CudaBackend) {
      this.#graph = backend.capture((on) => launches.forEach((launch) => (launch as CudaLaunch).launch(on)));
    }
  }

  static async make(backend: Backend, consumer: Kernel, data: Data): Promise<LateChain> {
    const tensors = new Map<string, DeviceTensor>();
    for (const { name, role } of consumer.ir.tensors) {
      const host = hostTensor(data, name);
      tensors.set(name, role === "frozen" ? frozenTensor(backend, host) : deviceTensor(backend, host));
    }
    const twins = (isOutput: boolean): readonly Twin[] =>
      consumer.ir.tensors
        .filter(({ role }) => role !== "frozen" && (role === "output") === isOutput)
        .map(({ name }) => {
          const { storage, byteLength } = deviceTensorOf(tensors, name);
          const shape = [byteLength / u32.bytes];
          return { name, shared: new DeviceTensor(storage, u32, shape), other: deviceTensor(backend, u32, shape) };
        });
    const [awaited, watched] = [twins(false), twins(true)];
    const copies = [
      ...awaited.map(({ shared, other }) => ({ from: other, to: shared })),
      ...watched.map(({ shared, other }) => ({ from: shared, to: other })),
    ];
    const producer = await backend.compile(lateCopies(copies.map(({ to }) => to.shape[0] ?? 0)));
    const ends = copies.flatMap(({ from, to }, i) => [[`from${i}`, from] as const, [`to${i}`, to] as const]);
    const args = { ...data, ...Object.fromEntries(tensors) };
    const consuming = (await backend.compile(consumer)).bind(args as never);
    const launches = [producer.bind(Object.fromEntries(ends) as never), consuming];
    return new LateChain(backend, launches, tensors, awaited, watched);
  }

  /** One round: every tensor that isn't frozen is poison before it. `byGraph`: where there is one. */
  async run(data: Data, byGraph: boolean): Promise<void> {
    for (const { shared } of [...this.#awaited, ...this.#watched]) {
      shared.write(HostTensor.filled(u32, shared.shape, poisonByte));
    }
    for (const { name, other } of this.#awaited) {
      other.write(new HostTensor(u32, other.shape, hostTensor(data, name).bytes));
    }
    if (byGraph && this.#graph) this.#graph.launch();
    else for (const launch of this.#launches) launch.launch();
  }

  /** Whether the outputs are these. */
  async holds(expected: Tensors): Promise<boolean> {
    for (const [name, { bytes }] of Object.entries(expected)) {
      const result = await deviceTensorOf(this.#tensors, name).read();
      if (Buffer.compare(result.bytes, bytes) !== 0) return false;
    }
    return true;
  }

  /** Whether the producer found all outputs as they were before the round. */
  async sawPoison(): Promise<boolean> {
    for (const { other } of this.#watched) {
      if ((await other.read()).bytes.some((byte) => byte !== poisonByte)) return false;
    }
    return true;
  }

  free(): void {
    this.#graph?.dispose();
    const others = [...this.#awaited, ...this.#watched].map(({ other }) => other);
    for (const tensor of [...this.#tensors.values(), ...others]) tensor.free();
  }
}

interface Words {
  load(index: readonly unknown[]): Expr<"u32">;
  store(index: readonly unknown[], value: Expr<"u32"> | undefined): void;
}

/** The producer: copies so many words of each `from` to its `to`, long after it lets the next kernel start. */
function lateCopies(counts: readonly number[]): Kernel {
  const params: Params = Object.fromEntries(
    counts.flatMap((count, i) => [
      [`from${i}`, input(u32, [count])] as const,
      [`to${i}`, output(u32, [count])] as const,
    ]),
  );
  return kernel({ name: "late_copies", grid, block: threads, params }, (t) => {
    t.pdl.launchDependents();
    const late = t.pdl.wait() as unknown as Readonly<Record<string, Words>>;
    t.sleep(sleepNs);
    for (const step of t.range(Math.ceil(Math.max(...counts) / (grid * threads)))) {
      const i = step.mul(grid).add(t.block.x).mul(threads).add(t.thread);
      for (const [k, count] of counts.entries()) {
        t.when(i.lt(count), () => late[`to${k}`]?.store([i], late[`from${k}`]?.load([i])));
      }
    }
  });
}

function hostTensor(data: Data, name: string): HostTensor {
  const tensor = data[name];
  if (tensor instanceof HostTensor) return tensor;
  throw new RangeError(`there is no data for ${name}`);
}

function deviceTensorOf(tensors: ReadonlyMap<string, DeviceTensor>, name: string): DeviceTensor {
  const tensor = tensors.get(name);
  if (tensor) return tensor;
  throw new RangeError(`there is no tensor ${name}`);
}
