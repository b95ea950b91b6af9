/** Names in generated code: the author's own where they are free, numbered where they repeat. */

/** Types and functions of the preludes end in the types they are for: names of that form are theirs. */
const preludeName = /(^|_)(f32|f16|bf16|e4m3|e5m2|i32|u32|i8|u8|bool)(x\d+)?(_stream|_evict_first|_evict_last)?$/;

export class Names {
  private readonly scopes: Set<string>[];

  constructor(reserved: Iterable<string>) {
    this.scopes = [new Set(reserved), new Set()];
  }

  /** A name that nothing else in the open scopes has: `base`, else `base_1`, `base_2`, ... */
  fresh(base: string): string {
    let name = base;
    for (let i = 1; preludeName.test(name) || this.scopes.some((scope) => scope.has(name)); i++) name = `${base}_${i}`;
    this.scopes.at(-1)?.add(name);
    return name;
  }

  /** Names made inside are free again afterwards. */
  scope(body: () => void): void {
    this.scopes.push(new Set());
    body();
    this.scopes.pop();
  }
}
