// The contract between an exchange and its transport. The transport delivers the decoded request body and writes the response.
// For the time of the exchange it has both directions of the connection.

import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { OutgoingFields, Trailers } from '../../types/transfer.d.ts'
import type { Landed } from '../relay/read-buffers.ts'
import type { Framing } from '../transfer/framing.ts'
import type { ResponseHead } from '../transfer/head-writer.ts'

/** The exchange, as its transport sees it. */
export interface ExchangeEvents {
  /**
   * Some content.
   *
   * @param last with it the request body is complete: `onBodyEnd` follows
   * @returns false: no more until `transport.read` is called
   */
  onContent (content: Landed, last: boolean): boolean
  /**
   * The request's own body was read to its end. The exchange may answer with the head of a tunnel now.
   *
   * @returns whether it is a tunnel: what the client sends from here on is content too
   */
  onBodyEnd (): boolean
  /** The request is complete, with all that the client sends through a tunnel. */
  onRequestEnd (): void
  /** The request cannot be read any further: it is malformed, too long, or cut off. */
  onReadError (error: Error): void
  /** Somebody else has sent the whole response. This is the last event. */
  onAnswered (): void
  /** The connection is gone, or was closed because of `error`. This is the last event. */
  onFailure (error: Error): void
}

export interface ResponseStart extends ResponseHead {
  /** Whether the user asks to close the connection. */
  close: boolean
}

export interface Detached {
  socket: Socket
  head: Buffer
}

/** Called once: when more may be written, or with the error that has prevented it. */
export type WriteCallback = (error?: Error | null) => void

export interface Transport {
  exchange: ExchangeEvents | null
  /** The exchange has ended, one way or another. */
  readonly hasEnded: boolean
  /** Called once when it has ended. */
  onEnded: () => void
  /** Called before the exchange fails because nothing has moved for `idleTimeout`. */
  onIdleTimeout: () => void
  /** Fastify has begun to answer: the response is its own, although the head may not have been sent. */
  answerHasBegun: boolean
  readonly socket: Duplex
  /** The connection, if its bytes are the transport's; null where Node reads and writes them. */
  readonly rawSocket: Duplex | null
  readonly requestFraming: Framing
  /** Why the request cannot be read at all. Its connection is closed with the answer. */
  readonly framingError: Error | null
  /** Why the exchange has failed: the error of `abort` or of `onLost`. */
  readonly failure: Error | null
  /** Complete when the request is. */
  readonly trailers: Trailers
  /** Starts to deliver content, or goes on. */
  read (): void
  /** Whether the response may be written: not before the responses to earlier requests of the connection. */
  readonly mayWrite: boolean
  /** Calls back when it may be. */
  whenMayWrite (callback: () => void): void
  /**
   * The head, to be sent with the next `write`. Throws what the head writer throws. After the head of a tunnel, everything the
   * client sends behind the request's own body is content.
   */
  writeHead (head: ResponseStart): void
  /** Sends an interim response; false where the client understands none. Throws what the head writer throws. */
  writeInterim (statusCode: number, fields: OutgoingFields): boolean
  /**
   * The connection is gone, and what is being written may not have been sent. A destroyed socket of Node calls back without an
   * error even for what it could not send.
   */
  readonly connectionIsGone: boolean
  /** Sends content of `size` bytes, and the end of the body if `end`. Throws what the body writer throws. */
  write (content: readonly Buffer[], size: number, end: boolean, done: WriteCallback): void
  /** Sets the trailers of the response. Throws what the trailer writer throws. */
  setTrailers (fields: OutgoingFields): void
  /**
   * Leaves the connection to the caller, with the bytes that were received behind the request. Ends the exchange for Fastify.
   *
   * @throws {TunnelError} FST_ERR_DUPLEX_TUNNEL: there is no connection to leave
   * @throws {DetachError} FST_ERR_DUPLEX_DETACH: something is still to be read or written
   */
  detach (): Detached
  /** The response is complete: ends the exchange. The rest of the request is dropped. */
  finish (): void
  /** Ends the exchange before the response is complete, so that the client can tell. */
  abort (error: Error): void
}

/** What a transport must know of the app. */
export interface App {
  /** The app is closing: no connection is kept. */
  readonly isClosing: boolean
  /** Runs `action`, which makes Fastify drop its abort of `request.signal`, and keeps that abort. */
  keepingSignal (request: IncomingMessage, action: () => void): void
  /** Whether `app.inject()` has made this request, with a body. */
  hasInjectedBody (request: IncomingMessage): boolean
}
