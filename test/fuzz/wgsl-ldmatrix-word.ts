/**
 * swiftshader (SwiftShader (Dawn)), compared with simulator:
 *   Dawn refused the WGSL of kernel "program":
 *     cannot index type 'i32'
 *     WGSL line 21: r[i] = load_s_i32(e);
 * Ours, mended: a matrix of 4-byte elements is one element a lane, which is no vector in WGSL. stmatrix had it too.
 */
import { HostTensor, i32, kernel, output } from "tegula";
import { openWgsl, run } from "tegula/wgsl";

const program = kernel({ name: "program", grid: 1, block: 32, params: { y: output(i32, [32]) } }, (t) => {
  const { y } = t.pdl.wait();
  const s0 = t.shared(i32, [32, 4]);
  s0.storeVec([t.lane, 0], t.pack(t.lane, t.lane, t.lane, t.lane));
  t.warpBarrier();
  t.stmatrix(s0, [t.lane, 0], t.lane.add(100));
  t.warpBarrier();
  const r1 = t.reg(i32, t.ldmatrix(s0, [t.lane.xor(1), 0], 1).lane(0));
  y.store([t.lane], r1);
});
const device = await openWgsl({ device: "swiftshader" });
const results = await run(device, program, {});
// What simulator says.
const row = (lane: number) => Math.floor(lane / 4) ^ 1;
const expected = HostTensor.from(
  i32,
  [32],
  Array.from({ length: 32 }, (_, lane) => 100 + 4 * row(lane) + (lane % 4)),
);
if (String(results.y.values()) !== String(expected.values())) {
  console.error(`${results.y.values()} instead of ${expected.values()}`);
  process.exitCode = 1;
}
await device.dispose();
