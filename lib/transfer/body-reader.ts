// Body readers: the bytes of one message body in, its content out. A reader is chosen once, from the message head, and
// then called with every piece the connection delivers until it is `done` or has an `error`. It never throws and never
// keeps a piece: content leaves as it came in, in the same memory.

import type { Trailers } from '../../types/transfer.d.ts'
import { TruncatedError } from '../errors.ts'

/** Nothing. One object, since `Buffer.alloc(0)` makes a new one each time. */
export const NO_BYTES: Buffer = Buffer.alloc(0)

/** What is in `piece` from there on; with nothing left, none of its memory is held. */
export function restOf (piece: Buffer, from: number): Buffer {
  return from < piece.length ? piece.subarray(from) : NO_BYTES
}

/** No trailers were sent, or none can be. */
export const NO_FIELDS: Trailers = Object.freeze(Object.create(null))

export interface BodyReader {
  /** The whole body has been read. Set by `read`, by `end`, or from the start when there is no body. */
  readonly done: boolean
  /** What is wrong with the body. Nothing more can be read then. */
  readonly error: Error | null
  /** Bytes of the last piece that belonged to the body; what follows is the next message, if the reader is done. */
  readonly consumed: number
  /** The trailer section, complete once the reader is done. */
  readonly trailers: Trailers
  /**
   * Reads on in `piece`, which it may overwrite up to `consumed` but never beyond.
   *
   * @returns the content in it, a view of `piece`; empty when it holds framing alone
   */
  read (piece: Buffer): Buffer
  /** The connection has ended: sets `done` where that is the mark of the end, else `error`. */
  end (): void
}

/** A body of exactly `length` bytes (RFC 9112 section 6.2); of none with 0. */
export class LengthReader implements BodyReader {
  done: boolean
  error: Error | null = null
  consumed = 0
  readonly trailers = NO_FIELDS
  private left: number

  constructor (length: number) {
    this.left = length
    this.done = length === 0
  }

  read (piece: Buffer): Buffer {
    this.consumed = Math.min(piece.length, this.left)
    this.left -= this.consumed
    this.done = this.left === 0
    return this.consumed === piece.length ? piece : piece.subarray(0, this.consumed)
  }

  end (): void {
    if (!this.done) this.error = new TruncatedError()
  }
}

/** A body that ends with its connection (RFC 9112 section 6.3, item 8): a response, or either side of a tunnel. */
export class CloseReader implements BodyReader {
  done = false
  readonly error = null
  consumed = 0
  readonly trailers = NO_FIELDS

  read (piece: Buffer): Buffer {
    this.consumed = piece.length
    return piece
  }

  end (): void {
    this.done = true
  }
}
