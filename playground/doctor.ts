/**
 * `npm run doctor`: what Tegula finds on this machine, what is missing, and the command that mends it; `-- --json` says the
 * same to tools. Exit code 0 when something here can run kernels, 1 when nothing can.
 *
 * This file loads nothing but Node: whatever may fail is looked at by doctor-probe.ts, in a process with a time limit.
 */
import { fork } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { styleText } from "node:util";
import type { Finding } from "./doctor-probe.ts";

const timeLimitMs = 60_000;
/** In the order in which openWgsl() tries them. */
const wgslKinds = ["gpu", "lavapipe", "swiftshader"];

const names = ["koffi", "webgpu", "driver", "NVRTC", "nvcc", ...wgslKinds.map((kind) => `WGSL ${kind}`), "cache"];
const looked = await Promise.all(names.map(look));
const driver = looked.find(({ name }) => name === "driver");
const gpus = await Promise.all(Array.from({ length: driver?.gpus ?? 0 }, (_, ordinal) => look(`GPU ${ordinal}`)));
const found: readonly Finding[] = [node(), ...looked.toSpliced(names.indexOf("driver") + 1, 0, ...gpus)];

const runsOn = found.flatMap((finding) => finding.runsOn ?? []);
const findings = found.map((finding) => ({ ...finding, ...advise(finding) }));
if (process.argv.includes("--json"))
  console.log(JSON.stringify({ runsOn, openWgsl: takenByOpenWgsl(), findings }, undefined, 2));
else print();
process.exitCode = runsOn.length > 0 ? 0 : 1;

function look(name: string): Promise<Finding> {
  return new Promise((resolve) => {
    const child = fork(join(import.meta.dirname, "doctor-probe.ts"), [name], {
      stdio: ["ignore", "ignore", "pipe", "ipc"],
      timeout: timeLimitMs,
      killSignal: "SIGKILL",
    });
    let stderr = "";
    child.stderr?.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    const broken = (how: string) => resolve({ name, status: "broken", text: `${how}\n${stderr}`.trim() });
    child.once("message", (finding) => resolve(finding as Finding));
    child.once("error", ({ message }) => broken(message));
    child.once("close", (code, signal) => broken(`Looking at it ended with ${signal ?? `exit code ${code}`}.`));
  });
}

function node(): Finding {
  const { version, platform, arch } = process;
  const [major = 0, minor = 0] = version.slice(1).split(".").map(Number);
  const text = `${version.slice(1)} on ${platform}-${arch}`;
  if (major > 20 || (major === 20 && minor >= 16)) return { name: "Node", status: "ok", text };
  return { name: "Node", status: "broken", text: `${text}; Tegula needs 20.16 or later` };
}

/** What to do about a finding, seen together with all others. */
function advise({ name, status, text }: Finding): Partial<Finding> {
  const works = (which: string) => found.some((other) => other.name.startsWith(which) && other.status === "ok");
  const absent = { status: "none" } as const;
  if (status === "ok" || status === "none") return {};
  const variable = { driver: "TEGULA_LIBCUDA", NVRTC: "TEGULA_LIBNVRTC", nvcc: "TEGULA_NVCC" }[name];
  if (variable && process.env[variable]) return { mend: `unset ${variable}` };
  if (name === "Node") return { mend: "nvm install --lts" };
  if (name === "koffi" || name === "webgpu") return { mend: "npm ci" };
  if (name === "driver") return { mend: driverCommand() };
  if (name === "NVRTC") {
    const wheel = driver?.text.includes("CUDA 12.") ? "nvidia-cuda-nvrtc-cu12" : "nvidia-cuda-nvrtc";
    return { mend: `pip install ${wheel}` };
  }
  if (name === "nvcc") return works("NVRTC") ? absent : { mend: "see NVRTC: one of the two is enough" };
  if (name === "WGSL gpu" && text.includes("libEGL.so.1")) return { mend: "apt install libegl1" };
  if (name.startsWith("WGSL") && status === "missing") {
    if (works("WGSL")) return absent;
    const bundled = process.platform === "linux" && process.arch === "x64";
    if (bundled && name === "WGSL swiftshader") return { mend: "npm install --save-dev @sparticuz/chromium" };
    if (!bundled && name === "WGSL lavapipe") return { mend: "apt install mesa-vulkan-drivers" };
  }
  if (name !== "cache") return {};
  const [, folder] = /^(.*) can be written to by others$/.exec(text) ?? [];
  const [, wrong] = /^(TEGULA_CACHE\w*) is "/.exec(text) ?? [];
  if (wrong) return { mend: `unset ${wrong}` };
  return { mend: folder ? `chmod go-w ${folder}` : "export TEGULA_CACHE_DIR=/a/folder/of/your/own" };
}

function driverCommand(): string {
  const hardware = vendors().includes("0x10de");
  const inContainer = existsSync("/.dockerenv") || existsSync("/run/.containerenv");
  const install = isUbuntu() ? "ubuntu-drivers install" : "apt install nvidia-driver";
  const command = inContainer ? "docker run --gpus all ...   (with the NVIDIA container toolkit)" : install;
  return hardware ? command : `${command}, on a machine with an NVIDIA GPU of SM90 or later: this one has none`;
}

function isUbuntu(): boolean {
  const file = "/etc/os-release";
  return existsSync(file) && /^ID=ubuntu$/m.test(readFileSync(file, "utf8"));
}

/** Of the devices on the PCI bus. */
function vendors(): readonly string[] {
  const folder = "/sys/bus/pci/devices";
  try {
    return readdirSync(folder).map((device) => readFileSync(join(folder, device, "vendor"), "utf8").trim());
  } catch {
    return [];
  }
}

function takenByOpenWgsl(): string | undefined {
  const wanted = process.env["TEGULA_WGSL_DEVICE"];
  const inOrder = wanted ? [wanted] : wgslKinds;
  return inOrder.flatMap((kind) => found.find(({ name }) => name === `WGSL ${kind}`)?.runsOn ?? [])[0];
}

function print(): void {
  const width = Math.max(...findings.map(({ name }) => name.length)) + 2;
  const colors = { ok: "green", missing: "yellow", broken: "red", none: "gray" } as const;
  for (const { name, status, text } of findings) {
    const mark = status.padEnd(9);
    const colored = process.stdout.isTTY ? styleText(colors[status], mark) : mark;
    console.log(name.padEnd(width) + colored + text.replaceAll("\n", `\n${" ".repeat(width + 9)}`));
  }
  if (runsOn.length === 0) console.log("\nNothing here can run kernels.");
  else console.log(`\nKernels run on: ${runsOn.join("; ")}. openWgsl() takes ${takenByOpenWgsl() ?? "none of them"}.`);
  const toMend = findings.filter(({ mend }) => mend !== undefined);
  if (toMend.length > 0) console.log("\nTo mend it:");
  for (const { name, mend } of toMend) console.log(`  ${name.padEnd(width)}${mend}`);
}
