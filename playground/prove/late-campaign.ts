/** Each kernel of kernels/ behind a late producer; on a GPU also without its waits, which must show. */
import type { Campaign } from "./campaign.ts";
import { type DeviceName, openDevice } from "./devices.ts";
import { lateRounds, withoutWaits } from "./late.ts";
import { lateSubjects } from "./late-subjects.ts";

/** Rounds without waits. */
const controlRounds = 20;

export const lateCount = lateSubjects().length;

export async function openLate(device: DeviceName, rounds: number): Promise<Campaign> {
  const backend = await openDevice(device);
  const subjects = lateSubjects();
  return {
    device: backend.device,
    judge: async (index) => {
      const subject = subjects[index];
      if (!subject) throw new RangeError(`there is no kernel ${index}: there are ${subjects.length}`);
      const { stale, early } = await lateRounds(backend, subject, rounds);
      // Only a GPU starts a kernel before the one ahead has ended.
      const control =
        device === "cuda"
          ? await lateRounds(backend, subject, controlRounds, withoutWaits(subject.kernel))
          : { stale: controlRounds, early: controlRounds };
      const problems = [
        ...(stale > 0 ? [`${stale} of ${rounds} rounds read what the producer had not yet written`] : []),
        ...(early > 0 ? [`${early} of ${rounds} rounds wrote before the producer had ended`] : []),
        ...(control.stale === 0 || control.early === 0
          ? [
              `without waits ${control.stale} of ${controlRounds} rounds are stale, ${control.early} early: nothing is proved`,
            ]
          : []),
      ];
      const shown = device === "cuda" ? `, ${control.stale} of ${controlRounds} stale and ${control.early} early without waits` : ""; // prettier-ignore
      return {
        classes: [subject.kernel.name],
        what: `${subject.kernel.name}: ${rounds} rounds, ${stale} stale, ${early} early${shown}`,
        problem: problems.length > 0 ? problems.join("; ") : undefined,
      };
    },
    close: () => backend.dispose(),
  };
}
