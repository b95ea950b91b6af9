/** What users do wrong with memory and with each other's threads: PDL, roles, divergence, alignment, bounds, shared memory. */
import { describe, expect, test } from "vitest";
import {
  AlignmentError,
  bf16,
  bool,
  ceilDiv,
  DivergenceError,
  type Expr,
  f32,
  floorDiv,
  frozen,
  i32,
  input,
  kernel,
  type KernelIR,
  OutOfBoundsError,
  output,
  PdlError,
  RoleError,
  scalar,
  ScopeError,
  ShapeError,
  size,
  StagingError,
  type Tensor,
  type Thread,
} from "../dsl/index.ts";
import type { Block, Stmt } from "../dsl/ir.ts";
import type { SizeFacts } from "../dsl/size.ts";
import { verify } from "../dsl/verify/verify.ts";
import { caught, mistakesIn, traced, untyped } from "./mistake.ts";

const mistake = mistakesIn(import.meta.url);
const config = { name: "copy", grid: 1, block: 32, params: { x: input(f32, [32]), y: output(f32, [32]) } } as const;

// Programmatic dependent launch.

mistake(
  "no wait",
  PdlError,
  /kernel copy never waits[^]*t\.pdl\.wait\(\)/,
  () => kernel(config, (t) => t.barrier()), // wrong
);

mistake("two waits", PdlError, /waits once[^]*first wait/, () =>
  kernel(config, (t) => {
    t.pdl.wait(); // cause
    t.pdl.wait(); // wrong
  }),
);

mistake("a wait in a loop", PdlError, /wait stands inside a loop\n[^]*before the loop/, () =>
  kernel(config, (t) => {
    for (const _ of t.range(2)) t.pdl.wait(); // wrong
  }),
);

mistake("a wait in a loop in a branch", PdlError, /wait stands inside a loop/, () =>
  kernel(config, (t) => {
    t.when(t.warp.eq(0), () => {
      for (const _ of t.range(2)) t.pdl.wait(); // wrong
    });
  }),
);

const everyBlock = { ...config, grid: 4, block: 128, params: { ...config.params, n: scalar(i32) } } as const;

describe("a wait in a branch that perhaps no thread of some block takes", () => {
  const perhaps = /inside a branch that perhaps no thread takes[^]*t\.warp\.eq\(0\), t\.warp\.lt\(4\)/;
  mistake("a branch of one block", PdlError, perhaps, () =>
    kernel(everyBlock, (t) => {
      t.when(t.block.x.eq(0), () => void t.pdl.wait()); // wrong
    }),
  );
  mistake("a branch that a scalar decides", PdlError, perhaps, () =>
    kernel(everyBlock, (t, { n }) => {
      t.when(n.gt(0), () => void t.pdl.wait()); // wrong
    }),
  );
  mistake("a warp that a scalar chooses", PdlError, perhaps, () =>
    kernel(everyBlock, (t, { n }) => {
      t.when(t.warp.eq(n), () => void t.pdl.wait()); // wrong
    }),
  );
  mistake("a warp that the block chooses", PdlError, perhaps, () =>
    kernel(everyBlock, (t) => {
      t.when(t.warp.add(t.block.x).eq(3), () => void t.pdl.wait()); // wrong
    }),
  );
  mistake("a branch that data decides", PdlError, perhaps, () =>
    kernel({ ...everyBlock, params: { w: frozen(i32, [4]) } }, (t, { w }) => {
      t.when(w.load([t.warp]).gt(0), () => void t.pdl.wait()); // wrong
    }),
  );
  mistake("a branch that a register decides", PdlError, perhaps, () =>
    kernel(everyBlock, (t) => {
      const go = t.reg(i32, 1);
      t.when(go.get().eq(1), () => void t.pdl.wait()); // wrong
    }),
  );
  mistake("a warp that isn't there", PdlError, perhaps, () =>
    kernel(everyBlock, (t) => {
      t.when(t.warp.eq(4), () => void t.pdl.wait()); // wrong
    }),
  );
  mistake("a value between those that occur", PdlError, perhaps, () =>
    kernel(everyBlock, (t) => {
      t.when(t.warp.mul(2).eq(3), () => void t.pdl.wait()); // wrong
    }),
  );
  mistake("the other side of every warp", PdlError, perhaps, () =>
    kernel(everyBlock, (t) => {
      t.when(
        t.warp.lt(4),
        () => {},
        () => void t.pdl.wait(), // wrong
      );
    }),
  );
  mistake("a branch inside a branch", PdlError, perhaps, () =>
    kernel(everyBlock, (t) => {
      t.when(t.warp.lt(2), () => t.when(t.block.x.eq(0), () => void t.pdl.wait())); // wrong
    }),
  );
  mistake("one side of a branch inside a branch", PdlError, perhaps, () =>
    kernel(everyBlock, (t) => {
      t.when(t.warp.lt(2), () => t.when(t.warp.eq(3), () => void t.pdl.wait())); // wrong
    }),
  );
});

