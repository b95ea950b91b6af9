/** The one error of the layout algebra. Its message shows the layouts and says which condition they break. */
import { TegulaError } from "../errors.ts";
import { callerLocation } from "../source.ts";

/** An operation on layouts whose precondition doesn't hold; CuTe refuses to compile the same. */
export class LayoutError extends TegulaError {
  /** The message without place and hint. */
  readonly reason: string;

  constructor(reason: string, hint?: string) {
    const at = callerLocation();
    super(reason, { at: at.line ? at : undefined, hint }); // deep recursion can hide the author's line
    this.reason = reason;
  }
}

/** Runs a part of an operation; a refusal also shows the operands that the author gave. */
export function partOf<T>(operation: string, part: () => T): T {
  try {
    return part();
  } catch (error) {
    if (error instanceof LayoutError) throw new LayoutError(`${operation}: ${error.reason}`, error.hint);
    throw error;
  }
}
