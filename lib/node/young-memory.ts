// The memory of chunks, which usually are garbage soon. V8 12 (Node 20 and 22) frees such memory with a collection of the young
// generation after 32 MiB. From V8 13 on (Node 24) it waits for 128 MiB, but before that it marks the whole heap, after some 30 MiB.
// Only a process that was started with `--expose-gc` can ask for the collection that V8 12 did.

/**
 * Bytes of chunks after which a collection of the young generation is due. The handler may allocate as much again, for what it
 * makes of the chunks.
 */
export const COLLECT_AFTER = 16 * 1024 * 1024

let allocated = 0

/** Counts the memory of a chunk. Collects the young generation when it is due, if the process exposes `gc`. */
export function countChunk (size: number): void {
  allocated += size
  if (allocated < COLLECT_AFTER) return
  allocated = 0
  globalThis.gc?.({ type: 'minor' })
}
