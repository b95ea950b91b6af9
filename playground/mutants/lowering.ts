/** Faults in what both emitters share. */
import type { Mutant } from "./mutant.ts";

export const loweringMutants: readonly Mutant[] = [
  {
    name: "lowering-load-over-store",
    class: "IR",
    why: "A load goes in line behind a store to the same memory",
    file: "backends/lowering/inline.ts",
    find: "if (from.block.slice(position + 1, use.position).some(disturbs)) return false;",
    replace: "if (from.block.slice(position + 2, use.position).some(disturbs)) return false;",
    tests: ["test/conformance/control.test.ts"],
    named: "wgsl",
  },
  {
    name: "lowering-loop-bound",
    class: "IR",
    why: "A bound that the loop itself changes is read again in each turn",
    file: "backends/lowering/inline.ts",
    find: 'if (use.stmt.kind === "for" && disturbs(use.stmt)) return false;',
    replace: "",
    tests: ["test/conformance/control.test.ts"],
    named: "wgsl",
  },
  {
    name: "lowering-dead-atomic",
    class: "IR",
    why: "Atomics whose result nobody uses are left out",
    file: "backends/lowering/inline.ts",
    find: 'const acts = isPinned(value) && value.op.kind !== "read";',
    replace: 'const acts = isPinned(value) && value.op.kind !== "read" && value.op.kind !== "atomic";',
    tests: ["test/conformance/emission.test.ts"],
  },
  {
    name: "lowering-parentheses",
    class: "types and operators",
    why: "a - (b - c) loses its parentheses",
    file: "backends/lowering/text.ts",
    find: "(innerTightness === outerTightness && !right)",
    replace: "innerTightness === outerTightness",
    tests: ["test/lowering-text.test.ts"],
  },
  {
    name: "lowering-short-floats",
    class: "numerics",
    why: "f32 literals lose their last digit",
    file: "backends/lowering/text.ts",
    find: "if (Math.fround(Number(text)) === value) {",
    replace: "if (Math.abs(Number(text) - value) <= Math.abs(value) * 1e-7) {",
    tests: ["test/lowering-text.test.ts"],
  },
];
