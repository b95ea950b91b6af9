/** A kernel with its arguments, laid out so that launching it is one call of the driver. */
import { ArgumentError, DisposedError } from "../../dsl/errors.ts";
import { isWritten } from "../../dsl/ir.ts";
import type { Kernel } from "../../dsl/kernel.ts";
import type { Params } from "../../dsl/params.ts";
import type { Launch } from "../backend.ts";
import { type BoundArguments, changeScalars, requireWritableIn, type Scalars } from "../bind.ts";
import { wholeNumber } from "./checks.ts";
import { thread } from "./context.ts";
import type { DriverApi, FunctionHandle, HostAddress } from "./driver.ts";
import type { Lifetime } from "./lifetime.ts";
import type { LaunchPacket } from "./packet.ts";
import { CudaQueue, type Work } from "./queue.ts";
import type { Streams } from "./streams.ts";

export interface LaunchParts<P extends Params> {
  readonly kernel: Kernel<P>;
  readonly streams: Streams;
  readonly fn: FunctionHandle;
  readonly code: Lifetime;
  readonly bound: BoundArguments;
  /** Filled in, but for the stream. */
  readonly packet: LaunchPacket;
  /** What each launch takes of the device, in words. */
  readonly needs: string;
}

/** Made by `executable.bind(...)`. */
export class CudaLaunch<P extends Params = Params> implements Launch<P> {
  readonly kernel: Kernel<P>;
  readonly #streams: Streams;
  readonly #api: DriverApi;
  readonly #fn: FunctionHandle;
  readonly #code: Lifetime;
  /** Keeps the memory alive that the two addresses name. */
  readonly #packet: LaunchPacket;
  readonly #config: HostAddress;
  readonly #params: HostAddress;
  readonly #work: Work;
  #bound: BoundArguments;
  /** Where it was launched last, and the count at which that was checked. */
  #on: CudaQueue | undefined;
  #generation = -1;

  /** For the CUDA backend only. */
  constructor({ kernel, streams, fn, code, bound, packet, needs }: LaunchParts<P>) {
    this.kernel = kernel;
    this.#streams = streams;
    this.#api = streams.context.driver.api;
    this.#fn = fn;
    this.#code = code;
    this.#packet = packet;
    this.#config = packet.configAddress;
    this.#params = packet.paramsAddress;
    this.#bound = bound;
    const storages = bound.tensors.map(({ storage }) => streams.own(storage));
    this.#work = {
      kernels: [{ name: kernel.name, at: kernel.at, needs }],
      memory: [code, ...new Set(storages.map(({ lifetime }) => lifetime))],
      written: storages.filter((_, i) => isWritten(kernel.ir.tensors[i]?.role ?? "frozen")),
    };
  }

  /**
   * Enqueues one launch on a stream, or into the graph that is being captured: one call of the driver. What can have changed
   * since the last one is a few comparisons; the rest was checked when it was bound.
   * @throws DisposedError when memory, the executable, the stream or the backend is gone; ArgumentError when what it writes was frozen;
   * CaptureError; LaunchRefusedError, ContextLostError, DeviceError
   */
  launch(on: CudaQueue = this.#streams.main): void {
    const { context } = this.#streams;
    if (on !== this.#on || this.#generation !== thread.generation) this.#admit(on);
    on.beforeWriting(this.#work);
    if (thread.current !== context) context.makeCurrent();
    const result = this.#api.cuLaunchKernelEx(this.#config, this.#fn, this.#params, 0);
    if (result !== 0) this.#retry(result);
    on.enqueued(this.#work);
  }

  set(scalars: Partial<Scalars<P>>): void {
    const changed = changeScalars(this.kernel, this.#bound.scalars, scalars);
    for (const [index, scalar] of changed.entries()) this.#packet.setScalar(index, scalar);
    this.#bound = { ...this.#bound, scalars: changed };
  }

  /** Device time, by events around the launches; where enqueueing takes longer than running, the time of enqueueing. */
  async timeUs(launches: number): Promise<number> {
    wholeNumber("The number of launches", launches, 1, 1_000_000);
    const us = await this.#streams.main.timeUs(() => {
      for (let i = 0; i < launches; i++) this.launch();
    });
    return us / launches;
  }

  #admit(on: CudaQueue): void {
    const { name, ir } = this.kernel;
    this.#streams.assertLive();
    if (!(on instanceof CudaQueue) || !on.isOf(this.#streams)) {
      throw new ArgumentError(`${name}: launch(on) takes a stream of the backend and thread that compiled it`, {
        hint: "launch.launch(), launch.launch(cuda.stream), or launch.launch(on) with what cuda.capture(on => ...) gives",
      });
    }
    if (!this.#code.owned) throw new DisposedError(`${name} was launched after its executable was disposed`);
    for (const [index, tensor] of this.#bound.tensors.entries()) {
      const { name: parameter = "", role = "frozen" } = ir.tensors[index] ?? {};
      if (tensor.storage.freed) throw new DisposedError(`${name}: the memory of ${parameter} was freed`);
      requireWritableIn(this.kernel, parameter, role, tensor);
    }
    on.admit(`launching ${name}`, this.#work);
    this.#packet.setStream(CudaQueue.handleOf(on));
    this.#on = on;
    this.#generation = thread.generation;
  }

  #retry(refused: number): void {
    const launch = (api: DriverApi) => api.cuLaunchKernelEx(this.#config, this.#fn, this.#params, 0);
    this.#streams.context.retry(refused, `launching ${this.kernel.name}`, launch, this.#work.kernels[0]);
  }
}
