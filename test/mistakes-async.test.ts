/** What users do wrong with work beside the thread and with warpgroups: missing waits, misplaced operands, register counts. */
import { expect, test } from "vitest";
import {
  AlignmentError,
  bf16,
  DivergenceError,
  type Expr,
  f32,
  type Fragment,
  input,
  kernel,
  OrderError,
  OutOfBoundsError,
  output,
  ShapeError,
  type Tensor,
  type Thread,
  tiledMma,
  wgmmaAtom,
} from "../dsl/index.ts";
import { composition, makeLayout, Swizzle } from "../dsl/layout/index.ts";
import { mistakesIn } from "./mistake.ts";

const mistake = mistakesIn(import.meta.url);
const wide = tiledMma(wgmmaAtom(64, bf16, bf16));

const params = {
  x: input(bf16, [64, 64], { alignBytes: 16 }),
  line: input(bf16, [1024], { alignBytes: 16 }),
  y: output(f32, [64, 64], { alignBytes: 16 }),
};

interface Tensors {
  readonly x: Tensor<"bf16", 2, "input">;
  readonly line: Tensor<"bf16", 1, "input">;
  readonly y: Tensor<"f32", 2, "output">;
}

/** Two clusters of 4 blocks of 128 threads; the body comes after the wait. */
function traced(body: (t: Thread, tensors: Tensors) => void, more: { block?: number } = {}) {
  return kernel({ name: "traced", grid: 8, block: 128, cluster: 4, params, ...more }, (t) => body(t, t.pdl.wait()));
}

/** Rows of 128 bytes as wgmma reads them: (rows, 64, stages). */
const staged = (rows: number, stages: number) =>
  composition(new Swizzle(3, 3, 3), makeLayout([rows, 64, stages], [64, 1, rows * 64]));

/** An accumulator, and its operands in shared memory. */
function operands(t: Thread, { y }: Tensors) {
  const s = t.sharedTile(bf16, staged(64, 2), { alignBytes: 1024 });
  const gC = wide.slice(t.thread.rem(128)).partitionC(y.tile([64, 64], [0, 0]));
  const acc = t.fragment(gC);
  return { s: s.slice([null, null, 0]), gC, acc };
}

// Accumulators.

mistake("wgmma without a fence", OrderError, /may not see what was done to acc before[^]*t\.wgmmaFence/, () =>
  traced((t, tensors) => {
    const { s, acc } = operands(t, tensors);
    t.wgmma(acc, s, s); // wrong
    t.wgmmaCommit();
    t.wgmmaWait(0);
  }),
);

mistake("sums read while they grow", OrderError, /touched while a wgmma may be adding[^]*t\.wgmmaWait\(0\)/, () =>
  traced((t, tensors) => {
    const { s, gC, acc } = operands(t, tensors);
    t.wgmmaFence();
    t.wgmma(acc, s, s); // cause
    t.wgmmaCommit();
    t.wgmmaWait(1);
    t.copy(acc, gC); // wrong
  }),
);

mistake("sums of no group", OrderError, /touched while a wgmma may be adding[^]*t\.wgmmaCommit\(\) and/, () =>
  traced((t, tensors) => {
    const { s, gC, acc } = operands(t, tensors);
    t.wgmmaFence();
    t.wgmma(acc, s, s); // cause
    t.wgmmaWait(0);
    t.copy(acc, gC); // wrong
  }),
);

mistake("sums read by the next turn of a loop", OrderError, /touched while a wgmma may be adding/, () =>
  traced((t, tensors) => {
    const { s, gC, acc } = operands(t, tensors);
    for (const _ of t.range(4)) {
      t.copy(acc, gC); // wrong
      t.wgmmaFence();
      t.wgmma(acc, s, s); // cause
      t.wgmmaCommit();
    }
    t.wgmmaWait(0);
  }),
);

mistake("a wgmma that nothing waits for", OrderError, /Nothing waits for this wgmma into acc[^]*wgmmaWait\(0\)/, () =>
  traced((t, tensors) => {
    const { s, acc } = operands(t, tensors);
    t.wgmmaFence();
    t.wgmma(acc, s, s); // wrong
    t.wgmmaCommit();
  }),
);

mistake("a wait on one way only", OrderError, /Nothing waits for this wgmma into acc/, () =>
  traced((t, tensors) => {
    const { s, acc } = operands(t, tensors);
    t.wgmmaFence();
    t.wgmma(acc, s, s); // wrong
    t.wgmmaCommit();
    t.when(t.block.x.eq(0), () => t.wgmmaWait(0));
  }),
);

