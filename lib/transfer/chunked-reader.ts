// The reader of the chunked transfer coding (RFC 9112 section 7.1):
//
//   chunked-body = *chunk last-chunk trailer-section CRLF
//   chunk        = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
//
// It passes over each input once, and has a state for every position in the grammar, so that the body may be cut into
// inputs anywhere. Chunk boundaries carry no meaning: all content of one input is moved together, in place, over the
// framing between, and returned as one view. A line ends with CRLF and nothing else. Where RFC 9112 lets a recipient be
// lenient (a bare LF, blanks after the size), this reader is not: differences between recipients are what makes request
// smuggling possible. One class, since every state may follow from another within one input.

import type { BodyReader, ChunkedLimits, Fields, Trailers } from '../../types/transfer.d.ts'
import { ChunkError, ChunkExtensionLimitError, TrailerError, TrailerLimitError, TruncatedError } from '../errors.ts'
import { NO_BYTES, NO_FIELDS } from './body-reader.ts'
import { TOKEN_BYTES, isBlank, isTrailerField, readFieldLine } from './field-lines.ts'

/** Hexadecimal digits of one chunk-size, leading zeros included. */
export const MAX_CHUNK_SIZE_DIGITS = 16
/** Bytes of content in one body. Above this a number does not count them exactly. */
export const MAX_BODY_SIZE: number = Number.MAX_SAFE_INTEGER

/** Digits of a chunk-size that readPlainBoundary() reads: few enough for the size to stay a small integer in V8. */
const MAX_PLAIN_DIGITS = 7

// The states: what the next byte may be. Numbers, since one is compared for every byte of framing.
const SIZE = 0 //              a digit of chunk-size; after the first also ';', a blank or CR
const SIZE_LF = 1 //           the LF of the line with chunk-size and chunk-ext
const DATA = 2 //              chunk-data
const DATA_CR = 3 //           the CR after chunk-data
const DATA_LF = 4 //           the LF after chunk-data
const EXT_SEMICOLON = 5 //     after a blank: another blank, or ';'
const EXT_NAME_START = 6 //    after ';': a blank, or the first byte of chunk-ext-name
const EXT_NAME = 7 //          the rest of chunk-ext-name, or what may follow it
const EXT_NAME_END = 8 //      after chunk-ext-name and a blank: another blank, '=' or ';'
const EXT_VALUE_START = 9 //   after '=': a blank, or the first byte of chunk-ext-val
const EXT_VALUE = 10 //        the rest of a chunk-ext-val that is a token, or what may follow it
const EXT_QUOTED = 11 //       inside of a quoted chunk-ext-val
const EXT_QUOTED_PAIR = 12 //  the byte after a backslash in it
const EXT_QUOTED_END = 13 //   what may follow it
const TRAILER_START = 14 //    the first byte of a field line, or the CR that ends the trailer section
const TRAILER_LINE = 15 //     the rest of a field line, up to its CR
const TRAILER_LF = 16 //       the LF of a field line
const END_LF = 17 //           the LF that ends the body

const HTAB = 0x09
const LF = 0x0a
const CR = 0x0d
const SP = 0x20
const DQUOTE = 0x22
const SEMICOLON = 0x3b
const EQUALS = 0x3d
const BACKSLASH = 0x5c
const DEL = 0x7f

const HEX_VALUE: Readonly<Int8Array> = (() => {
  const table = new Int8Array(256).fill(-1)
  for (let digit = 0; digit < 16; digit++) {
    table[digit.toString(16).charCodeAt(0)] = digit
    table[digit.toString(16).toUpperCase().charCodeAt(0)] = digit
  }
  return table
})()

export class ChunkedReader implements BodyReader {
  done = false
  error: Error | null = null
  consumed = 0
  trailers: Trailers = NO_FIELDS
  private readonly limits: ChunkedLimits
  private state = SIZE
  private digits = 0
  /** The value of the chunk-size so far; from the end of its line on, the bytes of chunk-data still to come. */
  private remaining = 0
  /** The sum of all chunk-sizes. */
  private bodySize = 0
  private extensionSize = 0
  private trailerSize = 0
  private trailerLine = ''

  constructor (limits: ChunkedLimits) {
    this.limits = limits
  }

