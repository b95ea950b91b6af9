/**
 * Makes a failing program small. It works on the choices that made the program: leaves out spans (a statement, an operand, a
 * case), puts inner spans in the place of outer ones of the same label, and lowers what remains towards 0, which is the
 * simplest answer everywhere. A candidate is taken when it still fails and its choices are fewer, or as many and smaller.
 */
import { Choices, type Span } from "./choices.ts";

/** Programs that are asked about at once. */
const width = 6;

/**
 * The smallest choices found. `generate` makes a program from choices, `fails` says whether it still shows the fault. Ends
 * when nothing smaller fails, or at `deadlineMs` (of performance.now()).
 */
export async function shrink<P>(
  start: readonly number[],
  generate: (choices: Choices) => P,
  fails: (program: P) => Promise<boolean>,
  deadlineMs: number,
): Promise<readonly number[]> {
  const seen = new Set<string>();
  const replay = (answers: readonly number[]): { readonly choices: Choices; readonly program: P } => {
    const choices = Choices.replay(answers);
    return { choices, program: generate(choices) };
  };
  let best = replay(start).choices;

  /** Tries all that a pass proposes. When something smaller fails, it goes on from there, at the same place. */
  const improve = async (pass: Pass): Promise<void> => {
    let proposals = pass(best);
    let place = 0;
    while (place < proposals.length && performance.now() < deadlineMs) {
      const batch: (ReturnType<typeof replay> & { readonly at: number })[] = [];
      for (; place < proposals.length && batch.length < width; place++) {
        const candidate = replay(proposals[place]?.() ?? []);
        const key = candidate.choices.taken.join();
        if (seen.has(key) || !isSmaller(candidate.choices.taken, best.taken)) continue;
        seen.add(key);
        batch.push({ ...candidate, at: place });
      }
      const verdicts = await Promise.all(batch.map(({ program }) => fails(program)));
      const found = batch[verdicts.indexOf(true)];
      if (!found) continue;
      best = found.choices;
      proposals = pass(best);
      place = found.at;
    }
  };

  // What one pass did may make room for another.
  let before: readonly number[];
  do {
    before = best.taken;
    for (const pass of [withoutSpans, withInnerSpans, withZeros, lowered]) await improve(pass);
  } while (best.taken !== before && performance.now() < deadlineMs);
  return best.taken;
}

/** What to try instead of choices, in order; made when it is asked for. */
type Pass = (best: Choices) => readonly (() => readonly number[])[];

/** Fewer choices are smaller, then lower ones, from the first on. */
function isSmaller(a: readonly number[], b: readonly number[]): boolean {
  if (a.length !== b.length) return a.length < b.length;
  const i = a.findIndex((x, k) => x !== b[k]);
  return i >= 0 && (a[i] ?? 0) < (b[i] ?? 0);
}

/** Puts others in the place of the choices of each span, the longest first. */
const withSpans =
  (others: (span: Span, best: Choices) => readonly (readonly number[])[]): Pass =>
  (best) =>
    longestFirst(best.spans).flatMap((span) =>
      others(span, best).map((other) => () => best.taken.toSpliced(span.start, span.end - span.start, ...other)),
    );

const longestFirst = (spans: readonly Span[]): readonly Span[] =>
  spans.toSorted((a, b) => b.end - b.start - (a.end - a.start));

const withoutSpans = withSpans(() => [[]]);

const withInnerSpans = withSpans(({ label, start, end }, { taken, spans }) => {
  const inner = spans.filter((span) => span.label === label && span.start > start && span.end <= end);
  return longestFirst(inner)
    .slice(0, 6)
    .map((span) => taken.slice(span.start, span.end));
});

const withZeros = withSpans(({ start, end }) => [new Array<number>(end - start).fill(0)]);

const lowered: Pass = ({ taken }) =>
  taken.flatMap((x, i) =>
    [0, Math.floor(x / 2), x - 1].filter((y) => y < x && y >= 0).map((y) => () => taken.with(i, y)),
  );
