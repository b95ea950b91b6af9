/**
 * The prelude's copies beside the thread (cp.async, TMA) and what orders them: mbarriers, named and cluster barriers, fences.
 * PTX ISA, "Data Movement and Conversion Instructions" and "Parallel Synchronization and Communication Instructions".
 */
import type { CopyHint, TileStmt } from "../../dsl/ir-tile.ts";
import { MatrixPrelude } from "./prelude-matrix.ts";
import { device } from "./vectors.ts";

export class TilePrelude extends MatrixPrelude {
  /** PTX ISA, "cp.async"; 16 bytes pass the L1 cache by. With a guard: zeros where it is false. */
  copyAsync(bytes: number, guarded: boolean): string {
    const name = `copy_async_${bytes}${guarded ? "_or_zeros" : ""}`;
    return this.part(name, () => {
      const instruction = `cp.async.${bytes === 16 ? "cg" : "ca"}.shared.global [%0], [%1], ${bytes}`;
      const parameters = `void* to, const void* from${guarded ? ", bool guard" : ""}`;
      const inputs = `"r"(${this.sharedAddress()}(to)), "l"(from)`;
      const tail = guarded ? `, %2;" :: ${inputs}, "r"(guard ? ${bytes} : 0)` : `;" :: ${inputs}`;
      return `${device} void ${name}(${parameters}) { asm volatile("${instruction}${tail} : "memory"); }`;
    });
  }

  /** PTX ISA, "cp.async.commit_group". */
  asyncCommit(): string {
    return this.simple("copy_async_commit", "cp.async.commit_group;");
  }

  /** PTX ISA, "cp.async.wait_group". */
  asyncWait(pending: number): string {
    return this.simple(`copy_async_wait_${pending}`, `cp.async.wait_group ${pending};`);
  }

  /** PTX ISA, "cp.async.mbarrier.arrive". */
  asyncArrive(): string {
    return this.onBarrier("copy_async_arrive", "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];");
  }

