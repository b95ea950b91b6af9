/** The examples in the doc comments of the tile layer run, each in a kernel of its own, with these names in scope. */
import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import * as tegula from "../../dsl/index.ts";
import * as layout from "../../dsl/layout/index.ts";

const { bf16, f32, frozen, inout, input, kernel, mmaAtoms, output, tiledMma, wgmmaAtom } = tegula;

function examples() {
  const folder = new URL("../../dsl/tile/", import.meta.url);
  const files = [...readdirSync(folder).map((file) => new URL(file, folder)), new URL("../tensor.ts", folder)];
  return files.flatMap((file) =>
    [...readFileSync(file, "utf8").matchAll(/^ *\* ```ts\n([^`]*?)^ *\* ```/gm)].map(([, block = ""]) => ({
      file: file.pathname.replace(/.*\//, ""),
      code: block.replace(/^ *\* ?/gm, "").trim(),
    })),
  );
}

test("there are many", () => expect(examples().length).toBeGreaterThan(30));

test.each(examples())("$file: $code", ({ code }) => {
  const params = {
    w: frozen(bf16, [64, 512], { alignBytes: 16 }),
    x: input(bf16, [64, 128], { alignBytes: 16 }),
    y: output(f32, [64, 64], { alignBytes: 16 }),
    acc: inout(f32, [4]),
  };
  kernel({ name: "example", grid: 4, block: 128, cluster: 2, params }, (t, { w }) => {
    const { x, y, acc } = t.pdl.wait();
    const atom = mmaAtoms.m16n8k16.bf16;
    const mma = tiledMma(atom).slice(t.lane);
    const [gX, tile] = [x.tile([16, 16], [0, 0]), x.tile([16, 16], [0, 0])];
    const rowMajor = (rows: number, columns: number) => layout.makeLayout([rows, columns], [columns, 1]);
    const swizzled = layout.composition(new layout.Swizzle(3, 3, 3), rowMajor(64, 64));
    const wgmma = tiledMma(wgmmaAtom(64, bf16, bf16)).slice(t.thread);
    const operand = () => t.sharedTile(bf16, swizzled, { alignBytes: 1024 });
    const [gA, gB] = [mma.partitionA(w.tile([16, 64], [0, 0])), mma.partitionB(x.tile([8, 64], [0, 0]))];
    const [rA, rB] = [t.fragment(gA), t.fragment(gB)];
    const scope: Record<string, unknown> = {
      ...{ t, w, x, y, acc, mma, gX, tile, gA, rA, rB, block: t.block.x, step: 0, stage: t.warp.rem(2) },
      rC: t.fragment(mma.partitionC(y.tile([16, 8], [0, 0]))),
      rX: t.fragment(gX),
      sX: t.sharedTile(bf16, rowMajor(16, 16)),
      sA: t.sharedTile(bf16, rowMajor(16, 16)),
      line: t.shared(bf16, [128]),
      rows8: t.shared(bf16, [32, 8]),
      barrier: t.mbarrier(1, 1),
      pipe: t.pipeline(2, { producers: 1, consumers: 1 }),
      boxes: t.tensorMap(x, [16, 64]),
      box: t.sharedTile(bf16, rowMajor(16, 64)),
      a8: x.loadVec([0, 0], 8),
      b4: x.loadVec([0, 0], 4),
      c4: t.reg(f32, 0, 4).get(),
      wide: t.fragment(wgmma.partitionC(y.tile([64, 64], [0, 0]))),
      ...{ left: operand(), right: operand() },
    };
    if (code.includes("sX.slice")) scope["sX"] = t.sharedTile(bf16, layout.makeLayout([8, 8, 2], [8, 1, 64]));
    if (code.includes("peer")) t.cluster.barrier();
    const all = { ...layout, ...tegula, ...scope, console: { log: () => {} } };
    // eslint-disable-next-line no-new-func
    new Function(...Object.keys(all), `{ ${code}\n }`)(...Object.values(all));
    if (code.includes("peer")) t.cluster.barrier();
  });
});
