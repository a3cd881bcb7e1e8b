// JSON text sequences (RFC 7464): each text begins with RS and should end with LF. Between two RS, or between RS and the end of the
// body, there is nothing but the text and whitespace. RS with nothing behind it is skipped (section 2.1), so that it can be sent as a
// heartbeat.

import type { DecoderOptions, ReceivingCodec } from '../../types/items.d.ts'
import { ItemError } from '../errors.ts'
import { isWhitespace } from './json-text.ts'
import { type Behind, RecordDecoder } from './record-decoder.ts'

const LF = 0x0a
const CR = 0x0d
const RS = 0x1e

export class JsonSeqDecoder extends RecordDecoder {
  private hasBegun = false
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
    super.drop(chunk, at)
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
  frame: (json) => `\x1e${json}\n`,
  heartbeat: '\x1e'
})
