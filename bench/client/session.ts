// One connection of the client as its protocol sees it: encodes what is sent, and interprets what is received. It does
// no I/O, and requests are encoded in advance, so that the client costs little more than its system calls.

export interface ResponseEvents {
  /** `bytes[from, to)` is content of the response. */
  onData (bytes: Buffer, from: number, to: number): void
  /** The response has ended. */
  onEnd (): void
}

export interface Session {
  /** Reads the first `length` bytes. @throws if they are not what the server should send */
  read (bytes: Buffer, length: number): void
  /** How many bytes of content flow control lets the client send now. `Infinity` if the protocol has no flow control. */
  readonly credit: number
  /** Subtracts bytes that were sent. */
  consumeCredit (size: number): void
  /** The server will close the connection after this response. */
  readonly willClose: boolean
}

/** How a protocol encodes requests. */
export interface Protocol {
  /** @param reply sends bytes that the protocol itself needs. @param onCredit is called when `credit` has grown. */
  createSession (events: ResponseEvents, reply: (bytes: Buffer) => void, onCredit: () => void): Session
  /** The most content that one chunk may have. */
  maxChunk: number
  /** The bytes that begin an exchange on a new connection. @param contentType of the body, if the protocol has one */
  encodeHead (path: string, hasBody: boolean, contentType?: string): Buffer
  /** A chunk, a frame, or whatever the protocol calls it. */
  encodeChunk (content: Buffer): Buffer
  /** Ends the request body. With null, the client ends its side of the connection instead. */
  readonly lastChunk: Buffer | null
  /** A whole short exchange, the `index`th of its connection. Null if the protocol has no short exchanges. */
  encodeExchange (path: string, content: Buffer, index: number): Buffer | null
}
