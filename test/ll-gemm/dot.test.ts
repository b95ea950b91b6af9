/** See suite.ts. */
import { testFamily } from "./suite.ts";

testFamily("dot");
