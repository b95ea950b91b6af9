/** What a round of each kind is on CUDA. */
import { PrimaryContext } from "../../backends/cuda/context.ts";
import { deviceInfo, openDriver } from "../../backends/cuda/driver.ts";
import { CudaExecutable } from "../../backends/cuda/executable.ts";
import {
  compileCuda,
  type CudaBackend,
  type DeviceTensor,
  deviceTensor,
  emitCuda,
  openCuda,
} from "../../backends/cuda/index.ts";
import { Streams } from "../../backends/cuda/streams.ts";
import { count, expectEach, ones, type SoakDevice, zeros } from "./work.ts";

/** @throws NoDriverError, NoDeviceError, DeviceError */
export async function openCudaSoak(): Promise<SoakDevice> {
  const cuda = await openCuda({ ordinal: 0 });
  return { backend: cuda, work: await workOn(cuda), warmUp: 0.1, usedBytes };
}

async function workOn(cuda: CudaBackend): Promise<SoakDevice["work"]> {
  const [launched, compiled, x] = [deviceTensor(cuda, zeros), deviceTensor(cuda, zeros), deviceTensor(cuda, ones)];
  const pinned = cuda.pinned(ones.dtype, ones.shape);
  pinned.bytes.set(ones.bytes);
  const launch = (await cuda.compile(count)).bind({ y: launched });
  return {
    launches: {
      round: () => launch.launch(),
      finish: (total) => expectEach(launched, total),
    },
    uploads: {
      round: (i) => (i % 2 ? x.write(ones) : cuda.stream.copy(pinned, x)),
      finish: () => expectEach(x, 1),
    },
    programs: {
      round: () => compileLoadLaunchUnload(cuda, compiled),
      finish: (total) => expectEach(compiled, total),
    },
    backends: {
      round: async () => {
        await using other = await openCuda({ ordinal: 0 }); // shares the context
        const y = deviceTensor(other, zeros);
        const launch = (await other.compile(count)).bind({ y });
        using graph = other.capture((on) => launch.launch(on));
        graph.launch();
        await expectEach(y, 1);
      },
    },
  };
}

/** Past every cache, by the backend's own loader. */
async function compileLoadLaunchUnload(cuda: CudaBackend, y: DeviceTensor<"u32">): Promise<void> {
  const { arch } = cuda;
  const module = emitCuda(count.ir);
  const compiled = compileCuda(module.source, { arch, name: count.name, cache: false });
  const driver = openDriver();
  const context = PrimaryContext.open(driver, deviceInfo(driver, 0));
  const streams = new Streams(cuda, context, false);
  {
    using executable = new CudaExecutable({ streams, kernel: count, module, compiled, arch, pdl: true });
    executable.bind({ y }).launch();
    await streams.drain();
  }
  streams.beginClosing();
  streams.close();
  context.close();
}

/** Of device memory, by anybody. */
function usedBytes(): number {
  const [free, total] = [new BigUint64Array(1), new BigUint64Array(1)];
  const { api } = openDriver();
  if (api.cuMemGetInfo(free, total) !== 0) throw new Error("The driver doesn't tell what is free");
  return Number((total[0] ?? 0n) - (free[0] ?? 0n));
}