  /** PTX ISA, "cp.async.bulk". */
  bulkCopy(): string {
    return this.part("bulk_copy", () => {
      const instruction = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];";
      const address = this.sharedAddress();
      return [
        `${device} void bulk_copy(void* to, const void* from, int bytes, unsigned long long* barrier) {`,
        `  asm volatile("${instruction}" :: "r"(${address}(to)), "l"(from), "r"(bytes), "r"(${address}(barrier)) : "memory");`,
        "}",
      ].join("\n");
    });
  }

  /** CUtensorMap. */
  tensorMap(): string {
    return this.part("TensorMap", () => "struct __align__(64) TensorMap { unsigned long long opaque[16]; };");
  }

  /** PTX ISA, "createpolicy". Not for cp.async: what ptxas 13.0 makes of it there is an illegal instruction on an H200. */
  private evictFirst(): string {
    const policy = `asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));`;
    return this.part(
      "evict_first",
      () => `${device} unsigned long long evict_first() { unsigned long long policy; ${policy} return policy; }`,
    );
  }

  /** PTX ISA, "cp.async.bulk.tensor"; coordinates innermost first. */
  tensorCopy(rank: number, cache: CopyHint): string {
    const hinted = cache === "stream";
    const name = `tensor_copy_${rank}d${hinted ? "_stream" : ""}`;
    return this.part(name, () => {
      const kind = `cp.async.bulk.tensor.${rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes`;
      const instruction = hinted ? `${kind}.L2::cache_hint` : kind;
      const axes = Array.from({ length: rank }, (_, i) => `i${i}`);
      const coordinates = axes.map((_, i) => `%${i + 3}`).join(", ");
      const address = this.sharedAddress();
      const parameters = [`void* to`, `const ${this.tensorMap()}* map`, ...axes.map((axis) => `int ${axis}`)].join(
        ", ",
      );
      const inputs = [
        `"r"(${address}(to))`,
        `"l"(map)`,
        `"r"(${address}(barrier))`,
        ...axes.map((axis) => `"r"(${axis})`),
        ...(hinted ? [`"l"(${this.evictFirst()}())`] : []),
      ].join(", ");
      const policy = hinted ? `, %${rank + 3}` : "";
      return [
        `${device} void ${name}(${parameters}, unsigned long long* barrier) {`,
        `  asm volatile("${instruction} [%0], [%1, {${coordinates}}], [%2]${policy};" :: ${inputs} : "memory");`,
        "}",
      ].join("\n");
    });
  }

  /** PTX ISA, "mbarrier.init". */
  mbarrierInit(): string {
    const name = "mbarrier_init";
    return this.part(name, () => {
      const inputs = `"r"(${this.sharedAddress()}(barrier)), "r"(arrivals)`;
      return `${device} void ${name}(unsigned long long* barrier, unsigned arrivals) { asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: ${inputs} : "memory"); }`;
    });
  }

  /** Makes initialised mbarriers visible to TMA and other blocks. PTX ISA, "membar / fence". */
  mbarrierInitFence(): string {
    return this.simple("mbarrier_init_fence", "fence.mbarrier_init.release.cluster;");
  }

  /** PTX ISA, "mbarrier.arrive" and "mapa"; with `expects`, announces bytes first. */
  mbarrierArrive(expects: boolean, peer: boolean): string {
    const name = `mbarrier_arrive${expects ? "_expect" : ""}${peer ? "_peer" : ""}`;
    return this.part(name, () => {
      const operation = `mbarrier.arrive${expects ? ".expect_tx" : ""}`;
      const [bytes, bytesInput] = expects ? [", %1", `, "r"(bytes)`] : ["", ""];
      const rank = expects ? 2 : 1;
      const instruction = peer
        ? `{ .reg .b32 theirs; mapa.shared::cluster.u32 theirs, %0, %${rank}; ${operation}.release.cluster.shared::cluster.b64 _, [theirs]${bytes}; }`
        : `${operation}.shared::cta.b64 _, [%0]${bytes};`;
      const parameters = `unsigned long long* barrier${expects ? ", unsigned bytes" : ""}${peer ? ", unsigned rank" : ""}`;
      const inputs = `"r"(${this.sharedAddress()}(barrier))${bytesInput}${peer ? `, "r"(rank)` : ""}`;
      return `${device} void ${name}(${parameters}) { asm volatile("${instruction}" :: ${inputs} : "memory"); }`;
    });
  }

  /** PTX ISA, "mbarrier.try_wait": it suspends the thread for a while, so it is asked again. */
  mbarrierAwait(scope: "block" | "cluster"): string {
    const name = "mbarrier_await";
    return this.part(name, () => {
      // Within a block .acquire.cta is what nothing means.
      const instruction = `mbarrier.try_wait.parity${scope === "cluster" ? ".acquire.cluster" : ""}.shared::cta.b64`;
      return [
        `${device} void ${name}(unsigned long long* barrier, unsigned parity) {`,
        "  unsigned done;",
        "  do {",
        `    asm volatile("{ .reg .pred p; ${instruction} p, [%1], %2; selp.u32 %0, 1, 0, p; }" : "=r"(done) : "r"(${this.sharedAddress()}(barrier)), "r"(parity) : "memory");`,
        "  } while (!done);",
        "}",
      ].join("\n");
    });
  }

  /** The same place in another block's shared memory. PTX ISA, "mapa". */
  peer(): string {
    return this.part("of_peer", () =>
      [
        `template <typename T> ${device} T* of_peer(T* p, unsigned rank) {`,
        "  T* theirs;",
        `  asm("mapa.u64 %0, %1, %2;" : "=l"(theirs) : "l"(p), "r"(rank));`,
        "  return theirs;",
        "}",
      ].join("\n"),
    );
  }

  /** PTX ISA, "%cluster_ctarank". */
  clusterRank(): string {
    return this.part(
      "cluster_rank",
      () => `${device} int cluster_rank() { int r; asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r)); return r; }`,
    );
  }

  /** PTX ISA, "barrier.cluster"; `.aligned` needs the warp's lanes together, which a branch before may have parted. */
  clusterBarrier(half: "arrive" | "wait"): string {
    const name = `cluster_${half}`;
    const instruction = half === "arrive" ? "arrive.release" : "wait.acquire";
    return this.part(
      name,
      () =>
        `${device} void ${name}() { __syncwarp(); asm volatile("barrier.cluster.${instruction}.aligned;" ::: "memory"); }`,
    );
  }

  /** PTX ISA, "bar". */
  namedBarrier(action: "sync" | "arrive"): string {
    const name = `named_barrier_${action}`;
    return this.part(
      name,
      () =>
        `${device} void ${name}(int id, int threads) { __syncwarp(); asm volatile("bar.${action} %0, %1;" :: "r"(id), "r"(threads) : "memory"); }`,
    );
  }

  /** PTX ISA, "prefetch". */
  prefetch(): string {
    return this.part(
      "prefetch_l2",
      () => `${device} void prefetch_l2(const void* p) { asm volatile("prefetch.global.L2 [%0];" :: "l"(p)); }`,
    );
  }

  /** PTX ISA, "Async proxy" and "membar / fence". */
  asyncFence(): string {
    return this.simple("async_fence", "fence.proxy.async.shared::cta;");
  }

  /** PTX ISA, "setmaxnreg". */
  setRegisters({ change, count }: Extract<TileStmt, { readonly kind: "setRegisters" }>): string {
    const suffix = change === "increase" ? "inc" : "dec";
    return this.simple(`${change}_registers_to_${count}`, `setmaxnreg.${suffix}.sync.aligned.u32 ${count};`);
  }

  /** An instruction without operands that orders memory. */
  private simple(name: string, instruction: string): string {
    return this.part(name, () => `${device} void ${name}() { asm volatile("${instruction}" ::: "memory"); }`);
  }

  private onBarrier(name: string, instruction: string): string {
    return this.part(
      name,
      () =>
        `${device} void ${name}(unsigned long long* barrier) { asm volatile("${instruction}" :: "r"(${this.sharedAddress()}(barrier)) : "memory"); }`,
    );
  }
}
