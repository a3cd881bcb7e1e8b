// What the formats of JSON that are received have in common: JSON texts with a delimiter byte between them, one record each.
//
// All records that are complete in a chunk are decoded into one string, and cut there: a call per read instead of one per
// record. Only a record that spans chunks is joined on its own. Its bytes are copied, never more than `maxItemSize` of them. When
// `next` returns NO_ITEM, nothing else is kept. One class, since all of it is about where in the body the next record is.

import assert from 'node:assert'
import type { DecoderOptions, ItemDecoder } from '../../types/items.d.ts'
import { ItemError, ItemLimitError } from '../errors.ts'
import { ByteBuffer, NO_BYTES } from './byte-buffer.ts'
import { NO_ITEM } from './codec.ts'
import { TextRun, decode, isBlank, isWhitespace, mayHoldProto } from './json-text.ts'

/** Bytes that are decoded at once, if they hold a delimiter: a bound for a chunk of any size, and no more than the caches of a processor take. */
const RUN_SIZE = 64 * 1024
/** Bytes of the longest line end, CR LF. */
const MAX_LINE_END = 2

/** What follows the bytes of a record: that is unknown yet, its rest, which is no part of the item, a delimiter, or the end of the body. */
export type Behind = 'unknown' | 'rest' | 'delimiter' | 'end'

const NO_RUN = new TextRun('', true, 0, 0)

export abstract class RecordDecoder implements ItemDecoder {
  index = -1
  /** A byte that no valid record holds. */
  private readonly delimiter: number
  private readonly delimiterText: string
  private readonly maxItemSize: number
  private readonly parse: ((text: string) => unknown) | null
  private chunk = NO_BYTES
  /** What has been read of the chunk. */
  private at = 0
  /** The byte of the body at which the chunk begins. */
  private chunkOffset = 0
  /** Up to here, the records of the chunk are decoded one by one: there are bytes that are no UTF-8, or a bad record. */
  private singlyUntil = 0
  private isEnded = false
  /** The beginning of the record that goes on in the next chunk. */
  private readonly partial: ByteBuffer
  /** Drops the rest of a record that is too long, up to its delimiter. */
  protected isDropping = false
  /** What is dropped stands behind an item, and not within one. */
  protected isBehindItem = false
  private run = NO_RUN
  private runAt = 0
  private isRunSuspect = false
  private isRunLong = false
  private isRunOfMany = false
  // The item that was returned or thrown last: where it is in a run; or its offset, if there is no run.
  private itemRun: TextRun | null = null
  private itemStart = 0
  private itemOffset = 0

  constructor (delimiter: number, { maxItemSize, parse }: DecoderOptions) {
    this.delimiter = delimiter
    this.delimiterText = String.fromCharCode(delimiter)
    this.maxItemSize = maxItemSize
    this.parse = parse
    this.partial = new ByteBuffer(maxItemSize + MAX_LINE_END)
  }

  get offset (): number {
    return this.itemRun === null ? this.itemOffset : this.itemRun.offsetAt(this.itemStart)
  }

  /** Bytes of memory that are held. */
  get heldBytes (): number {
    return this.chunk.length + this.partial.capacity + this.run.size
  }

  write (chunk: Buffer): void {
    assert(this.chunk === NO_BYTES && !this.isEnded)
    this.chunk = chunk
  }

  end (): void {
    assert(!this.isEnded)
    this.isEnded = true
  }

  next (): unknown {
    do {
      const { text } = this.run
      while (this.runAt < text.length) {
        const start = this.runAt
        const delimiter = text.indexOf(this.delimiterText, start)
        const end = delimiter === -1 ? text.length : delimiter
        this.runAt = end + 1
        if (start === end) continue
        const { index } = this
        try {
          if (this.isRunLong) this.checkRecordSize(start, end)
          if (isWhitespace(text.charCodeAt(start)) && isBlank(text, start, end)) continue
          this.index++
          this.itemRun = this.run
          this.itemStart = start
          return this.parseRecord(text.slice(start, end))
        } catch (error) {
          if (!this.isRunOfMany || !this.mayEndWithin) throw error
          this.index = index
          this.decodeSingly(start)
          break
        }
      }
    } while (this.load())
    this.forgetRun()
    return NO_ITEM
  }

