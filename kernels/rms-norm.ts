/**
 * Row-wise RMSNorm with residual add, as between the layers of a transformer:
 *
 *     residual[m,h] += x[m,h]
 *     y[m,h]         = residual[m,h] / sqrt(mean over h of residual[m,h]^2 + eps) * weight[h]
 *
 * One block per row; its threads take turns along the row, `lanes` elements (16 bytes where H allows) at a time, and keep
 * them in registers between the two passes. The sum of squares is taken over lanes, warp, block.
 */
import {
  bf16,
  ceilDiv,
  type Dim,
  f32,
  frozen,
  type HostTensor,
  inout,
  input,
  kernel,
  output,
  powerOfTwoDivisor,
  scalar,
  ShapeError,
} from "../dsl/index.ts";
import { callerOfKernels } from "./caller.ts";

export interface RmsNormConfig {
  /** Rows: a number, or a Size known at launch. */
  readonly M: Dim;
  /** Elements per row. */
  readonly H: number;
  /** Warps per block, 1 to 32. */
  readonly warps?: number;
}

/** What the kernel computes, in float64: the new residual before rounding, and y. */
export function rmsNormReference(x: HostTensor, residual: HostTensor, weight: HostTensor, eps: number) {
  const [M = 0, H = 0] = x.shape;
  const [xs, rs, ws] = [x.values(), residual.values(), weight.values()];
  const sum = xs.map((value, i) => value + (rs[i] ?? 0));
  const y = new Float64Array(M * H);
  for (let m = 0; m < M; m++) {
    const row = sum.subarray(m * H, (m + 1) * H);
    const meanSquare = row.reduce((total, value) => total + value * value, 0) / H;
    const scale = 1 / Math.sqrt(meanSquare + eps);
    for (let h = 0; h < H; h++) y[m * H + h] = (row[h] ?? 0) * scale * (ws[h] ?? 0);
  }
  return { residual: sum, y };
}

/**
 * The kernel of one RMSNorm with residual add, in bf16; what it computes stands above. `weight` is frozen, `eps` a scalar.
 * ```ts
 * const norm = rmsNorm({ M: size("M", { max: 64 }), H: 4096 });
 * const { y, residual } = await run(backend, norm, { weight, eps: 1e-6, x, residual: before });
 * ```
 * @throws ShapeError for rows without elements, or warps beyond 1 to 32
 */
export function rmsNorm({ M, H, warps = Math.min(8, ceilDiv(H, 256)) }: RmsNormConfig) {
  if (!(Number.isInteger(H) && H >= 1 && Number.isInteger(warps) && warps >= 1 && warps <= 32)) {
    throw new ShapeError(`rmsNorm takes rows of at least 1 element and 1 to 32 warps, not ${H} and ${warps}`);
  }
  const lanes = powerOfTwoDivisor(H, 8) as 1 | 2 | 4 | 8;
  const alignBytes = lanes * bf16.bytes;
  const block = warps * 32;
  const turns = ceilDiv(H, block * lanes);
  const ragged = H % (block * lanes) !== 0;
  return kernel(
    {
      name: `rms_norm_m${M}_h${H}`,
      grid: M,
      block,
      at: callerOfKernels(),
      params: {
        weight: frozen(bf16, [H], { alignBytes }),
        eps: scalar(f32),
        x: input(bf16, [M, H], { alignBytes }),
        residual: inout(bf16, [M, H], { alignBytes }),
        y: output(bf16, [M, H], { alignBytes }),
      },
    },
    (t, { weight, eps }) => {
      const m = t.block.x;
      const rWeight = t.array(bf16, turns, { lanes }); // (turns) of lanes
      for (const turn of t.range(turns, { unroll: true })) {
        const h = turn.mul(block).add(t.thread).mul(lanes);
        rWeight.set(turn, weight.loadVec([h], lanes, ragged ? { guard: h.lt(H) } : {}));
      }
      t.pdl.launchDependents();
      const { x, residual, y } = t.pdl.wait();

      const rRow = t.array(f32, turns, { lanes }); // (turns) of lanes
      const squares = t.reg(f32, 0);
      for (const turn of t.range(turns, { unroll: true })) {
        const h = turn.mul(block).add(t.thread).mul(lanes);
        const inRow = ragged ? { guard: h.lt(H) } : {};
        const added = x
          .loadVec([m, h], lanes, inRow)
          .to(f32)
          .add(residual.loadVec([m, h], lanes, inRow).to(f32));
        t.when(h.lt(H), () => residual.storeVec([m, h], added.to(bf16)));
        rRow.set(turn, added);
        squares.addDot(added, added);
      }

      const sSquares = t.shared(f32, [warps]);
      const warpSquares = t.warpSum(squares);
      t.when(t.lane.eq(0), () => sSquares.store([t.warp], warpSquares));
      t.barrier();
      const total = t.reg(f32, 0);
      for (const warp of t.range(warps, { unroll: true })) total.update((sum) => sum.add(sSquares.load([warp])));
      const scale = total.get().div(H).add(eps).rsqrt();

      for (const turn of t.range(turns, { unroll: true })) {
        const h = turn.mul(block).add(t.thread).mul(lanes);
        const normed = rRow.get(turn).mul(scale).mul(rWeight.get(turn).to(f32));
        t.when(h.lt(H), () => y.storeVec([m, h], normed.to(bf16)));
      }
    },
  );
}

/** Hidden sizes of real models that the kernel ships for; every other H >= 1 is served too. */
export const rmsNormConfigurations = [
  { model: "DeepSeek-V3", H: 7168 },
  { model: "gpt-oss-120b", H: 2880 },
  { model: "Llama-3-8B", H: 4096 },
  { model: "Mistral-Large", H: 12288 },
] as const;
