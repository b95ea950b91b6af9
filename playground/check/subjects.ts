/** What `npm run check` checks of a file: the kernels that it exports, or that its functions make. */
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { ArgumentError, f32, type HostTensor, type Kernel, NotFoundError, size, TegulaError } from "../../dsl/index.ts";

/** Values of sizes by name. */
export type Sizes = Readonly<Record<string, number>>;
/** Arguments that are not made up: tensors and scalars by name. */
export type Given = (sizes: Sizes) => Readonly<Record<string, HostTensor | number>>;

export interface Subject {
  /** Of the export. */
  readonly name: string;
  readonly kernel: Kernel;
  readonly given: Given;
}

/** The names that our own factories use; the first that a factory takes. Some refuse an H that they don't know. */
const configurations: readonly object[] = [1, 16].flatMap((multipleOf) => {
  const product = { M: size("M", { max: 16 }), N: size("N"), K: size("K", { max: 16_384, multipleOf }), out: f32 };
  return [{ ...product, H: 2880 }, product];
});

/**
 * The kernels among the exports; where there are none, those that exported functions make of a configuration
 * `{ M, N, K, H, out }`. An export `given` says what parameters are given, as a function of the sizes.
 * @throws NotFoundError when there are none, and whatever the file throws
 */
export async function subjectsIn(file: string, only: string | undefined): Promise<readonly Subject[]> {
  const module = (await import(pathToFileURL(resolve(file)).href)) as Readonly<Record<string, unknown>>;
  const given = givenOf(file, module["given"]);
  const exported = Object.entries(module);
  const kernels = exported.flatMap(([name, value]) => (isKernel(value) ? [{ name, kernel: value }] : []));
  const refused: string[] = [];
  const made = exported.flatMap(([name, value]) => {
    if (kernels.length > 0 || typeof value !== "function" || name === "given") return [];
    const kernel = makeKernel(value as Factory, (why) => refused.push(`${name}: ${why}`));
    return kernel ? [{ name, kernel }] : [];
  });
  const all = [...kernels, ...made];
  const chosen = all.filter(({ name, kernel }) => only === undefined || only === name || only === kernel.name);
  if (chosen.length > 0) return chosen.map((one) => ({ ...one, given }));
  if (all.length === 0) {
    throw new NotFoundError(`${file} has no kernel`, {
      hint: ["Export what kernel(...) returns", ...refused].join("\n  "),
    });
  }
  throw new NotFoundError(`${file} has no kernel ${only}`, {
    hint: `It has ${all.map(({ name }) => name).join(", ")}`,
  });
}

function isKernel(value: unknown): value is Kernel {
  return typeof value === "object" && value !== null && "ir" in value && "params" in value && "name" in value;
}

function givenOf(file: string, given: unknown): Given {
  if (given === undefined) return () => ({});
  if (typeof given === "function") return given as Given;
  throw new ArgumentError(`${file}: given is a function of the sizes`, {
    hint: 'export const given = ({ N }: Record<"N", number>) => ({ index: HostTensor.from(i32, [N], ...) })',
  });
}

type Factory = (configuration: object) => unknown;

/** What a function makes of the first configuration that it takes. */
function makeKernel(make: Factory, refuse: (why: string) => void): Kernel | undefined {
  for (const configuration of configurations) {
    try {
      const made = make(configuration);
      if (isKernel(made)) return made;
    } catch (error) {
      if (error instanceof TegulaError) refuse(error.message);
    }
  }
  return undefined;
}