  read (input: Buffer): Buffer {
    const end = input.length
    let from = 0 //  the content so far is input[from, to)
    let to = 0
    let at = 0
    while (at < end && !this.done && this.error === null) {
      if (this.state === DATA) {
        const size = Math.min(this.remaining, end - at)
        if (from === to) from = to = at
        else input.copyWithin(to, at, at + size)
        to += size
        at += size
        this.remaining -= size
        if (this.remaining === 0) {
          this.state = DATA_CR
          at = this.readPlainBoundary(input, at)
        }
      } else if (this.state === TRAILER_LINE) {
        at = this.readTrailerLine(input, at)
      } else {
        this.readFramingByte(input[at++])
      }
    }
    this.consumed = at
    return from === to ? NO_BYTES : input.subarray(from, to)
  }

  end (): void {
    if (!this.done && this.error === null) this.error = new TruncatedError()
  }

  /**
   * Reads what stands between most chunks: CRLF, chunk-size without chunk-ext, CRLF. It does nothing if this is not
   * complete in `input`, and leaves everything rarer, and everything wrong, to readFramingByte().
   *
   * @returns where the next chunk-data begins; `at` if nothing was read
   */
  private readPlainBoundary (input: Buffer, at: number): number {
    const end = Math.min(input.length - 2, at + 2 + MAX_PLAIN_DIGITS)
    if (at + 2 >= end || input[at] !== CR || input[at + 1] !== LF) return at
    let size = 0
    let digit = 0
    let next = at + 2
    while (next < end && (digit = HEX_VALUE[input[next]]) >= 0) {
      size = size * 16 + digit
      next++
    }
    if (size === 0 || input[next] !== CR || input[next + 1] !== LF || size > MAX_BODY_SIZE - this.bodySize) return at
    this.remaining = size
    this.bodySize += size
    this.state = DATA
    return next + 2
  }

  /** Reads one byte of framing. */
  private readFramingByte (byte: number): void {
    switch (this.state) {
      case SIZE: {
        const digit = HEX_VALUE[byte]
        if (digit >= 0) {
          if (++this.digits > MAX_CHUNK_SIZE_DIGITS) this.fail('chunk-size is too long')
          else this.remaining = this.remaining * 16 + digit
        } else if (this.digits === 0) {
          this.fail('chunk-size is missing')
        } else {
          this.readAfterElement(byte, 'chunk-size')
        }
        return
      }
      case SIZE_LF:
        if (byte !== LF) this.fail('CR without LF after chunk-size')
        else this.startChunk()
        return
      case DATA_CR:
        if (byte !== CR) this.fail('chunk-data is longer than chunk-size')
        else this.state = DATA_LF
        return
      case DATA_LF:
        if (byte !== LF) this.fail('CR without LF after chunk-data')
        else this.state = SIZE
        return
      case TRAILER_START:
        if (byte === CR) {
          this.state = END_LF
        } else if (TOKEN_BYTES[byte] !== 1) {
          this.failTrailer('not a field line')
        } else {
          this.trailerLine = ''
          this.state = TRAILER_LINE
          this.addToTrailerLine(String.fromCharCode(byte))
        }
        return
      case TRAILER_LF:
        if (byte !== LF) this.failTrailer('CR without LF')
        else this.endTrailerLine()
        return
      case END_LF:
        if (byte !== LF) this.failTrailer('CR without LF')
        else this.done = true
        return
      default:
        if (byte !== CR) this.countExtension()
        if (this.error === null) this.readExtensionByte(byte)
    }
  }