mistake("a tensor outside the branch of its wait", ScopeError, /tensor x is used outside[^]*began/, () =>
  kernel(everyBlock, (t) => {
    let x: Tensor<"f32", 1, "input"> | undefined;
    // prettier-ignore
    t.when(t.warp.eq(0), () => { // cause
      ({ x } = t.pdl.wait());
    });
    t.barrier();
    x?.load([t.lane]); // wrong
  }),
);

mistake("afterBarrier without a barrier", PdlError, /load of x, which is an input, stands before the wait/, () =>
  kernel(everyBlock, (t) => {
    t.when(t.warp.eq(0), () => void t.pdl.wait()); // cause
    t.pdl.afterBarrier().x.load([t.lane]); // wrong
  }),
);

mistake("afterBarrier with the barrier before the wait", PdlError, /load of x/, () =>
  kernel(everyBlock, (t) => {
    t.barrier();
    t.when(t.warp.eq(0), () => void t.pdl.wait()); // cause
    t.pdl.afterBarrier().x.load([t.lane]); // wrong
  }),
);

mistake("afterBarrier with a barrier of the warp only", PdlError, /load of x/, () =>
  kernel(everyBlock, (t) => {
    t.when(t.warp.eq(0), () => void t.pdl.wait());
    t.warpBarrier();
    t.namedBarrier(1, 128);
    t.pdl.afterBarrier().x.load([t.lane]); // wrong
  }),
);

mistake("afterBarrier with a barrier in a loop that may not run", PdlError, /load of x/, () =>
  kernel(everyBlock, (t, { n }) => {
    t.when(t.warp.eq(0), () => void t.pdl.wait());
    for (const _ of t.range(n)) t.barrier();
    t.pdl.afterBarrier().x.load([t.lane]); // wrong
  }),
);

mistake("afterBarrier with half a cluster barrier", PdlError, /load of x/, () =>
  kernel({ ...everyBlock, cluster: 4 }, (t) => {
    t.when(t.warp.eq(0), () => void t.pdl.wait());
    t.cluster.arrive();
    t.pdl.afterBarrier().x.load([t.lane]); // wrong
  }),
);

mistake("a wait between the halves of the cluster barrier", PdlError, /load of x/, () =>
  kernel({ ...everyBlock, cluster: 4 }, (t) => {
    t.cluster.arrive();
    t.when(t.warp.eq(0), () => void t.pdl.wait());
    t.cluster.wait();
    t.pdl.afterBarrier().x.load([t.lane]); // wrong
  }),
);

mistake("afterBarrier in the branch that did not wait", PdlError, /load of x/, () =>
  kernel(everyBlock, (t) => {
    t.when(
      t.warp.eq(0),
      () => void t.pdl.wait(), // cause
      () => void t.pdl.afterBarrier().x.load([t.lane]), // wrong
    );
  }),
);

mistake(
  "a store by warps that neither waited nor met",
  PdlError,
  /^A store to y stands before the wait[^]*barrier after/,
  () =>
    kernel(everyBlock, (t) => {
      t.when(t.warp.eq(0), () => void t.pdl.wait()); // cause
      t.when(t.warp.ne(0), () => t.pdl.afterBarrier().y.store([t.lane], 0)); // wrong
    }),
);

mistake("a second wait in a branch", PdlError, /waits once[^]*first wait/, () =>
  kernel(config, (t) => {
    t.pdl.wait(); // cause
    t.when(t.lane.eq(0), () => void t.pdl.wait()); // wrong
  }),
);

