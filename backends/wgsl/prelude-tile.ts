/** The prelude's functions for tiles: warp-wide matrix operations, block copies, swizzles. Loops, not unrolled: compiling costs more. */
import type { MmaAtom } from "../../dsl/atoms/mma.ts";
import type { DType } from "../../dsl/dtype.ts";
import { formatType, type Tensor, type Type } from "../../dsl/ir.ts";
import type { MatrixOperand, SwizzleBytes, TensorMap } from "../../dsl/ir-tile.ts";
import type { Layout } from "../../dsl/layout/index.ts";
import { isTuple, leaves } from "../../dsl/layout/tuple.ts";
import { type Binding, Prelude } from "./prelude.ts";

export class TilePrelude extends Prelude {
  /** Numbered: an author's function may make several of one name. */
  private readonly maps = new Map<TensorMap, number>();

  /** Of a bit pattern as `lane` gives it. */
  private decoded(dtype: DType, lane: string, tf32 = false): string {
    if (dtype.kind === "float" && dtype.name !== "f32") return `${this.toF32(dtype)}(${lane})`;
    return tf32 ? `bitcast<f32>(bitcast<u32>(${lane}) & 0xffffe000u)` : lane;
  }

  /**
   * `f()`: d = a * b + c of the global arrays f_d, f_a, f_b, f_c, products added in the order of k. Global, because each call is
   * inlined, and its variables are set to zero each time.
   */
  mma(atom: MmaAtom, a: Type, b: Type, c: Type): string {
    const { M, N, K } = atom;
    const sum = atom.c.name;
    const name = `${atom.name}_${sum}`;
    return this.part(name, () => {
      const fragment = (type: Type): string => `array<${this.type(type)}, 32>`;
      const global = (suffix: string, type: string): string => `var<private> ${name}_${suffix}: ${type};`;
      const read = (type: Type, from: string, dtype: DType): string =>
        this.decoded(dtype, this.lane(type, `${name}_${from}[lane]`, "i"), atom.tf32);
      const gather = (type: Type, from: string, to: string, dtype: DType, layout: Layout): string =>
        `    for (var i = 0; i < ${type.lanes}; i++) { ${name}_${to}[${offsetText(layout)}] = ${read(type, from, dtype)}; }`;
      return [
        global("a", fragment(a)),
        global("b", fragment(b)),
        global("c", fragment(c)),
        global("d", fragment(c)),
        global("x", `array<${sum}, ${M * K}>`),
        global("y", `array<${sum}, ${N * K}>`),
        `fn ${name}() {`,
        "  for (var lane = 0; lane < 32; lane++) {",
        gather(a, "a", "x", atom.a, atom.layoutA),
        gather(b, "b", "y", atom.b, atom.layoutB),
        "  }",
        "  for (var lane = 0; lane < 32; lane++) {",
        `    for (var i = 0; i < ${c.lanes}; i++) {`,
        `      let e = ${offsetText(atom.layoutC)};`,
        `      let row = e % ${M};`,
        `      let column = e / ${M};`,
        `      var sum = ${name}_c[lane][i];`,
        `      for (var k = 0; k < ${K}; k++) { ${multiplyAdd(atom, `${name}_x[row + k * ${M}]`, `${name}_y[column + k * ${N}]`)} }`,
        `      ${name}_d[lane][i] = sum;`,
        "    }",
        "  }",
        "}",
      ].join("\n");
    });
  }

  /** `f(&offsets, &d)`: `offsets` of the rows' first elements. */
  ldmatrix(binding: Binding, type: Type, transposed: boolean): string {
    const { dtype, lanes } = type;
    const name = `ldmatrix_${transposed ? "t_" : ""}${binding.name}_${formatType(type)}`;
    const load = this.load(binding, { dtype, lanes: 1 });
    return this.part(name, () =>
      [
        `fn ${name}(offsets: ptr<function, array<i32, 32>>, d: ptr<function, array<${this.type(type)}, 32>>) {`,
        "  for (var lane = 0; lane < 32; lane++) {",
        // With `var r: T` SwiftShader keeps what the last iteration left.
        `    var r = ${this.type(type)}();`,
        `    for (var i = 0; i < ${lanes}; i++) {`,
        `      let e = ${matrixElement(dtype, transposed)};`,
        `      ${this.setLane(type, "r", "i", `${load}(e)`)}`,
        "    }",
        "    (*d)[lane] = r;",
        "  }",
        "}",
      ].join("\n"),
    );
  }

