/** Which names of the author's the IR and generated code use: what is read from the file that a value was made in. */
import { describe, expect, test } from "vitest";
import { emitCuda } from "../backends/cuda/index.ts";
import { frozen, i32, inout, kernel, output, printKernel } from "../dsl/index.ts";

test("generated code has the author's names, one for each variable of a line", () => {
  const { ir } = kernel({ name: "names", grid: 4, block: 32, params: { y: inout(i32, [4, 32]) } }, (t) => {
    const { y } = t.pdl.wait();
    const row = t.block.x.mul(1).add(0), column = t.lane.xor(1); // prettier-ignore
    const total = y.load([row, column]);
    const twice = total.add(total);
    y.store([row, column], twice.add(column));
  });
  const { source } = emitCuda(ir, { lineDirectives: false });
  expect(source).toContain("const int column = lane ^ 1;");
  expect(source).toContain("const int total = y[block_x * 32 + column];");
});

describe("the name that a declaration gives", () => {
  const config = { name: "names", grid: 4, block: 32, params: { x: frozen(i32, [4, 32]), y: output(i32, [4, 32]) } };

  test("is that of the position in a destructured array", () => {
    const { ir } = kernel(config, (t, { x }) => {
      const { y } = t.pdl.wait();
      const [row, column, , far] = [t.thread.div(8), x.load([0, t.thread.rem(4)]).min(31), 5, t.thread.xor(1)];
      y.store([row, column], far.add(row).add(column).add(far));
    });
    const text = printKernel(ir);
    expect(text).toContain("row: i32 = thread / 8\n");
    expect(text).toMatch(/%\d+: i32 = thread % 4\n +%\d+: i32 = load x\[0, %\d+\]\n +column: i32 = min\(%\d+, 31\)/);
    expect(text).toContain("far: i32 = thread ^ 1\n");
    expect(text).not.toMatch(/\w\.\d: /); // none of them a second time
  });

  test("belongs to the last value of the statement, even across lines", () => {
    const { ir } = kernel(config, (t, { x }) => {
      const { y } = t.pdl.wait();
      const sum = x.load([0, t.lane]).add(x.load([1, t.lane.xor(1)]));
      // prettier-ignore
      const long = x
        .load([2, t.lane]) // a comment
        .add(
          x.load([3, t.lane]),
        )
        .mul(sum);
      const count = t.reg(i32, long.mul(long));
      y.store([0, t.lane], count.get());
    });
    const text = printKernel(ir);
    expect(text).toMatch(/ sum: i32 = %\d+ \+ %\d+\n/);
    expect(text).toMatch(/ long: i32 = %\d+ \* sum\n/);
    expect(text).toMatch(/ %(\d+): i32 = long \* long\n +reg count: i32 = %\1\n/);
    expect(text).not.toMatch(/(sum|long|count)\.\d/);
  });

  test("is not taken from a statement before, or from what takes the values of a call apart", () => {
    const { ir } = kernel(config, (t, { x }) => {
      const { y } = t.pdl.wait();
      let stores = 0;
      y.store([0, t.lane], x.load([0, t.lane]).add(1));
      stores++; // prettier-ignore
      const [first, second] = [1, 2].map((row) => x.load([row, t.lane]));
      if (first && second && stores) y.store([1, t.lane], first.add(second));
    });
    expect(printKernel(ir)).not.toMatch(/stores|first|second/);
  });

  test("goes to each turn of a TypeScript loop", () => {
    const { ir } = kernel(config, (t, { x }) => {
      const { y } = t.pdl.wait();
      for (const row of [0, 1]) {
        const twice = x.load([row, t.lane]).mul(2);
        y.store([row, t.lane], twice.add(twice));
      }
    });
    expect(printKernel(ir)).toMatch(/ twice: i32 = %\d+ \* 2\n[^]* twice\.2: i32 = %\d+ \* 2\n/);
  });
});
