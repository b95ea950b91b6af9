/**
 * `npm run prove`: claims that only numbers of cases support. The same seed and index make the same case on every machine.
 *
 *   npm run prove -- exact                    # O1: 2,000 GEMMs on whole numbers, right to the bit, on each device that is here
 *   npm run prove -- bounds                   # O2: GEMMs on all classes of real numbers, within the float64 interval
 *   npm run prove -- late --replays 1000      # every PDL kernel behind a producer that writes late; on a GPU it shows
 *   npm run prove -- schedules                # 10,000 clean kernels in the simulator, each under another schedule: no alarm
 *   npm run prove -- exact --devices cuda --seed 7 --from 1200 --count 1 --workers 1
 *
 * Exit code 0 when all is right and every class of cases was drawn, 1 when not, 101 when it could not run.
 */
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { cudaAvailable } from "../backends/cuda/index.ts";
import { TegulaError } from "../dsl/index.ts";
import { boundsClasses } from "./prove/bounds.ts";
import { type CampaignName, campaignNames } from "./prove/campaign.ts";
import { type Dealt, deal } from "./prove/dealer.ts";
import { deviceNamed, type DeviceName, deviceNames } from "./prove/devices.ts";
import { exactClasses } from "./prove/exact.ts";
import { lateCount } from "./prove/late-campaign.ts";
import { scheduleClasses } from "./prove/schedules.ts";
import { progress } from "./terminal.ts";

const cannotRun = 101;
const usage = `npm run prove -- ${campaignNames.join("|")} [--devices wgsl,simulator,cuda] [--seed 1] [--from 0] [--count 2000] [--replays 1000] [--workers 1]`;

/** Cases where nothing is said, and in one process; both whole groups. */
const campaigns: Readonly<Record<CampaignName, Plan>> = {
  exact: { count: () => 2000, each: 80, classes: exactClasses },
  bounds: { count: (device) => (device === "wgsl" ? 10_000 : 2000), each: 256, classes: boundsClasses },
  late: { count: () => lateCount, each: lateCount, classes: [] },
  schedules: { count: () => 10_000, each: 500, classes: scheduleClasses },
};

interface Plan {
  readonly count: (device: DeviceName) => number;
  readonly each: number;
  readonly classes: readonly string[];
}

function refuse(message: string): never {
  console.error(message);
  process.exit(cannotRun);
}

function readOptions() {
  const read = () =>
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
    });
  const { values, positionals } = ((): ReturnType<typeof read> => {
    try {
      return read();
    } catch (error) {
      return refuse(error instanceof Error ? error.message : String(error));
    }
  })();
  const [name, ...others] = positionals;
  const campaign = campaignNames.find((one) => one === name);
  if (!campaign || others.length > 0) return refuse(`${name ?? "Nothing"} is no campaign. ${usage}`);
  const whole = (option: "seed" | "from" | "count" | "replays" | "workers"): number | undefined => {
    const text = values[option];
    if (text === undefined || /^\d{1,9}$/.test(text)) return text === undefined ? undefined : Number(text);
    return refuse(`--${option} is "${text}"; write a whole number, e.g. --${option} 100`);
  };
  const devices = values.devices?.split(",").map((device) => {
    try {
      return deviceNamed(device);
    } catch (error) {
      return refuse(error instanceof TegulaError ? error.message : String(error));
    }
  });
  if (campaign === "schedules" && devices?.some((device) => device !== "simulator")) {
    return refuse("schedules are of the simulator alone; leave --devices out");
  }
  const all = campaign === "schedules" ? (["simulator"] as const) : deviceNames;
  return {
    campaign,
    devices: devices ?? all.filter((device) => device !== "cuda" || cudaAvailable()),
    ...{ seed: whole("seed") ?? 1, from: whole("from") ?? 0, count: whole("count"), workers: whole("workers") },
    replays: whole("replays") ?? 1000,
  };
}

const { campaign, devices, seed, from, replays, ...options } = readOptions();
const { count: usualCount, each, classes } = campaigns[campaign];
let goOn = "";
process.once("SIGINT", () => {
  console.log(goOn);
  process.exit(130);
});
for (const device of devices) {
  const count = options.count ?? Math.max(0, usualCount(device) - from);
  // Compilers and oracles take CPU time, launches next to none; but overlap of kernels is seen by one process alone.
  const isParallel = device === "cuda" && campaign !== "late";
  const workers = options.workers || (isParallel ? Math.max(1, availableParallelism() - 2) : 1);
  const start = performance.now();
  const dealt = await deal(
    { campaign, device, seed, replays, from, count, each, workers },
    {
      judged: (judged, next) => {
        goOn = `\n${campaign} on ${device}: ${judged} of ${count} cases; go on with --devices ${device} --seed ${seed} --from ${next}`;
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

function show({ device, judged, next, classes: drawn, lines, problems }: Dealt, count: number, seconds: string): void {
  for (const line of lines) console.log(line);
  if (drawn.size > 0 && lines.length === 0) {
    console.log([...drawn].sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true })).map(([of, cases]) => `${of}: ${cases}`).join("; ")); // prettier-ignore
  }
  const missing = judged >= 2000 ? classes.filter((one) => !drawn.has(one)) : [];
  if (missing.length > 0) console.log(`No case of: ${missing.join("; ")}`);
  const of = `${campaign} on ${device}: ${judged} of ${count} cases, ${problems} wrong, ${seconds} s`;
  console.log(judged < count ? `${of}; go on with --from ${next}` : of);
  if (problems > 0 || missing.length > 0 || judged < count) process.exitCode = 1;
}

function secondsSince(start: number): string {
  return ((performance.now() - start) / 1000).toFixed(1);
}
