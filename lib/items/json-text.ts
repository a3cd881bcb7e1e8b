// From bytes to JSON text to values. Most of the time goes into calls, so that many records are decoded at once.

import { isAscii, isUtf8 } from 'node:buffer'

/** Some whole records as text, and where in the body they are. */
export class TextRun {
  readonly text: string
  readonly isAscii: boolean
  /** Bytes. */
  readonly size: number
  /** The byte of the body at which the text begins. */
  private readonly start: number
  // How far the text was measured by offsetAt(), so that all calls together go through it once.
  private measured = 0
  private measuredSize = 0

  constructor (text: string, isAscii: boolean, size: number, start: number) {
    this.text = text
    this.isAscii = isAscii
    this.size = size
    this.start = start
  }

  /** The byte of the body at which a character is. The position must not be before that of the last call. */
  offsetAt (position: number): number {
    if (this.isAscii) return this.start + position
    this.measuredSize += Buffer.byteLength(this.text.slice(this.measured, position))
    this.measured = position
    return this.start + this.measuredSize
  }

  /** The same, measured from the end of the text: faster for a record that is one of the last. */
  offsetFromEnd (position: number): number {
    if (this.isAscii) return this.start + position
    return this.start + this.size - Buffer.byteLength(this.text.slice(position))
  }
}

/** @returns null if the bytes are no UTF-8 */
export function decode (bytes: Buffer, start: number): TextRun | null {
  if (isAscii(bytes)) return new TextRun(bytes.toString('latin1'), true, bytes.length, start)
  return isUtf8(bytes) ? new TextRun(bytes.toString('utf8'), false, bytes.length, start) : null
}

/** An ASCII letter or '_' as an escape, which hardly anybody sends. */
const ESCAPED_LETTER = /\\u00[567]/

/**
 * Whether a key may be `__proto__`, or `constructor` with an object that has `prototype`, be they written with \u escapes. Both hold
 * "proto": one search, for a word that is rare.
 */
export function mayHoldProto (text: string): boolean {
  return text.includes('proto') || (text.includes('\\u00') && ESCAPED_LETTER.test(text))
}

/** Whitespace of JSON, and nothing else. */
export function isBlank (text: string, start: number, end: number): boolean {
  for (let i = start; i < end; i++) {
    if (!isWhitespace(text.charCodeAt(i))) return false
  }
  return true
}

export function isWhitespace (code: number): boolean {
  return code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09
}
