// What flows over a connection: every 8 bytes carry its number and their place, so that none can be lost, doubled or
// delivered to another without being seen. What comes back has all bits of the number turned over.

const BLOCK = 8

/** The bytes of connection `number` from `position` on. */
export function pattern (number: number, position: number, size: number): Buffer {
  const first = Math.floor(position / BLOCK)
  const last = Math.ceil((position + size) / BLOCK)
  const bytes = Buffer.allocUnsafe((last - first) * BLOCK)
  for (let block = first, at = 0; block < last; block++, at += BLOCK) {
    bytes.writeUInt32BE(number, at)
    bytes.writeUInt32BE(block, at + 4)
  }
  const skipped = position - first * BLOCK
  return bytes.subarray(skipped, skipped + size)
}

export function matches (bytes: Buffer, number: number, position: number): boolean {
  return bytes.equals(pattern(number, position, bytes.length))
}

/** The number that answers a number. */
export function answerTo (number: number): number {
  return ~number >>> 0
}
