/** One test that passes and one that is skipped; for test/summary-reporter.test.ts. */
import { expect, test } from "vitest";

test("adds", () => expect(1 + 1).toBe(2));
test.skip("waits for a GPU", () => undefined);
