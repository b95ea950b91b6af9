/** Kernels with a mistake in them that tracing or the verifier would have refused. */
import type { Kernel, Params } from "../../dsl/index.ts";
import { type Block, innerBlocks, type Op, type Stmt, type Value, walk } from "../../dsl/ir.ts";

/** Its statements of a kind, in the order in which they stand. */
export function statements(kernel: Kernel, ...kinds: readonly Stmt["kind"][]): readonly Stmt[] {
  const found: Stmt[] = [];
  walk(kernel.ir.body, (stmt) => {
    if (kinds.includes(stmt.kind)) found.push(stmt);
  });
  return found;
}

/** The kernel without a statement. */
export function without<P extends Params>(kernel: Kernel<P>, gone: Stmt | undefined): Kernel<P> {
  if (!gone) throw new Error("there is no such statement");
  const block = (stmts: Block): Block =>
    stmts.flatMap((stmt): readonly Stmt[] => {
      if (stmt === gone) return [];
      if (innerBlocks(stmt).length === 0) return [stmt];
      if (stmt.kind === "for") return [{ ...stmt, body: block(stmt.body) }];
      return stmt.kind === "if" ? [{ ...stmt, then: block(stmt.then), otherwise: block(stmt.otherwise) }] : [stmt];
    });
  return { ...kernel, ir: { ...kernel.ir, body: block(kernel.ir.body) } };
}

/** The kernel with other operations in the place of some. */
export function rewritten<P extends Params>(kernel: Kernel<P>, change: (op: Op) => Op | undefined): Kernel<P> {
  const values = new Map<Value, Value>();
  const isNode = (node: unknown): node is object => typeof node === "object" && node !== null;
  const isValue = (node: unknown): node is Value => isNode(node) && "op" in node && "type" in node;
  const isStmt = (node: unknown): node is Stmt => isNode(node) && "kind" in node && "at" in node;
  const value = (old: Value): Value => {
    let made = values.get(old);
    if (!made) {
      made = { ...old, op: parts(change(old.op) ?? old.op) };
      values.set(old, made);
    }
    return made;
  };
  const part = (node: unknown): unknown => (isValue(node) ? value(node) : isStmt(node) ? parts(node) : node);
  function parts<T extends object>(node: T): T {
    const entries = Object.entries(node).map(([key, field]): readonly [string, unknown] => {
      if (isValue(field)) return [key, value(field)];
      if (Array.isArray(field)) return [key, field.map(part)];
      return [key, isNode(field) && "strideBytes" in field ? parts(field) : field];
    });
    return Object.fromEntries(entries) as T;
  }
  return { ...kernel, ir: { ...kernel.ir, body: kernel.ir.body.map((stmt) => parts(stmt)) } };
}
