/**
 * cuBLASLt in this process, the opponent: y = x w^T as it is called from row-major code. For cuBLASLt, which counts columns
 * first, that is y^T[N,M] = w^T^T x^T with w transposed: the only order that it serves in 8 bits.
 *
 * Source: docs.nvidia.com/cuda/cublas, "Using the cublasLt API".
 */
import { DeviceError, UnsupportedError } from "../../dsl/index.ts";
import { openCublasLtLibrary } from "../../backends/cuda/libraries.ts";
import type { InName, OutName } from "./cases.ts";

type Out64 = BigUint64Array<ArrayBuffer>;
type Bytes = Uint8Array<ArrayBuffer>;

function declare() {
  const { handle } = openCublasLtLibrary();
  const f = <A extends readonly unknown[]>(prototype: string): ((...args: A) => number) => handle.func(prototype);
  const setter = (what: string) =>
    f<[descriptor: bigint, attribute: number, value: ArrayBufferView, size: number]>(
      `int cublasLt${what}SetAttribute(uint64_t descriptor, int attribute, void *value, size_t size)`,
    );
  return {
    version: handle.func("size_t cublasLtGetVersion()") as () => number,
    create: f<[handle: Out64]>("int cublasLtCreate(void *handle)"),
    destroy: f<[handle: bigint]>("int cublasLtDestroy(uint64_t handle)"),
    createDesc: f<[descriptor: Out64, computeType: number, scaleType: number]>(
      "int cublasLtMatmulDescCreate(void *descriptor, int computeType, int scaleType)",
    ),
    setDesc: setter("MatmulDesc"),
    destroyDesc: f<[descriptor: bigint]>("int cublasLtMatmulDescDestroy(uint64_t descriptor)"),
    createLayout: f<[layout: Out64, type: number, rows: number, columns: number, leading: number]>(
      "int cublasLtMatrixLayoutCreate(void *layout, int type, uint64_t rows, uint64_t columns, int64_t leading)",
    ),
    destroyLayout: f<[layout: bigint]>("int cublasLtMatrixLayoutDestroy(uint64_t layout)"),
    createPreference: f<[preference: Out64]>("int cublasLtMatmulPreferenceCreate(void *preference)"),
    setPreference: setter("MatmulPreference"),
    destroyPreference: f<[preference: bigint]>("int cublasLtMatmulPreferenceDestroy(uint64_t preference)"),
    heuristics: f<
      [
        handle: bigint,
        desc: bigint,
        a: bigint,
        b: bigint,
        c: bigint,
        d: bigint,
        preference: bigint,
        wanted: number,
        results: Bytes,
        count: Int32Array<ArrayBuffer>,
      ]
    >(
      "int cublasLtMatmulAlgoGetHeuristic(uint64_t handle, uint64_t desc, uint64_t a, uint64_t b, uint64_t c, uint64_t d, " +
        "uint64_t preference, int wanted, void *results, void *count)",
    ),
    matmul: f<
      [
        handle: bigint,
        desc: bigint,
        alpha: Float32Array<ArrayBuffer>,
        a: bigint,
        layoutA: bigint,
        b: bigint,
        layoutB: bigint,
        beta: Float32Array<ArrayBuffer>,
        c: bigint,
        layoutC: bigint,
        d: bigint,
        layoutD: bigint,
        algorithm: Bytes,
        workspace: bigint,
        workspaceBytes: number,
        stream: bigint,
      ]
    >(
      "int cublasLtMatmul(uint64_t handle, uint64_t desc, void *alpha, uint64_t a, uint64_t layoutA, uint64_t b, " +
        "uint64_t layoutB, void *beta, uint64_t c, uint64_t layoutC, uint64_t d, uint64_t layoutD, void *algorithm, " +
        "uint64_t workspace, size_t workspaceBytes, uint64_t stream)",
    ),
  };
}

// Of cublasLt.h and library_types.h.
const dataTypes = { f32: 0, bf16: 14, e4m3: 28 } as const;
const compute32F = 68;
const transposeA = 3; // CUBLASLT_MATMUL_DESC_TRANSA
const scalePointers = { a: 17, b: 18 } as const;
const fastAccum = 25; // CUBLASLT_MATMUL_DESC_FAST_ACCUM
const notSupported = 15; // CUBLAS_STATUS_NOT_SUPPORTED
const maxWorkspaceBytes = 1; // CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES
/** cublasLtMatmulHeuristicResult_t: the algorithm (64 bytes), workspaceSize, state, wavesCount, reserved. */
const resultBytes = 96;
const algorithmBytes = 64;
const stateAt = 72;

/** What PyTorch gives it on Hopper. */
export const workspaceBytes = 32 * 1024 * 1024;

const [one, zero] = [new Float32Array([1]), new Float32Array([0])];

export class CublasLt implements Disposable {
  readonly #api = declare();
  readonly #handle: bigint;

  /** The context must be current. @throws NotFoundError, DeviceError */
  constructor() {
    this.#handle = receive("starting", (out) => this.#api.create(out));
  }