  /** `f(&offsets, &a)` */
  stmatrix(binding: Binding, type: Type, transposed: boolean): string {
    const { dtype, lanes } = type;
    const name = `stmatrix_${transposed ? "t_" : ""}${binding.name}_${formatType(type)}`;
    const store = this.store(binding, { dtype, lanes: 1 });
    return this.part(name, () =>
      [
        `fn ${name}(offsets: ptr<function, array<i32, 32>>, a: ptr<function, array<${this.type(type)}, 32>>) {`,
        "  for (var lane = 0; lane < 32; lane++) {",
        `    for (var i = 0; i < ${lanes}; i++) {`,
        `      let e = ${matrixElement(dtype, transposed)};`,
        `      ${store}(e, ${this.lane(type, "(*a)[lane]", "i")});`,
        "    }",
        "  }",
        "}",
      ].join("\n"),
    );
  }

  /** `f(to, e, count)` copies elements. */
  bulkCopy(to: Binding, from: Binding): string {
    const one: Type = { dtype: to.memory.dtype, lanes: 1 };
    const name = `bulk_copy_${to.name}__${from.name}__${one.dtype.name}`;
    const [load, store] = [this.load(from, one), this.store(to, one)];
    return this.part(
      name,
      () =>
        `fn ${name}(to: i32, e: i32, count: i32) { for (var i = 0; i < count; i++) { ${store}(to + i, ${load}(e + i)); } }`,
    );
  }

  /** Byte addresses whose 16-byte units are swizzled within rows of so many bytes: Sw<3,4,3>, Sw<2,4,3>, Sw<1,4,3>. */
  private swizzled(bytes: SwizzleBytes, address: string): string {
    if (bytes === 0) return `(${address})`;
    const name = `swizzle_${bytes}_i32`;
    const mask = { 32: "0x10", 64: "0x30", 128: "0x70" }[bytes];
    return `${this.part(name, () => `fn ${name}(e: i32) -> i32 { return e ^ ((e >> 3u) & ${mask}); }`)}(${address})`;
  }

  /** `f(base, to, coordinates...)`: a box to element `to` of the memory that begins at `base`. `dims` are the tensor's. */
  tensorCopy(map: TensorMap, to: Binding, from: Binding, dims: readonly string[]): string {
    const one: Type = { dtype: to.memory.dtype, lanes: 1 };
    const { bytes } = one.dtype;
    const number = this.maps.get(map) ?? this.maps.size;
    this.maps.set(map, number);
    const name = `tensor_copy_${number}_${map.name}__${to.name}__${one.dtype.name}`;
    const [load, store] = [this.load(from, one), this.store(to, one)];
    return this.part(name, () => {
      const count = map.box.reduce((a, b) => a * b, 1);
      const inner = map.box.map((_, axis) => map.box.slice(axis + 1).reduce((a, b) => a * b, 1));
      const coordinates = map.box.map(
        (extent, axis) => `    let x${axis} = c${axis} + i / ${inner[axis]} % ${extent};`,
      );
      const inside = dims.map((dim, axis) => `x${axis} >= 0 && x${axis} < ${dim}`).join(" && ");
      const element = dims.reduce((sum, dim, axis) => (axis === 0 ? "x0" : `(${sum}) * ${dim} + x${axis}`), "0");
      return [
        `fn ${name}(base: i32, to: i32, ${dims.map((_, axis) => `c${axis}: i32`).join(", ")}) {`,
        `  for (var i = 0; i < ${count}; i++) {`,
        ...coordinates,
        `    var x = ${this.type(one)}();`,
        `    if (${inside}) { x = ${load}(${element}); }`,
        `    ${store}(base + ${this.swizzled(map.swizzleBytes, `(to + i) * ${bytes}`)} / ${bytes}, x);`,
        "  }",
        "}",
      ].join("\n");
    });
  }

  /** Where wgmma finds (row, k) of a matrix, in elements from the memory's begin on. */
  private operandElement({ memory, ...matrix }: MatrixOperand, row: string, k: string): string {
    const { bytes } = memory.dtype;
    const [kByte, group] = [`${k} * ${bytes}`, `(${row}) / 8 * ${matrix.strideBytes}`];
    const address =
      matrix.swizzleBytes > 0
        ? `e * ${bytes} + ${group} + (${row}) % 8 * ${matrix.swizzleBytes} + ${kByte}`
        : `e * ${bytes} + ${group} + ${kByte} / 16 * ${matrix.leadingBytes} + (${row}) % 8 * 16 + ${kByte} % 16`;
    return `${this.swizzled(matrix.swizzleBytes, address)} / ${bytes}`;
  }

