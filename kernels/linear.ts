/**
 * `linear`: one call from the sizes of y = x w^T to a configured kernel, as an inference engine wants it. Up to 16 tokens a
 * low-latency kernel: from the table of what was measured (tuned/, written by `npm run tune`), or else by its neighbours in
 * there; beyond that the general GEMM.
 */
import { ArgumentError, bf16, type Dim, type DType, e4m3, f32, type Params, UnsupportedError } from "../dsl/index.ts";
import { describe, describeDType } from "../dsl/check.ts";
import { maxOf } from "../dsl/size.ts";
import { callerOfKernels } from "./caller.ts";
import type { NoParams, WithEpilogue } from "./epilogue.ts";
import { gemmBf16 } from "./gemm.ts";
import { type Choice, choicesFor, formatChoice, kernelOf, parseChoice, type Product } from "./linear-space.ts";
import type { llGemmDotBf16, llGemmDotE4m3, llGemmDotF32 } from "./ll-gemm-dot.ts";
import { type GemmSizes, type InName, type OutName, requireConfig, rowAlignBytes } from "./ll-gemm.ts";
import { requireTable, tableOf, type TunedEntry, type TunedTable } from "./tuned.ts";

/** What to multiply. Tensors are contiguous, rows of K (x, w) or N (y). */
export interface LinearConfig<In extends InName = InName, Out extends OutName = OutName> extends GemmSizes<Out> {
  /** Of w; x is of the same type, bf16 where w is f32. */
  readonly weights: DType<In>;
  /** The GPU's name, as `cuda.device` says it: whose table is used, if there is one; else that of an H200. */
  readonly device?: string;
  /** What `npm run tune -- --table mine.json` wrote, instead of the tables that we have. */
  readonly table?: TunedTable;
  /** The same bits for a token however many there are beside it, up to 16. Costs speed for 1 and 2 tokens. */
  readonly batchInvariant?: boolean;
  /** Elements from row to row, and within a row, where they may differ from contiguous: then there is an error. */
  readonly strides?: { readonly [name in "x" | "w" | "y"]?: readonly [row: number, column: number] };
}

/** What linear() chose, and why. */
export interface LinearChoice {
  /** As text, e.g. "mma rows=16 cluster=8 warps=4 pieces=4 early=2", or "gemm". */
  readonly choice: string;
  /** `tuned`: measured for these sizes on `measuredOn`; `near`: for the sizes named, the nearest that were; `default`: neither. */
  readonly from: "tuned" | "near" | "default";
  /** What `near` took it from: [N, K]. */
  readonly near?: readonly [N: number, K: number];
  /** Of `tuned` and `near`: the GPU of the table. Not your own where there is no table of that. */
  readonly measuredOn?: string;
}

/** The kernel of y = x w^T: its parameters are w, x and y, with scales for e4m3, and the epilogue's. */
export type LinearKernel<In extends InName, Out extends OutName, P extends Params> = In extends "bf16"
  ? ReturnType<typeof llGemmDotBf16<Out, P>>
  : In extends "e4m3"
    ? ReturnType<typeof llGemmDotE4m3<Out, P>>
    : ReturnType<typeof llGemmDotF32<Out, P>>;

/**
 * The fastest kernel known for y[M,N] = x[M,K] w[N,K]^T. Sizes are numbers, or Sizes known at launch: one kernel then serves
 * every M up to its `max`, and is chosen for that.
 * ```ts
 * const router = linear({ M: size("M", { max: 8 }), N: 256, K: 7168, weights: bf16, out: f32 });
 * Object.keys(router.params) // ["w", "x", "y"]
 * ```
 * @throws UnsupportedError where no kernel serves it: other strides than contiguous, more than 16 tokens but for bf16;
 * ShapeError, ArgumentError for what is no size, no name
 */
export function linear<In extends InName, Out extends OutName, P extends Params = NoParams>(
  config: LinearConfig<In, Out> & WithEpilogue<P>,
): LinearKernel<In, Out, P> {
  const { choice } = chooseLinear(config);
  const { M, N, K, out, weights, epilogue } = config;
  if (choice === "gemm") {
    if (epilogue) {
      throw new UnsupportedError("The general GEMM, for more than 16 tokens, has no epilogue", {
        at: callerOfKernels(),
        hint: "Apply it by a kernel of its own, or let M be at most 16",
      });
    }
    return gemmBf16({ M, N, K, out }) as unknown as LinearKernel<In, Out, P>;
  }
  const options = { M, N, K, dtype: weights.name, out, ...(epilogue ? { epilogue } : {}) };
  return kernelOf(parseChoice(choice), options) as unknown as LinearKernel<In, Out, P>;
}

/**
 * What linear() takes for these sizes.
 * ```ts
 * chooseLinear({ M: 8, N: 256, K: 7168, weights: bf16, out: f32 }).from // "tuned"
 * chooseLinear({ M: 8, N: 256, K: 7168, weights: bf16, out: f32, device: "NVIDIA H100" }).measuredOn // NVIDIA H200 ...
 * ```
 * @throws as linear()
 */
