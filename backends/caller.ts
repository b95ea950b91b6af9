/** Where, outside this folder, something was asked for: a later error names that line beside its own. */
import { fileURLToPath } from "node:url";
import { relative } from "node:path";
import type { Location } from "../dsl/source.ts";

const here = fileURLToPath(new URL(".", import.meta.url));

/** The innermost stack frame outside `backends/`, as Node prints it: through source maps, where they are on. */
export function callerOfBackends(): Location {
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 20;
  const frames = (new Error().stack ?? "").split("\n").slice(1);
  Error.stackTraceLimit = stackTraceLimit;
  for (const frame of frames) {
    const match = /(?:\(|at (?:async )?)((?:file:\/\/|\/)[^()]*):(\d+):(\d+)\)?$/.exec(frame);
    if (!match) continue;
    const [, script = "", line, column] = match;
    const path = script.startsWith("file://") ? fileURLToPath(script) : script;
    if (path.startsWith(here)) continue;
    return { file: fromHere(path), line: Number(line), column: Number(column) };
  }
  return { file: "<unknown>", line: 0, column: 0 };
}

/** As a path from the working directory, if it lies there and that still exists. */
function fromHere(path: string): string {
  try {
    const folder = process.cwd();
    return path.startsWith(`${folder}/`) ? relative(folder, path) : path;
  } catch {
    return path;
  }
}
