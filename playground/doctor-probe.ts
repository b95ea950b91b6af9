/**
 * One look of the doctor (doctor.ts), in a process of its own, because a broken driver or device may take it down. The
 * argument says at what; the finding is sent to the parent.
 */
import { readFileSync } from "node:fs";
import { f32, HostTensor, input, kernel, NotFoundError, output } from "tegula";
import { type Backend, compileCuda, type CompilerKind, emitCuda, openCuda, run } from "tegula/cuda";
import { type DeviceKind, openWgsl } from "tegula/wgsl";
import { diskCacheState } from "../backends/cuda/cache-disk.ts";
import { findCompiler } from "../backends/cuda/compile.ts";
import { formatBytes, PrimaryContext } from "../backends/cuda/context.ts";
import { deviceCount, deviceInfo, openDriver } from "../backends/cuda/driver.ts";
import { askDoctor } from "../backends/cuda/libraries.ts";

export interface Finding {
  readonly name: string;
  /** "ok" works; "missing" isn't here; "broken" is here and fails; "none" is neither here nor needed. */
  readonly status: "ok" | "missing" | "broken" | "none";
  /** What was found, or why not, in one line or more. */
  readonly text: string;
  /** The device, where a kernel has run and its result was right. */
  readonly runsOn?: string | undefined;
  /** GPUs that the driver has. */
  readonly gpus?: number | undefined;
  /** The command that mends it. */
  readonly mend?: string | undefined;
}

type Found = Omit<Finding, "name">;

/** y = 2 x */
const double = kernel(
  { name: "doctor", grid: 1, block: 32, params: { x: input(f32, [32]), y: output(f32, [32]) } },
  (t) => {
    const { x, y } = t.pdl.wait();
    y.store([t.lane], x.load([t.lane]).mul(2));
  },
);

const [name = ""] = process.argv.slice(2);
const finding: Finding = { name, ...(await find(name)) };
process.send?.(finding, () => process.exit());

async function find(what: string): Promise<Found> {
  const [first = "", second = ""] = what.split(" ");
  try {
    if (first === "koffi" || first === "webgpu") return await npmPackage(first);
    if (first === "driver") return driver();
    if (first === "GPU") return await gpu(Number(second));
    if (first === "NVRTC") return await compiler("nvrtc");
    if (first === "nvcc") return await compiler("nvcc");
    if (first === "WGSL") return await wgsl(second as DeviceKind);
    return cache();
  } catch (error) {
    const isMissing = error instanceof NotFoundError;
    return { status: isMissing ? "missing" : "broken", text: messageOf(error) };
  }
}

async function npmPackage(what: string): Promise<Found> {
  await import(what);
  const file = new URL(`../node_modules/${what}/package.json`, import.meta.url);
  const { version } = JSON.parse(readFileSync(file, "utf8")) as { readonly version: string };
  return { status: "ok", text: version };
}

function driver(): Found {
  const opened = openDriver();
  const module = kernelModule();
  const text = `${module && `${module}, `}CUDA ${opened.version}, ${opened.path}`;
  return { status: "ok", text, gpus: deviceCount(opened) };
}

/** Version of the driver's part in the Linux kernel, e.g. "580.65.06". */
function kernelModule(): string {
  try {
    return readFileSync("/sys/module/nvidia/version", "utf8").trim();
  } catch {
    return "";
  }
}

async function gpu(ordinal: number): Promise<Found> {
  const opened = openDriver();
  const device = deviceInfo(opened, ordinal);
  return attempt(`${device.name}, compute capability ${device.capability.join(".")}`, async () => {
    const backend = await openCuda({ ordinal });
    const [free, total] = [new BigUint64Array(1), new BigUint64Array(1)];
    PrimaryContext.open(opened, device).call("asking for its memory", (api) => api.cuMemGetInfo(free, total));
    return attempt(formatBytes(Number(total[0])), () => tryKernel(backend));
  });
}

function compiler(kind: CompilerKind): Promise<Found> {
  const { label, path } = findCompiler(kind);
  return attempt(`${label}, ${path}`, () => {
    const { source } = emitCuda(double.ir);
    compileCuda(source, { arch: "sm_90a", name: double.name, compiler: kind, cache: false });
    return { status: "ok", text: "compiles kernels" };
  });
}

async function wgsl(kind: DeviceKind): Promise<Found> {
  let backend: Backend;
  try {
    backend = await openWgsl({ device: kind });
  } catch (error) {
    // Of all that the message says was tried, the line on this kind.
    const reason = new RegExp(`^ *${kind}: (.*)$`, "m").exec(messageOf(error))?.[1];
    return { status: "missing", text: reason ?? messageOf(error) };
  }
  return attempt(backend.device, () => tryKernel(backend));
}

/** Says after `what` how it went. */
async function attempt(what: string, action: () => Found | Promise<Found>): Promise<Found> {
  try {
    const found = await action();
    return { ...found, text: `${what}; ${found.text}` };
  } catch (error) {
    return { status: "broken", text: `${what}; ${messageOf(error)}` };
  }
}

async function tryKernel(backend: Backend): Promise<Found> {
  const values = Array.from({ length: 32 }, (_, i) => i + 0.5);
  const { y } = await run(backend, double, { x: HostTensor.from(f32, [32], values) });
  const right = [...y.values()].every((value, i) => value === i * 2 + 1);
  if (!right) return { status: "broken", text: "runs a kernel, but its result is WRONG" };
  return { status: "ok", text: "runs kernels", runsOn: backend.device };
}

function cache(): Found {
  const { folder, problem, entries, bytes, limitBytes } = diskCacheState();
  if (problem === undefined) {
    return { status: "ok", text: `${folder}: ${entries} kernels, ${formatBytes(bytes)} of ${formatBytes(limitBytes)}` };
  }
  return { status: process.env["TEGULA_CACHE"] === "off" ? "none" : "broken", text: problem };
}

function messageOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.replace(askDoctor, "").trimEnd(); // this is the doctor
}
