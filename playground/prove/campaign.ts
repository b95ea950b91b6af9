/** What a campaign is: cases by index, which any process can judge in any order. For a seed they are the same everywhere. */
import type { DeviceName } from "./devices.ts";

export const campaignNames = ["exact", "bounds", "late", "schedules"] as const;
export type CampaignName = (typeof campaignNames)[number];

export interface Campaign {
  /** What runs the cases, for people. */
  readonly device: string;
  /** Throws where a case could not be run: that is a problem too. */
  judge(index: number): Promise<Outcome>;
  close(): Promise<void>;
}

export interface Outcome {
  /** Which of the classes that must be covered the case belongs to. */
  readonly classes: readonly string[];
  /** What the case was, in one line. */
  readonly what: string;
  /** What is wrong, if something is. */
  readonly problem?: string | undefined;
}

/** What a worker needs to make its campaign. */
export interface CampaignOptions {
  readonly campaign: CampaignName;
  readonly device: DeviceName;
  readonly seed: number;
  /** Of `late`: rounds of each kernel. */
  readonly replays: number;
}
