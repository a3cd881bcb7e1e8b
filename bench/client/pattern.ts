// What is sent: bytes that repeat only after 64 KiB, so that a byte lost, doubled or moved is seen wherever it happens.

export const PERIOD = 64 * 1024

/** Two periods, to compare a piece that runs over the end of one. */
export const PATTERN: Buffer = (() => {
  const pattern = Buffer.allocUnsafe(2 * PERIOD)
  let state = 1
  for (let i = 0; i < PERIOD; i++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    pattern[i] = pattern[i + PERIOD] = 97 + (state >>> 16) % 26
  }
  return pattern
})()

/** Whether `bytes[from, to)` is what stands at `offset` of the endless pattern. */
export function matches (bytes: Buffer, from: number, to: number, offset: number): boolean {
  while (from < to) {
    const start = offset % PERIOD
    const size = Math.min(to - from, PERIOD)
    if (bytes.compare(PATTERN, start, start + size, from, from + size) !== 0) return false
    from += size
    offset += size
  }
  return true
}

/** The same for the first and the last byte alone: cheap enough for every piece of a timed round. */
export function seemsToMatch (bytes: Buffer, from: number, to: number, offset: number): boolean {
  return bytes[from] === PATTERN[offset % PERIOD] && bytes[to - 1] === PATTERN[(offset + to - from - 1) % PERIOD]
}