  /** How many bytes of a record are the end of its line, and do not count as bytes of the item. */
  protected abstract lineEndSize (last: number, before: number, behind: Behind): number
  /** @returns why a value must not be taken from the record; null if it may */
  protected abstract reasonAgainst (value: unknown, record: string): string | null

  /** Whether an item may end before the delimiter of its record: then `findEnd` finds out where. */
  protected readonly mayEndWithin: boolean = false

  /**
   * Looks at the next bytes of a record.
   *
   * @param isFirst these are its first ones
   * @returns the position behind the item; -1 if it has no end there. What follows up to the delimiter is dropped
   */
  protected findEnd (chunk: Buffer, from: number, to: number, isFirst: boolean): number {
    return -1
  }

  /** The byte of the body that is at a position of the chunk. */
  protected bodyOffset (at: number): number {
    return this.chunkOffset + at
  }

  /** Bytes in front of the first record that belong to no item. */
  protected skip (size: number): void {
    this.chunkOffset += size
  }

  private parseRecord (record: string): unknown {
    let value: unknown
    try {
      value = this.isRunSuspect ? this.parseSuspect(record) : JSON.parse(record)
    } catch (error) {
      // A SyntaxError; or a RangeError, since the text is nested too deeply.
      throw new ItemError(this.index, this.offset, (error as Error).message, { cause: error })
    }
    const reason = this.reasonAgainst(value, record)
    if (reason !== null) throw new ItemError(this.index, this.offset, reason)
    return value
  }

  private parseSuspect (record: string): unknown {
    // secure-json-parse takes a text with a BOM, which JSON.parse() does not.
    return record.startsWith('\ufeff') ? JSON.parse(record) : this.parse!(record)
  }

  /**
   * Decodes the next records into `run`, or takes what there is of the next one.
   *
   * @returns false if more bytes are needed, or the body has been read
   */
  private load (): boolean {
    const { chunk, at } = this
    if (at === chunk.length) {
      this.releaseChunk()
      return this.isEnded && this.loadLast()
    }
    if (this.isDropping) {
      this.drop(chunk, at)
    } else if (this.partial.length > 0 || at < this.singlyUntil) {
      this.loadRecord(chunk, chunk.indexOf(this.delimiter, at))
    } else {
      const last = this.lastDelimiter(chunk, at)
      if (last >= at) this.loadRun(chunk, last + 1)
      else this.loadRecord(chunk, chunk.indexOf(this.delimiter, at))
    }
    return true
  }

  private lastDelimiter (chunk: Buffer, at: number): number {
    const end = Math.min(chunk.length, at + RUN_SIZE) - 1
    return chunk[end] === this.delimiter ? end : chunk.lastIndexOf(this.delimiter, end)
  }

  private loadRun (chunk: Buffer, end: number): void {
    const bytes = end - this.at === chunk.length ? chunk : chunk.subarray(this.at, end)
    const run = decode(bytes, this.chunkOffset + this.at)
    if (run === null) {
      this.singlyUntil = end
    } else {
      this.at = end
      this.setRun(run, run.size > this.maxItemSize, true)
    }
  }

  /** Goes back to a record of the run, and does not decode the others behind it together again: that would take the square of their number. */
  private decodeSingly (start: number): void {
    const { run, at } = this
    this.singlyUntil = at
    this.at = run.offsetAt(start) - this.chunkOffset
    this.itemRun = null
    this.run = NO_RUN
    this.runAt = 0
  }

