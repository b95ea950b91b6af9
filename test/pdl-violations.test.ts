/**
 * Planted violations of the order that programmatic dependent launch asks for: in every shipped kernel, and of every way to
 * touch global memory. The verifier refuses each by both lines, and the simulator, which sees what runs, finds it as well.
 */
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

/** The verifier refuses a kernel; of an access it names that line and the wait's. */
function refused(title: string, { ir }: Kernel, says: RegExp): void {
  const error = caught(() => verify(ir));
  expect(error, title).toBeInstanceOf(PdlError);
  expect(String(error), title).toMatch(says);
}

/** The simulator comes to findings that say so. */
function found(title: string, bad: Kernel, args: object, says: RegExp, seed?: number): void {
  const { findings } = simulate(bad, args as never, { seed });
  expect(findings.map(formatFinding).sort().join("\n"), `${title}, seed ${seed}`).toMatch(says);
}

const bothLines = (access: string): RegExp =>
  new RegExp(
    `^PdlError: ${access} before the wait\n {2}at [\\w./-]+:\\d+:\\d+\n {2}the wait is at [\\w./-]+:\\d+:\\d+\n`,
  );

describe("in shipped kernels", () => {
  const subjects = lateSubjects().map((subject) => [subject.kernel.name, subject] as const);

  test.each(subjects)("%s, waiting at its end", (name, { kernel: good, args }) => {
    expect(caught(() => verify(good.ir))).toBeUndefined();
    const title = `${name}, waiting at its end`;
    const bad = withoutWaits(good);
    refused(title, bad, bothLines("(A load of (x|xScale), which is input,|A store to y)"));
    found(title, bad, args(1), /^early-access: (x|xScale) is read by a thread that is not ordered[^]*^early-store/m);
  });

  test.each(subjects)("%s, without any wait", (name, { kernel: good }) => {
    const bad = statements(good, "pdlWait").reduce((rest: Kernel, wait) => without(rest, wait), good);
    refused(`${name}, without any wait`, bad, /^PdlError: The kernel \w+ never waits[^]*Call t\.pdl\.wait\(\) once/);
  });

  const gemms = subjects.filter(([name]) => name.startsWith("gemm_"));
  test.each(gemms)("%s, of which only those that multiply wait", (name, { kernel: good, args }) => {
    const [, ofProducers] = statements(good, "pdlWait");
    const [title, bad] = [`${name}, producers in a hurry`, without(good, ofProducers)];
    refused(title, bad, bothLines("A load of x, which is input,"));
    found(title, bad, args(1), /^early-access: x is read by a thread/);
  });

  test.each(gemms)("%s, of which only those that copy wait", (name, { kernel: good, args }) => {
    const [ofConsumers] = statements(good, "pdlWait");
    const bad = without(good, ofConsumers);
    refused(`${name}, consumers in a hurry`, bad, bothLines("A store to y"));
    // What they multiply came after their neighbours' wait, so no run of it is wrong: the verifier is stricter than need be.
    expect(simulate(bad, args(1) as never).findings).toEqual([]);
  });

  const pipelines = subjects.filter(([name]) => name.startsWith("ll_gemm_pipeline"));
  test.each(pipelines)("%s, whose warps no longer meet before they store", (name, { kernel: good, args }) => {
    const barriers = statements(good, "barrier", "clusterArrive", "clusterWait");
    const bad = barriers.reduce((rest: Kernel, barrier) => without(rest, barrier), good);
    const title = `${name}, without its barriers`;
    refused(title, bad, bothLines("(A load of xScale, which is input,|A store to y)"));
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
    readonly access: string;
    readonly says: RegExp;
  }
  const load = "A load of x, which is input,";
  const early = /^early-access: x is read by a thread that is not ordered after the wait/m;
  const ways: Readonly<Record<string, Way>> = {
    "a load": {
      kernel: touching((t, { x }, to) => to.store([t.thread], x.load([t.thread]))),
      access: load,
      says: early,
    },
    "a load of 16 bytes": {
      kernel: touching((t, { x }, to) => t.when(t.thread.lt(n / 4), () => to.storeVec([t.thread.mul(4)], x.loadVec([t.thread.mul(4)], 4)))), // prettier-ignore
      access: load,
      says: early,
    },
    "a store": {
      kernel: touching((t, { y }) => y.store([t.thread], 1)),
      access: "A store to y",
      says: /^early-store: y is written by a thread that is not ordered after the wait/m,
    },
    "an update in place": {
      kernel: touching((t, { votes }) => votes.store([t.thread], votes.load([t.thread]).add(1))),
      access: "A load of votes, which is inout,",
      says: /^early-access: votes is read[^]*^early-store: votes is written/m,
    },
    "an atomic": {
      kernel: touching((_, { votes }) => void votes.atomicAdd([0], 1)),
      access: "A store to votes",
      says: /votes is (read|written) by a thread that is not ordered after the wait/,
    },
    "a copy by threads": {
      kernel: touching((t, { x }, to) => {
        const each = makeLayout([n, 1], [1, 1]);
        t.copyAsync(t.tileOf(x).partition(each, t.thread), t.tileOf(to).partition(each, t.thread));
        t.asyncCommit();
        t.asyncWait(0);
      }),
      access: load,
      says: early,
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
      access: load,
      says: early,
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
      access: load,
      says: early,
    },
  };

  test.each(Object.entries(ways))("%s before the wait", (title, { kernel: good, access, says }) => {
    expect(caught(() => verify(good.ir))).toBeUndefined();
    expect(simulate(good, zeros as never).findings.map(formatFinding)).toEqual([]);
    const bad = withoutWaits(good);
    refused(title, bad, bothLines(access));
    for (const seed of [undefined, 1, 2]) found(title, bad, zeros, says, seed);
  });

  test("a prefetch before the wait: nothing is read, but old data may be kept", () => {
    const bad = withoutWaits(touching((t, { x }) => t.prefetch(x, [t.thread])));
    refused("a prefetch", bad, bothLines(load));
  });
});
