/** Which line of the author's an error about a tensor names: not one of ours, whatever maps are in force. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";

/** Freezes by each way that there is, and asks for the impossible; the marked lines must be named. */
const program = `
import { f32, HostTensor } from "./dist/dsl/index.js";
import { deviceTensor, frozenTensor, openSimulator } from "./dist/backends/simulator/index.js";
const simulator = await openSimulator();
const host = HostTensor.filled(f32, [1], 0);
const found = {};
found.frozenTensor = frozenTensor(simulator, host).storage.frozenAt; // frozenTensor
found.freeze = [deviceTensor(simulator, host)].map((tensor) => tensor.freeze())[0].storage.frozenAt; // freeze
try {
  deviceTensor(simulator, f32, [-1]); // shape
} catch (error) {
  found.shape = error.at;
}
console.log(JSON.stringify(found));
`;

let folder = "";
beforeAll(() => {
  mkdirSync(".out", { recursive: true });
  folder = mkdtempSync(join(process.cwd(), ".out", "caller-")); // where the dependencies are found
  execFileSync(process.execPath, [".build.mjs", join(folder, "dist")]);
  writeFileSync(join(folder, "author.mjs"), program);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it.each([["plain"], ["--enable-source-maps"]])("the package names the author's line: node %s", (flag) => {
  const flags = flag === "plain" ? [] : [flag];
  const output = execFileSync(process.execPath, [...flags, "author.mjs"], { cwd: folder, encoding: "utf8" });
  const line = (marker: string) => program.split("\n").findIndex((text) => text.endsWith(`// ${marker}`)) + 1;
  const at = (marker: string) => ({ file: "author.mjs", line: line(marker), column: expect.any(Number) });
  const markers = ["frozenTensor", "freeze", "shape"];
  expect(JSON.parse(output)).toEqual(Object.fromEntries(markers.map((marker) => [marker, at(marker)])));
});
