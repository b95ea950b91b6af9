/** The one error of the layout algebra. Its message shows the layouts and says which condition they break. */
import { TegulaError } from "../errors.ts";
import { callerLocation } from "../source.ts";

/** An operation on layouts whose precondition doesn't hold; CuTe refuses to compile the same. */
export class LayoutError extends TegulaError {
  constructor(what: string, hint?: string) {
    super(what, { at: callerLocation(), hint });
  }
}
