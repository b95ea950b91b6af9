import { gemmBf16, gemmReference, randomTensor, seededRandom, checkBits } from "../kernels/index.ts";
import { bf16, f32, size, HostTensor } from "../dsl/index.ts";
import { openWgsl, run } from "../backends/wgsl/index.ts";
const d = await openWgsl();
for (const [M,N,K,o] of [[70,72,136,{tileM:64,tileN:64}],[70,73,77,{tileM:64,tileN:64}],[20,40,72,{}],[130,40,200,{tileM:128,tileN:32,stages:2}]] as const) {
  try {
  const s = performance.now();
  const k = gemmBf16({M,N,K,out:f32,...o} as never);
  const r = seededRandom(3);
  const x = randomTensor(bf16,[M,K],"integers",r), w = randomTensor(bf16,[N,K],"integers",r);
  const { y } = await run(d, k as never, { x, w, y: HostTensor.filled(f32,[M,N],0) } as never) as any;
  console.log(M,N,K, checkBits(y, gemmReference(x,w).y), (performance.now()-s).toFixed(0)+"ms");
  } catch (e) { console.log(M,N,K,String((e as Error).stack).slice(0,1500)); }
}
await d.dispose();