export function chooseLinear(config: LinearConfig): LinearChoice {
  requireServed(config);
  const { M, N, K, weights, device, table = tableOf(device), batchInvariant = false } = config;
  if (maxOf(M) > 16) return { choice: "gemm", from: "default" };
  // Dot products add in another order than tensor cores, and the table changes between both with the tokens.
  const tokens = batchInvariant ? 16 : maxOf(M);
  const product: Product = { M: tokens, N: maxOf(N), K: maxOf(K), dtype: weights.name };
  const choices = choicesFor(product).filter(({ family }) => serves(family, config));
  const counted = [1, 2, 4, 8, 16].find((most) => tokens <= most) ?? 16;
  const entries = table.entries.filter(({ dtype }) => dtype === weights.name);
  const measuredOn = table.device;
  const octaves = (a: number, b: number) => Math.abs(Math.log2(a / b));
  const distance = ({ M, N, K }: TunedEntry) => 2 * octaves(M, counted) + octaves(N, product.N) + octaves(K, product.K);
  const sizesAreKnown = typeof N === "number" && typeof K === "number";
  for (const entry of entries.toSorted((a, b) => distance(a) - distance(b))) {
    const near = [entry.N, entry.K] as const;
    if (distance(entry) === 0 && sizesAreKnown) return { choice: entry.choice, from: "tuned", measuredOn };
    const alike = mostAlike(parseChoice(entry.choice), choices);
    if (alike)
      return sizesAreKnown ? { choice: formatChoice(alike), from: "near", near, measuredOn } : byDefault(alike);
  }
  const [first] = choices;
  return first ? byDefault(first) : { choice: weights.name === "f32" ? "dot" : "mma", from: "default" };
}

/** A family leaves to itself what follows from sizes. */
function byDefault({ family }: Choice): LinearChoice {
  return { choice: family, from: "default" };
}

/** TMA takes rows of whole 16 bytes. A ring is cut for the K that it was made for. */
function serves(family: string, { N, K, weights }: LinearConfig): boolean {
  return family !== "stream" || (rowAlignBytes(K, weights) === 16 && typeof N === "number" && typeof K === "number");
}

/** Of `choices` the one that cuts the product in the same way, and comes nearest in depth. */
function mostAlike({ family, options }: Choice, choices: readonly Choice[]): Choice | undefined {
  const cutOf = ({ rows, cluster, groups, boxes, parked = 0 }: Choice["options"]) =>
    [rows, cluster, groups, boxes, parked > 0].join();
  const same = choices.filter((choice) => choice.family === family && cutOf(choice.options) === cutOf(options));
  const depthOf = ({ warps = 1, pieces = 1, early = 0, parked = 0, stages = 0 }: Choice["options"]) =>
    warps * pieces * Math.max(1, early + parked + stages);
  const difference = (choice: Choice) =>
    Math.abs(Math.log2((choice.options["warps"] ?? 1) / (options["warps"] ?? 1))) * 4 +
    Math.abs(Math.log2(depthOf(choice.options) / depthOf(options)));
  return same.toSorted((a, b) => difference(a) - difference(b))[0];
}

/** @throws UnsupportedError, ShapeError, ArgumentError */
function requireServed(config: LinearConfig): void {
  requireConfig("linear", config, ["weights", "device", "table", "batchInvariant", "strides"]);
  const at = callerOfKernels();
  const { M, N, K, weights, device, table, strides = {}, batchInvariant } = config;
  if (device !== undefined && typeof device !== "string") {
    throw new ArgumentError(`A device is named by a string, e.g. "NVIDIA H200", not by ${describe(device)}`, { at });
  }
  if (table !== undefined) requireTable(table, at);
  if (weights !== (bf16 as DType) && weights !== (e4m3 as DType) && weights !== (f32 as DType)) {
    throw new UnsupportedError(`linear takes weights in bf16, e4m3 or f32, not in ${describeDType(weights)}`, { at });
  }
  const rows: Readonly<Record<string, Dim>> = { x: K, w: K, y: N };
  if (typeof strides !== "object" || strides === null) {
    throw new ArgumentError(`Strides are those of x, w and y by name, not ${describe(strides)}`, { at });
  }
  for (const [name, given] of Object.entries<unknown>(strides)) {
    const known = Object.hasOwn(rows, name) ? rows[name] : undefined;
    if (known === undefined || !Array.isArray(given)) {
      throw new ArgumentError(`Strides are [row, column] of x, w or y; ${name} has ${describe(given)}`, { at });
    }
    const [row, column] = given as readonly unknown[];
    if (column === 1 && row === known) continue;
    throw new UnsupportedError(
      `${name} has rows ${describe(row)} apart and elements ${describe(column)} apart; no kernel serves that`,
      { at, hint: `Make it contiguous: [${known}, 1]` },
    );
  }
  if (maxOf(M) <= 16) return;
  const up = typeof M === "number" ? `${M} tokens` : `up to ${maxOf(M)} tokens`;
  if (weights !== (bf16 as DType)) {
    throw new UnsupportedError(`No kernel serves ${up} with weights in ${weights.name}`, {
      at,
      hint: 'Up to 16: for a Size say so, size("M", { max: 16 })',
    });
  }
  if (batchInvariant) {
    throw new UnsupportedError(`Results for ${up} are not those for fewer, bit for bit`, {
      at,
      hint: "Multiply 16 tokens at a time, or leave batchInvariant out",
    });
  }
}
