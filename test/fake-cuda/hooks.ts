/** The stand-in driver for the tests of one `describe`. */
import { afterAll, afterEach, beforeAll, beforeEach, expect } from "vitest";
import { buildFakeCuda, type FakeCuda } from "./build.ts";

/** Built before the first test, as if new before each; after each, nothing illegal may have been asked of it. */
export function standInDriver(): FakeCuda {
  const fake = {} as FakeCuda; // what it can do is there as soon as a test runs
  beforeAll(() => void Object.assign(fake, buildFakeCuda()));
  beforeEach(() => fake.reset());
  afterEach(() => expect(fake.violations()).toBe(0));
  afterAll(() => fake.remove());
  return fake;
}
