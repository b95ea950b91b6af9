/** One test that passes; for test/summary-reporter.test.ts. */
import { expect, test } from "vitest";

test("multiplies", () => expect(2 * 3).toBe(6));
