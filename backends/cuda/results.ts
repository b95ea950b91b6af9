/** CUresult: what the driver answers, in words, and which answers mean that a context is lost. */
import koffi from "koffi";
import type { DriverApi } from "./driver.ts";

export const outOfMemory = 2;
export const stubLibrary = 34;
export const noDevice = 100;
export const notReady = 600;
export const contextDestroyed = 709;
export const captureInvalidated = 901;
export const captureUnjoined = 904;
export const graphUpdateRefused = 910;

/** The image is not for this device or driver: invalid image, no binary for GPU, unsupported PTX version, JIT missing or off. */
export const refusedImage: ReadonlySet<number> = new Set([200, 209, 218, 221, 222, 223]);

/** What a launch asked for can't be had: out of resources, too many blocks at once, a cluster size that doesn't exist. */
export const refusedLaunch: ReadonlySet<number> = new Set([701, 720, 912]);

/**
 * Answers to a launch when another library of this thread has made its own context current: invalid context, invalid handle,
 * destroyed context. Nothing was launched.
 */
export const wrongContext: ReadonlySet<number> = new Set([201, 400, contextDestroyed]);

/**
 * After these, every call on the context answers the same: ECC, NVLink, contained, illegal address, launch timeout,
 * destroyed context, assert, hardware stack, illegal instruction (seen of shared memory outside, too), misaligned address,
 * address space, program counter, launch failed (also `trap`), tensor memory leak. (CUDA driver API, "Data types used by
 * CUDA driver".)
 */
const lostContext: ReadonlySet<number> = new Set([
  214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721,
]);

export function losesContext(result: number): boolean {
  return lostContext.has(result);
}

/** E.g. "CUDA_ERROR_ILLEGAL_ADDRESS (700: an illegal memory access was encountered)". */
export function describeResult(api: DriverApi, result: number): string {
  const text = new BigUint64Array(1);
  const ask = (f: DriverApi["cuGetErrorName"]) =>
    f(result, text) === 0 && text[0] ? koffi.decode.string(text[0]) : "";
  const name = ask(api.cuGetErrorName) || "an unknown CUDA error";
  const meaning = ask(api.cuGetErrorString);
  return meaning ? `${name} (${result}: ${meaning})` : `${name} (${result})`;
}
