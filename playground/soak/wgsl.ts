/** What a round of each kind is on WGSL. */
import { type DeviceTensor, deviceTensor, openWgsl, type WgslBackend } from "../../backends/wgsl/index.ts";
import { count, counting, expectEach, ones, type SoakDevice, zeros } from "./work.ts";

/**
 * Warms up for long, since what Dawn frees waits for JavaScript's garbage collector: on SwiftShader the process grew by 60 MiB
 * in 100,000 dispatches, and by 0.1 MiB in the next 200,000.
 * @throws NotFoundError
 */
export async function openWgslSoak(): Promise<SoakDevice> {
  const wgsl = await openWgsl();
  return { backend: wgsl, work: await workOn(wgsl), warmUp: 0.5, usedBytes: () => 0 };
}

async function workOn(wgsl: WgslBackend): Promise<SoakDevice["work"]> {
  const [launched, compiled] = [deviceTensor(wgsl, zeros), deviceTensor(wgsl, zeros)];
  const x = deviceTensor(wgsl, ones);
  const launch = (await wgsl.compile(count)).bind({ y: launched });
  const launchOn = async (backend: WgslBackend, kernel: typeof count, y: DeviceTensor<"u32">) =>
    (await backend.compile(kernel)).bind({ y }).launch();
  return {
    launches: {
      round: () => launch.launch(),
      finish: (total) => expectEach(launched, total),
    },
    uploads: {
      round: async () => {
        x.write(ones);
        await expectEach(x, 1);
      },
    },
    programs: {
      round: () => launchOn(wgsl, counting(), compiled),
      finish: (total) => expectEach(compiled, total),
    },
    backends: {
      round: async () => {
        await using other = await openWgsl();
        const y = deviceTensor(other, zeros);
        await launchOn(other, count, y);
        await expectEach(y, 1);
      },
    },
  };
}
