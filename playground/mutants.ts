/**
 * `npm run mutants`: does the suite notice? Seeds one fault at a time into a copy of the sources and runs the tests that should
 * fail. About a quarter of an hour on two cores; the working tree is not touched.
 *
 *   npm run mutants
 *   npm run mutants -- --list
 *   npm run mutants -- --only cuda          # those whose names begin so; several with commas
 *
 * Exit code 0 when every mutant was killed, 1 when one survived: a test is missing; 2 when the tests fail without any mutant,
 * or a mutant is stale.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ArgumentError, TegulaError } from "../dsl/index.ts";
import { mutants } from "./mutants/all.ts";
import { faultClasses, type Mutant } from "./mutants/mutant.ts";
import { type Outcome, Workspace } from "./mutants/workspace.ts";
import { progress, showHelp } from "./terminal.ts";

showHelp(import.meta.filename);
try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof TegulaError)) throw error;
  console.error(error.message);
  process.exitCode = 2;
}

async function main(): Promise<number> {
  const { values } = parseArgs({ options: { only: { type: "string" }, list: { type: "boolean", default: false } } });
  const begins = values.only?.split(",");
  const chosen = mutants.filter(({ name }) => begins?.some((begin) => name.startsWith(begin)) ?? true);
  if (chosen.length === 0) throw new ArgumentError(`No mutant's name begins with ${values.only}; --list shows them`);
  if (values.list) {
    for (const { name, class: of, file, why } of chosen)
      console.log(`${name.padEnd(34)}${of.padEnd(21)}${file}\n    ${why}`);
    return 0;
  }

  using workspace = new Workspace(join(import.meta.dirname, ".."));
  process.once("SIGINT", () => {
    workspace[Symbol.dispose]();
    process.exit(130);
  });
  const outcomes = new Map<Mutant, Outcome>();
  const sound = new Set<string>();
  for (const [i, mutant] of chosen.entries()) {
    progress(mutant.name, i, chosen.length);
    await requireSound(workspace, mutant, sound);
    const outcome = await workspace.test(mutant);
    outcomes.set(mutant, outcome);
    console.log(
      `${outcome.verdict.padEnd(9)}${mutant.name.padEnd(34)}${outcome.seconds.toFixed(0).padStart(4)} s  ${outcome.by || mutant.why}`,
    );
  }
  progress("", 1, 1);
  return summary(outcomes);
}

/** What a mutant's tests say means something only where they pass without it. */
async function requireSound(workspace: Workspace, { tests, named }: Mutant, sound: Set<string>): Promise<void> {
  const key = JSON.stringify([tests, named]);
  if (sound.has(key)) return;
  const { verdict, by } = await workspace.run({ tests, ...(named === undefined ? {} : { named }) });
  if (verdict !== "survived") throw new TegulaError(`${tests.join(", ")} fails without any mutant: ${by}`);
  sound.add(key);
}

/** Killed and all, by class; then the survivors. */
function summary(outcomes: ReadonlyMap<Mutant, Outcome>): number {
  const survivors = [...outcomes].filter(([, { verdict }]) => verdict === "survived");
  console.log();
  for (const of of [...faultClasses, undefined]) {
    const these = [...outcomes].filter(([mutant]) => of === undefined || mutant.class === of);
    const killed = these.filter(([, { verdict }]) => verdict === "killed").length;
    if (these.length > 0) console.log(`${(of ?? "all").padEnd(21)}${killed} of ${these.length} killed`);
  }
  for (const [{ name, file, why, tests }] of survivors) {
    console.log(`\nSurvived: ${name}, in ${file}\n  ${why}\n  ${tests.join(", ")} should have failed`);
  }
  return survivors.length > 0 ? 1 : 0;
}
