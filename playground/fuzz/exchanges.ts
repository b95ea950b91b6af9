/**
 * What threads do together: shuffles and reductions, shared memory between barriers of a warp, a block, some warps, a
 * cluster, matrices by ldmatrix and stmatrix, atomics. They stand where the branches around them are the same for all who
 * meet; everybody stores to a place of its own before anybody reads, and nobody stores again before all have read.
 */
import { type DTypeName, dtypes } from "../../dsl/index.ts";
import type { Choices } from "./choices.ts";
import type { Level } from "./expressions.ts";
import { Lanes } from "./lanes.ts";
import type { Program } from "./program.ts";
import { dtypeNames, numeric, small } from "./rules.ts";

export function exchangesProgram(c: Choices): Program {
  return new Exchanges(c, c.pick([1, 1, 1, 1, 2, 4])).program();
}

class Exchanges extends Lanes {
  #named = 0;

  protected override ways(level: Level, depth: number): readonly (() => void)[] {
    const ways = [...super.ways(level, depth)];
    if (level < 2)
      ways.push(
        () => this.#shuffle(),
        () => this.#reduce(),
        () => this.#phase("warp"),
        () => this.#matrices(),
      );
    if (level < 1)
      ways.push(
        () => this.#phase("block"),
        () => this.#phase("block"),
        () => this.#count(),
      );
    if (level < 1 && this.block > 32) ways.push(() => this.#handOver());
    // Once per thread, and all blocks of a cluster come.
    if (depth === 0) ways.push(() => this.#phase(this.cluster > 1 ? "cluster" : "mbarrier"));
    return ways;
  }

  #shuffle(): void {
    const { c } = this;
    const dtype = c.pick(numeric);
    const how = c.pick(["shuffleXor", "shuffleDown", "shuffleUp", "shuffle"]);
    const by = c.once(2) ? this.expression("i32", 1, 2, 1) : String(c.below(40));
    this.keep(dtype, `t.${how}(${this.expression(dtype)}, ${by})`);
  }

  #reduce(): void {
    const { c } = this;
    const dtype = c.pick([...numeric, "bool"] as const);
    const how = c.pick(dtype === "bool" ? ["warpAny", "warpAll"] : ["warpSum", "warpMin", "warpMax"]) ?? "";
    this.keep(dtype, `t.${how}(${this.expression(dtype)}${dtype === "f32" && how === "warpSum" ? small : ""})`);
  }