test("warps with tasks of their own: some wait, the others come after a barrier", () => {
  const conditions: readonly ((t: Thread) => Expr<"bool">)[] = [
    (t) => t.warp.eq(0),
    (t) => t.warp.eq(3),
    (t) => t.warp.lt(2),
    (t) => t.warp.ge(2),
    (t) => t.warp.gt(2),
    (t) => t.warp.le(0),
    (t) => t.warp.ne(1),
    (t) => t.warp.eq(1).not(),
    (t) => t.thread.lt(32),
    (t) => t.thread.eq(64),
    (t) => t.lane.eq(0),
    (t) => t.warp.div(2).lt(1),
  ];
  for (const condition of conditions) {
    kernel(everyBlock, (t) => {
      const sX = t.shared(f32, [32]);
      t.when(condition(t), () => {
        const { x } = t.pdl.wait();
        sX.store([t.lane], x.load([t.lane]));
      });
      t.barrier();
      const { y } = t.pdl.afterBarrier();
      t.when(t.warp.eq(0), () => y.store([t.lane], sX.load([t.lane])));
    });
  }
});

test("a wait on both sides, in the other side, in a nested branch of both sides", () => {
  kernel(everyBlock, (t) => {
    const copy = () => {
      const { x, y } = t.pdl.wait();
      y.store([t.lane], x.load([t.lane]));
    };
    t.when(t.block.x.eq(0), copy, copy);
    // Who came here has waited.
    t.pdl.afterBarrier().x.load([t.lane]);
  });
  kernel(everyBlock, (t) => {
    t.when(
      t.warp.lt(3),
      () => {},
      () => void t.pdl.wait().x.load([t.lane]),
    );
  });
  kernel(everyBlock, (t) => {
    for (const warp of [0, 2]) t.when(t.warp.eq(warp), () => void t.pdl.wait().x.load([t.lane]));
  });
  kernel(everyBlock, (t) => {
    const wait = () => void t.pdl.wait();
    t.when(t.warp.lt(2), () => t.when(t.block.x.eq(0), wait, wait));
  });
});

test("a cluster barrier orders as a block barrier does", () => {
  kernel({ ...everyBlock, cluster: 4 }, (t) => {
    t.when(t.warp.eq(0), () => void t.pdl.wait());
    t.cluster.barrier();
    const { x, y } = t.pdl.afterBarrier();
    y.store([t.lane], x.load([t.lane]));
  });
});

test("a barrier in a loop orders what comes after it there", () => {
  kernel(everyBlock, (t, { n }) => {
    t.when(t.warp.eq(0), () => void t.pdl.wait());
    for (const _ of t.range(n)) {
      t.barrier();
      const { x, y } = t.pdl.afterBarrier();
      y.store([t.lane], x.load([t.lane]));
    }
  });
});

/** x to y, with the statements of the body in another order. */
function rearranged(order: (body: Block) => Block): KernelIR {
  const copy = kernel(config, (t) => {
    const { x, y } = t.pdl.wait();
    const value = x.load([t.lane]);
    y.store([t.lane], value);
  });
  return { ...copy.ir, body: order(copy.ir.body) };
}

describe("a hand-broken consumer is rejected by the verifier", () => {
  const isWait = (stmt: Stmt): boolean => stmt.kind === "pdlWait";
  const moved = (to: number) => (body: Block) =>
    body.filter((stmt) => !isWait(stmt)).toSpliced(to, 0, ...body.filter(isWait));
  const inBranch = (body: Block): Block =>
    body.map((stmt) => {
      if (!isWait(stmt)) return stmt;
      const condition = {
        id: 99,
        type: { dtype: bool, lanes: 1 },
        op: { kind: "const", value: 1 },
        at: stmt.at,
      } as const;
      return { kind: "if", condition: { ...condition, name: undefined }, then: [stmt], otherwise: [], at: stmt.at };
    });
  test.each([
    ["as written", (body: Block) => body, undefined],
    ["load before wait", moved(1), /load of x, which is an input, stands before the wait\n[^]*the wait is at test/],
    ["store before wait", (body: Block) => [...body.slice(1, 2), ...moved(2)(body).slice(1)], /before the wait/],
    ["no wait", (body: Block) => body.filter((stmt) => !isWait(stmt)), /never waits/],
    ["two waits", (body: Block) => [...body.filter(isWait), ...body], /waits once/],
  ])("%s", (_, order, says) => {
    const error = caught(() => verify(rearranged(order)));
    if (says) expect(error).toBeInstanceOf(PdlError);
    expect(error instanceof Error ? error.message : "").toMatch(says ?? /^$/);
  });

  test("wait in a branch that is always taken, load after it", () => {
    expect(() => verify(rearranged(inBranch))).toThrow(/load of x, which is an input, stands before the wait/);
  });
});

