// Body readers: the bytes of one message body in, its content out. A reader is chosen once, from the message head. It
// then gets every buffer that is read from the connection, until it is `done` or has an `error`. It does not throw, and
// it keeps no reference to its input: the content it returns is a view of the input.

import type { Trailers } from '../../types/transfer.d.ts'
import { TruncatedError } from '../errors.ts'

/** The one empty buffer: `Buffer.alloc(0)` would make a new object each time. */
export const NO_BYTES: Buffer = Buffer.alloc(0)

/** The bytes of `input` from `start` on. If there are none, the result keeps none of its memory alive. */
export function restOf (input: Buffer, start: number): Buffer {
  return start < input.length ? input.subarray(start) : NO_BYTES
}

/** The trailers of a body that has none. */
export const NO_FIELDS: Trailers = Object.freeze({})

export interface BodyReader {
  /** The whole body has been read. Set by `read` or `end`; true from the start if there is no body. */
  readonly done: boolean
  /** What is wrong with the body. Nothing can be read after an error. */
  readonly error: Error | null
  /** How many bytes of the last input belonged to the body. If the reader is done, the next message follows them. */
  readonly consumed: number
  /** The trailer section, complete once the reader is done. */
  readonly trailers: Trailers
  /**
   * Reads the next bytes of the body. May overwrite `input` up to `consumed`, but never beyond.
   *
   * @returns the content in `input`, as a view of it; empty if it holds nothing but framing
   */
  read (input: Buffer): Buffer
  /** The connection has ended. Sets `done` if that marks the end of the body, else `error`. */
  end (): void
}

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
