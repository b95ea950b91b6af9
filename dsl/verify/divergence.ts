/** Divergence: barriers and warp-wide operations stand only where all their threads come. */
import { DivergenceError } from "../errors.ts";
import type { Block, KernelIR, Op, Value } from "../ir.ts";
import { isTileStmt, tileScopes, type TileStmtKind } from "../ir-tile.ts";
import type { Location } from "../source.ts";
import { Uniformity, UniformityAnalysis, type UniformityLevel } from "./uniformity.ts";

/** @throws DivergenceError naming the branch or loop and what decides it */
export function checkDivergence(ir: KernelIR): void {
  const uniformity = new UniformityAnalysis(ir);
  const visit = (block: Block, reasons: readonly { readonly value: Value; readonly at: Location }[]): void => {
    const require = (what: string, level: UniformityLevel, at: Location): void => {
      const culprit = reasons.find(({ value }) => uniformity.of(value) > level);
      if (!culprit) return;
      const over = ["cluster", "block", "warpgroup", "warp"][level] ?? "warp";
      throw new DivergenceError(`${what} stands where not all threads of the ${over} may come`, {
        at,
        related: [
          { what: "the branch or loop around it is", at: culprit.at },
          { what: "what decides it was made", at: culprit.value.at },
        ],
        hint: loadsDecide(ir, culprit.value, level)
          ? "Lanes may load different values from memory that this kernel writes: branch on those of one, t.shuffle(v, 0)"
          : `Move it out, or branch on something that is the same in the whole ${over}`,
      });
    };
    for (const stmt of block) {
      const scope = isTileStmt(stmt) ? tileScopes[stmt.kind] : undefined;
      if (scope) {
        require(tileNames[stmt.kind as TileStmtKind] ?? stmt.kind, Uniformity[scope], stmt.at);
      } else if (stmt.kind === "barrier") {
        const whole = stmt.scope === "block";
        require(whole ? "A block barrier" : "A warp barrier", whole ? Uniformity.block : Uniformity.warp, stmt.at);
      } else if (stmt.kind === "let" && warpWideNames[stmt.value.op.kind]) {
        require(warpWideNames[stmt.value.op.kind] ?? "", Uniformity.warp, stmt.at);
      } else if (stmt.kind === "for") {
        visit(stmt.body, [...reasons, { value: stmt.from, at: stmt.at }, { value: stmt.to, at: stmt.at }]);
      } else if (stmt.kind === "if") {
        const inner = [...reasons, { value: stmt.condition, at: stmt.at }];
        visit(stmt.then, inner);
        visit(stmt.otherwise, inner);
      }
    }
  };
  visit(ir.body, []);
}

const warpWideNames: { readonly [kind in Op["kind"]]?: string } = {
  shuffle: "A shuffle",
  reduce: "A warp reduction",
  mma: "A matrix multiplication",
  ldmatrix: "An ldmatrix",
};

const tileNames: { readonly [kind in TileStmtKind]?: string } = {
  stmatrix: "An stmatrix",
  await: "A wait for an mbarrier",
  clusterArrive: "A cluster barrier",
  clusterWait: "A cluster barrier",
  namedBarrier: "A named barrier",
  setRegisters: "A change of the register count",
  wgmmaFence: "A fence for wgmma",
  wgmma: "A wgmma",
  wgmmaCommit: "A commit of wgmma",
  wgmmaWait: "A wait for wgmma",
};

/** Whether a value would be uniform enough if each load in it were shuffled from one lane. */
function loadsDecide(ir: KernelIR, value: Value, level: UniformityLevel): boolean {
  // A shuffle makes it the same in a warp, not in a block of several.
  if (level < Uniformity.warp && ir.block > 32) return false;
  return new UniformityAnalysis(ir, { trustLoads: true }).of(value) <= level;
}
