/** The part of a proof that may crash: judges cases of one campaign, a process of its own that tells its parent of each. */
import { TegulaError } from "../../dsl/index.ts";
import { openBounds } from "./bounds.ts";
import type { Campaign, CampaignOptions } from "./campaign.ts";
import { openExact } from "./exact.ts";
import { openLate } from "./late-campaign.ts";
import { openSchedules } from "./schedules.ts";

export interface Task extends CampaignOptions {
  readonly from: number;
  readonly to: number;
}

export type Message =
  | { readonly kind: "opened"; readonly device: string }
  | { readonly kind: "refused"; readonly message: string }
  | { readonly kind: "started"; readonly index: number }
  | { readonly kind: "judged"; readonly index: number; readonly classes: readonly string[]; readonly what: string; readonly problem: string | undefined }; // prettier-ignore

function open({ campaign, device, seed, replays }: CampaignOptions): Promise<Campaign> {
  switch (campaign) {
    case "exact":
      return openExact(device, seed);
    case "bounds":
      return openBounds(device, seed);
    case "late":
      return openLate(device, replays);
    case "schedules":
      return openSchedules(seed);
  }
}

async function work(task: Task, tell: (message: Message) => void): Promise<void> {
  let campaign: Campaign;
  try {
    campaign = await open(task);
  } catch (error) {
    if (!(error instanceof TegulaError)) throw error;
    return tell({ kind: "refused", message: error.message });
  }
  tell({ kind: "opened", device: campaign.device });
  for (let index = task.from; index < task.to; index++) {
    tell({ kind: "started", index });
    try {
      tell({ kind: "judged", index, problem: undefined, ...(await campaign.judge(index)) });
    } catch (error) {
      // Nothing that this process has is trusted any more: another goes on.
      return tell({ kind: "judged", index, classes: [], what: "", problem: described(error) });
    }
  }
  await campaign.close();
}

function described(error: unknown): string {
  if (error instanceof TegulaError) return `${error.name}: ${error.message}`;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

const send = (message: Message): void => void (process.connected && process.send?.(message));
process.once("disconnect", () => process.exit()); // it is done, or its parent is gone
process.once("message", (task: Task) => void work(task, send).finally(() => process.disconnect()));