  /** E.g. "13.1.0". */
  get version(): string {
    const version = this.#api.version();
    return `${Math.floor(version / 10_000)}.${Math.floor((version % 10_000) / 100)}.${version % 100}`;
  }

  matmul(problem: MatmulProblem): Matmul {
    return new Matmul(this.#api, this.#handle, problem);
  }

  [Symbol.dispose](): void {
    this.#api.destroy(this.#handle);
  }
}

export interface MatmulProblem {
  readonly M: number;
  readonly N: number;
  readonly K: number;
  readonly dtype: InName;
  readonly out: OutName;
  /** Of e4m3: adds with fewer bits. */
  readonly fastAccumulation: boolean;
  /** Device addresses of one f32 each; of e4m3 only. */
  readonly scales?: { readonly w: bigint; readonly x: bigint };
}

/** Device addresses; the workspace has `workspaceBytes`. */
export interface MatmulPointers {
  readonly w: bigint;
  readonly x: bigint;
  readonly y: bigint;
  readonly workspace: bigint;
}

export class Matmul implements Disposable {
  /** In the order in which cuBLASLt recommends them. */
  readonly algorithms: readonly Bytes[];
  readonly #api: ReturnType<typeof declare>;
  readonly #handle: bigint;
  readonly #desc: bigint;
  readonly #layouts: { readonly w: bigint; readonly x: bigint; readonly y: bigint };

  /** @throws UnsupportedError when cuBLASLt has nothing for it; DeviceError */
  constructor(
    api: ReturnType<typeof declare>,
    handle: bigint,
    { M, N, K, dtype, out, fastAccumulation, scales }: MatmulProblem,
  ) {
    this.#api = api;
    this.#handle = handle;
    this.#desc = receive("describing a product", (desc) => api.createDesc(desc, compute32F, dataTypes.f32));
    const layout = (type: number, rows: number, columns: number): bigint =>
      receive("describing a matrix", (made) => api.createLayout(made, type, rows, columns, rows));
    this.#layouts = {
      w: layout(dataTypes[dtype], K, N),
      x: layout(dataTypes[dtype], K, M),
      y: layout(dataTypes[out], N, M),
    };
    check("transposing", api.setDesc(this.#desc, transposeA, new Int32Array([1]), 4));
    if (scales) {
      check("scaling", api.setDesc(this.#desc, scalePointers.a, new BigUint64Array([scales.w]), 8));
      check("scaling", api.setDesc(this.#desc, scalePointers.b, new BigUint64Array([scales.x]), 8));
    }
    if (fastAccumulation) check("asking for fewer bits", api.setDesc(this.#desc, fastAccum, new Int8Array([1]), 1));
    this.algorithms = this.#recommended(8);
    if (this.algorithms.length === 0) {
      this[Symbol.dispose]();
      throw new UnsupportedError(`cuBLASLt has no algorithm for ${M} x ${N} x ${K} in ${dtype} to ${out}`);
    }
  }

  /** @throws DeviceError */
  enqueue(stream: bigint, algorithm: Bytes, { w, x, y, workspace }: MatmulPointers): void {
    const { w: layoutW, x: layoutX, y: layoutY } = this.#layouts;
    check(
      "multiplying",
      this.#api.matmul(
        ...([this.#handle, this.#desc, one, w, layoutW, x, layoutX, zero] as const),
        ...([y, layoutY, y, layoutY, algorithm, workspace, workspaceBytes, stream] as const),
      ),
    );
  }

  [Symbol.dispose](): void {
    for (const layout of Object.values(this.#layouts)) this.#api.destroyLayout(layout);
    this.#api.destroyDesc(this.#desc);
  }

  #recommended(most: number): readonly Bytes[] {
    const api = this.#api;
    const { w, x, y } = this.#layouts;
    const preference = receive("asking for algorithms", (made) => api.createPreference(made));
    const results = new Uint8Array(most * resultBytes);
    const count = new Int32Array(1);
    try {
      const room = new BigUint64Array([BigInt(workspaceBytes)]);
      check("asking for algorithms", api.setPreference(preference, maxWorkspaceBytes, room, 8));
      const status = api.heuristics(this.#handle, this.#desc, w, x, y, y, preference, most, results, count);
      if (status !== notSupported) check("asking for algorithms", status);
    } finally {
      api.destroyPreference(preference);
    }
    const states = new DataView(results.buffer);
    return Array.from({ length: count[0] ?? 0 }, (_, i) => i * resultBytes)
      .filter((at) => states.getInt32(at + stateAt, true) === 0)
      .map((at) => results.slice(at, at + algorithmBytes));
  }
}

function receive(doing: string, call: (out: Out64) => number): bigint {
  const out = new BigUint64Array(1);
  check(doing, call(out));
  return out[0] ?? 0n;
}

/** @throws DeviceError */
function check(doing: string, status: number): void {
  if (status !== 0) throw new DeviceError(`cuBLASLt failed, ${doing}: cublasStatus_t ${status}`);
}
