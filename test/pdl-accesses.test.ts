/**
 * Every way to touch global memory counts in the order of programmatic dependent launch: the verifier refuses it before the wait,
 * and to tensors of the wrong role; the simulator finds it where a barrier was passed, but none after somebody's wait.
 */
import { describe, expect, test } from "vitest";
import { simulate } from "../backends/simulator/index.ts";
import { f32, HostTensor, i32, input, kernel, output, PdlError, type Role, RoleError } from "../dsl/index.ts";
import type { KernelIR, Tensor } from "../dsl/ir.ts";
import { verify } from "../dsl/verify/verify.ts";
import { caught } from "./mistake.ts";
import { statements, without } from "./simulator/mutate.ts";
import { at, IrBuilder } from "./tile-cuda-ir.ts";

type Access = (b: IrBuilder, x: Tensor) => void;

/** One statement each that reads x, writes it, or both, from where shared memory is written beside the thread with its wait. */
const accesses: Readonly<Record<string, { readonly roles: readonly Role[]; readonly add: Access }>> = {
  load: { roles: ["frozen", "input", "inout"], add: (b, x) => void b.load(x, [b.int(0)], 1) },
  store: { roles: ["output", "inout"], add: (b, x) => b.store(x, [b.id("thread")], b.int(0)) },
  atomic: {
    roles: ["inout"],
    add: (b, x) =>
      void b.value({ kind: "atomic", fn: "add", memory: x, index: [b.int(0)], a: b.int(1), compare: undefined }),
  },
  copyAsync: {
    roles: ["frozen", "input", "inout"],
    add: (b, x) => {
      const [to, zero] = [b.shared("s", i32, [64]), b.int(0)];
      b.stmt({
        kind: "copyAsync",
        to,
        toIndex: [zero],
        memory: x,
        index: [zero],
        lanes: 4,
        guard: undefined,
        at,
      });
      b.stmt({ kind: "asyncCommit", at });
      b.stmt({ kind: "asyncWait", pending: 0, at });
    },
  },
  bulkCopy: {
    roles: ["frozen", "input", "inout"],
    add: (b, x) => {
      const [to, zero, barrier] = [b.shared("s", i32, [64]), b.int(0), b.mbarrier("full", 1, 1)];
      b.stmt({
        kind: "bulkCopy",
        to,
        toIndex: [zero],
        memory: x,
        index: [zero],
        count: b.int(64),
        barrier,
        slot: zero,
        at,
      });
      b.stmt({ kind: "await", barrier, slot: zero, parity: zero, at });
    },
  },
  tensorCopy: {
    roles: ["frozen", "input", "inout"],
    add: (b, x) => {
      const [to, zero, barrier] = [b.shared("s", i32, [64], 128), b.int(0), b.mbarrier("full", 1, 1)];
      const map = b.tensorMap("map", x, [64], 0);
      b.stmt({ kind: "tensorCopy", cache: "normal", to, toIndex: [zero], map, index: [zero], barrier, slot: zero, at });
      b.stmt({ kind: "await", barrier, slot: zero, parity: zero, at });
    },
  },
  prefetch: {
    roles: ["frozen", "input", "inout"],
    add: (b, x) => b.stmt({ kind: "prefetch", memory: x, index: [b.int(0)], at }),
  },
};

function ir(add: Access, role: Role, wait: "before" | "after"): KernelIR {
  const b = new IrBuilder();
  const x = b.tensor("x", role, i32, [64]);
  if (wait === "before") b.stmt({ kind: "pdlWait", at });
  add(b, x);
  if (wait === "after") b.stmt({ kind: "pdlWait", at });
  return b.build("touches", { block: 32 });
}

describe.each(Object.entries(accesses))("%s", (_, { roles, add }) => {
  test.each(["frozen", "input", "output", "inout"] as const)("of a tensor that is %s", (role) => {
    const after = caught(() => verify(ir(add, role, "before")));
    if (roles.includes(role)) expect(after).toBeUndefined();
    else expect(after).toBeInstanceOf(RoleError);

    const early = caught(() => verify(ir(add, role, "after")));
    if (!roles.includes(role)) expect(early).toBeInstanceOf(RoleError);
    else if (role === "frozen") expect(early).toBeUndefined();
    else {
      expect(early).toBeInstanceOf(PdlError);
      expect(String(early)).toMatch(/(store to|load of) x.* before the wait/);
    }
  });
});

test("a barrier that was passed before the wait orders nothing after it", () => {
  const params = { x: input(f32, [64]), y: output(f32, [64]) };
  const consumer = kernel({ name: "consumer", grid: 1, block: 64, params }, (t) => {
    t.barrier();
    t.when(t.warp.eq(0), () => void t.pdl.wait());
    t.barrier();
    const { x, y } = t.pdl.afterBarrier();
    y.store([t.thread], x.load([t.thread]));
  });
  const args = { x: HostTensor.filled(f32, [64], 0) };
  expect(simulate(consumer, args).findings).toEqual([]);
  const [first, second] = statements(consumer, "barrier");
  expect(simulate(without(consumer, first), args).findings).toEqual([]);
  for (const seed of [undefined, 1, 2]) {
    const kinds = simulate(without(consumer, second), args, { seed }).findings.map(({ kind }) => kind);
    expect(new Set(kinds)).toEqual(new Set(["early-access", "early-store"]));
  }
});
