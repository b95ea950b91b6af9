/**
 * Measuring: ours and cuBLASLt in CUDA graphs of 100 launches or more, each with the next copy of the weights; so many copies
 * that none is left in L2 when its turn comes again ("cold"), or always the same ("hot"). All graphs of a cell are replayed
 * in turns, without a pause between them. Every graph's result is checked before and after, over poisoned memory:
 * the data is exact in every order of summation, so samples are compared with TypeScript, all of it with cuBLASLt, bit for bit.
 */
import { bf16, ContextLostError, e4m3, f32, HostTensor, UnsupportedError } from "../../dsl/index.ts";
import {
  type CudaBackend,
  type CudaEvent,
  type CudaGraph,
  type CudaQueue,
  deviceTensor,
  DeviceTensor,
  type FrozenTensor,
  frozenTensor,
  openCuda,
} from "../../backends/cuda/index.ts";
import type { Case, InName, OutName } from "./cases.ts";
import { CublasLt, type Matmul, workspaceBytes } from "./cublaslt.ts";
import { fill, productOf } from "./data.ts";
import { type Candidate, candidates, empty, streamBytes, streamRead } from "./kernels.ts";
import { interleaved, type Quantiles, type Repeatable } from "./statistics.ts";

/** Five times the L2 of an H200 (60 MB), and a little more. */
const coldBytes = 320e6;
const leastLaunches = 100;
/** Of graphs that are longer than those. */
const leastReplays = 30;
const seeds = { w: 11, x: 7 } as const;
const samples = 64;
const dtypes = { bf16, e4m3, f32 } as const;

/** What this device can do at best, measured in this run. */
export interface Limits {
  readonly streamBytesPerUs: number;
  /** A kernel that does nothing, in a chain of its like. */
  readonly emptyUs: number;
  readonly emptyWithoutPdlUs: number;
}

/** Times in microseconds per launch. */
export interface Cell extends Case {
  readonly M: number;
  /** Of our kernels the fastest here. */
  readonly kernel: string;
  readonly ours: Quantiles;
  readonly oursHot: Quantiles;
  readonly oursWithoutPdl: Quantiles;
  /** The first that its heuristic recommends; undefined where cuBLASLt serves no such product. */
  readonly cublas: Quantiles | undefined;
  readonly cublasHot: Quantiles | undefined;
  /** The fastest of the first 8; of e4m3 also of 8 that add with less precision. */
  readonly cublasBest: Quantiles | undefined;
  /** All that were tried, by a few replays each. */
  readonly trials: Readonly<Record<string, number>>;
  /** Two series of ours: the share by which their medians differ. */
  readonly noise: number;
  /** Weights, tokens and results, each once. */
  readonly bytes: number;
  /** Of each graph, and how many launches are in one. */
  readonly replays: number;
  readonly launches: number;
}

/** The device, and the opponent. */
export class Bench implements AsyncDisposable {
  readonly cuda: CudaBackend;
  readonly lt: CublasLt;
  readonly replays: number;
  readonly workspace: DeviceTensor<"f32">;
  readonly one: FrozenTensor<"f32">;

  static async open(replays: number): Promise<Bench> {
    return new Bench(await openCuda(), replays);
  }

  private constructor(cuda: CudaBackend, replays: number) {
    this.cuda = cuda;
    this.replays = replays;
    this.workspace = deviceTensor(cuda, f32, [workspaceBytes / 4]);
    this.one = frozenTensor(cuda, HostTensor.from(f32, [1], [1]));
    this.lt = new CublasLt();
  }

  async limits(): Promise<Limits> {
    const { cuda, replays } = this;
    using x = deviceTensor(cuda, streamRead.params.x.dtype, [streamBytes / 4]);
    using y = deviceTensor(cuda, streamRead.params.y.dtype, [1]);
    using z = deviceTensor(cuda, f32, [1]);
    const read = (await cuda.compile(streamRead)).bind({ x: x.freeze(), y });
    const nothing = await cuda.compile(empty);
    const [chained, alone] = [nothing.bind({ y: z }), nothing.bind({ y: z }, { pdl: false })];
    using graphs = new Graphs(cuda, leastLaunches);
    using reading = cuda.capture((on) => read.launch(on));
    const [stream] = await interleaved([new Series(cuda, reading, 1)], 20);
    const [inChain, apart] = await interleaved(
      [graphs.capture((on) => chained.launch(on), 1), graphs.capture((on) => alone.launch(on), 1)],
      replays,
    );
    return {
      streamBytesPerUs: streamBytes / (stream?.median ?? NaN),
      emptyUs: inChain?.median ?? NaN,
      emptyWithoutPdlUs: apart?.median ?? NaN,
    };
  }

