// JSON text sequences (RFC 7464): each text begins with RS and should end with LF. Between two RS, or between RS and the end of the
// body, there is nothing but the text and whitespace. RS with nothing behind it is skipped (section 2.1), so that it can be sent as a
// heartbeat.
//
// A text is an item as soon as its LF has come: whoever sends it may wait for the answer, and send no RS before.

import type { DecoderOptions, ReceivingCodec } from '../../types/items.d.ts'
import { ItemError } from '../errors.ts'
import { isWhitespace } from './json-text.ts'
import { type Behind, RecordDecoder } from './record-decoder.ts'
import { TextEnd } from './text-end.ts'

const LF = 0x0a
const CR = 0x0d
const RS = 0x1e

export class JsonSeqDecoder extends RecordDecoder {
  private hasBegun = false
  private textEnd = new TextEnd()
  protected override readonly mayEndWithin = true
  /** What stands before the first RS is no item. */
  protected override isDropping = true

  constructor (options: DecoderOptions) {
    super(RS, options)
  }

  /** The byte of the RS: one before the text. */
  override get offset (): number {
    return Math.max(0, super.offset - 1)
  }

  protected override drop (chunk: Buffer, at: number): void {
    if (!this.hasBegun) {
      this.hasBegun = true
      if (chunk[at] !== RS) {
        this.setItem(0)
        throw new ItemError(this.index, this.offset, 'it does not begin with RS')
      }
    }
    super.drop(chunk, this.isBehindItem ? this.skipWhitespace(chunk, at) : at)
  }

  private skipWhitespace (chunk: Buffer, at: number): number {
    let next = at
    while (next < chunk.length && isWhitespace(chunk[next])) next++
    if (next < chunk.length) {
      this.isBehindItem = false
      if (chunk[next] !== RS) throw this.errorBehindItem(next)
    }
    return next
  }

  private errorBehindItem (at: number): ItemError {
    this.setItem(this.bodyOffset(at) + 1)
    return new ItemError(this.index, this.offset, 'it does not begin with RS')
  }

  protected override findEnd (chunk: Buffer, from: number, to: number, isFirst: boolean): number {
    if (isFirst) this.textEnd = new TextEnd()
    return this.textEnd.find(chunk, from, to)
  }

  protected lineEndSize (last: number, before: number, behind: Behind): number {
    if (last === LF) return before === CR ? 2 : 1
    return last === CR && behind === 'unknown' ? 1 : 0
  }

  /** A number may have been cut off. So may true, false and null, by a sender that has crashed (section 2.4). */
  protected reasonAgainst (value: unknown, record: string): string | null {
    if (typeof value === 'string' || (typeof value === 'object' && value !== null)) return null
    return isWhitespace(record.charCodeAt(record.length - 1)) ? null : 'it may be cut: whitespace is missing behind it'
  }
}

export const jsonSequence: ReceivingCodec = Object.freeze<ReceivingCodec>({
  mediaTypes: ['application/json-seq'],
  decoder: (options) => new JsonSeqDecoder(options),
  frame: (texts) => `\x1e${texts.join('\n\x1e')}\n`,
  heartbeat: '\x1e'
})
