/** Where, outside this folder, something was asked for: a later error names that line beside its own. */
import { callerLocation, folderOf, type Location } from "../dsl/source.ts";

const here = folderOf(import.meta.url);

/** The innermost stack frame outside `backends/` and `dsl/`. */
export function callerOfBackends(): Location {
  return callerLocation(here);
}