test("a pipeline of one group in flight, waited for after its loop, is in order", () => {
  const { ir } = traced((t, tensors) => {
    const { s, gC, acc } = operands(t, tensors);
    for (const _ of t.range(4)) {
      t.wgmmaFence();
      t.wgmma(acc, s, s);
      t.wgmmaCommit();
      t.wgmmaWait(1);
    }
    t.wgmmaWait(0);
    t.copy(acc, gC);
  });
  expect(ir.body.length).toBeGreaterThan(0);
});

// Copies.

/** 16 bytes to copy, and where to. */
function copied(t: Thread, { x }: Tensors) {
  const from = x.tile([1, 8], [t.thread.rem(64), 0]);
  const to = t.sharedTile(bf16, makeLayout([128, 8], [8, 1])).tile([1, 8], [t.thread, 0]);
  return { from, to };
}

mistake("copies in no group", OrderError, /may end before this asynchronous copy has: it is in no group/, () =>
  traced((t, tensors) => {
    const { from, to } = copied(t, tensors);
    t.copyAsync(from, to); // wrong
    t.asyncWait(0);
  }),
);

mistake(
  "copies with one group left",
  OrderError,
  /may end before this asynchronous copy has\n[^]*t\.asyncWait\(0\)/,
  () =>
    traced((t, tensors) => {
      const { from, to } = copied(t, tensors);
      t.copyAsync(from, to); // wrong
      t.asyncCommit();
      t.asyncWait(1);
    }),
);

test("an mbarrier may count them instead", () => {
  const { ir } = traced((t, tensors) => {
    const { from, to } = copied(t, tensors);
    const full = t.mbarrier(1, 128);
    t.copyAsync(from, to);
    full.arriveAfterCopies();
    full.wait(0, 0);
  });
  expect(ir.mbarriers.length).toBe(1);
});

mistake("copies that an mbarrier counts for nobody", OrderError, /Nothing waits for the copies that full counts/, () =>
  traced((t, tensors) => {
    const { from, to } = copied(t, tensors);
    const full = t.mbarrier(1, 128); // cause
    t.copyAsync(from, to);
    full.arriveAfterCopies(); // wrong
  }),
);

