/** Ends this process when a call keeps the thread for too long, and names it; from another thread, since no timer of this one runs. */
import { Worker } from "node:worker_threads";

const textBytes = 2000;

/** The code of another thread, without imports: it looks four times a second how long the same call is under way. */
const code = `
const { workerData: { memory, timeLimitMs } } = require("node:worker_threads");
const [number, length] = [new Int32Array(memory, 0, 1), new Int32Array(memory, 4, 1)];
let [seen, since] = [0, Date.now()];
setInterval(() => {
  if (number[0] !== seen || number[0] === 0) [seen, since] = [number[0], Date.now()];
  if (Date.now() - since < timeLimitMs) return;
  const text = Buffer.from(Buffer.from(memory, 8, length[0])).toString("latin1");
  require("node:fs").writeSync(2, "\\nThis process ends, since a call doesn't return: " + text + "\\n");
  process.kill(process.pid, "SIGKILL");
}, 250);
`;

export class Watchdog implements AsyncDisposable {
  readonly #memory = new SharedArrayBuffer(8 + textBytes);
  /** Of the call under way, or 0; and how long its name is. */
  readonly #number = new Int32Array(this.#memory, 0, 1);
  readonly #length = new Int32Array(this.#memory, 4, 1);
  readonly #worker: Worker;
  #calls = 0;

  constructor(timeLimitMs: number) {
    this.#worker = new Worker(code, { eval: true, workerData: { memory: this.#memory, timeLimitMs } });
    this.#worker.unref();
  }

  /** Calls it, under watch. */
  watch<T>(name: string, call: () => T): T {
    this.#length[0] = Buffer.from(this.#memory, 8).write(name.slice(0, textBytes), "latin1");
    this.#number[0] = ++this.#calls;
    try {
      return call();
    } finally {
      this.#number[0] = 0;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate();
  }
}
