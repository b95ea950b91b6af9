/**
 * How long a program takes from its start to the first result of a kernel, beyond `node -e 0`: with an empty cache of
 * compiled kernels, and with a warm one; and what takes how long of it. What runs is JavaScript as `npm run build` makes it,
 * which a user has. Needs a GPU.
 *
 *   npm run build && npx tsx playground/cold-start.ts
 */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { openDriverLibrary } from "../backends/cuda/libraries.ts";
import { ArgumentError, NotFoundError, TegulaError } from "../dsl/index.ts";
import { fail } from "./terminal.ts";

const { values: options } = parseArgs({ options: { repetitions: { type: "string", default: "5" } } });
if (!/^[1-9]\d{0,3}$/.test(options.repetitions)) {
  fail(new ArgumentError(`--repetitions is "${options.repetitions}"; write a whole number, e.g. --repetitions 5`));
}
const repetitions = Number(options.repetitions);
/** What the driver takes for itself, in any program and language. */
const ofDriver = ["load the driver, cuInit", "context"];

const root = join(import.meta.dirname, "..");
if (!existsSync(join(root, "dist")))
  fail(new NotFoundError("There is no dist/", { hint: "Run `npm run build` first" }));

/** Found here, and initialized only by the programs measured. */
const libcuda = driverPath();

/**
 * The program measured: the router GEMM of DeepSeek-V3 for one token. It prints how far it was after each step. What the
 * driver does first in any process is done by hand; openCuda finds it done.
 */
const program = `
process.once("uncaughtException", ({ message }) => {
  console.error(message);
  process.exit(1);
});
const steps = { node: performance.now() };
const { f32, bf16, HostTensor } = await import("tegula");
const { openCuda, deviceTensor, frozenTensor } = await import("tegula/cuda");
const { llGemmDotBf16 } = await import("tegula/kernels");
const { default: koffi } = await import("koffi");
steps.imports = performance.now();
const [M, N, K] = [1, 256, 7168];
const kernel = llGemmDotBf16({ M, N, K, out: f32 });
steps["trace, verify"] = performance.now();
const driver = koffi.load(${JSON.stringify(libcuda)});
driver.func("int cuInit(uint32_t flags)")(0);
steps["load the driver, cuInit"] = performance.now();
driver.func("int cuDevicePrimaryCtxRetain(void *context, int device)")(new BigUint64Array(1), 0);
steps.context = performance.now();
const cuda = await openCuda({ ordinal: 0 });
steps.open = performance.now();
const executable = await cuda.compile(kernel);
steps["emit, compile, load"] = performance.now();
const w = frozenTensor(cuda, HostTensor.filled(bf16, [N, K], 0));
const x = deviceTensor(cuda, HostTensor.filled(bf16, [M, K], 0));
const y = deviceTensor(cuda, f32, [M, N]);
executable.bind({ w, x, y }).launch();
const values = (await y.read()).values();
if (!values.every((value) => value === 0)) throw new Error("wrong result");
steps["upload, launch, read"] = performance.now();
console.log(JSON.stringify(steps));
await cuda.dispose();
`;

interface Start {
  /** From spawning the process to the first byte that it prints, or to its end if it prints none. */
  readonly ms: number;
  readonly output: string;
}

/** Starts Node with one program, as a user would. @throws TegulaError with what it said when it failed */
function start(source: string, cache: string): Promise<Start> {
  return new Promise((resolve, reject) => {
    const begin = performance.now();
    const child = spawn(process.execPath, ["--input-type=module", "--eval", source], {
      cwd: root,
      env: { ...process.env, TEGULA_CACHE_DIR: cache },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let [output, errors, first] = ["", "", 0];
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      first ||= performance.now();
      output += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => (errors += text));
    child.once("error", reject);
    child.once("exit", () => (first ||= performance.now()));
    child.once("close", (code) => {
      if (code === 0) resolve({ ms: first - begin, output });
      else reject(new TegulaError(errors.trim() || `The program ended with exit code ${code}`));
    });
  });
}

function driverPath(): string {
  try {
    return openDriverLibrary().path;
  } catch (error) {
    return fail(error);
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN;
}

/** Several starts, after one that warms the disk; each with a new cache, or all with one. */
async function series(source: string, cache: "cold" | "warm") {
  const folders: string[] = [];
  const newFolder = (): string => {
    const folder = mkdtempSync(join(tmpdir(), "tegula-start-"));
    folders.push(folder);
    return folder;
  };
  try {
    const shared = newFolder();
    await start(source, shared);
    const starts: Start[] = [];
    for (let i = 0; i < repetitions; i++) starts.push(await start(source, cache === "cold" ? newFolder() : shared));
    return starts;
  } finally {
    for (const folder of folders) rmSync(folder, { recursive: true });
  }
}

const bare = median((await series("0", "warm")).map(({ ms }) => ms));
console.log(`node -e 0: ${bare.toFixed(0)} ms, the median of ${repetitions}`);
for (const cache of ["cold", "warm"] as const) {
  const starts = await series(program, cache).catch(fail);
  const beyond = starts.map(({ ms }) => ms - bare);
  const marks = starts.map(({ output }) => JSON.parse(output) as Readonly<Record<string, number>>);
  const names = Object.keys(marks[0] ?? {});
  const steps = names.slice(1).map((name, i) => ({
    name,
    ms: median(marks.map((mark) => (mark[name] ?? NaN) - (mark[names[i] ?? ""] ?? NaN))),
  }));
  const driver = steps.filter(({ name }) => ofDriver.includes(name)).reduce((sum, { ms }) => sum + ms, 0);
  console.log(
    `${cache} cache: first result ${median(beyond).toFixed(0)} ms after that (${Math.min(...beyond).toFixed(0)} to ` +
      `${Math.max(...beyond).toFixed(0)}), of which the driver takes ${driver.toFixed(0)} ms`,
  );
  for (const { name, ms } of steps) console.log(`  ${name.padEnd(24)}${ms.toFixed(1).padStart(7)} ms`);
}
