/** A failure as a file of its own: `npx tsx FILE` runs the kernel on its data, and ends with 1 as long as it fails. */
import type { Failure } from "./judge.ts";
import { type Case, type Data, modules, type Program, uses } from "./program.ts";

/** `command`: what finds it again. */
export function reproduction({ source }: Program, failure: Failure, command: string): string {
  const { executor, message, launch, expected, authority } = failure;
  const name = executor ? `${executor.name} (${executor.backend.device})` : "tegula";
  const body = [source.trim()];
  const outputs = Object.entries(expected);
  if (executor) {
    body.push(`const args = {\n${argumentsOf(launch)}\n};`);
    body.push(`const device = await ${executor.open};`);
    body.push(`const results = await run(device, program, args);`);
  }
  if (outputs.length > 0) body.push(`// What ${authority} says.`);
  for (const [output, { tensor, bounds }] of outputs) {
    const data = { dtype: tensor.dtype.name, shape: tensor.shape, values: [...tensor.values()] };
    const within = bounds.length > 0 ? `, ${list(bounds)}` : "";
    body.push(`compare("${output}", ${literal(data)}, results.${output}${within});`);
  }
  if (executor) body.push("await device.dispose();");
  if (outputs.length > 0) body.push(compare);
  const text = body.join("\n");
  const imports = Object.entries({ ...modules, [executor?.module ?? ""]: { run: 0, [openerOf(failure)]: 0 } })
    .map(([module, names]) => [module, Object.keys(names).filter((each) => uses(text, each))] as const)
    .filter(([, names]) => names.length > 0)
    .map(([module, names]) => `import { ${names.join(", ")} } from "${module}";`);
  const said = message.replaceAll("*/", "* /").split("\n");
  return [
    ...["/**", ` * ${name}, compared with ${authority}:`, ...said.map((line) => ` *   ${line}`)],
    ...[` * Found by \`${command}\`; ends with 1 as long as it is so, with 0 when it is mended.`, " */"],
    ...imports,
    "",
    text,
    "",
  ].join("\n");
}

const openerOf = ({ executor }: Failure): string => executor?.open.replace(/\(.*/, "") ?? "";

function argumentsOf(launch: Case): string {
  return Object.entries(launch)
    .map(([name, data]) => `  ${name}: ${typeof data === "number" ? data : literal(data)},`)
    .join("\n");
}

function literal({ dtype, shape, values }: Data): string {
  if (!values) return `HostTensor.filled(${dtype}, [${shape.join(", ")}], 0x5a)`;
  return `HostTensor.from(${dtype}, [${shape.join(", ")}], ${list(values)})`;
}

function list(values: readonly number[]): string {
  const same = values.length > 4 && values.every((value) => Object.is(value, values[0]));
  return same ? `new Array<number>(${values.length}).fill(${values[0]})` : `[${values.join(", ")}]`;
}

const compare = `
function compare(name: string, expected: HostTensor, actual: HostTensor, bounds: readonly number[] = []): void {
  const [a, b] = [expected.values(), actual.values()];
  for (const [i, x] of a.entries()) {
    const y = b[i] ?? 0;
    if (x === y || (Number.isNaN(x) && Number.isNaN(y)) || Math.abs(x - y) <= (bounds[i] ?? 0)) continue;
    console.error(\`\${name}: element \${i} is \${y}, not \${x}\`);
    process.exitCode = 1;
  }
}`;
