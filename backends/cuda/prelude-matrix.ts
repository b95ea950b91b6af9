/**
 * The prelude's matrix instructions: mma of one warp, wgmma of four, and the loads and stores of 8x8 matrices that feed them.
 * PTX ISA, "Warp-level matrix instructions" and "Asynchronous warpgroup level matrix instructions".
 */
import type { MmaAtom } from "../../dsl/atoms/mma.ts";
import { formatType, type Type } from "../../dsl/ir.ts";
import { fragmentTypes } from "../../dsl/typing.ts";
import { Prelude } from "./prelude.ts";
import { byteSize, device } from "./vectors.ts";

export class MatrixPrelude extends Prelude {
  /** The 32-bit address that instructions on shared memory take. */
  protected sharedAddress(): string {
    return this.part(
      "shared_address",
      () => `${device} unsigned shared_address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }`,
    );
  }

  /** `mma.sync`: a * b + c. */
  mma(atom: MmaAtom): string {
    return this.part(atom.name, () => {
      const types = fragmentTypes(atom);
      const [a, b] = [words(types.a, "a"), words(types.b, "b")];
      const isFloat = atom.c.name === "f32";
      const sums = Array.from({ length: types.c.lanes }, (_, i) => `"+${isFloat ? "f" : "r"}"(c.v[${i}])`);
      const inputs = [...a, ...b].map((word) => `"r"(${word})`);
      const [c, d] = [holes(0, sums.length), holes(sums.length, a.length)];
      const e = holes(sums.length + a.length, b.length);
      return [
        `${device} ${this.type(types.c)} ${atom.name}(${this.type(types.a)} a, ${this.type(types.b)} b, ${this.type(types.c)} c) {`,
        `  asm volatile("${atom.ptx} ${c}, ${d}, ${e}, ${c};"`,
        `      : ${sums.join(", ")}`,
        `      : ${inputs.join(", ")});`,
        "  return c;",
        "}",
      ].join("\n");
    });
  }

  /** PTX ISA, "ldmatrix"; the type says how many matrices. */
  ldmatrix(type: Type, transposed: boolean): string {
    const name = `ldmatrix${transposed ? "_trans" : ""}_${formatType(type)}`;
    return this.part(name, () => {
      const count = byteSize(type) / 4;
      const instruction = `ldmatrix.sync.aligned.m8n8.x${count}${transposed ? ".trans" : ""}.shared.b16`;
      const outputs = Array.from({ length: count }, (_, i) => `"=r"(w[${i}])`);
      return [
        `${device} ${this.type(type)} ${name}(const void* p) {`,
        `  unsigned w[${count}];`,
        `  asm volatile("${instruction} ${holes(0, count)}, [%${count}];" : ${outputs.join(", ")} : "r"(${this.sharedAddress()}(p)) : "memory");`,
        `  ${this.type(type)} r;`,
        ...fromWords(type, "r", "w").map((line) => `  ${line}`),
        "  return r;",
        "}",
      ].join("\n");
    });
  }

  /** PTX ISA, "stmatrix". */
  stmatrix(type: Type, transposed: boolean): string {
    const name = `stmatrix${transposed ? "_trans" : ""}_${formatType(type)}`;
    return this.part(name, () => {
      const inputs = words(type, "x");
      const instruction = `stmatrix.sync.aligned.m8n8.x${inputs.length}${transposed ? ".trans" : ""}.shared.b16`;
      return [
        `${device} void ${name}(void* p, ${this.type(type)} x) {`,
        `  asm volatile("${instruction} [%0], ${holes(1, inputs.length)};" :: "r"(${this.sharedAddress()}(p)), ${inputs.map((word) => `"r"(${word})`).join(", ")} : "memory");`,
        "}",
      ].join("\n");
    });
  }

  /** PTX ISA, "wgmma.mma_async", "Matrix Descriptor Format". Everything but the address is constant where it is called. */
  matrixDescriptor(): string {
    return this.part("matrix_descriptor", () =>
      [
        `${device} unsigned long long matrix_descriptor(const void* p, int leading_bytes, int stride_bytes, int swizzle_bytes) {`,
        "  const unsigned long long mode = swizzle_bytes == 128 ? 1 : swizzle_bytes == 64 ? 2 : swizzle_bytes == 32 ? 3 : 0;",
        `  const unsigned long long start = (${this.sharedAddress()}(p) & 0x3ffff) >> 4;`,
        "  return start | (unsigned long long)(leading_bytes >> 4) << 16 | (unsigned long long)(stride_bytes >> 4) << 32 | mode << 62;",
        "}",
      ].join("\n"),
    );
  }

