/**
 * Runs generated CUDA C on the CPU, by the machine's C++ compiler and cuda.h: what the emitter says of values, memory, branches
 * and exchanges between lanes, executed without a GPU. Undefined behaviour, reads outside of a tensor and misaligned vectors
 * are errors. Clusters, dynamic shared memory, mbarriers, wgmma and TMA mean nothing there.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { emitCuda } from "../../backends/cuda/emit.ts";
import { HostTensor, type Kernel } from "../../dsl/index.ts";
import { isWritten } from "../../dsl/ir.ts";
import { evaluate, Size } from "../../dsl/size.ts";

const probe = `#include <barrier>
#include <thread>
int main() {
  std::barrier<> all(2);
  std::thread other([&] { all.arrive_and_wait(); });
  all.arrive_and_wait();
  other.join();
}
`;

const flags = [
  ...["-std=c++20", "-O0", "-w", "-pthread", "-fno-strict-aliasing", "-ffp-contract=off"],
  "-fsanitize=address,undefined,float-cast-overflow",
];

/** The first that compiles what is needed here, sanitizers too, so that it runs. */
export const cppCompiler = ["g++", "c++", "clang++"].find((name) => {
  try {
    inFolder((folder) => succeed(build(name, folder, probe), []));
    return true;
  } catch {
    return false;
  }
});

/** A launch of a kernel with all its tensors, outputs too, and its scalars. */
export interface HostLaunch {
  readonly kernel: Kernel;
  readonly args: Readonly<Record<string, HostTensor | number>>;
}

/** Runs launches, all in one program, and gives the outputs of each. @throws Error with what compiler or sanitizer says */
export function runOnHost(launches: readonly HostLaunch[]): readonly Readonly<Record<string, HostTensor>>[] {
  return inFolder((folder) => {
    const program = build(cppCompiler ?? "", folder, programOf(launches));
    const file = join(folder, "tensors");
    writeFileSync(file, Buffer.concat(launches.flatMap((launch) => tensorsOf(launch).map(({ bytes }) => bytes))));
    succeed(program, [file]);
    const results = readFileSync(file);
    let at = 0;
    return launches.map((launch) => {
      const outputs: Record<string, HostTensor> = {};
      for (const [i, { dtype, shape, bytes }] of tensorsOf(launch).entries()) {
        const tensor = launch.kernel.ir.tensors[i];
        const content = new Uint8Array(results.subarray(at, (at += bytes.length)));
        if (tensor && isWritten(tensor.role)) outputs[tensor.name] = new HostTensor(dtype, shape, content);
      }
      return outputs;
    });
  });
}

