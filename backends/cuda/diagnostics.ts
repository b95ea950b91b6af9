/** Reads what CUDA's compilers print: errors, traced back to TypeScript lines, and the resources that kernels use. */
import { CompileError } from "../../dsl/errors.ts";
import type { Location } from "../../dsl/source.ts";
import { workingDirectory } from "./cache.ts";

/** What ptxas says of one kernel. Bytes are per thread for stack and spills, per block for static shared memory. */
export interface KernelResources {
  readonly entry: string;
  readonly registers: number;
  readonly stackBytes: number;
  readonly spillStoreBytes: number;
  readonly spillLoadBytes: number;
  readonly sharedBytes: number;
}

/** Parses the output of `ptxas -v`: one entry per kernel. */
export function kernelResources(log: string): readonly KernelResources[] {
  const sections = log.split(/Compiling entry function '/).slice(1);
  return sections.map((text) => {
    const count = (pattern: RegExp) => Number(pattern.exec(text)?.[1] ?? 0);
    return {
      entry: text.slice(0, text.indexOf("'")),
      registers: count(/Used (\d+) registers/),
      stackBytes: count(/(\d+) bytes stack frame/),
      spillStoreBytes: count(/(\d+) bytes spill stores/),
      spillLoadBytes: count(/(\d+) bytes spill loads/),
      sharedBytes: count(/(\d+)(?:\+\d+)? bytes smem/),
    };
  });
}

export interface FailedCompilation {
  readonly what: string;
  readonly source: string;
  readonly fileName: string;
  readonly log: string;
  /** Stops one step earlier; ptxas names lines of that text. */
  readonly ptx: () => Uint8Array | undefined;
}

/** An error that points at the TypeScript line behind the compiler's first complaint, and at the generated line. */
export function compilerError({ what, source, fileName, log, ptx }: FailedCompilation): CompileError {
  const complaint = frontEndError(log) ?? assemblerError(log, ptx);
  const hint = `The compiler's output:\n${log.trim() || "(nothing)"}`.replaceAll("\n", "\n    ");
  if (!complaint) return new CompileError(what, { hint });

  const { message, at } = complaint;
  const lines = at ? generatedLines(source, fileName, at) : [];
  // One TypeScript line may have become several: the compiler prints the one at fault.
  const line = lines.find(({ text }) => log.includes(`${text.trim()}\n`)) ?? lines[0];
  const related = line ? [{ what: `generated line \`${line.text.trim()}\``, at: place(fileName, line.number) }] : [];
  return new CompileError(`${what}: ${message}`, { at, related, hint });
}

interface Complaint {
  readonly message: string;
  readonly at?: Location | undefined;
}

/** `kernels/axpy.ts(9): error: identifier "x" is undefined` */
function frontEndError(log: string): Complaint | undefined {
  const match = /^(.+?)\((\d+)\): (?:catastrophic )?error(?: #[\w-]+)?\s*: (.+)$/m.exec(log);
  return match ? { message: match[3] ?? "", at: place(match[1] ?? "", Number(match[2])) } : undefined;
}

/** `ptxas /tmp/x.ptx, line 37; error   : Unknown modifier '.x'`, or without a line, when a whole kernel is at fault. */
function assemblerError(log: string, ptx: () => Uint8Array | undefined): Complaint | undefined {
  const match = /^ptxas\b(?:.*\bline (\d+);)?.*?\b(?:error|fatal)\s*: (.+)$/m.exec(log);
  if (!match) return undefined;
  const [, line, message = ""] = match;
  return { message, at: line === undefined ? undefined : ptxLocation(ptx(), Number(line)) };
}

/** The `.loc file line column` in force at a line of PTX; `.file` directives, at the end, name the files. */
function ptxLocation(ptx: Uint8Array | undefined, line: number): Location | undefined {
  const lines = new TextDecoder().decode(ptx).replace(/\0+$/, "").split("\n");
  const above = lines.slice(0, line).reverse();
  const loc = /^\s*\.loc\s+(\d+)\s+(\d+)/.exec(above.find((text) => /^\s*\.loc\s/.test(text)) ?? "");
  if (!loc) return undefined;
  const file = lines.map((text) => /^\s*\.file\s+(\d+)\s+"(.*?)"/.exec(text)).find((match) => match?.[1] === loc[1]);
  return file ? place(relative(file[2] ?? ""), Number(loc[2])) : undefined;
}

/** PTX holds full paths, `#line` and messages those relative to the working directory. */
function relative(path: string): string {
  const folder = `${workingDirectory()}/`; // no path begins with "undefined/"
  return path.startsWith(folder) ? path.slice(folder.length) : path;
}

/** The generated lines that `#line` directives attribute to a place. */
function generatedLines(source: string, fileName: string, at: Location): { number: number; text: string }[] {
  const lines: { number: number; text: string }[] = [];
  let [file, line] = [fileName, 1];
  for (const [index, text] of source.split("\n").entries()) {
    const directive = /^\s*#line\s+(\d+)(?:\s+"(.*)")?/.exec(text);
    if (directive) {
      [file, line] = [directive[2] ?? file, Number(directive[1])];
      continue;
    }
    if (line === at.line && file === at.file && text.trim()) lines.push({ number: index + 1, text });
    line++;
  }
  return lines;
}

/** Compilers name no column of the TypeScript line. */
function place(file: string, line: number): Location {
  return { file, line, column: 1 };
}
