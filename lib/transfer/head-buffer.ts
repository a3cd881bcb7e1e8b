// Collects the bytes of a message head, up to its empty line. Each byte is looked at once, and copied a few times at most, however
// the head is cut: a head that comes byte by byte takes no more than linear time.

import { HeadError, HeadLimitError } from '../errors.ts'
import { NO_BYTES } from './body-reader.ts'

const CR = 0x0d
const LF = 0x0a

/** Bytes of memory for the first part of a head that comes in several. */
const FIRST_SIZE = 512

export class HeadBuffer {
  /** How many bytes of the last input belonged to the head. */
  consumed = 0
  private readonly maxSize: number
  private skipsEmptyLine: boolean
  private memory = NO_BYTES // what came before the last input, and free memory
  private size = 0 // bytes of the head before the last input
  private start = 0 // where the first line begins
  private lineStart = 0 // where the last line begins

  /**
   * @param maxSize limit for the bytes of the head, with its empty line
   * @param skipsEmptyLine whether one empty line before the head is skipped
   */
  constructor (maxSize: number, skipsEmptyLine: boolean) {
    this.maxSize = maxSize
    this.skipsEmptyLine = skipsEmptyLine
  }

  /** No byte of the first line has come. */
  get isEmpty (): boolean {
    return this.size === this.start
  }

  /**
   * Takes the next bytes.
   *
   * @returns the lines of the head, without the empty one; null if more bytes are needed
   * @throws {HeadError} FST_ERR_DUPLEX_HEAD: LF without CR
   * @throws {HeadLimitError} FST_ERR_DUPLEX_HEAD_LIMIT
   */
  read (input: Buffer): string[] | null {
    const before = this.size
    for (let lf = input.indexOf(LF); lf !== -1; lf = input.indexOf(LF, lf + 1)) {
      const at = before + lf
      if (at >= this.maxSize) break
      if ((lf > 0 ? input[lf - 1] : this.memory[before - 1]) !== CR) throw new HeadError('bare LF')
      const isEmptyLine = at === this.lineStart + 1
      this.lineStart = at + 1
      if (!isEmptyLine) continue
      if (at === 1 && this.skipsEmptyLine) {
        this.start = this.lineStart
        this.skipsEmptyLine = false
        continue
      }
      this.consumed = lf + 1
      return this.linesOf(input, at)
    }
    if (before + input.length > this.maxSize) throw new HeadLimitError(this.maxSize)
    this.append(input)
    this.consumed = input.length
    return null
  }

  /** @param end where the LF of the empty line is */
  private linesOf (input: Buffer, end: number): string[] {
    let bytes = input
    if (this.size > 0) {
      this.append(input.subarray(0, this.consumed))
      bytes = this.memory
    }
    // Without the CRLF of the last line, and the empty line.
    return bytes.toString('latin1', this.start, Math.max(this.start, end - 3)).split('\r\n')
  }

  private append (input: Buffer): void {
    const size = this.size + input.length
    if (size > this.memory.length) {
      const larger = Buffer.allocUnsafe(Math.min(Math.max(size, 2 * this.memory.length, FIRST_SIZE), this.maxSize))
      this.memory.copy(larger, 0, 0, this.size)
      this.memory = larger
    }
    input.copy(this.memory, this.size)
    this.size = size
  }
}
