/** Building blocks of generated code that C and WGSL share: indented lines, and expressions with just enough parentheses. */

/** An expression's text. `operator` is its outermost infix operator, if it has one. */
export interface Text {
  readonly code: string;
  readonly operator?: string;
}

export const atom = (code: string): Text => ({ code });

/** Arguments that are comparisons get parentheses: WGSL takes `f(a < b, c > d)` for a template. */
export const call = (name: string, ...args: readonly Text[]): Text =>
  atom(`${name}(${args.map((arg) => (arg.operator === "<" ? term(arg) : arg.code)).join(", ")})`);

const tightness: { readonly [operator: string]: number } = { "*": 2, "/": 2, "%": 2, "+": 1, "-": 1 };
const comparisons: ReadonlySet<string> = new Set(["==", "!=", "<", "<=", ">", ">="]);

/**
 * `left operator right`. Leaves parentheses out only where C and WGSL agree and no reader could doubt: among + - * / %,
 * under a comparison of such, and in chains of one logical operator.
 */
export function infix(operator: string, left: Text, right: Text): Text {
  return { code: `${side(left, operator, false)} ${operator} ${side(right, operator, true)}`, operator };
}

/** The text in parentheses unless it is a single term. */
export function term({ code, operator }: Text): string {
  return operator === undefined ? code : `(${code})`;
}

function side(text: Text, outer: string, right: boolean): string {
  const { operator: inner } = text;
  if (inner === undefined) return text.code;
  const [innerTightness, outerTightness] = [tightness[inner], tightness[outer]];
  if (innerTightness !== undefined && outerTightness !== undefined) {
    const binds = innerTightness > outerTightness || (innerTightness === outerTightness && !right);
    return binds ? text.code : `(${text.code})`;
  }
  if (comparisons.has(outer) && innerTightness !== undefined) return text.code;
  if ((outer === "&&" || outer === "||") && comparisons.has(inner)) return text.code;
  if ((outer === "&&" || outer === "||") && inner === outer && !right) return text.code;
  return `(${text.code})`;
}

/** Lines with indentation. */
export class Lines {
  private readonly lines: string[] = [];
  private depth = 0;

  add(line: string): void {
    this.lines.push(line === "" || line.startsWith("#line") ? line : "  ".repeat(this.depth) + line);
  }

  /** `head {`, an indented body, `}`; with an `else {` body between where one is given. */
  block(head: string, body: () => void, otherwise?: () => void): void {
    this.add(`${head} {`);
    this.indented(body);
    if (otherwise) {
      this.add("} else {");
      this.indented(otherwise);
    }
    this.add("}");
  }

  private indented(body: () => void): void {
    this.depth++;
    body();
    this.depth--;
  }

  toString(): string {
    return this.lines.join("\n");
  }
}

/** The shortest decimal text that reads back as the same f32. `value` is finite. */
export function shortestF32(value: number): string {
  for (let digits = 1; digits <= 9; digits++) {
    const text = value.toPrecision(digits);
    if (Math.fround(Number(text)) === value) {
      const short = String(Number(text));
      return Object.is(value, -0) ? "-0.0" : /[.e]/.test(short) ? short : `${short}.0`;
    }
  }
  return String(value);
}
