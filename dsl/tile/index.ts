/** Tiles, fragments, copies, matrix instructions and barriers, as part of `tegula`. */
export { copyAtoms, type CopyAtom } from "../atoms/copy.ts";
export { Mbarrier, Pipeline } from "./barrier.ts";
export { type CopyOptions, CopyPlan } from "./copy.ts";
export { Fragment, type FragmentRole } from "./fragment.ts";
export { TensorMapHandle } from "./tensor-map.ts";
export { Thread } from "./thread.ts";
export type { Cluster } from "./thread-sync.ts";
export { type Coordinate, Tile } from "./tile.ts";
export { Partition, ThreadMma, TiledMma, tiledMma, type TiledMmaOptions } from "./tiled-mma.ts";
