// The contract between an exchange and its transport. The transport delivers the decoded request body and writes the response.
// While the exchange lasts, it has both directions of the connection.

import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { OutgoingFields, OutgoingResponseHead, Trailers } from '../../types/transfer.d.ts'
import type { Landed } from '../relay/read-buffers.ts'
import type { Framing } from '../transfer/framing.ts'

/** The exchange, as its transport sees it. */
export interface ExchangeEvents {
  /**
   * Some content was read.
   *
   * @param last whether the request body is complete with it: `onBodyEnd` follows
   * @returns whether more content is wanted; if false, none is delivered until `transport.read` is called
   */
  onContent (content: Landed, last: boolean): boolean
  /**
   * The body of the request was read to its end. The exchange may now send the response head that opens a tunnel.
   *
   * @returns whether the connection is a tunnel now: then everything that the client sends after the body is content too. Null if that
   *   is not known yet: `onBodyEnd` is called again after the next call of `read`
   */
  onBodyEnd (): boolean | null
  /** The request is complete. In a tunnel: the client has ended its side. */
  onRequestEnd (): void
  /** The request cannot be read any further: it is malformed, too long, or cut off. */
  onReadError (error: Error): void
  /** The first byte of the response is about to be handed over: it cannot be taken back any more. */
  onFirstByte (): void
  /** The client has ended its side behind its request. */
  onHalfClose (): void
  /** Called before `onIdle`, unless Fastify's own listener for 'timeout' was called. */
  onIdleTimeout (): void
  /**
   * No byte has moved for `idleTimeout`.
   *
   * @param canAnswer whether the response is in turn, and the connection can still be written
   */
  onIdle (canAnswer: boolean): void
  /** Other code has ended the response that the exchange has begun: Fastify logs it next. `onAnswered` follows. */
  onForeignEnd (): void
  /** The whole response was sent by other code than the exchange, for example by Fastify. This is the last event. */
  onAnswered (): void
  /** The client has closed the connection, or its stream. This is the last event. */
  onGone (error: Error): void
  /** The connection, or its stream, has closed behind the whole response. What nobody has read of the request is lost. */
  onRestLost (): void
  /** Its stream has closed behind the whole request and the whole response. The request may still be read. */
  onBothEnded (): void
  /** Fastify has begun to answer. */
  readonly answerHasBegun: boolean
}

export interface ResponseStart extends OutgoingResponseHead {
  /** Whether the user asks to close the connection after the response. */
  close: boolean
}

/** A connection that was left to the user. */
export interface Detached {
  socket: Socket
  /** The bytes that were received behind the request. */
  head: Buffer
}

/** Called once: when more may be written, or with the error that prevented the write. */
export type WriteCallback = (error?: Error | null) => void

export interface Transport {
  /** Called once, before anything else. May report that the client has already left. */
  start (exchange: ExchangeEvents): void
  readonly socket: Duplex
  /** The connection, if this transport reads and writes its bytes; null if Node does. */
  readonly rawSocket: Duplex | null
  readonly requestFraming: Framing
  /** Whether other code reads the request, from Node's object for it. False after the exchange. */
  readonly isReadByOthers: boolean
  /** Why the request cannot be read at all; null if it can. Its connection is closed after the answer. */
  readonly framingError: Error | null
  /** The trailers of the request, complete when the request is. */
  readonly trailers: Trailers
  /** Starts or resumes delivering content. */
  read (): void
  /** Whether the client waits for a 100 that was not sent, and has sent nothing of the body. */
  readonly awaitsContinue: boolean
  /** For the speed of the client: bytes that were received, and bytes that the kernel has accepted. Framing may be included. */
  readonly progress: number
  /** Whether bytes of the response wait for the kernel to accept them. */
  readonly isStuck: boolean
  /** Whether responses to earlier requests of the connection come first. */
  readonly isBehindOthers: boolean
  /** Whether the response may be written: the responses to earlier requests of the connection come first. */
  readonly mayWrite: boolean
  /** Calls back once: now if `mayWrite` is true, otherwise when it becomes true. */
  whenMayWrite (callback: () => void): void
  /**
   * Takes the head, which is sent with the next `write`. After the head of a tunnel, everything that the client sends behind the
   * request body is content. Throws the errors of the head writer.
   */
  writeHead (head: ResponseStart): void
  /** Drops the head, of which nothing was sent. */
  takeBack (): void
  /** Closes the connection after an answer that Node writes. */
  refuse (): void
  /** Sends an interim response. Throws the errors of the head writer. @returns false if the client understands none */
  writeInterim (statusCode: number, fields: OutgoingFields): boolean
  /**
   * The connection is gone, and a write under way may not have been sent. The callback of that write does not tell: a destroyed
   * socket calls back without an error.
   */
  readonly connectionIsGone: boolean
  /**
   * Sends content. Calls `onFirstByte` before the first byte. Throws the errors of the body writer, and then has sent nothing.
   *
   * @param size the total number of bytes in `content`; may be 0
   * @param end whether the body ends with it
   * @param mayEndAtOnce whether `done` may be called within this call at the end of the body. What ends the exchange follows then
   */
  write (content: readonly Buffer[], size: number, end: boolean, done?: WriteCallback, mayEndAtOnce?: boolean): void
  /** Sets the trailers of the response. Throws the errors of the trailer writer. */
  setTrailers (fields: OutgoingFields): void
  /**
   * Leaves the connection to the caller, with the bytes that were received behind the request. Ends the exchange for Fastify.
   *
   * @throws {TunnelError} FST_ERR_DUPLEX_TUNNEL: this transport has no raw connection
   * @throws {DetachError} FST_ERR_DUPLEX_DETACH: something is left to read or write
   */
  detach (): Detached
  /** Ends the exchange after a complete response. The rest of the request is dropped. */
  finish (): void
  /**
   * Ends the exchange before the response is complete. The response is cut off, so that the client can tell. Reports nothing more.
   *
   * @param lingers whether what was written should arrive, even if the client still sends
   */
  abort (error: Error, lingers: boolean): void
}

/** What a transport must know about the app. */
export interface App {
  /** The app is closing: no connection is kept. */
  readonly isClosing: boolean
  /** Connections on which the rest of a request is being dropped. When the app begins to close, they must leave its server. */
  readonly draining: Set<{ leaveServer (): void }>
  /** Runs `action` without its side effect on Fastify, which would remove the listener that aborts `request.signal`. */
  keepSignalDuring (request: IncomingMessage, action: () => void): void
  /** Whether `app.inject()` has made this request, with a body. */
  hasInjectedBody (request: IncomingMessage): boolean
}
