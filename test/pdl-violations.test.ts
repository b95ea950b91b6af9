/**
 * Planted violations of the order that programmatic dependent launch asks for: in every shipped kernel, and of every way to
 * touch global memory: 14 kinds. The verifier refuses each and names the author's lines, of the access and of the wait; the
 * simulator, which sees what runs, finds all but two as well, and names the same.
 */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { formatFinding, simulate } from "../backends/simulator/index.ts";
import {
  type Dependent,
  f32,
  HostTensor,
  i32,
  inout,
  input,
  type Kernel,
  kernel,
  output,
  PdlError,
  type Tensor,
  type Thread,
} from "../dsl/index.ts";
import { makeLayout } from "../dsl/layout/index.ts";
import { verify } from "../dsl/verify/verify.ts";
import { lateSubjects } from "../playground/prove/late-subjects.ts";
import { withoutWaits } from "../playground/prove/late.ts";
import { caught } from "./mistake.ts";
import { statements, without } from "./simulator/mutate.ts";

/** The code at the places that a message names. */
function codeIn(message: string): readonly string[] {
  const places = [...message.matchAll(/ at ([\w./-]+):(\d+):\d+$/gm)];
  return places.map(([, file = "", line]) => readFileSync(file, "utf8").split("\n")[Number(line) - 1] ?? "");
}

const matching = (lines: readonly RegExp[]): unknown[] => lines.map((line) => expect.stringMatching(line));

/** The verifier refuses a kernel, and names just these lines of TypeScript. */
function refused(title: string, { ir }: Kernel, says: string, ...lines: readonly RegExp[]): void {
  const error = caught(() => verify(ir));
  expect(error, title).toBeInstanceOf(PdlError);
  expect(String(error), title).toMatch(new RegExp(`^PdlError: ${says}\n`));
  expect(codeIn(String(error)), title).toEqual(matching(lines));
}

/** The simulator comes to such findings; those of early accesses name the access and the wait, if there is one. */
function found(title: string, bad: Kernel, args: object, says: RegExp, { seed, access = anyAccess }: Run = {}): void {
  const { findings } = simulate(bad, args as never, { seed });
  const texts = findings.map(formatFinding).sort();
  expect(texts.join("\n"), `${title}, seed ${seed}`).toMatch(says);
  const lines = statements(bad, "pdlWait").length > 0 ? [access, wait] : [access];
  const early = texts.filter((text) => text.startsWith("early-"));
  for (const text of early) expect(codeIn(text), title).toEqual(matching(lines));
}

interface Run {
  readonly seed?: number | undefined;
  /** The line at fault. */
  readonly access?: RegExp;
}