  /** Makes shared memory of an element, or a vector, for each of `threads`, and says how to get at one's. */
  #memory(dtype: DTypeName, lanes: number, shape: readonly number[]) {
    const name = this.name("s");
    const columns = lanes > 1 ? [lanes + this.c.pick([0, 16])] : [];
    this.lines.push(`const ${name} = t.shared(${dtype}, [${[...shape, ...columns].join(", ")}]);`);
    const [vec, zero, width] = lanes > 1 ? ["Vec", ", 0", `, ${lanes}`] : ["", "", ""];
    return {
      store: (place: string, value: string, peer = "") => `${name}.store${vec}([${place}${zero}], ${value}${peer});`,
      load: (place: string, peer = "") => `${name}.load${vec}([${place}${zero}]${width}${peer})`,
    };
  }

  /** The thread itself, or another of the block, each another. */
  #permuted(): string {
    const { c, block } = this;
    return block === 96 ? `t.thread.add(${c.below(96)}).rem(96)` : `t.thread.xor(${c.below(32)})`;
  }

  #phase(among: "warp" | "block" | "mbarrier" | "cluster"): void {
    const { c, block, cluster, lines } = this;
    const dtype = c.pick(dtypeNames);
    const lanes = this.lanesOf(dtype);
    const inWarp = among === "warp";
    const memory = this.#memory(dtype, lanes, inWarp ? [block / 32, 32] : [block]);
    const value = this.expression(dtype, lanes);
    const place = inWarp ? `t.warp, t.lane.xor(${c.below(32)})` : this.#permuted();
    const any = inWarp ? `t.warp, ${this.index(32)}` : this.index(block);
    const meet = { warp: "t.warpBarrier();", cluster: "t.cluster.barrier();" }[among as "warp"] ?? "t.barrier();";
    if (among === "cluster") {
      const there = c.once(2);
      const [to, from] = [`, { peer: t.cluster.rank.xor(${c.below(cluster)}) }`, `, { peer: ${this.index(cluster)} }`];
      lines.push("t.cluster.arrive();", "t.cluster.wait();", memory.store(place, value, there ? to : ""), meet);
      this.keep(dtype, memory.load(any, there ? "" : from), lanes);
    } else {
      lines.push(memory.store(place, value));
      if (among === "mbarrier") {
        const barrier = this.name("b");
        lines.push(`const ${barrier} = t.mbarrier(1, ${block});`, `${barrier}.arrive(0);`, `${barrier}.wait(0, 0);`);
      } else lines.push(meet);
      this.keep(dtype, memory.load(any), lanes);
    }
    lines.push(meet);
  }

  /** The first warps store, the others wait for them at a named barrier; or the first warps exchange among themselves. */
  #handOver(): void {
    const { c, block, lines } = this;
    if (this.#named === 15) return;
    const id = ++this.#named;
    const dtype = c.pick(dtypeNames);
    const threads = 32 * (1 + c.below(block / 32 - 1));
    const memory = this.#memory(dtype, 1, [threads]);
    const result = this.keep(dtype, "0");
    const [store, load] = [
      memory.store("t.thread", this.expression(dtype)),
      `${result}.set(${memory.load(this.index(threads))});`,
    ];
    const [arrive, sync] = [`t.namedArrive(${id}, ${block});`, `t.namedBarrier(${id}, ${block});`];
    const own = `t.namedBarrier(${id}, ${threads});`;
    lines.push(`t.when(t.warp.lt(${threads / 32}), () => {`);
    lines.push(...(c.once(2) ? [store, own, load] : [store, arrive, "}, () => {", sync, load]), "});", "t.barrier();");
  }

  /** 8x8 matrices of a warp through shared memory, straight or transposed. */
  #matrices(): void {
    const { c, block, lines } = this;
    const dtype = c.pick(["f16", "bf16", "e4m3", "u8", "i32", "f32"] as const);
    const { bytes } = dtypes[dtype];
    const turn = () => (bytes === 2 && c.once(2) ? ", { transposed: true }" : "");
    const [name, row] = [this.name("s"), 16 / bytes];
    lines.push(`const ${name} = t.shared(${dtype}, [${block / 32}, 32, ${row}]);`);
    lines.push(`${name}.storeVec([t.warp, t.lane, 0], ${this.expression(dtype, row)});`, "t.warpBarrier();");
    if (c.once(2)) {
      const value = this.expression(dtype, (c.pick([1, 2, 4]) * 4) / bytes, 2, 1);
      lines.push(
        `t.stmatrix(${name}, [t.warp, t.lane.xor(${c.below(32)}), 0], ${value}${turn()});`,
        "t.warpBarrier();",
      );
    }
    const count = c.pick([1, 2, 4]);
    const loaded = this.name("m");
    lines.push(`const ${loaded} = t.ldmatrix(${name}, [t.warp, ${this.index(32)}, 0], ${count}${turn()});`);
    // tsc doesn't know how many lanes that has.
    const lanes = Array.from({ length: (count * 4) / bytes }, (_, i) => `${loaded}.lane(${i})`);
    this.keep(dtype, lanes.length > 1 ? `t.pack(${lanes.join(", ")})` : `${lanes[0]}`, lanes.length);
    lines.push("t.warpBarrier();");
  }

  /** Atomics on shared memory. */
  #count(): void {
    const { c, lines } = this;
    const name = this.name(`s${c.pick(["Add", "Min", "Max", "And", "Or", "Xor"])}`);
    const dtype = c.pick(name.startsWith("sAdd") ? numeric : (["i32", "u32"] as const)) ?? "i32";
    lines.push(`const ${name} = t.shared(${dtype}, [4]);`);
    lines.push(`t.when(t.thread.lt(4), () => ${name}.store([t.thread], ${c.below(4)}));`, "t.barrier();");
    const condition = this.expression("bool", 1, 2, 1);
    lines.push(
      `t.when(${condition}, () => void ${this.atomic(name, dtype)});`,
      `${this.atomic(name, dtype)};`,
      "t.barrier();",
    );
    this.keep(dtype, `${name}.load([${this.index(4)}])`);
    lines.push("t.barrier();");
  }
}