mistake(
  "a store to an input",
  RoleError,
  /store to x, which is input[^]*output or inout/,
  () => traced((t, { x }) => untyped<Tensor<"f32", 1, "output">>(x).store([t.lane], 0)), // wrong
);

mistake("a store to a frozen tensor before the wait", RoleError, /store to w, which is frozen/, () =>
  kernel({ ...config, params: { w: frozen(f32, [32]) } }, (t, { w }) => {
    untyped<Tensor<"f32", 1, "output">>(w).store([t.lane], 0); // wrong
    t.pdl.wait();
  }),
);

mistake(
  "a load from an output",
  RoleError,
  /load of y, which is output[^]*inout/,
  () => traced((t, { y }) => untyped<Tensor<"f32", 1, "input">>(y).load([t.lane])), // wrong
);

// Divergence.

mistake("a barrier under a branch", DivergenceError, /block barrier stands where not all threads of the block/, () =>
  traced((t) => {
    const first = t.warp.eq(0); // cause
    t.when(first, () => t.barrier()); // wrong
  }),
);

mistake("a barrier in a loop", DivergenceError, /branch or loop around it/, () =>
  traced((t) => {
    // prettier-ignore
    for (const _ of t.range(t.thread)) { // cause
      t.barrier(); // wrong
    }
  }),
);

mistake("a shuffle under a branch", DivergenceError, /shuffle stands where not all threads of the warp/, () =>
  traced((t, { x }) => {
    const value = x.load([t.lane]);
    t.when(t.lane.lt(16), () => void t.shuffleXor(value, 1)); // wrong
  }),
);

mistake("a reduction in a loop", DivergenceError, /warp reduction stands[^]*same in the whole warp/, () =>
  traced((t, { x }) => {
    const value = x.load([t.lane]);
    for (const _ of t.range(0, t.lane)) t.warpSum(value); // wrong
  }),
);

mistake("a reduction that a register decides", DivergenceError, /warp reduction/, () =>
  traced((t, { x }) => {
    const go = t.reg(i32, 1);
    const value = x.load([t.lane]);
    for (const _ of t.range(4)) {
      t.when(go.get().eq(1), () => void t.warpSum(value)); // wrong
      go.set(t.lane);
    }
  }),
);

mistake(
  "a branch on memory that the kernel writes",
  DivergenceError,
  /warp reduction[^]*memory that this kernel writes[^]*t\.shuffle\(v, 0\)/,
  () =>
    traced((t, { acc, x }) => {
      const value = x.load([t.lane]);
      const go = acc.load([0]).gt(0); // cause
      t.when(go, () => void t.warpSum(value)); // wrong
      acc.store([t.lane], 1);
    }),
);

mistake(
  "a loop that a register filled from shared memory ends",
  DivergenceError,
  /shuffle stands[^]*t\.shuffle\(v, 0\)/,
  () =>
    traced((t) => {
      const counts = t.shared(i32, [2]);
      const count = t.reg(i32, 0);
      count.set(counts.load([t.warp]));
      for (const i of t.range(count)) t.shuffleXor(i, 1); // wrong
    }),
);

mistake("a branch on memory that the kernel writes, by lane", DivergenceError, /same in the whole warp$/, () =>
  traced((t, { acc, x }) => {
    const value = x.load([t.lane]);
    t.when(acc.load([t.lane]).gt(0), () => void t.warpSum(value)); // wrong
    acc.store([t.lane], 1);
  }),
);

mistake("a barrier that such a load decides", DivergenceError, /same in the whole block$/, () =>
  traced((t, { acc }) => {
    t.when(acc.load([0]).gt(0), () => t.barrier()); // wrong
    acc.store([t.lane], 1);
  }),
);

mistake("a branch on a register never set", DivergenceError, /warp reduction/, () =>
  traced((t) => {
    const r = t.array(i32, 1);
    t.when(r.get(0).eq(0), () => void t.warpSum(t.lane)); // wrong
  }),
);

mistake(
  "a branch on half a warp",
  DivergenceError,
  /warp reduction/,
  () => traced((t) => t.when(t.thread.lt(48), () => void t.warpSum(t.lane))), // wrong
);

