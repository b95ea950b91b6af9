/**
 * Errors. Each kind of mistake has a class of its own; each message says what is wrong, where in the author's files, and
 * what to write instead.
 */
import { isLocation, type Location } from "./source.ts";

/** Parts of a message. `at` is the line at fault, `related` other lines that the mistake involves. */
export interface Explanation {
  readonly at?: Location | undefined;
  readonly related?: readonly { readonly what: string; readonly at: Location }[];
  /** What to write instead; one sentence or a line of code. */
  readonly hint?: string | undefined;
}

/** Base of every error that Tegula throws on purpose. */
export class TegulaError extends Error {
  declare readonly at: Location | undefined;
  declare readonly hint: string | undefined;

  constructor(what: string, { at, related = [], hint }: Explanation = {}) {
    const lines = [at ? `${what}\n  at ${formatLocation(at)}` : what];
    for (const other of related) lines.push(`  ${other.what} at ${formatLocation(other.at)}`);
    if (hint) lines.push(`  ${hint}`);
    super(lines.join("\n"));
    // Node prints an uncaught error's enumerable properties below its message, which has all of this already.
    for (const [key, value] of Object.entries({ name: new.target.name, at, hint })) {
      Object.defineProperty(this, key, { value, enumerable: false, configurable: true, writable: true });
    }
  }
}

/** `file:line:column`, the form that terminals and editors turn into a link. @throws ArgumentError for what is no location */
export function formatLocation(at: Location): string {
  if (!isLocation(at)) throw new ArgumentError("A location has a file, a line and a column");
  return `${at.file}:${at.line}:${at.column}`;
}

/** A value of the wrong dtype, lane count or kind reached an operation. */
export class DTypeError extends TegulaError {}
/** A JavaScript construct was applied to a run-time value (`!x`, `x + 1`, `break`), or a JavaScript value where only a run-time one makes sense. */
export class StagingError extends TegulaError {}
/** A value, register or tensor was used outside the block, loop or kernel that made it. */
export class ScopeError extends TegulaError {}
/** A shape, rank, size, index or configuration is not acceptable. */
export class ShapeError extends TegulaError {}
/** A name that can't stand in generated code. */
export class NameError extends TegulaError {}
/** A vector access whose alignment the known facts don't prove. */
export class AlignmentError extends TegulaError {}
/** An access that is certain to fall outside its tensor. */
export class OutOfBoundsError extends TegulaError {}
/** An order that programmatic dependent launch forbids: no wait, two waits, an access or a store before it. */
export class PdlError extends TegulaError {}
/** What runs beside the thread (copies, wgmma) was used before the wait that covers it, or is never waited for. */
export class OrderError extends TegulaError {}
/** A store to a tensor that is only read, or a load from one that is only written. */
export class RoleError extends TegulaError {}
/** IR that no author's function records: wrong types or scopes in hand-built nodes. */
export class VerifyError extends TegulaError {}
/** A barrier or warp-wide operation that some of its threads may not reach. */
export class DivergenceError extends TegulaError {}
/** A number, bit pattern or array that a dtype can't represent. */
export class ValueError extends TegulaError {}
/** Arguments of a launch that don't fit the kernel's parameters. */
export class ArgumentError extends TegulaError {}
/** A construct that this backend or device can't run. */
export class UnsupportedError extends TegulaError {}
/** A driver that lacks what Tegula calls, or can't run what a newer compiler made. */
export class DriverTooOldError extends UnsupportedError {}
/** A kernel that no launch can fit on this device: registers, threads, shared memory, cluster; says which limit. */
export class LaunchRefusedError extends UnsupportedError {}
/** No device, driver or compiler of the kind asked for; says what was tried and what gives one. */
export class NotFoundError extends TegulaError {}
/** No driver library. */
export class NoDriverError extends NotFoundError {}
/** No GPU, or none of that number. */
export class NoDeviceError extends NotFoundError {}
/** No compiler for the generated code. */
export class NoCompilerError extends NotFoundError {}
/** A compiler refused the generated source. */
export class CompileError extends TegulaError {}
/** Something can't become part of the graph that is being captured; or the capture, or the update of a graph, is wrong. */
export class CaptureError extends TegulaError {}
/** The device or its driver reported a failure. */
export class DeviceError extends TegulaError {}
/** No room for what was asked; freeing something and asking again works. */
export class OutOfMemoryError extends DeviceError {}
/** A kernel's fault destroyed all that this process has on the device. Later calls throw this, too; a new process can go on. */
export class ContextLostError extends DeviceError {}
/** An object was used after `dispose()` or `free()`. */
export class DisposedError extends TegulaError {}