  /**
   * Reads one byte of the extensions (RFC 9112 section 7.1.1):
   * chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )
   */
  private readExtensionByte (byte: number): void {
    switch (this.state) {
      case EXT_SEMICOLON:
        if (byte === SEMICOLON) this.state = EXT_NAME_START
        else if (!isBlank(byte)) this.fail('a blank may only surround ";" and "=" in chunk-ext')
        return
      case EXT_NAME_START:
        if (TOKEN_BYTES[byte] === 1) this.state = EXT_NAME
        else if (!isBlank(byte)) this.fail('chunk-ext-name is missing')
        return
      case EXT_NAME:
        if (TOKEN_BYTES[byte] === 1) return
        if (byte === EQUALS) this.state = EXT_VALUE_START
        else if (isBlank(byte)) this.state = EXT_NAME_END
        else this.readAfterElement(byte, 'chunk-ext-name')
        return
      case EXT_NAME_END:
        if (byte === EQUALS) this.state = EXT_VALUE_START
        else if (byte === SEMICOLON) this.state = EXT_NAME_START
        else if (!isBlank(byte)) this.fail('a blank may only surround ";" and "=" in chunk-ext')
        return
      case EXT_VALUE_START:
        if (TOKEN_BYTES[byte] === 1) this.state = EXT_VALUE
        else if (byte === DQUOTE) this.state = EXT_QUOTED
        else if (!isBlank(byte)) this.fail('chunk-ext-val is missing')
        return
      case EXT_VALUE:
        if (TOKEN_BYTES[byte] !== 1) this.readAfterElement(byte, 'chunk-ext-val')
        return
      case EXT_QUOTED:
        if (byte === DQUOTE) this.state = EXT_QUOTED_END
        else if (byte === BACKSLASH) this.state = EXT_QUOTED_PAIR
        else if (!isQuotable(byte)) this.fail('control byte in a quoted chunk-ext-val')
        return
      case EXT_QUOTED_PAIR:
        if (isQuotable(byte)) this.state = EXT_QUOTED
        else this.fail('control byte in a quoted chunk-ext-val')
        return
      default: // EXT_QUOTED_END
        this.readAfterElement(byte, 'chunk-ext-val')
    }
  }

  /** Reads the byte after chunk-size or after a complete extension. */
  private readAfterElement (byte: number, element: string): void {
    if (byte === CR) this.state = SIZE_LF
    else if (byte === SEMICOLON) this.enterExtension(EXT_NAME_START)
    else if (isBlank(byte)) this.enterExtension(EXT_SEMICOLON)
    else this.fail(`unexpected byte 0x${byte.toString(16).padStart(2, '0')} after ${element}`)
  }

  private enterExtension (state: number): void {
    // The byte after chunk-size is the first byte of the extensions. It was read in state SIZE, which counts none.
    if (this.state === SIZE) this.countExtension()
    this.state = state
  }

  private countExtension (): void {
    if (++this.extensionSize > this.limits.maxChunkExtensionSize) {
      this.error = new ChunkExtensionLimitError(this.limits.maxChunkExtensionSize)
    }
  }

  private startChunk (): void {
    this.digits = 0
    if (this.remaining === 0) {
      this.state = TRAILER_START
    } else if (this.remaining > MAX_BODY_SIZE - this.bodySize) {
      this.fail('the body is longer than 2^53-1 bytes')
    } else {
      this.bodySize += this.remaining
      this.state = DATA
    }
  }

  /** Reads a field line up to its CR, or as much of it as `input` has. */
  private readTrailerLine (input: Buffer, at: number): number {
    const stop = input.indexOf(CR, at)
    const end = stop === -1 ? input.length : stop
    this.addToTrailerLine(input.toString('latin1', at, end))
    if (this.error === null && stop !== -1) this.state = TRAILER_LF
    return stop === -1 ? end : end + 1
  }

  private addToTrailerLine (text: string): void {
    this.trailerLine += text
    this.countTrailer(text.length)
    // The line can no longer be a field line. Fail now, not when a CR comes.
    if (text.includes('\n')) this.failTrailer('bare LF')
  }

  private endTrailerLine (): void {
    const fields: Fields = this.trailers === NO_FIELDS ? {} : this.trailers
    const name = readFieldLine(this.trailerLine, fields)
    this.trailers = fields
    this.state = TRAILER_START
    this.countTrailer(2)
    if (name === null) this.failTrailer('not a field line')
    else if (!isTrailerField(name)) this.failTrailer(`"${name}" is not allowed in it`)
  }

  private countTrailer (size: number): void {
    this.trailerSize += size
    if (this.trailerSize > this.limits.maxTrailerSize) this.error = new TrailerLimitError(this.limits.maxTrailerSize)
  }

  private fail (reason: string): void {
    this.error = new ChunkError(reason)
  }

  private failTrailer (reason: string): void {
    this.error = new TrailerError(reason)
  }
}

/** Whether a byte may stand in a quoted-string: HTAB, and all but control bytes (RFC 9110 section 5.6.4). */
function isQuotable (byte: number): boolean {
  return (byte >= SP && byte !== DEL) || byte === HTAB
}
