/** Uses the WGSL backend, then ends in the way that its argument names. The parent sees whether the process ends by itself. */
import { openWgsl } from "../../backends/wgsl/runtime.ts";
import { compileModule, slowLaunch, slowModule } from "./wgsl-support.ts";

const [style = "idle", rounds = "20000000"] = process.argv.slice(2);
const backend = await openWgsl();
const { launch, y } = await slowLaunch(backend, Number(rounds));
launch.launch();
const { storage } = y;
console.log("started");

if (style === "idle") {
  await backend.synchronize();
} else if (style === "dispose") {
  await backend.synchronize();
  await backend.dispose();
  await backend.dispose();
} else if (style === "dispose while pending") {
  await backend.dispose();
} else if (style === "dispose while reading") {
  const read = backend.read(storage, 0, 4).catch((error: unknown) => console.log(String(error)));
  await backend.dispose();
  await read;
} else if (style === "pending") {
  // Nothing waits for the launch.
} else if (style === "reading") {
  void backend.read(storage, 0, 4);
} else if (style === "throw") {
  throw new Error("on purpose");
} else if (style === "throw later") {
  await backend.synchronize();
  setTimeout(() => {
    throw new Error("on purpose");
  }, 1);
} else if (style === "exit while compiling") {
  void compileModule(backend, "other", { ...slowModule, source: slowModule.source.replaceAll("1664525", "22695477") });
  setTimeout(() => process.exit(3), 5);
} else if (style === "exit") {
  process.exit(3);
} else {
  throw new Error(`no style "${style}"`);
}
