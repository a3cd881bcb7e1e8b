// Server-sent events (WHATWG HTML, section 9.2): the data of each one is a JSON text. Servers send them. They do not receive any,
// since nobody posts them: the codec has no decoder. The one here is for clients.

import assert from 'node:assert'
import type { DecoderOptions, ItemCodec, ItemDecoder } from '../../types/items.d.ts'
import { ItemError, ItemLimitError } from '../errors.ts'
import { ByteBuffer, NO_BYTES } from './byte-buffer.ts'
import { NO_ITEM } from './codec.ts'

export const serverSentEvents: ItemCodec = Object.freeze<ItemCodec>({
  mediaTypes: ['text/event-stream'],
  frame: (texts) => texts.map(eventOf).join(''),
  heartbeat: ':\n\n'
})

function eventOf (json: string): string {
  return `data: ${json.includes('\n') || json.includes('\r') ? json.replace(/\r\n?|\n/g, '\ndata: ') : json}\n\n`
}

const LF = 0x0a
const CR = 0x0d

/** Events without data are skipped, as an EventSource does. So is one that the end of the body cuts off. */
export class EventDecoder implements ItemDecoder {
  index = -1
  offset = 0
  private readonly maxItemSize: number
  private readonly parse: (text: string) => unknown
  private chunk = NO_BYTES
  /** What has been read of the chunk. */
  private at = 0
  /** The byte of the body at which the chunk begins. */
  private chunkOffset = 0
  /** The beginning of the line that goes on in the next chunk. */
  private readonly partial: ByteBuffer
  private lineSize = 0
  private hasBegun = false
  private endsWithCr = false // an LF at the beginning of the next chunk belongs to this line end
  // The event: the byte at which it begins, the bytes of its lines without their ends, and its data.
  private eventOffset = 0
  private eventSize = 0
  private data: string[] = []
  private isDropping = false

  constructor ({ maxItemSize, parse }: DecoderOptions) {
    this.maxItemSize = maxItemSize
    this.parse = parse ?? JSON.parse
    this.partial = new ByteBuffer(maxItemSize)
  }

  write (chunk: Buffer): void {
    assert(this.at === this.chunk.length)
    this.chunkOffset += this.chunk.length
    this.chunk = chunk
    this.at = this.endsWithCr && chunk[0] === LF ? 1 : 0
    if (chunk.length > 0) this.endsWithCr = false
  }

  end (): void {}

  next (): unknown {
    while (this.at < this.chunk.length) {
      const line = this.nextLine()
      if (this.eventSize > this.maxItemSize && !this.isDropping) this.failLimit()
      if (line === null) continue
      if (line !== '') {
        if (!this.isDropping) this.readField(line)
        continue
      }
      const { data } = this
      this.data = []
      this.eventSize = 0
      this.isDropping = false
      if (data.length > 0) return this.parseItem(data.join('\n'))
    }
    return NO_ITEM
  }

  /** @returns null if it is not complete, or was dropped */
  private nextLine (): string | null {
    const { chunk, at, partial } = this
    const end = endOfLine(chunk, at)
    const bytes = chunk.subarray(at, end === -1 ? chunk.length : end)
    if (this.eventSize === 0) this.eventOffset = this.chunkOffset + at
    this.eventSize += bytes.length
    this.lineSize += bytes.length
    this.at += bytes.length
    const isKept = this.eventSize <= this.maxItemSize
    if (end === -1) {
      if (isKept) partial.append(bytes)
      return null
    }
    this.skipLineEnd(chunk, end)
    const isBlank = this.lineSize === 0
    this.lineSize = 0
    return isBlank ? '' : isKept ? this.textOf(bytes) : null
  }

  private skipLineEnd (chunk: Buffer, end: number): void {
    this.at = end + 1
    if (chunk[end] !== CR) return
    this.endsWithCr = this.at === chunk.length
    if (chunk[this.at] === LF) this.at++
  }

  private textOf (bytes: Buffer): string {
    const { partial } = this
    if (partial.length > 0) partial.append(bytes)
    const text = (partial.length > 0 ? partial.view() : bytes).toString()
    partial.clear()
    const line = this.hasBegun ? text : text.replace(/^\ufeff/, '')
    this.hasBegun = true
    return line
  }

  private readField (line: string): void {
    const [, name, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line)!
    if (name === 'data') this.data.push(value ?? '')
  }

  private failLimit (): never {
    this.isDropping = true
    this.partial.clear()
    this.data = []
    this.nextItem()
    throw new ItemLimitError(this.index, this.offset, this.maxItemSize)
  }

  private parseItem (text: string): unknown {
    this.nextItem()
    try {
      return this.parse(text)
    } catch (error) {
      throw new ItemError(this.index, this.offset, (error as Error).message, { cause: error })
    }
  }

  private nextItem (): void {
    this.index++
    this.offset = this.eventOffset
  }
}

function endOfLine (bytes: Buffer, from: number): number {
  for (let i = from; i < bytes.length; i++) {
    if (bytes[i] === LF || bytes[i] === CR) return i
  }
  return -1
}