test("what one lane found in such memory may decide; so may memory that is only read", () => {
  traced((t, { acc, x }) => {
    const value = x.load([t.lane]);
    const loaded = acc.load([0]);
    t.when(t.shuffle(loaded, 0).gt(0), () => void t.warpSum(value));
    acc.store([t.lane], 1);
  });
  traced((t, { acc, x }) => {
    const value = x.load([t.lane]);
    t.when(acc.load([t.block.x]).gt(0), () => (t.warpSum(value), t.barrier()));
  });
});

test("uniform control flow may contain barriers and warp operations", () => {
  traced((t, { n, x }) => {
    t.when(n.gt(0), () => t.barrier());
    for (const _ of t.range(n)) t.barrier();
    const value = x.load([t.lane]);
    t.when(t.warp.eq(0), () => void t.warpSum(value));
    t.when(t.thread.lt(32), () => void t.warpSum(value));
    t.when(t.warpAny(value.gt(0)), () => t.warpBarrier());
  });
});

// Alignment.

const one = { name: "vectors", grid: 1, block: 32 } as const;

mistake(
  "no promise about the base",
  AlignmentError,
  /16-byte access of f32x4 to x[^]*only 4 are promised[^]*input\(f32, \[\.\.\.\], { alignBytes: 16 }\)/,
  () => {
    const x = input(f32, [64]); // cause
    kernel({ ...one, params: { x } }, (t) => void t.pdl.wait().x.loadVec([0], 4)); // wrong
  },
);

mistake(
  "rows that break the alignment",
  AlignmentError,
  /rows that are a multiple of 16 bytes apart[^]*4097 elements[^]*pad/,
  () => {
    const w = frozen(bf16, [8, 4097], { alignBytes: 16 }); // cause
    kernel({ ...one, params: { w } }, (t, { w }) => {
      w.loadVec([t.block.x, t.lane.mul(8)], 8, { guard: t.lane.lt(512) }); // wrong
      t.pdl.wait();
    });
  },
);

mistake(
  "a row size without its fact",
  AlignmentError,
  /index 0 steps over K \* 4[^]*size\("K", { multipleOf: 8 }\)/,
  () => {
    const w = frozen(bf16, [8, size("K"), 4], { alignBytes: 16 });
    kernel({ ...one, params: { w } }, (t, { w }) => {
      w.loadVec([t.warp, 0, 0], 8); // wrong
      t.pdl.wait();
    });
  },
);

mistake(
  "an index that isn't a multiple",
  AlignmentError,
  /index 0 to be a multiple of 4; it is only known to be a multiple of 2[^]*i\.mul\(4\)/,
  () =>
    traced((t, { x }) => {
      const i = t.lane.mul(2); // cause
      x.loadVec([i], 4); // wrong
    }),
);

mistake(
  "vectors from an offset on",
  AlignmentError,
  /only known to be a multiple of 1\n[^]*The offset 1 is no multiple of 4: begin at one that is, or access single/,
  () => traced((t, { x }) => x.loadVec([t.lane.rem(8).mul(4).add(1)], 4)), // wrong
);

mistake(
  "vectors from before a multiple on",
  AlignmentError,
  /The offset -2 is no multiple of 4/,
  () => traced((t, { x }) => x.loadVec([t.warp.sub(2).add(t.lane.mul(4))], 4)), // wrong
);

mistake(
  "vectors by lane",
  AlignmentError,
  /a multiple of 1\n {2}at .*\n {2}Index by vectors: i\.mul\(4\)$/,
  () => traced((t, { x }) => x.loadVec([t.lane], 4)), // wrong
);

mistake("a size as index without its fact", AlignmentError, /multiple of 1[^]*size\("M", { multipleOf: 4 }\)/, () => {
  const x = input(f32, [size("M")], { alignBytes: 16 });
  kernel({ ...one, params: { x } }, (t) => {
    const { x } = t.pdl.wait();
    for (const dim of x.shape) x.loadVec([dim], 4); // wrong
  });
});

mistake(
  "an access that is too wide",
  ShapeError,
  /32-byte access[^]*4 lanes or fewer/,
  () => traced((_t, { x }) => x.loadVec([0], 8)), // wrong
);

// Bounds.

