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
      const problems: string[] = [];
      if (stale > 0) problems.push(`${stale} of ${rounds} rounds read what the producer had not yet written`);
      if (early > 0) problems.push(`${early} of ${rounds} rounds wrote before the producer had ended`);
      let shown = "";
      // Only a GPU starts a kernel before the one ahead has ended.
      if (device === "cuda") {
        const control = await lateRounds(backend, subject, controlRounds, withoutWaits(subject.kernel));
        shown = `; without waits ${control.stale} of ${controlRounds} stale, ${control.early} early`;
        if (control.stale === 0 || control.early === 0) problems.push("without waits as good: nothing is proved");
      }
      return {
        classes: [],
        what: `${subject.kernel.name}: ${rounds} rounds, ${stale} stale, ${early} early${shown}`,
        problem: problems.length > 0 ? problems.join("; ") : undefined,
      };
    },
    close: () => backend.dispose(),
  };
}
