// No protocol at all: the bytes of a bare socket.

import type { Protocol, Session, Sink } from './session.ts'

const NOTHING = Buffer.alloc(0)

class RawSession implements Session {
  readonly room = Infinity
  readonly closing = false
  private readonly sink: Sink

  constructor (sink: Sink) {
    this.sink = sink
  }

  read (bytes: Buffer, length: number): void {
    this.sink.data(bytes, 0, length)
  }

  sent (): void {}
}

export const raw: Protocol = {
  session: (sink) => new RawSession(sink),
  maxChunk: Infinity,
  open: () => NOTHING,
  chunk: (content) => content,
  last: null,
  exchange: () => null
}