const wait = /\bt\.pdl\.wait\(\)/;
const anyAccess = /\.(load|store|copy|atomic)\w*\(/;

describe("in shipped kernels", () => {
  const subjects = lateSubjects().map((subject) => [subject.kernel.name, subject] as const);

  test.each(subjects)("%s, waiting at its end", (name, { kernel: good, args }) => {
    expect(caught(() => verify(good.ir))).toBeUndefined();
    const title = `${name}, waiting at its end`;
    const bad = withoutWaits(good);
    refused(title, bad, "(A load of (x|xScale)|A store to y)\\b.* before the wait", anyAccess, wait);
    found(title, bad, args(1), /^early-access: (x|xScale) is read by a thread that is not ordered[^]*^early-store/m);
  });

  test.each(subjects)("%s, without any wait", (name, { kernel: good, args }) => {
    const title = `${name}, without any wait`;
    const bad = statements(good, "pdlWait").reduce((rest: Kernel, wait) => without(rest, wait), good);
    const says = `The kernel ${name} never waits for the kernel before it`;
    refused(title, bad, says, /\b(kernel|rmsNorm|gemmBf16|llGemm\w+)\(/);
    found(title, bad, args(1), /^early-access: (x|xScale) is read by a thread that is not ordered[^]*^early-store/m);
  });

  const gemms = subjects.filter(([name]) => name.startsWith("gemm_"));
  test.each(gemms)("%s, of which only those that multiply wait", (name, { kernel: good, args }) => {
    const [, ofProducers] = statements(good, "pdlWait");
    const [title, bad] = [`${name}, producers in a hurry`, without(good, ofProducers)];
    refused(title, bad, "A load of x\\b.* before the wait", anyAccess, wait);
    found(title, bad, args(1), /^early-access: x is read by a thread/);
  });

  test.each(gemms)("%s, of which only those that copy wait", (name, { kernel: good, args }) => {
    const [ofConsumers] = statements(good, "pdlWait");
    const bad = without(good, ofConsumers);
    refused(`${name}, consumers in a hurry`, bad, "A store to y\\b.* before the wait", /\by\.store/, wait);
    // What they multiply came after their neighbours' wait, so no run of it is wrong: the verifier is stricter than need be.
    expect(simulate(bad, args(1) as never).findings).toEqual([]);
  });

  const pipelines = subjects.filter(([name]) => name.startsWith("ll_gemm_pipeline"));
  test.each(pipelines)("%s, whose warps no longer meet before they store", (name, { kernel: good, args }) => {
    const barriers = statements(good, "barrier", "clusterArrive", "clusterWait");
    const bad = barriers.reduce((rest: Kernel, barrier) => without(rest, barrier), good);
    const title = `${name}, without its barriers`;
    const says = "(A load of xScale|A store to y)\\b.* before the wait";
    refused(title, bad, says, /\b(xScale\.load|y\.store)/, wait);
    found(title, bad, args(1), /^race: /m);
  });
});

/** Right kernels, each of which touches memory of the kernel before in one way more. */
describe("of every way to touch memory", () => {
  const n = 64;
  const params = {
    x: input(f32, [n], { alignBytes: 16 }),
    votes: inout(i32, [n]),
    y: output(f32, [n], { alignBytes: 16 }),
  };
  const touching = (
    body: (t: Thread, late: Dependent<typeof params>, landing: Tensor<"f32", 1, "shared">) => void,
  ): Kernel =>
    kernel({ name: "touching", grid: 1, block: n, params }, (t) => {
      const late = t.pdl.wait();
      body(t, late, t.shared(f32, [n], { alignBytes: 128 }));
    }) as unknown as Kernel;
  const zeros = { x: HostTensor.filled(f32, [n], 0), votes: HostTensor.filled(i32, [n], 0) };

  interface Way {
    readonly kernel: Kernel;
    /** What the verifier calls it, and the simulator. */
    readonly refusal: string;
    readonly finding: RegExp;
    readonly code: RegExp;
  }
  const loadX = "A load of x\\b.* before the wait";
  const earlyX = /^early-access: x is read by a thread that is not ordered after the wait/m;
  const ways: Readonly<Record<string, Way>> = {
    "a load": {
      kernel: touching((t, { x }, to) => to.store([t.thread], x.load([t.thread]))),
      refusal: loadX,
      finding: earlyX,
      code: /\bx\.load\(/,
    },
    "a load of 16 bytes": {
      kernel: touching((t, { x }, to) => t.when(t.thread.lt(n / 4), () => to.storeVec([t.thread.mul(4)], x.loadVec([t.thread.mul(4)], 4)))), // prettier-ignore
      refusal: loadX,
      finding: earlyX,
      code: /\bx\.loadVec\(/,
    },
    "a store": {
      kernel: touching((t, { y }) => y.store([t.thread], 1)),
      refusal: "A store to y\\b.* before the wait",
      finding: /^early-store: y is written by a thread that is not ordered after the wait/m,
      code: /\by\.store\(/,
    },
    "an update in place": {
      kernel: touching((t, { votes }) => votes.store([t.thread], votes.load([t.thread]).add(1))),
      refusal: "A load of votes\\b.* before the wait",
      finding: /^early-access: votes is read[^]*^early-store: votes is written/m,
      code: /\bvotes\.store\(.*\bvotes\.load\(/,
    },
    "an atomic": {
      kernel: touching((_, { votes }) => void votes.atomicAdd([0], 1)),
      refusal: "A store to votes\\b.* before the wait",
      finding: /votes is (read|written) by a thread that is not ordered after the wait/,
      code: /\bvotes\.atomicAdd\(/,
    },
    "a copy by threads": {
      kernel: touching((t, { x }, to) => {
        const each = makeLayout([n, 1], [1, 1]);
        t.copyAsync(t.tileOf(x).partition(each, t.thread), t.tileOf(to).partition(each, t.thread));
        t.asyncCommit();
        t.asyncWait(0);
      }),
      refusal: loadX,
      finding: earlyX,
      code: /\bt\.copyAsync\(/,
    },
    "a bulk copy": {
      kernel: touching((t, { x }, to) => {
        const full = t.mbarrier(1, 1);
        t.when(t.thread.eq(0), () => {
          full.arriveExpect(0, 4 * n);
          t.copyBulk(x, [0], to, [0], n, full);
        });
        full.wait(0, 0);
      }),
      refusal: loadX,
      finding: earlyX,
      code: /\bt\.copyBulk\(/,
    },
    "a copy by TMA": {
      kernel: touching((t, { x }) => {
        const to = t.sharedTile(f32, makeLayout([n]), { alignBytes: 128 });
        const full = t.mbarrier(1, 1);
        t.when(t.thread.eq(0), () => {
          full.arriveExpect(0, 4 * n);
          t.copyTensor(t.tensorMap(x, [n]), [0], to, full);
        });
        full.wait(0, 0);
      }),
      refusal: loadX,
      finding: earlyX,
      code: /\bt\.copyTensor\(/,
    },
  };

  test.each(Object.entries(ways))("%s before the wait", (title, { kernel: good, refusal, finding, code }) => {
    expect(caught(() => verify(good.ir))).toBeUndefined();
    expect(simulate(good, zeros as never).findings.map(formatFinding)).toEqual([]);
    const bad = withoutWaits(good);
    refused(title, bad, refusal, code, wait);
    for (const seed of [undefined, 1, 2]) found(title, bad, zeros, finding, { seed, access: code });
  });

  test("a prefetch before the wait: nothing is read, but old data may be kept", () => {
    const bad = withoutWaits(touching((t, { x }) => t.prefetch(x, [t.thread])));
    refused("a prefetch", bad, loadX, /\bt\.prefetch\(/, wait);
  });
});
