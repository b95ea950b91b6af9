/**
 * Measuring: ours and cuBLASLt in CUDA graphs of 100 launches or more, each with the next copy of the weights; so many copies
 * that none is left in L2 when its turn comes again ("cold"), or always the same ("hot"). All graphs of a cell are replayed
 * in turns. Results are checked before and after: the data is exact in every order of summation, so a sample is compared
 * with TypeScript, all of it with cuBLASLt, bit for bit.
 */
import { bf16, type DTypeName, e4m3, f32, HostTensor, type Kernel, UnsupportedError } from "../../dsl/index.ts";
import {
  type CudaBackend,
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
import { type Candidate, candidates, empty, streamBytes, streamRead, streamReadBytes } from "./kernels.ts";
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
  /** The fastest of the first 8. */
  readonly cublasBest: Quantiles | undefined;
  /** All that were tried, by a few replays each. */
  readonly trials: Readonly<Record<string, number>>;
  /** Two series of ours: the share by which their medians differ. */
  readonly noise: number;
  /** Weights, tokens and results, each once. */
  readonly bytes: number;
}

/** The device twice, with and without PDL, and the opponent. */
export class Bench implements AsyncDisposable {
  readonly cuda: CudaBackend;
  readonly lt: CublasLt;
  readonly replays: number;
  readonly workspace: DeviceTensor<"f32">;
  readonly one: FrozenTensor<"f32">;
  readonly #plain: CudaBackend;

  static async open(replays: number): Promise<Bench> {
    return new Bench(await openCuda(), await openCuda({ pdl: false }), replays);
  }

  private constructor(cuda: CudaBackend, plain: CudaBackend, replays: number) {
    this.cuda = cuda;
    this.#plain = plain;
    this.replays = replays;
    this.workspace = deviceTensor(cuda, f32, [workspaceBytes / 4]);
    this.one = frozenTensor(cuda, HostTensor.from(f32, [1], [1]));
    this.lt = new CublasLt();
  }

