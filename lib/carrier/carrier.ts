// What an exchange needs of a transport: the content of the request, decoded, and a way to write the response. Who
// implements this owns both directions of the connection for the time of the exchange.

import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { FieldLimitError } from '../errors.ts'
import { fieldLimitReached } from '../handoff.ts'
import type { Fields, OutgoingFields } from '../transfer/field-lines.ts'
import { type Framing, NO_BODY, framingFields, minorVersion, requestFraming } from '../transfer/framing.ts'
import type { ResponseHead } from '../transfer/head-writer.ts'
import { checkConnect } from '../transfer/tunnel.ts'

/** The exchange, as its carrier sees it. */
export interface Sink {
  /** Some content. False: no more until `carrier.read` is called. */
  onContent (content: Buffer): boolean
  /** The socket that content is written to at once, by a pipe into an exchange and past everybody else, if it is. */
  readonly relay: Duplex | null
  /** As `onContent`, while there is one. */
  relayContent (content: Buffer): boolean
  /** Whether so much content, the last, went there and nowhere else. */
  hasRelayed (size: number): boolean
  /** The request's own body has been read to its end. With the head of a tunnel written now, more is to come. */
  onBodyEnd (): void
  /** The request is complete; of a tunnel, what the client sends. */
  onComplete (): void
  /** The request can not be read on: it is malformed, too long, or cut off. */
  onReadError (error: Error): void
  /** Somebody else has sent the whole response. Nothing comes after this. */
  onAnswered (): void
  /** The connection is gone, or was given up for `error`. Nothing comes after this. */
  onLost (error: Error): void
}

export interface ResponseStart extends ResponseHead {
  /** Whether the user asks to close the connection. */
  close: boolean
}

export interface Detached {
  socket: Socket
  head: Buffer
}

/** Called once: when more may be written, or with what has failed. */
export type WriteCallback = (error?: Error | null) => void

export interface Carrier {
  sink: Sink | null
  /** The exchange has ended, one way or the other. */
  readonly over: boolean
  /** Told once when it has. */
  onOver: () => void
  /** Told before the exchange fails because nothing has moved for `idleTimeout`. */
  onIdleTimeout: () => void
  /** Fastify has begun to answer: the response is its own, though the head may not have gone out. */
  answering: boolean
  readonly socket: Duplex
  readonly requestFraming: Framing
  /** Why the request cannot be read at all; its connection ends with the answer. */
  readonly framingError: Error | null
  /** Why the exchange failed: given to `abort`, or to `onLost`. */
  readonly failure: Error | null
  /** Complete when the request is. */
  readonly trailers: Readonly<Fields>
  /** Starts to deliver content, or goes on. */
  read (): void
  /** Whether the response may be written: not before those to requests that came earlier on the connection. */
  readonly mayWrite: boolean
  /** Calls back when it may. */
  whenMayWrite (callback: () => void): void
  /**
   * The head, to leave with the first `write` that follows. Throws what the head writer throws. With it a tunnel begins:
   * what follows the request's own body is content too.
   */
  writeHead (head: ResponseStart): void
  /** An interim response; false where the client understands none. Throws what the head writer throws. */
  writeInterim (statusCode: number, fields: OutgoingFields): boolean
  /**
   * The connection is gone, and what is being written may not have left. A destroyed socket of Node calls back without an
   * error for what it could not send.
   */
  readonly gone: boolean
  /** The socket, if what is written now goes to the kernel within the call, as far as that takes it. */
  readonly idleSocket: Duplex | null
  /** Content of `size` bytes, and the end of the body if `end`. Throws what the body writer throws. */
  write (content: readonly Buffer[], size: number, end: boolean, done: WriteCallback): void
  /** Fields to end the body with. Throws what the trailer writer throws. */
  setTrailers (fields: OutgoingFields): void
  /**
   * Leaves the connection to the caller, with the bytes that came behind the request. Ends the exchange for Fastify.
   *
   * @throws {TunnelError} FST_ERR_DUPLEX_TUNNEL: there is none to leave
   * @throws {DetachError} FST_ERR_DUPLEX_DETACH: something is still to be read or written
   */
  detach (): Detached
  /** The response is complete: ends the exchange. What is left of the request is dropped. */
  finish (): void
  /** Ends the exchange before the response is complete, which the client must be able to see. */
  abort (error: Error): void
}

/** How a request is framed, or what is wrong with that. */
export function frame (request: IncomingMessage): { framing: Framing, error: Error | null } {
  const fields = framingFields(request.rawHeaders)
  try {
    const limit = fieldLimitReached(request)
    if (limit !== null) throw new FieldLimitError(limit)
    if (request.method === 'CONNECT') checkConnect(fields)
    return { framing: requestFraming(fields, minorVersion(request)), error: null }
  } catch (error) {
    return { framing: NO_BODY, error: error as Error }
  }
}
