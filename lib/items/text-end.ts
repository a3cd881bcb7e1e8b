// Where a JSON text ends, found without looking at what it says: as soon as its last byte has come, and at each byte only once.

import { isWhitespace } from './json-text.ts'

const LF = 0x0a
const QUOTE = 0x22
const BACKSLASH = 0x5c
const OPENING = [0x5b, 0x7b] // [ {
const CLOSING = [0x5d, 0x7d] // ] }

type State = 'before' | 'number or word' | 'string' | 'escape' | 'array or object' | 'behind' | 'other text'

export class TextEnd {
  private state: State = 'before'
  /** Arrays and objects that are open. */
  private depth = 0

  /** Goes on with the next bytes. @returns the position behind the LF that follows the text; -1: it has not come, or there is other text before it */
  find (bytes: Buffer, from: number, to: number): number {
    for (let i = from; i < to; i++) {
      if (bytes[i] === LF && (this.state === 'behind' || this.state === 'number or word')) return i + 1
      this.state = this.next(bytes[i])
    }
    return -1
  }

  private next (byte: number): State {
    switch (this.state) {
      case 'before':
        return isWhitespace(byte) ? 'before' : this.begin(byte)
      case 'number or word':
        return isWhitespace(byte) ? 'behind' : 'number or word'
      case 'string':
        if (byte === BACKSLASH) return 'escape'
        return byte === QUOTE ? this.behindValue() : 'string'
      case 'escape':
        return 'string'
      case 'array or object':
        return this.nest(byte)
      case 'behind':
        return isWhitespace(byte) ? 'behind' : 'other text'
      case 'other text':
        return 'other text'
    }
  }

  private begin (byte: number): State {
    return byte === QUOTE || OPENING.includes(byte) ? this.nest(byte) : 'number or word'
  }

  private nest (byte: number): State {
    if (byte === QUOTE) return 'string'
    if (OPENING.includes(byte)) this.depth++
    if (CLOSING.includes(byte)) this.depth--
    return this.behindValue()
  }

  private behindValue (): State {
    return this.depth > 0 ? 'array or object' : 'behind'
  }
}