  /** `f(base, e, row, k)`: an element of an operand that starts at element `e`, as it is multiplied. */
  private operand(operand: MatrixOperand, binding: Binding, sum: string): string {
    const { dtype } = operand.memory;
    const { swizzleBytes, strideBytes, leadingBytes } = operand;
    const name = `operand_${binding.name}__${swizzleBytes}_${strideBytes}_${leadingBytes}_${dtype.name}`;
    const load = this.load(binding, { dtype, lanes: 1 });
    return this.part(name, () => {
      const value = this.decoded(dtype, `${load}(base + ${this.operandElement(operand, "row", "k")})`);
      return `fn ${name}(base: i32, e: i32, row: i32, k: i32) -> ${sum} { return ${value}; }`;
    });
  }

  /**
   * `f(&accumulators, first, accumulate, warp, baseA, a, baseB, b)`: one warp's 16 rows. Of C, (row, column) is value
   * column % 2 + row / 8 * 2 + column / 8 * 4 of lane row % 8 * 4 + column % 8 / 2.
   */
  wgmma(
    atom: MmaAtom,
    length: number,
    a: readonly [MatrixOperand, Binding],
    b: readonly [MatrixOperand, Binding],
  ): string {
    const { N, K } = atom;
    const sum = atom.c.name;
    const [x, y] = [this.operand(...a, sum), this.operand(...b, sum)];
    const name = `${atom.name}_${length}_${x}_${y}`;
    return this.part(name, () =>
      [
        `fn ${name}(c: ptr<function, array<array<${sum}, ${length}>, 32>>, first: i32, accumulate: bool, warp: i32, base_a: i32, a: i32, base_b: i32, b: i32) {`,
        `  var x: array<${sum}, ${16 * K}>;`,
        `  var y: array<${sum}, ${K}>;`,
        `  for (var i = 0; i < ${16 * K}; i++) { x[i] = ${x}(base_a, a, warp % 4 * 16 + i / ${K}, i % ${K}); }`,
        `  for (var column = 0; column < ${N}; column++) {`,
        `    for (var k = 0; k < ${K}; k++) { y[k] = ${y}(base_b, b, column, k); }`,
        "    for (var row = 0; row < 16; row++) {",
        "      let lane = row % 8 * 4 + column % 8 / 2;",
        "      let i = first + column % 2 + row / 8 * 2 + column / 8 * 4;",
        `      var sum = select(${sum}(0), (*c)[lane][i], accumulate);`,
        `      for (var k = 0; k < ${K}; k++) { ${multiplyAdd(atom, `x[row * ${K} + k]`, "y[k]")} }`,
        "      (*c)[lane][i] = sum;",
        "    }",
        "  }",
        "}",
      ].join("\n"),
    );
  }

  /** The array type of all lanes' values. */
  ofLanes(type: Type): string {
    return `array<${this.type(type)}, 32>`;
  }
}

function multiplyAdd({ c }: MmaAtom, a: string, b: string): string {
  return c.name === "f32" ? `sum = fma(${a}, ${b}, sum);` : `sum += ${a} * ${b};`;
}

/** The offset of (lane, i) in a thread-value layout. */
function offsetText({ shape, stride }: Layout): string {
  const terms: string[] = [];
  for (const [mode, variable] of ["lane", "i"].entries()) {
    const [extents, strides] = [shape, stride].map((tuple) => leaves(isTuple(tuple) ? (tuple[mode] ?? 1) : tuple));
    let before = 1;
    for (const [leaf, extent] of (extents ?? []).entries()) {
      const divided = before === 1 ? variable : `${variable} / ${before}`;
      terms.push(`${divided} % ${extent} * ${strides?.[leaf] ?? 0}`);
      before *= extent;
    }
  }
  return terms.join(" + ");
}

/** Value `i` of `lane` in 8x8 matrices whose rows start at `offsets`. */
function matrixElement({ bytes }: DType, transposed: boolean): string {
  const perWord = 4 / bytes;
  const matrix = `i / ${perWord} * 8`;
  return transposed
    ? `(*offsets)[${matrix} + lane % 4 * ${perWord} + i % ${perWord}] + lane / 4`
    : `(*offsets)[${matrix} + lane / 4] + lane % 4 * ${perWord} + i % ${perWord}`;
}

/** The dimensions of a tensor as WGSL. */
export function dimTexts({ shape }: Tensor, field: (name: string) => string): readonly string[] {
  return shape.map((dim) => (typeof dim === "number" ? String(dim) : `launch.${field(String(dim))}`));
}
