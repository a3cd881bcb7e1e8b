// The content of an exchange. Each block of 8 bytes holds the number of the exchange and its own position, so that lost,
// duplicated or misdelivered bytes are detected. In the response the bits of the number are inverted.

const BLOCK = 8

/** `size` bytes of the content of exchange `number`, from `position` on. */
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

/** The number in the response to exchange `number`. */
export function answerTo (number: number): number {
  return ~number >>> 0
}
