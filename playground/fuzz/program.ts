/**
 * A program to compare executors on: a kernel as TypeScript source, and the data of a few launches. The source is what runs
 * here and what a reproduction holds, so both are the same program.
 */
import * as tegula from "../../dsl/index.ts";
import { type DTypeName, dtypes, encode, HostTensor, type Kernel } from "../../dsl/index.ts";
import { composition, makeLayout, parseLayout, Swizzle } from "../../dsl/layout/index.ts";
import type { Choices } from "./choices.ts";

/** A tensor's content; outputs have none. */
export interface Data {
  readonly dtype: DTypeName;
  readonly shape: readonly number[];
  readonly values: readonly number[] | undefined;
}

/** One launch: a tensor or a number for each parameter. */
export type Case = Readonly<Record<string, Data | number>>;

/** How far apart two right results may be: units in the last place, and absolutely. */
export interface Tolerance {
  readonly ulps: number;
  readonly absolute: number;
}

export interface Program {
  /** JavaScript that is TypeScript too; it declares `program`. */
  readonly source: string;
  readonly cases: readonly Case[];
  /** Of outputs that need not be the same bits everywhere. */
  readonly tolerances: Readonly<Record<string, Tolerance>>;
  /** What each output is, where plain TypeScript can tell without the DSL. */
  readonly expected: ((launch: Case) => Readonly<Record<string, Exact>>) | undefined;
}

/** An output as float64 has it. With `sums` it is one that each device may round in its own way. */
export interface Exact {
  readonly values: readonly number[];
  readonly sums?: Sums | undefined;
}

/** What O2 must know of sums (kernels/oracle.ts). */
export interface Sums {
  /** Of each element, the sum of |a||b|. */
  readonly magnitudes: readonly number[];
  readonly terms: number;
  readonly partials: number;
}

/** What the source may use, by module. */
export const modules: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  tegula: { ...tegula },
  "tegula/layout": { composition, makeLayout, parseLayout, Swizzle },
};

/** Traces and verifies. @throws TegulaError, which for a program made here is a fault of ours */
export function build({ source }: Program): Kernel {
  const names = Object.values(modules).flatMap((module) => Object.keys(module).filter((name) => uses(source, name)));
  const values = names.map((name) => Object.values(modules).find((module) => name in module)?.[name]);
  // The name makes it a file of its own to the DSL, which tells authors' lines from its own.
  const body = `${source}\nreturn program;\n//# sourceURL=program.ts`;
  return new Function(...names, body)(...values) as Kernel;
}

export function uses(source: string, name: string): boolean {
  return new RegExp(`(?<![.\\w$"])${name}\\b`).test(source);
}

/**
 * A kernel as text. `sizes` and `config` are what stands before the parameters, each parameter is a call like
 * `input(f32, [N])`; those that no statement uses are declared all the same.
 */
export function kernelSource(
  sizes: readonly string[],
  config: string,
  parameters: Readonly<Record<string, string>>,
  lines: readonly string[],
): string {
  const names = (early: boolean): string => {
    const used = Object.entries(parameters).filter(
      ([name, text]) => /^(frozen|scalar)/.test(text) === early && lines.some((line) => uses(line, name)),
    );
    return used.length > 0 ? `{ ${used.map(([name]) => name).join(", ")} }` : "";
  };
  return [
    ...sizes,
    `const program = kernel(`,
    `  { name: "program", ${config}, params: {`,
    ...Object.entries(parameters).map(([name, text]) => `    ${name}: ${text},`),
    `  } },`,
    `  (t${names(true) && `, ${names(true)}`}) => {`,
    `    ${names(false) && `const ${names(false)} = `}t.pdl.wait();`,
    ...lines.map((line) => `    ${line}`),
    `  },`,
    `);`,
  ].join("\n");
}

/** One launch, or some more. */
export function casesOf(c: Choices, launch: (turn: number) => Case): readonly Case[] {
  const cases = [launch(0)];
  c.repeat("case", 2, 3, (i) => cases.push(launch(i + 1)));
  return cases;
}

/** A tensor on the host; an output is filled with a byte. */
export function hostTensor({ dtype, shape, values }: Data, poison: number): HostTensor {
  return values ? HostTensor.from(dtypes[dtype], shape, values) : HostTensor.filled(dtypes[dtype], shape, poison);
}

/**
 * Makes tensors of a parameter, of any shape, in each launch (`turn`) others. Whole numbers up to `limit`, or what a dtype
 * finds hard; never NaN, infinite or a subnormal f32.
 */
export function randomData(c: Choices, dtype: DTypeName, limit = Infinity) {
  const { kind, bytes } = dtypes[dtype];
  const [low, high] = {
    float: dtype === "f16" ? [-(2 ** 15), 2 ** 15] : [-(2 ** 20), 2 ** 20],
    signed: [-(2 ** (8 * bytes - 1)), 2 ** (8 * bytes - 1) - 1],
    unsigned: [0, 2 ** (8 * bytes) - 1],
    bool: [0, 1],
  }[kind] as [number, number];
  const [least, most] = [Math.max(low, -limit), Math.min(high, limit)];
  const interesting = [0, 1, -1, 2, 31, 32, low, high].filter((x) => x >= least && x <= most);
  return c.span("data", () => {
    const pool: number[] = [];
    c.repeat("value", 32, 32, () => {
      const x = c.once(3) ? least + c.below(most - least + 1) : (c.pick(interesting) ?? 0);
      // Multiples of 2^-20: sums and products of them stay away from subnormals.
      const value = kind === "float" && limit === Infinity ? x / 2 ** (5 * c.below(5)) : x;
      pool.push(kind === "float" ? rounded(dtype, value) : value);
    });
    const salt = c.below(1000);
    const place = (i: number): number => (salt === 0 ? i : Math.imul(i + salt, 0x9e3779b1) >>> 8);
    return (shape: readonly number[], turn: number): Data => {
      const value = (_: unknown, i: number): number => pool[place(i + turn) % pool.length] ?? 0;
      return { dtype, shape, values: Array.from({ length: shape.reduce((a, b) => a * b, 1) }, value) };
    };
  });
}

/** A number as the dtype has it. */
export function rounded(dtype: DTypeName, x: number): number {
  const d = dtypes[dtype];
  return d.kind === "float" ? tegula.decode(d, encode(d, x, d.bytes === 1 ? "satfinite" : "nosat")) : x;
}
