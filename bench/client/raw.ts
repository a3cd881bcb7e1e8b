// No protocol: the content is sent and received as it is.

import type { Protocol, ResponseEvents, Session } from './session.ts'

const NO_BYTES = Buffer.alloc(0)

class RawSession implements Session {
  readonly credit = Infinity
  readonly willClose = false
  private readonly events: ResponseEvents

  constructor (events: ResponseEvents) {
    this.events = events
  }

  read (bytes: Buffer, length: number): void {
    this.events.onData(bytes, 0, length)
  }

  consumeCredit (): void {}
}

export const raw: Protocol = {
  createSession: (events) => new RawSession(events),
  maxChunk: Infinity,
  encodeHead: () => NO_BYTES,
  encodeChunk: (content) => content,
  lastChunk: null,
  encodeExchange: () => null
}
