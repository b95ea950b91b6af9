/**
 * `npm run demo`: two real GEMMs of large language models, traced, lowered and run on every device that is here. Each is
 * compared with float64 twice: on real numbers within the bound of any order of summation, and bit for bit on integers,
 * where every order is exact. Exit code 1 on any mismatch.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { bf16, e4m3, f32, HostTensor, type Kernel, type Params, type TensorSpec } from "tegula";
import { type Backend, cudaAvailable, emitCuda, openCuda, whyNoCuda } from "tegula/cuda";
import {
  checkBits,
  checkInterval,
  type DataClass,
  gemmReference,
  llGemmDotBf16,
  llGemmDotE4m3,
  randomTensor,
  seededRandom,
  type Verdict,
} from "tegula/kernels";
import { emitWgsl, type HostArguments, openWgsl, prepare, run } from "tegula/wgsl";

const folder = ".out/demo";
const seed = Number(process.argv[2] ?? Date.now() % 1_000_000);
const random = seededRandom(seed);

/** What every GEMM kernel has, whatever its dtypes. */
type GemmParams = Params & { readonly y: TensorSpec<"output", "f32" | "bf16", 2> };

interface Row {
  readonly cells: readonly string[];
  readonly verdicts: readonly Verdict[];
}

/** Data of one run and what it should come to. */
interface Problem<P extends Params> {
  readonly args: HostArguments<P>;
  readonly reference: ReturnType<typeof gemmReference>;
}

const backends: Backend[] = [];
if (cudaAvailable()) backends.push(await openCuda());
backends.push(await openWgsl());
mkdirSync(folder, { recursive: true });

const rows = [...(await routerBf16()), ...(await qkvSliceE4m3())];

console.log();
printTable(["kernel", "backend", "device", "compile", "run", "worst error", "of its bound", "on integers", ""], rows);
if (!cudaAvailable()) console.log(`\nNo CUDA row. ${whyNoCuda()}`);
console.log(`\nThe emitted CUDA C and WGSL is in ${folder}/. \`npm run demo -- ${seed}\` repeats this data.`);
for (const { cells, verdicts } of rows) {
  const wrong = verdicts.find(({ first }) => first !== undefined)?.first;
  if (!wrong) continue;
  const { index, actual, expected, low, high } = wrong;
  console.error(
    `\n${cells[0]} on ${cells[1]}: y[${index}] is ${actual}; float64 gives ${expected}, accepted is ${low} to ${high}`,
  );
  process.exitCode = 1;
}
for (const backend of backends) await backend.dispose();

/** The router of DeepSeek-V3's mixture of experts: scores of 256 experts for 8 tokens. */
async function routerBf16(): Promise<readonly Row[]> {
  const [M, N, K] = [8, 256, 7168];
  const kernel = traced(() => llGemmDotBf16({ M, N, K, out: f32 }));
  const problem = (data: DataClass) => {
    const [x, w] = [randomTensor(bf16, [M, K], data, random), randomTensor(bf16, [N, K], data, random)];
    return { args: { w, x }, reference: gemmReference(x, w) };
  };
  return onEveryBackend("DeepSeek-V3 router, bf16", kernel, problem("normal"), problem("integers"), K);
}

/** One GPU's slice of Mistral's fp8 QKV projection. */
async function qkvSliceE4m3(): Promise<readonly Row[]> {
  const [M, N, K] = [8, 256, 12288];
  const kernel = traced(() => llGemmDotE4m3({ M, N, K, out: bf16 }));
  const [wScale, xScale] = [HostTensor.from(f32, [1], [1 / 64]), HostTensor.from(f32, [1], [1 / 16])];
  const problem = (data: DataClass) => {
    const [x, w] = [randomTensor(e4m3, [M, K], data, random), randomTensor(e4m3, [N, K], data, random)];
    return { args: { w, wScale, x, xScale }, reference: gemmReference(x, w, 1 / 1024) };
  };
  return onEveryBackend("Mistral QKV slice, e4m3", kernel, problem("normal"), problem("integers"), K);
}

function traced<P extends Params>(make: () => Kernel<P>): Kernel<P> {
  const start = performance.now();
  const kernel = make();
  const cuda = emitCuda(kernel.ir);
  console.log(`${kernel.name}: traced, verified and emitted in ${(performance.now() - start).toFixed(1)} ms`);
  writeFileSync(`${folder}/${kernel.name}.cu`, cuda.source);
  writeFileSync(`${folder}/${kernel.name}.wgsl`, emitWgsl(kernel.ir).source);
  return kernel;
}

async function onEveryBackend<P extends GemmParams>(
  title: string,
  kernel: Kernel<P>,
  reals: Problem<P>,
  integers: Problem<P>,
  K: number,
): Promise<readonly Row[]> {
  const rows: Row[] = [];
  for (const backend of backends) {
    // y begins as NaN, which passes no comparison: an element that is not written is seen.
    const { y: exact } = (await run(backend, kernel, integers.args)) as { readonly y: HostTensor };
    const bits = checkBits(exact, integers.reference.y);

    const prepared = await prepare(backend, kernel, reals.args);
    prepared.launch();
    const { y } = (await prepared.read()) as { readonly y: HostTensor };
    const model = { terms: K, partials: kernel.ir.block, device: backend.name };
    const interval = checkInterval(y, reals.reference.y, reals.reference.magnitudes, model);
    const timeUs = await prepared.timeUs(backend.name === "cuda" ? 1000 : 3);
    prepared.free();
    const cells = [
      title,
      backend.name,
      backend.device,
      `${prepared.executable.compileMs.toFixed(0)} ms`,
      timeUs < 1000 ? `${timeUs.toFixed(1)} us` : `${(timeUs / 1000).toFixed(0)} ms`,
      interval.worstError.toExponential(1),
      `${(100 * interval.worstShare).toPrecision(2)} %`,
      bits.ok ? "exact" : `${bits.wrong} WRONG`,
      bits.ok && interval.ok ? "ok" : "WRONG",
    ];
    rows.push({ cells, verdicts: [interval, bits] });
  }
  return rows;
}

function printTable(head: readonly string[], body: readonly Row[]): void {
  const table = [head, ...body.map(({ cells }) => cells)];
  const widths = head.map((_, column) => Math.max(...table.map((row) => row[column]?.length ?? 0)));
  for (const row of table)
    console.log(
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    );
}
