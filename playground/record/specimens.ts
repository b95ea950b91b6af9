/** Everything that is recorded. */
import { arithmeticSpecimens } from "./arithmetic.ts";
import { conversionSpecimens } from "./conversions.ts";
import { gemmSpecimens } from "./gemms.ts";
import { matrixSpecimens } from "./matrix.ts";
import type { Specimen } from "./specimen.ts";

export function specimens(): readonly Specimen[] {
  return [...conversionSpecimens(), ...arithmeticSpecimens(), ...matrixSpecimens(), ...gemmSpecimens()];
}
