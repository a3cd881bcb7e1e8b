// The bytes of an item that spans several reads. They are copied: a view would keep the memory of a whole read alive, and a body
// that comes byte by byte would make a list of tiny buffers.

export const NO_BYTES: Buffer = Buffer.alloc(0)

/** Bytes of memory that are kept for the next item. An idle connection holds no more than this. */
const KEPT_SIZE = 1024
const FIRST_SIZE = 256

export class ByteBuffer {
  length = 0
  private memory = NO_BYTES
  private readonly maxLength: number

  /** @param maxLength the caller never appends more than this */
  constructor (maxLength: number) {
    this.maxLength = maxLength
  }

  /** Bytes of memory. */
  get capacity (): number {
    return this.memory.length
  }

  append (bytes: Buffer): void {
    const length = this.length + bytes.length
    if (length > this.memory.length) this.grow(length)
    bytes.copy(this.memory, this.length)
    this.length = length
  }

  /** A view of all bytes, valid until the next call of another method. */
  view (): Buffer {
    return this.memory.subarray(0, this.length)
  }

  clear (): void {
    this.length = 0
    if (this.memory.length > KEPT_SIZE) this.memory = NO_BYTES
  }

  /** Gives the bytes away, with their memory. */
  take (): Buffer {
    const bytes = this.view()
    this.memory = NO_BYTES
    this.length = 0
    return bytes
  }

  private grow (length: number): void {
    const size = Math.min(Math.max(length, 2 * this.memory.length, FIRST_SIZE), Math.max(length, this.maxLength))
    const memory = Buffer.allocUnsafeSlow(size)
    this.memory.copy(memory, 0, 0, this.length)
    this.memory = memory
  }
}