function inFolder<T>(work: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), "tegula-cuda-host-"));
  try {
    return work(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Compiles, and returns the program's path. */
function build(compiler: string, folder: string, code: string): string {
  const [source, program] = [join(folder, "kernels.cpp"), join(folder, "kernels")];
  writeFileSync(source, code);
  succeed(compiler, [...flags, "-o", program, source]);
  return program;
}

function succeed(command: string, args: readonly string[]): void {
  const { status, signal, stderr, error } = spawnSync(command, args, { encoding: "utf8", timeout: 120_000 });
  if (status === 0 && stderr === "") return;
  throw new Error(`${command} ended with ${error?.message ?? signal ?? status}:\n${(stderr ?? "").slice(0, 3000)}`);
}

function tensorsOf({ kernel: { ir }, args }: HostLaunch): readonly HostTensor[] {
  return ir.tensors.map(({ name }) => {
    const tensor = args[name];
    if (tensor instanceof HostTensor) return tensor;
    throw new Error(`${ir.name}: ${name} is missing`);
  });
}

/** Each kernel in a namespace of its own; main reads tensors from a file, and writes them back. */
function programOf(launches: readonly HostLaunch[]): string {
  const parts = launches.map((launch, i) => {
    const { ir } = launch.kernel;
    const { source, entry, dynamicSharedBytes } = emitCuda(ir, { lineDirectives: false });
    if (dynamicSharedBytes > 0 || ir.cluster > 1) throw new Error(`${ir.name} needs a GPU`);
    const sizes = sizesOf(launch);
    const grid = ir.grid.map((dim) => evaluate(dim, sizes));
    const scalars = ir.scalars.map(({ name, dtype }) => {
      const value = launch.args[name];
      return dtype.name === "f32"
        ? `bitsAs<float>(${new Uint32Array(Float32Array.of(Number(value)).buffer)[0]}u)`
        : `${value}`;
    });
    const values = [...scalars, ...ir.sizes.map((size) => String(evaluate(size, sizes)))];
    const args = [...ir.tensors.map((_, k) => `Any{tensors[${k}].data()}`), ...values];
    const counts = tensorsOf(launch).map(({ bytes }) => bytes.length);
    const call = [
      "  {",
      `    std::vector<std::vector<char>> tensors = readAll(file, {${counts.join(", ")}});`,
      `    launch({${grid.join(", ")}}, ${ir.block}, [&] { k${i}::${entry}(${args.join(", ")}); });`,
      "    results.insert(results.end(), tensors.begin(), tensors.end());",
      "  }",
    ];
    const code = withoutAsm(source).replaceAll('extern "C" ', "");
    return { code: `namespace k${i} {\n${code}\n}`, call: call.join("\n") };
  });
  return [
    `#include "${join(import.meta.dirname, "cuda.h")}"`,
    ...parts.map(({ code }) => code),
    "int main(int, char** argv) {",
    `  FILE* file = fopen(argv[1], "rb");`,
    "  std::vector<std::vector<char>> results;",
    ...parts.map(({ call }) => call),
    "  fclose(file);",
    "  writeAll(argv[1], results);",
    "}",
  ].join("\n");
}

function sizesOf(launch: HostLaunch): ReadonlyMap<string, number> {
  const sizes = new Map<string, number>();
  for (const [i, tensor] of tensorsOf(launch).entries()) {
    for (const [axis, dim] of (launch.kernel.ir.tensors[i]?.shape ?? []).entries()) {
      if (dim instanceof Size) sizes.set(String(dim), tensor.shape[axis] ?? 0);
    }
  }
  return sizes;
}

/** `asm("..." : "=r"(x) : "r"(y + 1))` as `ptx("...", {operand(x), operand(y + 1)})`. */
function withoutAsm(source: string): string {
  let result = "";
  for (let from = 0; ;) {
    const match = /\basm(?: volatile)?\(/.exec(source.slice(from));
    if (!match) return result + source.slice(from);
    const start = from + match.index + match[0].length;
    const parts = sections(source, start);
    const operands = parts.texts.slice(1, 3).flatMap((text) => operandsIn(text));
    const [template = ""] = parts.texts;
    result += `${source.slice(from, from + match.index)}ptx(${template}, {${operands.map((one) => `operand(${one})`).join(", ")}})`;
    from = parts.end + 1;
  }
}

/** What stands between colons, up to the parenthesis that closes. */
function sections(text: string, start: number): { readonly texts: readonly string[]; readonly end: number } {
  const texts = [""];
  let [depth, quoted] = [0, false];
  for (let at = start; ; at++) {
    const c = text[at];
    if (c === undefined) throw new Error("an asm statement has no end");
    if (c === '"') quoted = !quoted;
    if (!quoted && c === ")" && depth === 0) return { texts, end: at };
    if (!quoted) depth += Number(c === "(") - Number(c === ")");
    if (!quoted && c === ":" && depth === 0) texts.push("");
    else texts.push((texts.pop() ?? "") + c);
  }
}

/** The expressions of `"=r"(x), "r"(y)`. */
function operandsIn(text: string): readonly string[] {
  const found: string[] = [];
  for (const { index, 0: constraint } of text.matchAll(/"[=+]?\w"\(/g)) {
    const start = index + constraint.length;
    found.push(text.slice(start, sections(text, start).end));
  }
  return found;
}
