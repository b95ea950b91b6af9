/** Who asked for a kernel: messages, and what is generated, name that line and not one of this folder. */
import { callerLocation, folderOf, type Location } from "../dsl/source.ts";

const here = folderOf(import.meta.url);

/** The innermost stack frame outside `kernels/` and `dsl/`. */
export function callerOfKernels(): Location {
  return callerLocation(here);
}