  /** @param delimiter where the delimiter of the record is; -1 if it is in another chunk */
  private loadRecord (chunk: Buffer, delimiter: number): void {
    const { at, partial } = this
    const offset = this.chunkOffset + at - partial.length
    const to = delimiter === -1 ? chunk.length : delimiter
    const end = this.findEnd(chunk, at, to, partial.length === 0)
    const bytes = chunk.subarray(at, end === -1 ? to : end)
    const behind = end !== -1 ? 'rest' : delimiter !== -1 ? 'delimiter' : 'unknown'
    this.at = end !== -1 ? end : delimiter !== -1 ? delimiter + 1 : to
    this.isDropping = behind === 'rest'
    if (partial.length + bytes.length > this.maxItemSize + MAX_LINE_END) this.failPart(offset, behind)
    if (behind !== 'unknown' && partial.length === 0) {
      this.decodeRecord(bytes, offset, behind)
      return
    }
    partial.append(bytes)
    if (behind !== 'unknown') this.decodeRecord(partial.view(), offset, behind)
    else if (this.isTooLong(partial.view(), behind)) this.failPart(offset, behind)
  }

  private failPart (offset: number, behind: Behind): never {
    this.isDropping = behind !== 'delimiter'
    this.failLimit(offset)
  }

  /** What stands behind the last delimiter. */
  private loadLast (): boolean {
    const { partial } = this
    if (partial.length === 0) return false
    this.decodeRecord(partial.view(), this.chunkOffset - partial.length, 'end')
    return true
  }

  /** Makes a run of one record. It may be the view of `partial`, which is empty afterwards. */
  private decodeRecord (bytes: Buffer, offset: number, behind: Behind): void {
    if (this.isTooLong(bytes, behind)) this.failLimit(offset)
    this.isBehindItem = behind === 'rest'
    const run = decode(bytes, offset)
    this.partial.clear()
    if (run === null) {
      this.setItem(offset)
      throw new ItemError(this.index, this.offset, 'it is not UTF-8')
    }
    this.setRun(run, false, false)
  }

  private setRun (run: TextRun, isLong: boolean, isOfMany: boolean): void {
    this.run = run
    this.runAt = 0
    this.isRunLong = isLong
    this.isRunOfMany = isOfMany
    this.isRunSuspect = this.parse !== null && mayHoldProto(run.text)
  }

  /** Of a run whose records are all followed by a delimiter. */
  private checkRecordSize (start: number, end: number): void {
    const { run, maxItemSize } = this
    if ((end - start) * 3 <= maxItemSize) return // a character has at most 3 bytes
    const size = run.isAscii ? end - start : Buffer.byteLength(run.text.slice(start, end))
    const lineEnd = this.lineEndSize(run.text.charCodeAt(end - 1), run.text.charCodeAt(end - 2), 'delimiter')
    if (size - lineEnd > maxItemSize) this.failLimit(run.offsetAt(start))
  }

  private isTooLong (bytes: Buffer, behind: Behind): boolean {
    const { length } = bytes
    return length > this.maxItemSize && length - this.lineEndSize(bytes[length - 1], bytes[length - 2], behind) > this.maxItemSize
  }

  private failLimit (offset: number): never {
    this.partial.clear()
    this.setItem(offset)
    throw new ItemLimitError(this.index, this.offset, this.maxItemSize)
  }

  protected drop (chunk: Buffer, at: number): void {
    const end = chunk.indexOf(this.delimiter, at)
    this.at = end === -1 ? chunk.length : end + 1
    this.isDropping = end === -1
  }

  /** The next item is one that is in no run. */
  protected setItem (offset: number): void {
    this.index++
    this.itemRun = null
    this.itemOffset = offset
  }

  private releaseChunk (): void {
    this.chunkOffset += this.chunk.length
    this.chunk = NO_BYTES
    this.at = 0
    this.singlyUntil = 0
  }

  private forgetRun (): void {
    if (this.itemRun !== null) this.itemOffset = this.itemRun.offsetFromEnd(this.itemStart)
    this.itemRun = null
    this.run = NO_RUN
    this.runAt = 0
  }
}
