// One connection of the client, seen from its protocol: what to send, as bytes made in advance, and what the bytes that
// come back mean. Pure, so that the client costs little more than its system calls.

export interface Sink {
  /** `bytes[from, to)` is a part of the response body. */
  data (bytes: Buffer, from: number, to: number): void
  /** The response body has ended. */
  end (): void
}

export interface Session {
  /** Reads the first `length` of `bytes`; throws when they are not what the server should send. */
  read (bytes: Buffer, length: number): void
  /** How many bytes of body may be sent now: flow control, where the protocol has its own. */
  readonly room: number
  /** That many have been sent. */
  sent (size: number): void
  /** The server closes the connection after this response. */
  readonly closing: boolean
}

/** How one protocol looks on the wire. */
export interface Protocol {
  /** `reply` sends bytes of the protocol's own; `onRoom` tells that there is room again. */
  session (sink: Sink, reply: (bytes: Buffer) => void, onRoom: () => void): Session
  /** Content in one chunk at most. */
  maxChunk: number
  /** What opens an exchange on a new connection. */
  open (path: string, hasBody: boolean): Buffer
  /** One chunk, frame, or what the protocol has. */
  chunk (content: Buffer): Buffer
  /** The end of the request body; null: the end of the connection's writable side. */
  readonly last: Buffer | null
  /** A whole short exchange, the `index`th of its connection; null where the protocol has none. */
  exchange (path: string, content: Buffer, index: number): Buffer | null
}