  /** `wgmma.mma_async`: d += a * b, or = where `accumulate` is 0, in the N / 2 registers from d on. */
  wgmma(atom: MmaAtom): string {
    return this.part(atom.name, () => {
      const count = (atom.M * atom.N) / atom.threads;
      const sums = Array.from({ length: count }, (_, i) => `"+f"(d[${i}])`);
      // Both scales 1; 2-byte inputs may also be transposed: 0, 0.
      const flags = atom.a.bytes === 2 ? "1, 1, 0, 0" : "1, 1";
      const chunk = <T>(list: readonly T[], size: number): readonly T[][] =>
        Array.from({ length: Math.ceil(list.length / size) }, (_, i) => list.slice(i * size, (i + 1) * size));
      const numbered = Array.from({ length: count }, (_, i) => `%${i}`);
      const rows = chunk(numbered, 16).map((row) => row.join(", "));
      return [
        `${device} void ${atom.name}(float* d, unsigned long long a, unsigned long long b, int accumulate) {`,
        `  asm volatile("{ .reg .pred p; setp.ne.b32 p, %${count + 2}, 0; ${atom.ptx} {"`,
        ...rows.map((row, i) => `    "${row}${i < rows.length - 1 ? ", " : ""}"`),
        `    "}, %${count}, %${count + 1}, p, ${flags}; }"`,
        ...chunk(sums, 8).map(
          (row, i, all) => `    ${i === 0 ? ":" : " "} ${row.join(", ")}${i < all.length - 1 ? "," : ""}`,
        ),
        `    : "l"(a), "l"(b), "r"(accumulate) : "memory");`,
        "}",
      ].join("\n");
    });
  }

  /** PTX ISA, "wgmma.fence" and "wgmma.commit_group". */
  wgmmaControl(what: "fence" | "commit"): string {
    const name = `wgmma_${what}`;
    const instruction = what === "fence" ? "wgmma.fence" : "wgmma.commit_group";
    return this.part(
      name,
      () => `${device} void ${name}() { asm volatile("${instruction}.sync.aligned;" ::: "memory"); }`,
    );
  }

  /** PTX ISA, "wgmma.wait_group". */
  wgmmaWait(pending: number): string {
    const name = `wgmma_wait_${pending}`;
    const instruction = `wgmma.wait_group.sync.aligned ${pending};`;
    return this.part(name, () => `${device} void ${name}() { asm volatile("${instruction}" ::: "memory"); }`);
  }

  /** No instruction: keeps the C compiler from moving uses of an accumulator across a fence or wait. */
  pinRegisters(): string {
    return this.part("pin_registers", () =>
      [
        `template <int n> ${device} void pin_registers(float (&x)[n]) {`,
        "#pragma unroll",
        `  for (int i = 0; i < n; ++i) asm volatile("" : "+f"(x[i]) :: "memory");`,
        "}",
      ].join("\n"),
    );
  }
}

/** `{%2, %3}`: operands of an asm statement. */
export function holes(first: number, count: number): string {
  return `{${Array.from({ length: count }, (_, i) => `%${first + i}`).join(", ")}}`;
}

/** The words of a vector (or a 4-byte scalar) as unsigned expressions. */
function words(type: Type, name: string): readonly string[] {
  return Array.from({ length: byteSize(type) / 4 }, (_, i) => {
    if (type.dtype.bytes < 4) return `${name}.w[${i}]`;
    const element = type.lanes === 1 ? name : `${name}.v[${i}]`;
    if (type.dtype.name === "f32") return `__float_as_uint(${element})`;
    return type.dtype.name === "i32" ? `(unsigned)${element}` : element;
  });
}

/** Statements that set a vector (or a 4-byte scalar) to such words. */
function fromWords(type: Type, name: string, source: string): readonly string[] {
  return Array.from({ length: byteSize(type) / 4 }, (_, i) => {
    const word = `${source}[${i}]`;
    if (type.dtype.bytes < 4) return `${name}.w[${i}] = ${word};`;
    const element = type.lanes === 1 ? name : `${name}.v[${i}]`;
    if (type.dtype.name === "f32") return `${element} = __uint_as_float(${word});`;
    return `${element} = ${type.dtype.name === "i32" ? "(int)" : ""}${word};`;
  });
}