  /** Copies of the weights, enough to be cold; dispose them before the next. @throws DeviceError when there is no room */
  async weights(shape: Case): Promise<Weights> {
    const { N, K, dtype } = shape;
    const copyBytes = N * K * dtypes[dtype].bytes;
    const copies = Math.ceil(coldBytes / copyBytes);
    const storage = this.cuda.allocate(copies * copyBytes);
    await fill(this.cuda, dtype, storage, seeds.w);
    const slab = new DeviceTensor<InName>(storage, dtypes[dtype], [copies * N, K]).freeze();
    return new Weights(this, shape, slab, copies);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.lt[Symbol.dispose]();
    await this.cuda.dispose();
  }
}

/** One launch with one of the copies. */
type Chain = (on: CudaQueue, copy: number) => void;

/** One shape's weights on the device, and what is measured with them. */
export class Weights implements Disposable {
  readonly #bench: Bench;
  readonly #shape: Case;
  readonly #slab: FrozenTensor<InName>;
  readonly #copies: number;

  constructor(bench: Bench, shape: Case, slab: FrozenTensor<InName>, copies: number) {
    this.#bench = bench;
    this.#shape = shape;
    this.#slab = slab;
    this.#copies = copies;
  }

  [Symbol.dispose](): void {
    this.#slab.free();
  }

