/**
 * Kernels that should have no mistake, in the simulator with all its checks, each under a schedule of its own: warps, clusters
 * and copies in a random order. Whatever it finds is a false alarm, or a mistake that nobody knew of.
 */
import { openSimulator } from "../../backends/simulator/index.ts";
import { judge as judgeProgram } from "../fuzz/judge.ts";
import { generate } from "../fuzz/tiers.ts";
import { outputsOf } from "../record/replay.ts";
import { specimens } from "../record/specimens.ts";
import type { Campaign, Outcome } from "./campaign.ts";
import { exactCases, exactGroup, judgeExact } from "./exact.ts";
import { lateRounds } from "./late.ts";
import { lateSubjects } from "./late-subjects.ts";

/** In turn. */
const kinds = ["shipped kernel", "random kernel", "random kernel", "recorded kernel"] as const;
export const scheduleClasses: readonly string[] = [...new Set(kinds), "behind a producer"];

export async function openSchedules(seed: number): Promise<Campaign> {
  const caseOf = exactCases("simulator", seed, { products: 0.7e6, shares: { all: 0.5, "N and K": 0.25 } });
  const [recorded, chained] = [specimens(), lateSubjects()];
  return {
    device: "simulator, all checks",
    judge: async (index): Promise<Outcome> => {
      await using backend = await openSimulator({ seed: seed + index });
      const turn = Math.floor(index / kinds.length);
      const kind = kinds[index % kinds.length] ?? kinds[0];
      switch (kind) {
        case "shipped kernel": {
          // Some of them behind a late producer.
          const subject = turn % 16 === 0 ? chained[(turn / 16) % chained.length] : undefined;
          if (!subject) {
            const outcome = await judgeExact(backend, caseOf(turn * exactGroup), index);
            return { ...outcome, classes: [kind] };
          }
          const { stale, early } = await lateRounds(backend, subject, 1);
          const problem = stale + early > 0 ? "the results are not those of the kernel alone" : undefined;
          return { classes: ["behind a producer"], what: subject.kernel.name, problem };
        }
        case "random kernel": {
          const executor = { name: "simulator", backend, module: "tegula/simulator", open: "openSimulator()" };
          const { program } = generate(seed, index);
          const failure = await judgeProgram(program, [executor]);
          return { classes: [kind], what: `npm run fuzz -- --seed ${seed} --from ${index}`, problem: failure?.message };
        }
        case "recorded kernel": {
          const specimen = recorded[turn % recorded.length];
          if (!specimen) throw new RangeError("nothing is recorded");
          await outputsOf(backend, specimen); // throws a HazardError
          return { classes: [kind], what: specimen.name };
        }
      }
    },
    close: () => Promise.resolve(),
  };
}
