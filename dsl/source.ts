/**
 * Where in the author's files something was written. Every IR node carries a Location, so that compilers, profilers and
 * our own errors can name a TypeScript line.
 *
 * Reading a stack costs about 5 us, mapping it back through source maps 20 us and more; so positions are read raw and
 * mapped once per call site.
 */

import type { SourceMap } from "node:module";

/** A place in an author's file. `file` is relative to the working directory when inside it. Lines and columns start at 1. */
export interface Location {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

/** Whether something is a place, as JavaScript may hand in anything. */
export function isLocation(at: unknown): at is Location {
  if (typeof at !== "object" || at === null) return false;
  const { file, line, column }: { readonly [key in keyof Location]?: unknown } = at;
  return typeof file === "string" && typeof line === "number" && typeof column === "number";
}

/** The parts of V8's CallSite that are needed; https://v8.dev/docs/stack-trace-api */
interface CallSite {
  getScriptNameOrSourceURL(): string | null;
  getLineNumber(): number | null;
  getColumnNumber(): number | null;
}

const unknown: Location = Object.freeze({ file: "<unknown>", line: 0, column: 0 });
const mappedLocations = new Map<string, Location>();
const dslFolder = folderOf(import.meta.url);

/** The folder that a module lies in; `import.meta.url` says where. */
export function folderOf(module: string): string {
  return plainPath(new URL(".", module).href);
}

/** The innermost stack frame outside `dsl/`, and outside another folder that is ours: the author's line. */
export function callerLocation(ours = dslFolder): Location {
  const sites = rawStack();
  for (const [depth, site] of sites.entries()) {
    const script = site.getScriptNameOrSourceURL() ?? "";
    // Array.map and the like have no script.
    const path = plainPath(script);
    if (!script || path.startsWith(dslFolder) || path.startsWith(ours)) continue;
    const key = `${script}:${site.getLineNumber()}:${site.getColumnNumber()}`;
    let location = mappedLocations.get(key);
    if (!location) {
      location = mapped(site, depth);
      mappedLocations.set(key, location);
    }
    return location;
  }
  return unknown;
}

/** A variable that a statement of the author's declares. */
interface Variable {
  readonly name: string;
  /** Differs between any two declarations. */
  readonly place: string;
}

const declarator = /(?:\b(?:const|let|var)|,)\s+([A-Za-z][A-Za-z0-9]*)\s*(?:=(?![=>])|:[^=>,]*=(?![=>]))/g;
const arrayDeclarator = /\b(?:const|let|var)\s+\[([^[\]=]*)\]\s*=(?![=>])\s*/g;
const loopVariable = /\bfor\s*\(\s*(?:const|let)\s+([A-Za-z][A-Za-z0-9]*)\s+of\b/g;

/** The variable that the author's statement declares at a call, if it does: generated code uses the same names. */
export function variableNameAt(at: Location): string | undefined {
  return variableAt(at)?.name;
}

/** Whether two calls stand in the declaration of one variable. */
export function inOneDeclaration(a: Location, b: Location): boolean {
  const place = variableAt(a)?.place;
  return place !== undefined && place === variableAt(b)?.place;
}

/** The variable of the `for (const i of t.range(...))` that the author's line begins. */
export function loopVariableAt(at: Location): string | undefined {
  return [...statementBefore(at).text.matchAll(loopVariable)].at(-1)?.[1];
}

function variableAt(at: Location): Variable | undefined {
  if (!variablesRead.has(at)) variablesRead.set(at, readVariable(at));
  return variablesRead.get(at);
}

function readVariable(at: Location): Variable | undefined {
  const { text, line } = statementBefore(at);
  const [one, list] = [[...text.matchAll(declarator)].at(-1), [...text.matchAll(arrayDeclarator)].at(-1)];
  const place = `${at.file}:${line}`;
  if (one?.[1] && one.index > (list?.index ?? -1)) return { name: one[1], place: `${place}:${one.index}` };
  const position = list && elementAt(text.slice(list.index + list[0].length));
  const name = position === undefined ? undefined : list?.[1]?.split(",")[position]?.trim();
  if (!name || !/^[A-Za-z][A-Za-z0-9]*$/.test(name)) return undefined;
  return { name, place: `${place}:${list?.index}:${position}` };
}

/** Which element of an array literal a text that begins with one ends in; undefined when it ends in none. */
function elementAt(text: string): number | undefined {
  let [depth, position] = [0, 0];
  for (const letter of text.replace(/"[^"]*"|'[^']*'/g, "")) {
    if ("([{".includes(letter)) depth++;
    else if (")]}".includes(letter)) depth--;
    else if (letter === "," && depth === 1) position++;
    if (depth === 0) return undefined;
  }
  return text ? position : undefined;
}

/** What stands before a call in its statement, which may have begun on an earlier line, and where that began. */
function statementBefore(at: Location): { readonly text: string; readonly line: number } {
  const lines = sourceLines(at.file) ?? [];
  let line = at.line;
  let text = (lines[line - 1] ?? "").slice(0, at.column);
  for (let above = lines[line - 2]; above !== undefined; above = lines[line - 2]) {
    const code = above.replace(/\s*\/\/.*$/, "");
    const goesOn = /(^|[^=>])=$|[([,]$/.test(code) || (/^\s*[.)\]]/.test(text) && !/[;{]$/.test(code));
    if (!goesOn || at.line - line >= mostStatementLines) break;
    text = `${code}\n${text}`;
    line--;
  }
  const from = text.lastIndexOf(";") + 1;
  return { text: " ".repeat(from) + text.slice(from), line };
}

/** Longer statements go on without a name. */
const mostStatementLines = 20;

const variablesRead = new Map<Location, Variable | undefined>();
const filesRead = new Map<string, readonly string[] | undefined>();

function sourceLines(file: string): readonly string[] | undefined {
  if (!filesRead.has(file)) filesRead.set(file, readLines(file));
  return filesRead.get(file);
}

function readLines(file: string): readonly string[] | undefined {
  // No import of node:fs, because the DSL also runs in browsers, where names are simply generated.
  const fs = globalThis.process?.getBuiltinModule?.("node:fs");
  try {
    return fs?.readFileSync(file, "utf8").split("\n");
  } catch {
    return undefined;
  }
}

function rawStack(): readonly CallSite[] {
  const { prepareStackTrace, stackTraceLimit } = Error;
  const holder: { stack?: unknown } = {};
  Error.prepareStackTrace = (_error, sites) => sites;
  Error.stackTraceLimit = 12;
  try {
    Error.captureStackTrace(holder, callerLocation);
    return Array.isArray(holder.stack) ? (holder.stack as readonly CallSite[]) : [];
  } finally {
    Error.prepareStackTrace = prepareStackTrace;
    Error.stackTraceLimit = stackTraceLimit;
  }
}

/** Where the run-time's source maps put a call site. */
function mapped(site: CallSite, depth: number): Location {
  const script = site.getScriptNameOrSourceURL() ?? "";
  const [line, column] = [site.getLineNumber() ?? 0, site.getColumnNumber() ?? 0];
  const entry = sourceMapOf(script)?.findEntry(line - 1, column - 1);
  if (entry && "originalSource" in entry) {
    return locate(entry.originalSource, entry.originalLine + 1, entry.originalColumn + 1);
  }
  // A tool that maps stacks by a hook (vitest): what it prints for the frame.
  const hook: unknown = Error.prepareStackTrace;
  return (typeof hook === "function" && printedFrame(depth)) || locate(script, line, column);
}

const sourceMaps = new Map<string, SourceMap | undefined>();

/** Node's own source map of a script (tsx, --enable-source-maps). Node parses it anew each time it is asked. */
function sourceMapOf(script: string): SourceMap | undefined {
  if (!sourceMaps.has(script)) {
    const module = globalThis.process?.getBuiltinModule?.("node:module");
    sourceMaps.set(script, module?.findSourceMap(script));
  }
  return sourceMaps.get(script);
}

function printedFrame(depth: number): Location | undefined {
  const { stackTraceLimit } = Error;
  const holder: { stack?: string } = {};
  Error.stackTraceLimit = depth + 1;
  try {
    Error.captureStackTrace(holder, callerLocation);
    const frame = (holder.stack ?? "").split("\n").filter((text) => /^\s*at /.test(text))[depth];
    const match = /\(?([^()\s]+(?: [^()\s]+)*):(\d+):(\d+)\)?$/.exec(frame?.replace(/^\s*at /, "") ?? "");
    if (!match) return undefined;
    const [, script = "", line, column] = match;
    return locate(script.replace(/^.*\(/, ""), Number(line), Number(column));
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}

function locate(script: string, line: number, column: number): Location {
  return Object.freeze({ file: relativePath(plainPath(script)), line, column });
}

function plainPath(script: string): string {
  return script.startsWith("file://") ? decodeURIComponent(script.slice("file://".length)) : script;
}

function relativePath(path: string): string {
  try {
    const folder = `${globalThis.process.cwd()}/`;
    return path.startsWith(folder) ? path.slice(folder.length) : path;
  } catch {
    return path; // browsers have no working directory, and that of a process may be deleted
  }
}