  /** @throws Error when a result is wrong: then there is no time */
  async measure(M: number, tried: readonly Candidate[] = candidates(this.#shape, M)): Promise<Cell> {
    const { cuda } = this.#bench;
    const { N, K, dtype, out } = this.#shape;
    const copies = this.#copies;
    using x = await this.#tokens(M, dtype === "f32" ? "bf16" : dtype);
    using y = deviceTensor<OutName>(cuda, dtypes[out], [M, N]);
    // Whole rotations: each replay begins with the copy that was used longest ago, and ends with the last.
    using graphs = new Graphs(cuda, copies * Math.ceil(leastLaunches / copies));

    using theirX = dtype === "f32" ? await this.#tokens(M, dtype) : undefined;
    using plain = this.#matmul(M, false);
    using fast = dtype === "e4m3" ? this.#matmul(M, true) : undefined;
    const chains = [plain, fast].flatMap((matmul) => (matmul ? this.#cublas(matmul, theirX ?? x, y) : []));
    const theirs = chains.map((chain) => graphs.capture(chain, copies));
    const [first] = theirs;
    const expected = first && (await this.#checked("cuBLASLt", first, M, y, undefined));
    const best = theirs[least(await mediansOf(theirs))];

    const ours = [];
    for (const candidate of tried) {
      const launches = await this.#launches(candidate, x, y, true);
      const graph = graphs.capture((on, copy) => launches[copy]?.launch(on), copies);
      await this.#checked(candidate.name, graph, M, y, expected);
      ours.push({ candidate, launches, graph });
    }
    const medians = await mediansOf(ours.map(({ graph }) => graph));
    const chosen = ours[least(medians)];
    if (!chosen) throw new Error(`no kernel serves ${M} x ${N} x ${K}`);
    const apart = await this.#launches(chosen.candidate, x, y, false);
    const again = graphs.capture((on, copy) => chosen.launches[copy]?.launch(on), copies);
    const hot = graphs.capture((on) => chosen.launches[copies - 1]?.launch(on), 1);
    const withoutPdl = graphs.capture((on, copy) => apart[copy]?.launch(on), copies);
    const [firstChain] = chains;
    const cublasHot = firstChain && graphs.capture((on) => firstChain(on, copies - 1), 1);

    const replays = Math.max(leastReplays, Math.ceil((this.#bench.replays * leastLaunches) / graphs.launches));
    const all = [chosen.graph, again, hot, withoutPdl, first, cublasHot, best];
    const taken = [...new Set(all.filter((graph) => graph !== undefined))];
    const times = await interleaved(taken, replays);
    const timesOf = (graph: Series | undefined): Quantiles | undefined => graph && times[taken.indexOf(graph)];
    for (const graph of taken) {
      const isTheirs = graph === cublasHot || theirs.includes(graph);
      await this.#checked(isTheirs ? "cuBLASLt" : chosen.candidate.name, graph, M, y, expected);
    }
    const [oursTimes, againTimes, oursHot, oursWithoutPdl] = [chosen.graph, again, hot, withoutPdl].map(timesOf);
    if (!oursTimes || !againTimes || !oursHot || !oursWithoutPdl) throw new Error("a series is missing");
    return {
      ...this.#shape,
      M,
      kernel: chosen.candidate.name,
      ours: oursTimes,
      oursHot,
      oursWithoutPdl,
      cublas: timesOf(first),
      cublasHot: timesOf(cublasHot),
      cublasBest: timesOf(best),
      trials: Object.fromEntries(ours.map(({ candidate }, i) => [candidate.name, medians[i] ?? NaN])),
      noise: Math.abs(oursTimes.median / againTimes.median - 1),
      bytes: N * K * dtypes[dtype].bytes + M * K * x.dtype.bytes + M * N * dtypes[out].bytes,
      replays,
      launches: graphs.launches,
    };
  }

  /**
   * The times of each candidate in a chain, by a few replays, in microseconds a launch; or why there is none. The first
   * that runs is checked by samples, all others against it, bit for bit.
   */
  async trial(M: number, tried: readonly Candidate[], replays: number): Promise<readonly (number | Error)[]> {
    const { cuda } = this.#bench;
    const { N, K, dtype, out } = this.#shape;
    const copies = this.#copies;
    using x = await this.#tokens(M, dtype === "f32" ? "bf16" : dtype);
    using y = deviceTensor<OutName>(cuda, dtypes[out], [M, N]);
    const least = N * K * dtypes[dtype].bytes > 8e6 ? leastLaunches / 4 : leastLaunches;
    using graphs = new Graphs(cuda, copies * Math.ceil(least / copies));
    let expected: HostTensor | undefined;
    const found: (Series | Error)[] = [];
    for (const candidate of tried) {
      try {
        const launches = await this.#launches(candidate, x, y, true);
        const graph = graphs.capture((on, copy) => launches[copy]?.launch(on), copies);
        const result = await this.#checked(candidate.name, graph, M, y, expected, expected ? 0 : samples);
        expected ??= result;
        found.push(graph);
      } catch (error) {
        if (error instanceof ContextLostError || !(error instanceof Error)) throw error;
        found.push(error);
      }
    }
    const running = found.filter((one) => one instanceof Series);
    const medians = (await interleaved(running, replays)).map(({ median }) => median);
    return found.map((one) => (one instanceof Series ? (medians[running.indexOf(one)] ?? NaN) : one));
  }

  async #tokens(M: number, dtype: InName): Promise<DeviceTensor<InName>> {
    const { cuda } = this.#bench;
    const x = deviceTensor<InName>(cuda, dtypes[dtype], [M, this.#shape.K]);
    await fill(cuda, dtype, x.storage, seeds.x);
    return x;
  }

  /** One of our kernels, bound to each copy of the weights. */
  async #launches({ kernel }: Candidate, x: DeviceTensor<InName>, y: DeviceTensor<OutName>, pdl: boolean) {
    const { N, K, dtype } = this.#shape;
    const { cuda, one } = this.#bench;
    const executable = await cuda.compile(kernel);
    const scales = dtype === "e4m3" ? { wScale: one, xScale: one } : {};
    return Array.from({ length: this.#copies }, (_, copy) =>
      executable.bind({ w: this.#slab.view([N, K], copy * N * K), x, y, ...scales } as never, { pdl }),
    );
  }

  #matmul(M: number, fastAccumulation: boolean): Matmul | undefined {
    const { cuda, lt, one } = this.#bench;
    const { N, K, dtype, out } = this.#shape;
    const scale = cuda.pointerOf(one);
    const scales = dtype === "e4m3" ? { scales: { w: scale, x: scale } } : {};
    try {
      return lt.matmul({ M, N, K, dtype, out, fastAccumulation, ...scales });
    } catch (error) {
      if (error instanceof UnsupportedError) return undefined;
      throw error;
    }
  }

  /** A chain of each algorithm. */
  #cublas(matmul: Matmul, x: DeviceTensor<InName>, y: DeviceTensor<OutName>): readonly Chain[] {
    const { cuda, workspace, one } = this.#bench;
    const { N, K } = this.#shape;
    const uses = { reads: [this.#slab, x, one], writes: [y, workspace] };
    const pointers = { x: cuda.pointerOf(x), y: cuda.pointerOf(y), workspace: cuda.pointerOf(workspace) };
    const weights = Array.from({ length: this.#copies }, (_, copy) =>
      cuda.pointerOf(this.#slab.view([N, K], copy * N * K)),
    );
    return matmul.algorithms.map(
      (algorithm): Chain =>
        (on, copy) =>
          on.foreign("multiplying by cuBLASLt", uses, (stream) =>
            matmul.enqueue(stream, algorithm, { ...pointers, w: weights[copy] ?? 0n }),
          ),
    );
  }

  /** What a graph leaves of the last copy. @throws Error with the first element that is wrong */
  async #checked(
    name: string,
    graph: Series,
    M: number,
    y: DeviceTensor<OutName>,
    expected: HostTensor | undefined,
    sampled = samples,
  ): Promise<HostTensor> {
    const { N, K, dtype, out } = this.#shape;
    const fail = (what: string): never => {
      throw new Error(`${name} of ${M} x ${N} x ${K} in ${dtype} to ${out} is wrong: ${what}`);
    };
    y.write(HostTensor.filled(dtypes[out], [M, N], 0xff));
    graph.launch();
    const result = await y.read();
    const values = result.values();
    for (let i = 0; i < sampled; i++) {
      const at = (i * 2654435761) % (M * N);
      const [m, n] = [Math.floor(at / N), at % N];
      const row = { seed: seeds.w, start: ((this.#copies - 1) * N + n) * K };
      const exact = productOf(dtype, K, { seed: seeds.x, start: m * K }, row);
      const rounded = HostTensor.from<OutName>(dtypes[out], [1], [exact]).values()[0];
      if (values[at] !== rounded) fail(`[${m}, ${n}] is ${values[at]}, not ${rounded}`);
    }
    const differs = expected ? result.bytes.findIndex((byte, i) => byte !== expected.bytes[i]) : -1;
    if (differs >= 0) fail(`another kernel or cuBLASLt has other bits from byte ${differs} on`);
    return result;
  }
}

/** A graph that is measured. */
class Series implements Repeatable {
  readonly launches: number;
  readonly #cuda: CudaBackend;
  readonly #graph: CudaGraph;

  constructor(cuda: CudaBackend, graph: CudaGraph, launches: number) {
    this.#cuda = cuda;
    this.#graph = graph;
    this.launches = launches;
  }

  launch(): void {
    this.#graph.launch();
  }

  record(): CudaEvent {
    return this.#cuda.stream.record();
  }
}

/** Graphs of one cell. */
class Graphs implements Disposable {
  readonly launches: number;
  readonly #cuda: CudaBackend;
  readonly #graphs: CudaGraph[] = [];

  constructor(cuda: CudaBackend, launches: number) {
    this.#cuda = cuda;
    this.launches = launches;
  }

  /** A chain that goes through so many copies in turns. */
  capture(chain: Chain, copies: number): Series {
    if (this.launches % copies !== 0)
      throw new Error("A graph goes through all copies, and then from the first on again");
    const graph = this.#cuda.capture((on) => {
      for (let i = 0; i < this.launches; i++) chain(on, i % copies);
    });
    this.#graphs.push(graph);
    return new Series(this.#cuda, graph, this.launches);
  }

  [Symbol.dispose](): void {
    for (const graph of this.#graphs) graph.dispose();
  }
}

/** By a few replays of each. */
async function mediansOf(graphs: readonly Repeatable[]): Promise<readonly number[]> {
  return (await interleaved(graphs, 10)).map(({ median }) => median);
}

function least(times: readonly number[]): number {
  return times.indexOf(Math.min(...times));
}
