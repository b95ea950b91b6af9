/** Where, outside this folder, something was asked for: a later error names that line beside its own. */
import type { Location } from "../dsl/source.ts";

const here = plainPath(new URL(".", import.meta.url).href);

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
    const path = plainPath(script);
    if (path.startsWith(here)) continue;
    return { file: fromHere(path), line: Number(line), column: Number(column) };
  }
  return { file: "<unknown>", line: 0, column: 0 };
}

/** Without node:url, which browsers don't have: the simulator runs there, too. */
function plainPath(script: string): string {
  return script.startsWith("file://") ? decodeURIComponent(script.slice("file://".length)) : script;
}

/** As a path from the working directory, if it lies there and that still exists. */
function fromHere(path: string): string {
  try {
    const folder = `${globalThis.process.cwd()}/`;
    return path.startsWith(folder) ? path.slice(folder.length) : path;
  } catch {
    return path;
  }
}
