/** What tests of findings share: the lines that the test's file marks, and that a finding names both of its. */
import { readFileSync } from "node:fs";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import type { HostArguments, HostResults } from "../../backends/run.ts";
import { type FindingKind, formatFinding, simulate } from "../../backends/simulator/index.ts";
import type { Kernel, Params } from "../../dsl/index.ts";

/** What a kernel computes that must come to no finding. */
export function runClean<P extends Params>(kernel: Kernel<P>, args: HostArguments<P>, seed?: number): HostResults<P> {
  const { outputs, findings } = simulate(kernel, args, { seed });
  expect(findings.map(formatFinding), `${kernel.name}, seed ${seed}`).toEqual([]);
  return outputs;
}

export interface Expected {
  readonly kind: FindingKind;
  /** The marker `// ...` at the end of the line at fault, and of the other one. */
  readonly at: string;
  readonly other?: string;
  readonly says?: RegExp;
}

/** Checks of the kernels in one file. */
export function findingsIn(url: string) {
  const path = fileURLToPath(url);
  const file = relative(process.cwd(), path);
  const source = readFileSync(path, "utf8").split("\n");
  const place = (marker: string): string => {
    const lines = source.flatMap((line, i) => (line.endsWith(`// ${marker}`) ? [i + 1] : []));
    if (lines.length !== 1) throw new Error(`the marker ${marker} stands at lines ${lines.join(", ")}`);
    return `${file}:${lines[0]}`;
  };

  return {
    /** The kernel comes to this finding, whatever the schedule, and says how. Gives what it computed without a seed. */
    faulty<P extends Params>(kernel: Kernel<P>, args: HostArguments<P>, { kind, at, other, says = /./ }: Expected) {
      for (const seed of [undefined, 1, 2]) {
        const { findings } = simulate(kernel, args, { seed });
        const named = findings.filter(
          (finding) =>
            finding.kind === kind &&
            `${finding.at.file}:${finding.at.line}` === place(at) &&
            (other === undefined ? undefined : place(other)) ===
              (finding.other && `${finding.other.at.file}:${finding.other.at.line}`),
        );
        const all = findings.map(formatFinding).join("\n");
        expect(named.length, `${kind} at ${at}, ${other}, seed ${seed}; found:\n${all}`).toBe(1);
        expect(named[0]?.message).toMatch(says);
        expect(named[0]?.count).toBeGreaterThan(0);
      }
      return simulate(kernel, args).outputs;
    },

    /** The kernel comes to none, whatever the schedule. */
    clean<P extends Params>(kernel: Kernel<P>, args: HostArguments<P>) {
      for (const seed of [1, 2, 3]) runClean(kernel, args, seed);
      return runClean(kernel, args);
    },
  };
}
