/**
 * `npm run prove`: checks on thousands of drawn cases what a handful of examples can't show. The same seed and index make the
 * same case on every machine.
 *
 *   npm run prove -- exact                    # O1: 2,000 GEMMs on whole numbers, right to the bit, on each device that is here
 *   npm run prove -- bounds                   # O2: GEMMs on all classes of real numbers, within the float64 interval
 *   npm run prove -- late --replays 1000      # every PDL kernel behind a producer that writes late, so many rounds each; on a
 *                                             # GPU also without its waits, which must show
 *   npm run prove -- schedules                # 10,000 runs in the simulator, each under another schedule, without a finding
 *   npm run prove -- exact --devices cuda --seed 7 --from 1200 --count 1 --workers 1
 *
 * Exit code 0 when nothing is wrong and, in 2,000 cases or more, every class of cases was drawn; 1 when not; 101 when it could
 * not run.
 */
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { cudaAvailable } from "../backends/cuda/index.ts";
import { boundsClasses } from "./prove/bounds.ts";
import { type CampaignName, campaignNames } from "./prove/campaign.ts";
import { type Dealt, deal } from "./prove/dealer.ts";
import { deviceNamed, type DeviceName, deviceNames } from "./prove/devices.ts";
import { exactClasses } from "./prove/exact.ts";
import { lateCount } from "./prove/late-campaign.ts";
import { scheduleClasses } from "./prove/schedules.ts";
import { progress, showHelp } from "./terminal.ts";

const usage = `npm run prove -- ${campaignNames.join("|")} [--devices wgsl,simulator,cuda] [--seed 1] [--from 0] [--count 2000] [--replays 1000] [--workers 1]`;

/** Cases that show whether all classes were drawn. */
const manyCases = 2000;

interface Plan {
  /** Cases where --count doesn't say. */
  readonly count: (device: DeviceName) => number;
  /** Cases of one process: whole groups, which share kernels. */
  readonly each: number;
  readonly classes: readonly string[];
}

const campaigns: Readonly<Record<CampaignName, Plan>> = {
  exact: { count: () => 2000, each: 80, classes: exactClasses },
  bounds: { count: (device) => (device === "wgsl" ? 10_000 : 2000), each: 256, classes: boundsClasses },
  late: { count: () => lateCount, each: lateCount, classes: [] },
  schedules: { count: () => 10_000, each: 500, classes: scheduleClasses },
};

function refuse(message: string): never {
  console.error(message);
  process.exit(101);
}

/** Refuses what throws. */
function attempt<T>(make: () => T): T {
  try {
    return make();
  } catch (error) {
    return refuse(error instanceof Error ? error.message : String(error));
  }
}

function wholeNumber(option: string, least: number, text: string): number {
  if (/^\d{1,9}$/.test(text) && Number(text) >= least) return Number(text);
  return refuse(`--${option} is "${text}"; write a whole number from ${least} on, e.g. --${option} 100`);
}

function readOptions() {
  const { values, positionals } = attempt(() =>
    parseArgs({
      allowPositionals: true,
      options: {
        devices: { type: "string" },
        seed: { type: "string", default: "1" },
        from: { type: "string", default: "0" },
        count: { type: "string" },
        replays: { type: "string", default: "1000" },
        workers: { type: "string" },
      },
    }),
  );
  const [name, ...others] = positionals;
  const campaign = campaignNames.find((one) => one === name);
  if (!campaign || others.length > 0) return refuse(`${positionals.join(" ") || "Nothing"} is no campaign. ${usage}`);
  const named = attempt(() => values.devices?.split(",").map(deviceNamed));
  if (campaign === "schedules" && named?.some((device) => device !== "simulator")) {
    return refuse("schedules are of the simulator alone; leave --devices out");
  }
  const usual = campaign === "schedules" ? (["simulator"] as const) : deviceNames;
  return {
    campaign,
    devices: named ?? usual.filter((device) => device !== "cuda" || cudaAvailable()),
    seed: wholeNumber("seed", 0, values.seed),
    from: wholeNumber("from", 0, values.from),
    count: values.count === undefined ? undefined : wholeNumber("count", 1, values.count),
    replays: wholeNumber("replays", 1, values.replays),
    workers: values.workers === undefined ? undefined : wholeNumber("workers", 1, values.workers),
  };
}

showHelp(import.meta.filename);
const { campaign, devices, seed, from, replays, ...options } = readOptions();
const plan = campaigns[campaign];
for (const device of devices) {
  if (options.count !== undefined || from < plan.count(device)) continue;
  refuse(`There are ${plan.count(device)} cases on ${device} where --count doesn't ask for more`);
}
let goOn = "";
process.once("SIGINT", () => {
  console.log(goOn);
  process.exit(130);
});
for (const device of devices) {
  const usual = plan.count(device);
  if (options.count === undefined && from >= usual)
    refuse(`There are ${usual} cases where --count doesn't ask for more`);
  const count = options.count ?? usual - from;
  // Compilers and oracles take CPU time, launches next to none; but overlap of kernels is seen by one process alone.
  const isParallel = device === "cuda" && campaign !== "late";
  const workers = options.workers ?? (isParallel ? Math.max(1, availableParallelism() - 2) : 1);
  const start = performance.now();
  const dealt = await deal(
    { campaign, device, seed, replays, from, count, each: plan.each, workers },
    {
      judged: (what, judged, next) => {
        goOn = `\n${campaign} on ${device}: ${judged} of ${count} cases; go on with --devices ${device} --seed ${seed} --from ${next}`;
        if (campaign === "late" && what !== "") console.log(what);
        progress(`${campaign} on ${device}`, judged, count);
        if (!process.stderr.isTTY && judged % 100 === 0) console.log(`${judged} of ${count}, ${secondsSince(start)} s`);
      },
      problem: ({ index, message }) => {
        const again = `npm run prove -- ${campaign} --devices ${device} --seed ${seed} --from ${index} --count 1`;
        console.log(`case ${index}: ${message}\n  ${again}`);
      },
    },
  );
  if (dealt.refused !== undefined) refuse(dealt.refused);
  show(dealt, count, secondsSince(start));
}

function show({ device, judged, next, classes: drawn, problems }: Dealt, count: number, seconds: string): void {
  const byName = [...drawn].sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }));
  if (byName.length > 0) console.log(byName.map(([name, cases]) => `${name}: ${cases}`).join("; "));
  const missing = judged >= manyCases ? plan.classes.filter((one) => !drawn.has(one)) : [];
  if (missing.length > 0) console.log(`No case of: ${missing.join("; ")}`);
  const summary = `${campaign} on ${device}: ${judged} of ${count} cases, ${problems} wrong, ${seconds} s`;
  console.log(judged < count ? `${summary}; go on with --from ${next}` : summary);
  if (problems > 0 || missing.length > 0 || judged < count) process.exitCode = 1;
}

function secondsSince(start: number): string {
  return ((performance.now() - start) / 1000).toFixed(1);
}
