// Body readers: the bytes of one message body in, its content out. A reader is chosen once, from the message head. It
// then gets every buffer that is read from the connection, until it is `done` or has an `error`. It does not throw, and
// it keeps no reference to its input: the content it returns is a view of the input.

import type { BodyReader, Trailers } from '../../types/transfer.d.ts'
import { TruncatedError } from '../errors.ts'

export type { BodyReader }

/** The one empty buffer: `Buffer.alloc(0)` would make a new object each time. */
export const NO_BYTES: Buffer = Buffer.alloc(0)

/** The bytes of `input` from `start` on. If there are none, the result keeps none of its memory alive. */
export function restOf (input: Buffer, start: number): Buffer {
  return start < input.length ? input.subarray(start) : NO_BYTES
}

/** The trailers of a body that has none. */
export const NO_FIELDS: Trailers = Object.freeze({})

/** Reads a body of exactly `length` bytes (RFC 9112 section 6.2). With 0 there is no body. */
export class LengthReader implements BodyReader {
  done: boolean
  error: Error | null = null
  consumed = 0
  readonly trailers = NO_FIELDS
  private remaining: number

  constructor (length: number) {
    this.remaining = length
    this.done = length === 0
  }

  read (input: Buffer): Buffer {
    this.consumed = Math.min(input.length, this.remaining)
    this.remaining -= this.consumed
    this.done = this.remaining === 0
    return this.consumed === input.length ? input : input.subarray(0, this.consumed)
  }

  end (): void {
    if (!this.done) this.error = new TruncatedError()
  }
}

/** Reads until the connection ends (RFC 9112 section 6.3, item 8): a response, or either direction of a tunnel. */
export class CloseReader implements BodyReader {
  done = false
  readonly error = null
  consumed = 0
  readonly trailers = NO_FIELDS

  read (input: Buffer): Buffer {
    this.consumed = input.length
    return input
  }

  end (): void {
    this.done = true
  }
}
