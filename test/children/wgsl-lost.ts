/** Loses the device while a launch and a read are under way, then tries everything; prints what each answered. */
import { openDevice } from "../../backends/wgsl/device.ts";
import { WgslBackend } from "../../backends/wgsl/runtime.ts";
import { compileModule, slowLaunch, slowModule } from "./wgsl-support.ts";

const found = await openDevice();
const backend = WgslBackend.on(found);
const { launch, y } = await slowLaunch(backend, 1000);
launch.launch();
const reading = y.read();
found.device.destroy();

const steps: [doing: string, error: string, message: string][] = [];
async function note(doing: string, act: () => unknown): Promise<void> {
  try {
    await act();
    steps.push([doing, "none", ""]);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    steps.push([doing, error.name, error.message]);
  }
}
await note("a read under way", () => reading);
await note("synchronize", () => backend.synchronize());
await note("compile", () => compileModule(backend, "other", slowModule));
await note("allocate", () => backend.allocate(4));
await note("write", () => backend.write(y.storage, 0, new Uint8Array(4)));
await note("read", () => backend.read(y.storage, 0, 4));
await note("launch", () => launch.launch());
await note("timeUs", () => launch.timeUs(1));
await backend.dispose();
console.log(JSON.stringify(steps));