  async limits(): Promise<Limits> {
    const { cuda } = this;
    using x = deviceTensor(cuda, dtypes.f32, [streamBytes / 4]);
    const words = new DeviceTensor(x.storage, streamRead.params.x.dtype, [streamBytes / 4]).freeze();
    using y = deviceTensor(cuda, streamRead.params.y.dtype, [1]);
    const read = (await cuda.compile(streamRead)).bind({ x: words, y });
    const emptyTimes = [];
    for (const device of [cuda, this.#plain]) {
      using z = deviceTensor(device, f32, [1]);
      const nothing = (await device.compile(empty)).bind({ y: z });
      using graph = device.capture((on) => {
        for (let i = 0; i < leastLaunches; i++) nothing.launch(on);
      });
      const [times] = await interleaved([{ launches: leastLaunches, timeUs: (n) => graph.timeUs(n) }], this.replays);
      emptyTimes.push(times?.median ?? NaN);
    }
    const [emptyUs = NaN, emptyWithoutPdlUs = NaN] = emptyTimes;
    const [stream] = await interleaved([{ launches: 1, timeUs: (n) => read.timeUs(n) }], 20);
    return { streamBytesPerUs: streamReadBytes / (stream?.median ?? NaN), emptyUs, emptyWithoutPdlUs };
  }

  /** Copies of the weights, enough to be cold; dispose them before the next. */
  async weights(shape: Case): Promise<Weights> {
    const { N, K, dtype } = shape;
    const copyBytes = N * K * dtypes[dtype].bytes;
    const copies = Math.max(1, Math.ceil(coldBytes / copyBytes));
    const storage = this.cuda.allocate(copies * copyBytes);
    await fill(this.cuda, dtype, storage, seeds.w);
    const slab = new DeviceTensor<InName>(storage, dtypes[dtype], [copies * N, K]).freeze();
    return new Weights(this, this.#plain, shape, slab, copies);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.lt[Symbol.dispose]();
    await this.#plain.dispose();
    await this.cuda.dispose();
  }
}

/** One shape's weights on the device, and what is measured with them. */
export class Weights implements Disposable {
  readonly #bench: Bench;
  readonly #plain: CudaBackend;
  readonly #shape: Case;
  readonly #slab: FrozenTensor<InName>;
  readonly #copies: number;

  constructor(bench: Bench, plain: CudaBackend, shape: Case, slab: FrozenTensor<InName>, copies: number) {
    this.#bench = bench;
    this.#plain = plain;
    this.#shape = shape;
    this.#slab = slab;
    this.#copies = copies;
  }

  [Symbol.dispose](): void {
    this.#slab.free();
  }

  /** @throws Error when a result is wrong: then there is no time */
  async measure(M: number, tried: readonly Candidate[] = candidates(this.#shape, M)): Promise<Cell> {
    const { cuda, replays } = this.#bench;
    const { N, K, dtype, out } = this.#shape;
    using x = deviceTensor<InName>(cuda, dtypes[dtype], [M, K]);
    await fill(cuda, dtype, x.storage, seeds.x);
    using y = deviceTensor<OutName>(cuda, dtypes[out], [M, N]);
    using yCublas = deviceTensor<OutName>(cuda, dtypes[out], [M, N]);
    using graphs = new Graphs(Math.max(leastLaunches, this.#copies));

    using matmul = this.#matmul(M);
    const theirs = matmul?.algorithms.map((algorithm) => this.#cublas(matmul, algorithm, x, yCublas)) ?? [];
    const best = least(await mediansOf(theirs.map((chain) => graphs.capture(cuda, chain, this.#copies))));

    const ours: { readonly name: string; readonly chain: Chain; readonly kernel: Kernel }[] = [];
    for (const { name, kernel } of tried) {
      const chain = await this.#chain(cuda, kernel, this.#slab, x, y);
      chain(cuda.stream, this.#copies - 1);
      theirs[0]?.(cuda.stream, this.#copies - 1);
      await this.#check(name, M, y, matmul && yCublas);
      ours.push({ name, chain, kernel });
    }
    const medians = await mediansOf(ours.map(({ chain }) => graphs.capture(cuda, chain, this.#copies)));
    const chosen = ours[least(medians)];
    if (!chosen) throw new Error(`no kernel serves ${M} x ${N} x ${K}`);
    const { name, chain, kernel } = chosen;

    const adopt = <T extends DTypeName>(tensor: DeviceTensor<T>): DeviceTensor<T> =>
      this.#plain.adoptTensor({ pointer: cuda.pointerOf(tensor), dtype: tensor.dtype, shape: tensor.shape });
    using slabThere = adopt(this.#slab);
    using xThere = adopt(x);
    using yThere = adopt(y);
    const without = await this.#chain(this.#plain, kernel, slabThere.freeze(), xThere, yThere);

    const [ours1, ours2, oursHot, oursWithoutPdl, first, firstHot, bestOf] = await interleaved(
      [
        graphs.capture(cuda, chain, this.#copies),
        graphs.capture(cuda, chain, this.#copies),
        graphs.capture(cuda, chain, 1),
        graphs.capture(this.#plain, without, this.#copies),
        ...[theirs[0]].flatMap((one) =>
          one ? [graphs.capture(cuda, one, this.#copies), graphs.capture(cuda, one, 1)] : [],
        ),
        ...[theirs[best]].flatMap((one) => (one ? [graphs.capture(cuda, one, this.#copies)] : [])),
      ],
      Math.max(leastReplays, Math.ceil((replays * leastLaunches) / graphs.launches)),
    );
    if (!ours1 || !ours2 || !oursHot || !oursWithoutPdl) throw new Error("a series is missing");
    chain(cuda.stream, this.#copies - 1);
    theirs[best]?.(cuda.stream, this.#copies - 1);
    await this.#check(name, M, y, matmul && yCublas);
    return {
      ...this.#shape,
      ...{ M, kernel: name, ours: ours1, oursHot, oursWithoutPdl },
      ...{ cublas: first, cublasHot: firstHot, cublasBest: bestOf },
      trials: Object.fromEntries(ours.map(({ name }, i) => [name, medians[i] ?? NaN])),
      noise: Math.abs(ours1.median / ours2.median - 1),
      bytes: (N * K + M * K) * dtypes[dtype].bytes + M * N * dtypes[out].bytes,
    };
  }

  /** Launches of one of our kernels, with any copy of the weights. */
  async #chain(
    device: CudaBackend,
    kernel: Kernel,
    slab: FrozenTensor<InName>,
    x: DeviceTensor<InName>,
    y: DeviceTensor<OutName>,
  ): Promise<Chain> {
    const { N, K, dtype } = this.#shape;
    const executable = await device.compile(kernel);
    const scale = device === this.#bench.cuda ? this.#bench.one : frozenTensor(device, HostTensor.from(f32, [1], [1]));
    const scales = dtype === "e4m3" ? { wScale: scale, xScale: scale } : {};
    const launches = Array.from({ length: this.#copies }, (_, copy) =>
      executable.bind({ w: slab.view([N, K], copy * N * K), x, y, ...scales } as never),
    );
    return (on, copy) => launches[copy]?.launch(on);
  }

  #matmul(M: number): Matmul | undefined {
    const { cuda, lt, one } = this.#bench;
    const { N, K, dtype, out } = this.#shape;
    const scale = cuda.pointerOf(one);
    const scales = dtype === "e4m3" ? { scales: { w: scale, x: scale } } : {};
    try {
      return lt.matmul({ M, N, K, dtype, out, ...scales });
    } catch (error) {
      if (error instanceof UnsupportedError) return undefined;
      throw error;
    }
  }

  #cublas(
    matmul: Matmul,
    algorithm: Uint8Array<ArrayBuffer>,
    x: DeviceTensor<InName>,
    y: DeviceTensor<OutName>,
  ): Chain {
    const { cuda, workspace } = this.#bench;
    const { N, K } = this.#shape;
    const uses = { reads: [this.#slab, x], writes: [y, workspace] };
    const pointers = { x: cuda.pointerOf(x), y: cuda.pointerOf(y), workspace: cuda.pointerOf(workspace) };
    const weights = Array.from({ length: this.#copies }, (_, copy) =>
      cuda.pointerOf(this.#slab.view([N, K], copy * N * K)),
    );
    return (on, copy) =>
      on.foreign("multiplying by cuBLASLt", uses, (stream) =>
        matmul.enqueue(stream, algorithm, { ...pointers, w: weights[copy] ?? 0n }),
      );
  }

  /** Of the last copy of the weights. @throws Error with the first element that is wrong */
  async #check(name: string, M: number, y: DeviceTensor<OutName>, theirs: DeviceTensor<OutName> | undefined) {
    const { N, K, dtype, out } = this.#shape;
    const fail = (what: string): never => {
      throw new Error(`${name} of ${M} x ${N} x ${K} in ${dtype} to ${out} is wrong: ${what}`);
    };
    const result = await y.read();
    const values = result.values();
    for (let i = 0; i < samples; i++) {
      const at = (i * 2654435761) % (M * N);
      const [m, n] = [Math.floor(at / N), at % N];
      const row = { seed: seeds.w, start: ((this.#copies - 1) * N + n) * K };
      const exact = productOf(dtype, K, { seed: seeds.x, start: m * K }, row);
      const rounded = HostTensor.from<OutName>(dtypes[out], [1], [exact]).values()[0];
      if (values[at] !== rounded) fail(`[${m}, ${n}] is ${values[at]}, not ${rounded}`);
    }
    const [ours, other] = [result.bytes, (await theirs?.read())?.bytes];
    const differs = other && ours.findIndex((byte, i) => byte !== other[i]);
    if (differs !== undefined && differs >= 0) fail(`cuBLASLt has other bits from byte ${differs} on`);
  }
}

/** One launch with one of the copies. */
type Chain = (on: CudaQueue, copy: number) => void;

/** Graphs of one cell. */
class Graphs implements Disposable {
  readonly launches: number;
  readonly #graphs: CudaGraph[] = [];

  constructor(launches: number) {
    this.launches = launches;
  }

  /** A chain that goes through so many copies in turns. */
  capture(device: CudaBackend, chain: Chain, copies: number): Repeatable {
    if (copies > this.launches) throw new Error("A graph must go through all copies");
    const graph = device.capture((on) => {
      for (let i = 0; i < this.launches; i++) chain(on, i % copies);
    });
    this.#graphs.push(graph);
    return { launches: this.launches, timeUs: (replays) => graph.timeUs(replays) };
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
