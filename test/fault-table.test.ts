/** Every way in which Tegula is known to fail, and the tests that make it fail so on purpose. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

/**
 * For each fault: files of tests, and in each the whole titles of those that produce it. Files of "cuda-gpu" are skipped without
 * a GPU, so no fault has these alone.
 */
const table: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  // What is missing.
  "no driver, or another library in its place": {
    "cuda-faults": ["lists what it tried when there is no driver", "says what to do when cuInit answers %i"],
    doctor: ["blames variables that lead nowhere, folders that can't be used, and finds nothing that runs"],
  },
  "no device": {
    "cuda-driver": ["says what is there when all are too old, and when there is none"],
    "cuda-faults": ["says that there is no such device", "says what to do when cuInit answers %i"],
  },
  "device too old": { "cuda-driver": ["says what is there when all are too old, and when there is none"] },
  "driver too old: calls that it lacks": { "cuda-faults": ["lists what it tried when there is no driver"] },
  "driver older than the compiler": {
    "cuda-faults": ["explains a cubin of a compiler that is newer than the driver"],
  },
  "no compiler": { "cuda-compile": ["lists what it tried when there is no compiler"] },
  "no CUDA at all: WGSL runs": { "cuda-faults": ["WGSL runs where neither driver nor compiler is"] },

  // Code that can't be made or loaded.
  "NVRTC's or nvcc's error, mapped to the TypeScript line": {
    "cuda-faults": ["maps the compiler's complaint to TypeScript"],
    "cuda-compile": [
      "traces a C++ error to the TypeScript line",
      "traces an error of the assembler to the TypeScript line",
    ],
    "cuda-gpu-faults": ["a compiler's error names the TypeScript line"],
  },
  "cubin of another architecture": {
    "cuda-faults": ["explains a cubin of another architecture"],
    "cuda-gpu-faults": ["launch refused: says which limit, and goes on"],
  },
  "names with NUL, names that inject code": {
    "cuda-faults": ["a NUL in a name is refused: no C string holds it"],
    "mistakes-declaration": ["a name that is code", "a parameter's name that is code", "a size's name that is code"],
    cache: ["makes a folder that is its user's alone, with one file per kernel, named by a hash"],
    "cuda-compile": ["refuses names and architectures that would reach a command line, and NUL"],
  },

  // Launches that can't be.
  "too much shared memory": {
    "mistakes-memory": ["too much shared memory"],
    "cuda-driver": ["reserves shared memory above 48 KiB, and refuses what doesn't fit"],
    "cuda-gpu-faults": ["launch refused: says which limit, and goes on"],
  },
  "too many registers for the threads": {
    "cuda-driver": ["reserves shared memory above 48 KiB, and refuses what doesn't fit"],
    "cuda-gpu-faults": ["launch refused: says which limit, and goes on"],
  },
  "cluster too large": {
    "tile-cuda-driver": ["refuses clusters that don't fit"],
    "cuda-gpu-faults": ["launch refused: says which limit, and goes on"],
  },
  "launch refused by the driver": { "cuda-faults": ["says what a launch takes that CUDA refuses, and goes on"] },
  "grid 0 or too large": {
    "conformance/bind": ["an empty grid", "a grid too large"],
    "mistakes-declaration": ["too many blocks along y"],
    "cuda-launch": ["pass each kind of scalar bit for bit, and refuse what koffi or C would bend"],
  },

  // Arguments.
  "pointer not aligned for the loads": {
    "conformance/bind": ["a misaligned view"],
    "cuda-launch": ["refuse tensors that begin where the kernel doesn't expect it"],
    "cuda-streams": ["refuses pointers that can't be such memory, before it asks CUDA where it can"],
    "mistakes-memory": ["no promise about the base"],
  },
  "K not a multiple of the vector": {
    "conformance/bind": ["a size that is not the promised multiple"],
    "mistakes-memory": ["rows that break the alignment", "a row size without its fact"],
  },
  "NaN, 2^32, -1, 2^53": {
    "conformance/bind": ["NaN for an integer", "a u32 out of range"],
    "cuda-driver": ["refuses sizes that koffi or C would bend"],
    "cuda-launch": ["pass each kind of scalar bit for bit, and refuse what koffi or C would bend"],
    "cuda-faults": ["refuses freed memory, memory of another backend, and places outside"],
    "cuda-streams": ["refuses streams that are none, or of another device"],
  },
  "garbage of any other kind, in any call": {
    hostile: [
      "refuses garbage before the driver sees it",
      "refuses garbage before the device sees it",
      "refuse garbage while they trace",
    ],
    "mistakes-garbage": ["the methods of a %s"],
  },
  "detached buffers": {
    "conformance/bind": ["write and read what they were given, until they are freed"],
    "cuda-faults": ["refuses freed memory, memory of another backend, and places outside"],
    "cuda-launch": ["free what they allocated when writing it fails"],
  },
  "freed handles": {
    "conformance/bind": ["freed memory"],
    "wgsl-runtime": [
      "refuses everything after dispose, which may come twice and with work under way",
      "refuses memory that is freed, foreign, out of range, misplaced or too large",
    ],
    "cuda-faults": [
      "refuses freed memory, memory of another backend, and places outside",
      "ends a read whose memory or backend goes away meanwhile",
    ],
    "cuda-launch": ["refuse memory that goes away after they were bound"],
    "cuda-streams": [
      "are disposed of with `using`, once",
      "is unlocked after the copies that use it, and stays readable",
    ],
    "cuda-driver": ["gives everything back, once"],
  },
  "handles of another context, device or backend": {
    "conformance/bind": ["memory of another backend"],
    "cuda-driver": ["keeps two of them apart"],
    "cuda-streams": [
      "refuse what belongs to another device or is no event",
      "refuses streams that are none, or of another device",
    ],
    "cuda-graphs": ["go on their own backend's streams, not into another graph"],
  },
  "wrong thread": {
    "cuda-launch": ["recognize what came from another thread"],
    "cuda-gpu-faults": ["another thread can't use a tensor, but adopts its memory"],
  },
  "another library destroys the context": {
    "cuda-faults": ["says what to do when another library has destroyed the context"],
  },
  "another library makes its context current": {
    "cuda-launch": ["find their context again when another library has made its own current"],
    "cuda-gpu": ["finds its context again after other libraries changed it"],
  },

  // While it runs.
  "out of memory": {
    "cuda-faults": ["says what is free when memory runs out, and goes on"],
    "cuda-streams": ["says how much there was no room for"],
    "cuda-gpu-faults": ["out of memory: says what is free, and the next allocation works"],
  },
  "illegal address": {
    "cuda-faults": [
      "says which kernel destroyed the context, to this call and every later one, also when all was disposed",
      "takes the context for lost after CUresult %i",
    ],
    "cuda-gpu-faults": ["illegal address", "outside a tensor", "shared memory outside"],
  },
  "misaligned address": {
    "cuda-faults": ["takes the context for lost after CUresult %i"],
    "cuda-gpu-faults": ["misaligned address"],
  },
  "trap, launch failure": {
    "cuda-faults": ["takes the context for lost after CUresult %i"],
    "cuda-gpu-faults": ["trap"],
  },
  "lost context: every later call says so, and what to do": {
    "cuda-faults": [
      "says which kernel destroyed the context, to this call and every later one, also when all was disposed",
    ],
    "cuda-gpu-faults": ["%s: the context is lost, and every later call says so at once"],
  },
  "an error seen by a later call": {
    "cuda-faults": ["lists the suspects when several launches were under way; debug mode finds the one"],
    "cuda-streams": ["name the kernels of every stream when the context is lost"],
    "cuda-graphs": ["keep a read's promise, and name their kernels when the context is lost"],
    "cuda-gpu-faults": [
      "an error that is seen late names all that it may come from, with their lines",
      "an error in a graph names the graph's kernels",
      "in debug mode the launch itself throws, and names the one",
    ],
  },

  // WGSL.
  "no adapter": {
    "wgsl-device": ["says that a driver gives no adapter", "says what was tried and what gives a device"],
  },
  "device lost: every later call says so, and after which kernel": {
    "wgsl-device": ["ends everything under way and after it, naming the last kernel"],
    "wgsl-runtime": ["reports a lost device, naming the last kernel"],
  },
  "WGSL's error, with its line": {
    "wgsl-runtime": ["gives the message and the line when the WGSL is broken, or the pipeline impossible"],
  },
  "validation error of a launch": {
    "wgsl-runtime": ["names the kernel of an invalid launch at the next synchronize, once"],
  },
  "limits of WebGPU exceeded": {
    "wgsl-runtime": ["refuses memory that is freed, foreign, out of range, misplaced or too large"],
    "tile-wgsl": ["scratch beside 8 tensors", "a named barrier of two sizes"],
  },
  "warps that wait for ever": { "tile-wgsl": ["reports warps that wait for ever, naming the kernel"] },
  "Dawn's objects collected, or the process ended, with work under way": {
    "wgsl-device": ["ends by itself: %s"],
  },
  "processes that unpack SwiftShader at once, or find it damaged": {
    "wgsl-device": ["works in processes that start at once on an empty cache", "doesn't trust a folder with a file %s"],
  },

  // The cache of compiled kernels.
  "two processes compiling one key": {
    "cache-processes": ["agree on an empty cache", "agree while they evict each other's entries"],
  },
  "kill -9 in mid-write": {
    "cache-processes": ["kill -9 at any moment leaves whole entries, and the next process has every kernel right"],
  },
  "full or read-only disk": {
    "cache-processes": [
      "that is full, everything is compiled, and what fits is kept",
      "that is read-only, what is there is used, and the rest compiled",
    ],
  },
  "truncated or flipped entry": {
    "cache-damage": [
      "is refused at every other length",
      "is refused with any bit flipped",
      "random damage is a miss, and is repaired",
    ],
  },
  "poisoned cache folder": {
    cache: [
      "makes a folder that is its user's alone, with one file per kernel, named by a hash",
      "a folder that others can write to",
      "a folder that the group can write to",
      "a link in its place",
      "someone else's folder",
    ],
    "cache-damage": ["a folder in an entry's place is a miss, and stays", "a file that others can write to"],
    doctor: ["blames variables that lead nowhere, folders that can't be used, and finds nothing that runs"],
  },

  // Graphs.
  "capture with allocation, module load, wait": {
    "cuda-graphs": ["everything that can't be part of it is refused before CUDA hears of it"],
    "cuda-gpu": ["ends a capture that fails, and captures again"],
  },
  "capture that another library spoils": {
    "cuda-graphs": ["another library that waits or allocates spoils it, and that is said"],
  },
  "capture with an unjoined stream": {
    "cuda-graphs": ["another library that waits or allocates spoils it, and that is said"],
    "cuda-gpu-faults": ["a capture that another library leaves unjoined is no graph, and the next one is"],
  },
  "replay with a freed buffer": {
    "cuda-graphs": ["own what they captured: memory that was freed meanwhile stays until they go"],
    "cuda-gpu": ["keeps what a graph captured until the graph goes, and updates it"],
  },
  "PDL consumer without a wait, or with a late one": {
    "pdl-violations": ["%s, without any wait", "%s, waiting at its end", "%s before the wait"],
    prove: ["%s is right every time"],
    pdl: ["the verifier rejects a consumer that reads before it waits, and names both lines"],
  },
};

const rows = Object.entries(table);

test("no fault was dropped from the table", () => expect(rows.length).toBeGreaterThanOrEqual(49));

test.each(rows)("%s", (_, files) => {
  expect(Object.keys(files).some((file) => !file.startsWith("cuda-gpu"))).toBe(true);
  for (const [file, titles] of Object.entries(files)) {
    const lines = readFileSync(new URL(`${file}.test.ts`, import.meta.url), "utf8").split("\n");
    const isRun = (line: string): boolean => !/^\s*\/\/|\.(skip|todo)\(/.test(line);
    const missing = titles.filter((title) => !lines.some((line) => line.includes(`"${title}"`) && isRun(line)));
    expect(missing, `${file}.test.ts has no such tests`).toEqual([]);
  }
});
