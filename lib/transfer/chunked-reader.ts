// The chunked transfer coding, read (RFC 9112 section 7.1):
//
//   chunked-body = *chunk last-chunk trailer-section CRLF
//   chunk        = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
//
// Strategy: one pass over each piece with one state per place in the grammar, and no look-ahead, so that a piece may be
// cut anywhere. Chunk boundaries mean nothing to the reader's user: all the content of a piece is moved together over
// the framing between, in place, and leaves as one view. A line ends with CRLF and nothing else. Where RFC 9112 lets a
// recipient be lenient (a bare LF, blanks after the size), this reader is not: every such leniency of one party is
// another's request smuggling.

import type { Fields, Trailers } from '../../types/transfer.d.ts'
import { ChunkError, ChunkExtensionLimitError, TrailerError, TrailerLimitError, TruncatedError } from '../errors.ts'
import { type BodyReader, NO_BYTES, NO_FIELDS } from './body-reader.ts'
import { TOKEN_BYTES, isBlank, isTrailerField, readFieldLine } from './field-lines.ts'

export interface ChunkedLimits {
  /** Bytes of the field lines in the trailer section, each with its CRLF. */
  maxTrailerSize: number
  /** Bytes of chunk extensions in the whole body. */
  maxChunkExtensionSize: number
}

/** Hexadecimal digits of one chunk-size, leading zeros included. */
export const MAX_CHUNK_SIZE_DIGITS = 16
/** Bytes of content in one body: beyond, a number no longer counts them exactly. */
export const MAX_BODY_SIZE: number = Number.MAX_SAFE_INTEGER

/** Digits of the sizes that are read at once: the number stays a small integer. */
const MAX_PLAIN_DIGITS = 7

// Where in the grammar the next byte stands.
const SIZE = 0
const SIZE_LF = 1
const DATA = 2
const DATA_CR = 3
const DATA_LF = 4
const EXT_SEMICOLON = 5 //     after a blank: only more blanks and the ';' may follow
const EXT_NAME_START = 6
const EXT_NAME = 7
const EXT_NAME_END = 8 //      after a name and a blank
const EXT_VALUE_START = 9
const EXT_VALUE = 10
const EXT_QUOTED = 11
const EXT_QUOTED_PAIR = 12
const EXT_QUOTED_END = 13
const TRAILER_START = 14
const TRAILER_LINE = 15
const TRAILER_LF = 16
const END_LF = 17

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
  // The size being read, then what is left of the chunk.
  private left = 0
  private total = 0
  private extensionSize = 0
  private trailerSize = 0
  private line = ''

  constructor (limits: ChunkedLimits) {
    this.limits = limits
  }

  read (piece: Buffer): Buffer {
    const end = piece.length
    let from = 0 //  the content so far is piece[from, to)
    let to = 0
    let at = 0
    while (at < end && !this.done && this.error === null) {
      if (this.state === DATA) {
        const size = Math.min(this.left, end - at)
        if (from === to) from = to = at
        else piece.copyWithin(to, at, at + size)
        to += size
        at += size
        this.left -= size
        if (this.left === 0) {
          this.state = DATA_CR
          at = this.readPlainBoundary(piece, at)
        }
      } else if (this.state === TRAILER_LINE) {
        at = this.readTrailerLine(piece, at)
      } else {
        this.step(piece[at++])
      }
    }
    this.consumed = at
    return from === to ? NO_BYTES : piece.subarray(from, to)
  }

  end (): void {
    if (!this.done && this.error === null) this.error = new TruncatedError()
  }

  /**
   * What stands between most chunks, read at once where it is whole: CRLF, a size without anything else, CRLF. All that
   * is rarer or wrong is left to `step`.
   *
   * @returns where the next chunk-data begins; `at` when nothing was read
   */
  private readPlainBoundary (piece: Buffer, at: number): number {
    const end = Math.min(piece.length - 2, at + 2 + MAX_PLAIN_DIGITS)
    if (at + 2 >= end || piece[at] !== CR || piece[at + 1] !== LF) return at
    let size = 0
    let digit = 0
    let next = at + 2
    while (next < end && (digit = HEX_VALUE[piece[next]]) >= 0) {
      size = size * 16 + digit
      next++
    }
    if (size === 0 || piece[next] !== CR || piece[next + 1] !== LF || size > MAX_BODY_SIZE - this.total) return at
    this.left = size
    this.total += size
    this.state = DATA
    return next + 2
  }

  /** One byte of framing. */
  private step (byte: number): void {
    switch (this.state) {
      case SIZE: {
        const digit = HEX_VALUE[byte]
        if (digit >= 0) {
          if (++this.digits > MAX_CHUNK_SIZE_DIGITS) this.fail('chunk-size is too long')
          else this.left = this.left * 16 + digit
        } else if (this.digits === 0) {
          this.fail('chunk-size is missing')
        } else {
          this.endOfElement(byte, 'chunk-size')
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
          this.line = ''
          this.state = TRAILER_LINE
          this.addToLine(String.fromCharCode(byte))
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
        if (this.error === null) this.stepExtension(byte)
    }
  }

  /** chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] ), RFC 9112 section 7.1.1. */
  private stepExtension (byte: number): void {
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
        else this.endOfElement(byte, 'chunk-ext-name')
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
        if (TOKEN_BYTES[byte] !== 1) this.endOfElement(byte, 'chunk-ext-val')
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
        this.endOfElement(byte, 'chunk-ext-val')
    }
  }

  /** After chunk-size, or after one whole extension: what may follow either. */
  private endOfElement (byte: number, element: string): void {
    if (byte === CR) this.state = SIZE_LF
    else if (byte === SEMICOLON) this.enterExtension(EXT_NAME_START)
    else if (isBlank(byte)) this.enterExtension(EXT_SEMICOLON)
    else this.fail(`unexpected byte 0x${byte.toString(16).padStart(2, '0')} after ${element}`)
  }

  private enterExtension (state: number): void {
    // The byte after chunk-size is the first of the extensions and was not counted by the state it was read in.
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
    if (this.left === 0) {
      this.state = TRAILER_START
    } else if (this.left > MAX_BODY_SIZE - this.total) {
      this.fail('the body is longer than 2^53-1 bytes')
    } else {
      this.total += this.left
      this.state = DATA
    }
  }

  /** Takes the rest of a trailer line, or as much as `piece` has of it. */
  private readTrailerLine (piece: Buffer, at: number): number {
    const stop = piece.indexOf(CR, at)
    const end = stop === -1 ? piece.length : stop
    this.addToLine(piece.toString('latin1', at, end))
    if (this.error === null && stop !== -1) this.state = TRAILER_LF
    return stop === -1 ? end : end + 1
  }

  private addToLine (text: string): void {
    this.line += text
    this.countTrailer(text.length)
    // A bare LF could not become a field line any more: say so now, not when a CR comes.
    if (text.includes('\n')) this.failTrailer('bare LF')
  }

  private endTrailerLine (): void {
    const fields: Fields = this.trailers === NO_FIELDS ? Object.create(null) : this.trailers
    const name = readFieldLine(this.line, fields)
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

/** What may stand in a quoted-string: anything but controls, and CR and LF among them (RFC 9110 section 5.6.4). */
function isQuotable (byte: number): boolean {
  return (byte >= SP && byte !== DEL) || byte === HTAB
}
