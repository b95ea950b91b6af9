/** What the tests of the compile cache share with their children: a stand-in for nvcc, and kernels whose cubins are known. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { compileCuda } from "../../backends/cuda/compile.ts";

export interface StandIn {
  /** For TEGULA_NVCC. */
  readonly path: string;
  /** How often it has compiled. */
  readonly calls: () => number;
}

/**
 * Writes a compiler whose cubin is four bytes of ELF, its build and the source. `release` is what labels show, `build` what
 * only `--version` tells.
 */
export function makeCompiler(folder: string, { name = "nvcc", release = "13.0", build = "1" } = {}): StandIn {
  const [path, calls] = [join(folder, name), join(folder, `${name}.calls`)];
  writeFileSync(calls, "");
  const script = `#!/bin/sh
[ "$1" = --version ] && { echo "release ${release}, build ${build}"; exit; }
echo >> "${calls}"
while [ $# -gt 1 ]; do [ "$1" = --output-file ] && output=$2; shift; done
{ printf '\\177ELF${build}\\n'; cat "$1"; } > "$output"
echo "the compiler's remark"
`;
  writeFileSync(path, script, { mode: 0o755 });
  return { path, calls: () => readFileSync(calls).length };
}

/** Source of the n-th kernel, about `byteLength` long. */
export function source(n: number, byteLength = 0): string {
  return `// kernel ${n}\n${`// ${n % 7}\n`.repeat(byteLength / 5)}`;
}

/** What the stand-in makes of a source. */
export function cubinOf(source: string, build = "1"): Uint8Array {
  return new Uint8Array(Buffer.from(`\x7fELF${build}\n${source}`));
}

/** Compiles the n-th kernel; `from` is undefined when the cubin is wrong. */
export function compileNth(n: number, byteLength = 0) {
  const text = source(n, byteLength);
  const { cubin, from } = compileCuda(text, { arch: "sm_90a", name: "k" });
  return { from: Buffer.from(cubin).equals(cubinOf(text)) ? from : undefined };
}