mistake(
  "more threads than elements",
  OutOfBoundsError,
  /Index 0 of y is 0 to 127; the dimension has 64[^]*\n {2}Guard it: t\.when\(i\.lt\(n\), \(\) => \.\.\.\)$/,
  () => traced((t, { y }) => y.store([t.block.x.mul(64).add(t.thread)], 0)), // wrong
);

mistake(
  "a constant index outside",
  OutOfBoundsError,
  /Index 0 of x is 64; [^]*\n {2}No guard helps: the last index is 63$/,
  () => traced((_t, { x }) => x.load([64])), // wrong
);

mistake(
  "a negative index",
  OutOfBoundsError,
  /Index 0 of x is -1 to 30[^]*\n {2}Guard it: t\.when\(.*\) or load\(\.\.\., { guard: i\.lt\(n\) }\)$/,
  () => traced((t, { x }) => x.load([t.lane.sub(1)])), // wrong
);

mistake(
  "a vector past the end",
  OutOfBoundsError,
  /is 0 to 62 \(4 elements from there on\)|is 0 to 124/,
  () => traced((t, { x }) => x.loadVec([t.lane.mul(4)], 4)), // wrong
);

mistake(
  "a store past the end",
  OutOfBoundsError,
  /Index 0 of y is 64; [^]*\n {2}No guard helps: the last index is 63$/,
  () => traced((_t, { y }) => y.store([64], 0)), // wrong
);

mistake(
  "a vector where only its first element is inside",
  OutOfBoundsError,
  /No guard helps: the last index is 60$/,
  () => traced((_t, { x }) => x.loadVec([64], 4)), // wrong
);

mistake(
  "only negative indices",
  OutOfBoundsError,
  /No guard helps: the first index is 0$/,
  () => traced((t, { x }) => x.load([t.lane.sub(32)])), // wrong
);

mistake("a loop past the end", OutOfBoundsError, /is 0 to 64/, () =>
  traced((t, { x }) => {
    for (const i of t.range(0, 5)) x.load([i.mul(16)]); // wrong
  }),
);

mistake("a register array past its end", OutOfBoundsError, /Index 0 of r is 0 to 4; the dimension has 4/, () =>
  traced((t) => {
    const r = t.array(i32, 4);
    for (const i of t.range(5)) r.set(i, i); // wrong
  }),
);

mistake(
  "an index outside wherever the branch is taken",
  OutOfBoundsError,
  /is 64/,
  () => traced((t, { y }) => t.when(t.lane.eq(0), () => y.store([64], 0))), // wrong
);

mistake(
  "a last block that is not full",
  OutOfBoundsError,
  /is 0 to 127 for N = 1; the dimension has N[^]*Guard/,
  () => {
    const N = size("N");
    kernel({ name: "fill", grid: ceilDiv(N, 128), block: 128, params: { y: output(f32, [N]) } }, (t) => {
      const { y } = t.pdl.wait();
      y.store([t.block.x.mul(128).add(t.thread)], 0); // wrong
    });
  },
);

mistake("an element that only large tensors have", OutOfBoundsError, /Index 1 of x is 9 for M = 1, N = 8/, () => {
  const x = input(f32, [size("M"), size("N", { min: 5, multipleOf: 4 })]);
  kernel({ ...one, params: { x } }, (t) => {
    const { x } = t.pdl.wait();
    x.load([0, 9]); // wrong
  });
});

mistake("registers for fewer elements than there may be", OutOfBoundsError, /of r is 0 to 1001 for N = 1002/, () => {
  const N = size("N");
  kernel({ ...one, params: { x: input(f32, [N]) } }, (t) => {
    t.pdl.wait();
    const r = t.array(i32, 2);
    for (const i of t.range(N)) r.set(i, i); // wrong
  });
});

test("what holds for every size is not an error", () => {
  const fill = (facts: Partial<SizeFacts>, guarded: boolean): void => {
    const N = size("N", facts);
    kernel({ name: "fill", grid: ceilDiv(N, 128), block: 128, params: { y: output(f32, [N]) } }, (t) => {
      const { y } = t.pdl.wait();
      const i = t.block.x.mul(128).add(t.thread);
      t.when(guarded ? i.lt(N) : i.eq(i), () => y.store([i], 0));
      if (!guarded) y.store([i], 0);
      // Where the facts don't see that it never happens for small N.
      t.when(t.shuffle(t.dim(N), 0).gt(1_000_000), () => y.store([1_000_000], 0));
    });
  };
  fill({}, true);
  fill({ multipleOf: 128 }, false);
  // No blocks for small N: no such launch.
  const [N, y] = [size("N"), output(f32, [256])];
  kernel({ name: "whole", grid: floorDiv(N, 128), block: 128, params: { y, x: input(f32, [N]) } }, (t) => {
    const { x } = t.pdl.wait();
    x.load([t.block.x.mul(128).add(t.thread)]);
  });
});

