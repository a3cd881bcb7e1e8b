// JSON Lines, also known as NDJSON: a JSON text in each line. LF ends a line, and nothing else: CR before it is whitespace of JSON,
// U+2028 and U+2029 may stand in strings. Blank lines are skipped, so that they can be sent as heartbeats.

import type { DecoderOptions, ReceivingCodec } from '../../types/items.d.ts'
import { NO_BYTES } from './byte-buffer.ts'
import { type Behind, RecordDecoder } from './record-decoder.ts'

const LF = 0x0a
const CR = 0x0d

const BOM = Buffer.from('\ufeff')

export class JsonLinesDecoder extends RecordDecoder {
  /** The first bytes of the body, as long as they may be a BOM: fewer than it has. null: they have been looked at. */
  private start: Buffer | null = NO_BYTES

  constructor (options: DecoderOptions) {
    super(LF, options)
  }

  override write (chunk: Buffer): void {
    super.write(this.start === null ? chunk : this.skipBom(this.start, chunk))
  }

  override end (): void {
    if (this.start !== null) super.write(this.start)
    this.start = null
    super.end()
  }

  private skipBom (start: Buffer, chunk: Buffer): Buffer {
    const bytes = start.length === 0 ? chunk : Buffer.concat([start, chunk])
    if (bytes.length < BOM.length && BOM.subarray(0, bytes.length).equals(bytes)) {
      this.start = Buffer.from(bytes)
      return NO_BYTES
    }
    this.start = null
    if (!bytes.subarray(0, BOM.length).equals(BOM)) return bytes
    this.skip(BOM.length)
    return bytes.subarray(BOM.length)
  }

  protected lineEndSize (last: number, before: number, behind: Behind): number {
    return last === CR && behind !== 'end' ? 1 : 0
  }

  protected reasonAgainst (): null {
    return null
  }
}

export const jsonLines: ReceivingCodec = Object.freeze<ReceivingCodec>({
  mediaTypes: ['application/jsonl', 'application/x-ndjson'],
  decoder: (options) => new JsonLinesDecoder(options),
  frame: linesOf,
  heartbeat: '\n'
})

/** Line breaks in a JSON text are whitespace between its tokens: in strings they are escaped. Few serializers make any. */
function linesOf (texts: readonly string[]): string {
  const lines = `${texts.join('\n')}\n`
  if (!lines.includes('\r') && countLines(lines) === texts.length) return lines
  return texts.map((json) => `${json.replace(/[\r\n]/g, ' ')}\n`).join('')
}

function countLines (lines: string): number {
  let count = 0
  for (let end = -1; (end = lines.indexOf('\n', end + 1)) !== -1;) count++
  return count
}
