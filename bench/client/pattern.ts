// The content of all bodies. It repeats only after 64 KiB, so that a lost, duplicated or misplaced byte is detected.

export const PERIOD = 64 * 1024

/** Two periods, so that a buffer that crosses the end of a period can be compared at once. */
export const PATTERN: Buffer = (() => {
  const pattern = Buffer.allocUnsafe(2 * PERIOD)
  let state = 1
  for (let i = 0; i < PERIOD; i++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    pattern[i] = pattern[i + PERIOD] = 97 + (state >>> 16) % 26
  }
  return pattern
})()

/** Whether `bytes[from, to)` equals the endless pattern at `offset`. */
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

/** Compares only the first and the last byte. That is cheap enough for every read of a timed round. */
export function seemsToMatch (bytes: Buffer, from: number, to: number, offset: number): boolean {
  return bytes[from] === PATTERN[offset % PERIOD] && bytes[to - 1] === PATTERN[(offset + to - from - 1) % PERIOD]
}