mistake("a loop whose variable overflows", ShapeError, /pass 2\^31 - 1: [^]* 2147483647 in steps of 64[^]*max/, () => {
  const N = size("N", { max: 2 ** 31 - 1 });
  kernel({ ...one, params: { x: input(f32, [N]) } }, (t) => {
    const { x } = t.pdl.wait();
    for (const i of t.range(t.lane, N, { step: 64 })) x.load([i]); // wrong
  });
});

mistake("a loop to a scalar that overflows", ShapeError, /in steps of 2/, () =>
  traced((t, { n }) => {
    for (const _ of t.range(n, { step: 2 })) t.warpBarrier(); // wrong
  }),
);

test("loops that end in time", () => {
  traced((t, { n, rows }) => {
    for (const _ of t.range(n)) t.warpBarrier();
    for (const _ of t.range(n.min(2 ** 30), { step: 64 })) t.warpBarrier();
    for (const _ of t.range(t.lane, rows.shape[0] ?? 0, { step: 64 })) rows.load([0, 0]);
    for (const _ of t.range(1, 2 ** 31 - 1, { step: 2 })) t.warpBarrier();
    for (const _ of t.range(n.and(-64), { step: 64 })) t.warpBarrier();
    for (const _ of t.range(2 ** 31 - 1, 2 ** 31 - 1, { step: 2 })) t.warpBarrier();
  });
});

test("what is guarded, or merely possible, is not an error", () => {
  traced((t, { n, rows, x, y }) => {
    const i = t.block.x.mul(64).add(t.thread);
    t.when(i.lt(64), () => y.store([i], x.load([i])));
    x.load([i], { guard: i.lt(64) });
    x.load([n]);
    x.load([t.lane.mul(t.lane)]);
    for (const k of t.range(n)) x.load([k]);
    for (const k of t.range(5, 5)) x.load([k.add(64)]);
    // Unrolled by TypeScript, with a guard that settles each copy.
    for (const m of [0, 63, 64, 100]) {
      t.when(t.const(i32, m).lt(64), () => x.load([m]));
      t.when(t.dim(rows.shape[0] ?? 0).gt(m), () => rows.load([m, 0]));
      x.load([m], { guard: t.const(i32, m).lt(64) });
    }
  });
});

mistake(
  "an index count that isn't the rank",
  ShapeError,
  /w has shape \[64, 64\] and takes an array of 2 indices, not 1[^]*w\.load\(\[i, j\]\)/,
  () => traced((t, { w }) => w.load(untyped([t.lane]))), // wrong
);

mistake(
  "an index without brackets",
  ShapeError,
  /array of 1 indices, not an Expr/,
  () => traced((t, { x }) => x.load(untyped(t.lane))), // wrong
);

mistake(
  "an unknown cache hint",
  StagingError,
  /^cache is "normal", "stream", "evictFirst" or "evictLast", not "fast"\n/,
  () => traced((_t, { x }) => x.load([0], { cache: untyped("fast") })), // wrong
);

mistake("options that aren't an object", ShapeError, /Options here are { cache, guard, peer }, not "stream"/, () =>
  traced((_t, { x }) => {
    x.load([0], untyped("stream")); // wrong
  }),
);

mistake("a misspelt option", ShapeError, /Options here are { cache, guard, peer }, not { gaurd }/, () =>
  traced((t, { x }) => {
    x.load([0], untyped({ gaurd: t.lane })); // wrong
  }),
);

// Shared memory.

mistake("too much shared memory", ShapeError, /uses 262144 bytes of shared memory; a block has at most 232448/, () =>
  traced((t) => {
    t.shared(f32, [256, 128]); // wrong
    t.shared(f32, [256, 128]); // cause
  }),
);

mistake(
  "shared memory of a size known at launch",
  ShapeError,
  /fixed shape[^]*not \[4, a Size\][^]*maximum/,
  () => traced((t) => t.shared(f32, untyped([4, size("M")]))), // wrong
);