mistake(
  "a bulk copy beyond its target",
  OutOfBoundsError,
  /Index 0 of sLine is 0 \(1024 elements[^]*512 elements/,
  () =>
    traced((t, { line }) => {
      const sLine = t.shared(bf16, [512], { alignBytes: 16 }); // cause
      const full = t.mbarrier(1, 1);
      t.when(t.thread.eq(0), () => {
        full.arriveExpect(0, 2048);
        t.copyBulk(line, [0], sLine, [0], 1024, full); // wrong
      });
      full.wait(0, 0);
    }),
);

mistake("a bulk copy beyond its last row", OutOfBoundsError, /4096 elements from number 64 on go beyond x/, () =>
  traced((t, { x }) => {
    const sX = t.shared(bf16, [64 * 64], { alignBytes: 16 });
    const full = t.mbarrier(1, 1);
    t.when(t.thread.eq(0), () => {
      full.arriveExpect(0, 8192);
      t.copyBulk(x, [1, 0], sX, [0], 64 * 64, full); // wrong
    });
    full.wait(0, 0);
  }),
);

mistake("a box beyond its stages", OutOfBoundsError, /Index 0 of sX is 8192 \(4096 elements[^]*8192 elements/, () =>
  traced((t, { x }) => {
    const sX = t.sharedTile(bf16, staged(64, 2), { alignBytes: 1024 }); // cause
    const boxes = t.tensorMap(x, [64, 64], { swizzleBytes: 128 });
    const full = t.mbarrier(1, 1);
    t.when(t.thread.eq(0), () => {
      full.arriveExpect(0, boxes.bytes);
      t.copyTensor(boxes, [0, 0], sX.slice([null, null, 2]), full); // wrong
    });
    full.wait(0, 0);
  }),
);

// Operands of wgmma.

/** One wgmma of stages of `s`, in order. */
function multiplied(t: Thread, tensors: Tensors, by: (acc: Fragment<"f32", "C", typeof wide.atom>) => void): void {
  const { acc } = operands(t, tensors);
  t.wgmmaFence();
  by(acc);
  t.wgmmaCommit();
  t.wgmmaWait(0);
}

mistake("a stage that isn't there", OutOfBoundsError, /Index 0 of ring is 8192 \(\d+ elements[^]*8192 elements/, () =>
  traced((t, tensors) => {
    const ring = t.sharedTile(bf16, staged(64, 2), { alignBytes: 1024 }); // cause
    const third = ring.slice([null, null, 2]);
    multiplied(t, tensors, (acc) => t.wgmma(acc, third, third)); // wrong
  }),
);

mistake(
  "stages out of step with the swizzle",
  AlignmentError,
  /from a multiple of 8704 bytes on[^]*every 1024[^]*multiples of 512 elements/,
  () =>
    traced(
      (t, tensors) => {
        const layout = composition(new Swizzle(3, 3, 3), makeLayout([64, 64, 2], [64, 1, 64 * 64 + 256]));
        const ring = t.sharedTile(bf16, layout, { alignBytes: 1024 }); // cause
        const stage = ring.slice([null, null, t.warp.div(4)]);
        multiplied(t, tensors, (acc) => t.wgmma(acc, stage, stage)); // wrong
      },
      { block: 256 },
    ),
);

mistake("a matrix from the middle of its pattern", AlignmentError, /from byte 256 of its pattern on/, () =>
  traced((t, tensors) => {
    const layout = composition(new Swizzle(3, 3, 3), makeLayout([64, 64, 2], [64, 1, 128]));
    const ring = t.sharedTile(bf16, layout, { alignBytes: 1024 }); // cause
    const second = ring.slice([null, null, 1]);
    multiplied(t, tensors, (acc) => t.wgmma(acc, second, second)); // wrong
  }),
);

// Warpgroups.

mistake(
  "wgmma by three warps",
  DivergenceError,
  /A fence for wgmma stands where not all threads of the warpgroup/,
  () =>
    traced((t, tensors) => {
      const { s, acc } = operands(t, tensors);
      const some = t.warp.lt(3); // cause
      t.when(some, () => {
        t.wgmmaFence(); // wrong
        t.wgmma(acc, s, s);
      });
    }),
);

mistake(
  "wgmma in a block with warps to spare",
  ShapeError,
  /whole warpgroups of 128 threads; the block has 160[^]*block: 256/,
  () =>
    traced(
      (t, tensors) => {
        const { s, acc } = operands(t, tensors);
        t.when(t.warp.lt(4), () => {
          t.wgmmaFence();
          t.wgmma(acc, s, s); // wrong
          t.wgmmaCommit();
          t.wgmmaWait(0);
        });
      },
      { block: 160 },
    ),
);

test("a warpgroup may work alone", () => {
  for (const first of [
    (t: Thread): Expr<"bool"> => t.warp.lt(4),
    (t: Thread) => t.warp.div(4).eq(1),
    (t: Thread) => t.thread.ge(128),
  ]) {
    const { ir } = traced(
      (t, tensors) => {
        const { s, gC, acc } = operands(t, tensors);
        t.when(first(t), () => {
          t.wgmmaFence();
          t.wgmma(acc, s, s);
          t.wgmmaCommit();
          t.wgmmaWait(0);
          t.copy(acc, gC);
        });
      },
      { block: 256 },
    );
    expect(ir.block).toBe(256);
  }
});

mistake(
  "registers by one warp",
  DivergenceError,
  /register count stands where not all threads of the warpgroup/,
  () => traced((t) => t.when(t.warp.eq(0), () => t.setRegisters("decrease", 40))), // wrong
);

mistake(
  "more registers than there are",
  ShapeError,
  /warpgroups want 240 \+ 240 \+ 40 registers a thread; the block has 3 x 168[^]*40 are asked for/,
  () =>
    traced(
      (t) => {
        t.when(
          t.warp.lt(8),
          () => t.setRegisters("increase", 240), // wrong
          () => t.setRegisters("decrease", 40), // cause
        );
      },
      { block: 384 },
    ),
);

mistake(
  "registers that others don't give",
  ShapeError,
  /want 232 \+ 168 \+ 168 registers/,
  () => traced((t) => t.when(t.thread.lt(128), () => t.setRegisters("increase", 232)), { block: 384 }), // wrong
);

mistake(
  "an increase to less",
  ShapeError,
  /A thread of 384 starts with 168 registers; increase to 160 is none/,
  () => traced((t) => t.setRegisters("increase", 160), { block: 384 }), // wrong
);

test("what some give, others may have", () => {
  const { ir } = traced(
    (t) =>
      t.when(
        t.warp.lt(8),
        () => t.setRegisters("increase", 232),
        () => t.setRegisters("decrease", 40),
      ),
    { block: 384 },
  );
  expect(ir.block).toBe(384);
});

// Other blocks.

mistake(
  "a peer beyond the cluster",
  OutOfBoundsError,
  /Index 0 of the cluster is 1 to 4; the dimension has 4 elements/,
  () =>
    traced((t) => {
      const sOwn = t.shared(f32, [128]);
      t.cluster.barrier();
      sOwn.store([t.thread], 1, { peer: t.warp.add(1) }); // wrong
      t.cluster.barrier();
    }),
);

mistake("an arrival beyond the cluster", OutOfBoundsError, /Index 0 of the cluster is 4/, () =>
  traced((t) => {
    const done = t.mbarrier(1, 1);
    t.cluster.barrier();
    done.arrive(0, { peer: 4 }); // wrong
    t.cluster.barrier();
  }),
);
