// The two interfaces between a connection and its borrower: what the borrower is told, and what the connection knows about the
// claim.

import type { IncomingMessage } from 'node:http'
import type { Landed } from '../relay/read-buffers.ts'

/** Callbacks to the borrower. Each is called at most once, `onData` and `onTimeout` excepted; none after the connection is returned. */
export interface Borrower {
  /** Whether the request body was read to its end. */
  readonly requestIsRead: boolean
  /** The parser has stopped behind the head: the borrower may read from now on. */
  onTaken (): void
  /** Some bytes, valid during the call only. Called only while `wantsData` is set. */
  onData (data: Landed): void
  /** Other code has finished the ServerResponse. Fastify is told next, and then `onAnswered` follows. */
  onFinish (): void
  /**
   * Node has sent the whole response, through the ServerResponse.
   *
   * @param promisedToPersist whether its head has told the client that the connection is kept
   */
  onAnswered (promisedToPersist: boolean): void
  /** Nothing was read or written during the socket's timeout. Called only while `nodeIsSuspended` is set. */
  onTimeout (): void
  /** The client has ended its side, and all bytes before that were passed on. Called only while `wantsData` is set. */
  onEnd (): void
  /** The client has ended its side, and the borrower does not want data. What it has sent before may still be held. */
  onHalfClose (): void
  /** The connection is closed. `error` is the socket's error, if there was one. */
  onClose (error: Error | null): void
}

/** The claim of one request on its connection. */
export interface Claim {
  readonly borrower: Borrower
  /** The request, unless it was read to its end. */
  readonly unreadRequest: IncomingMessage | null
  /** The borrower has the connection. False while the request is still being routed. */
  isTaken: boolean
  /** The borrower wants data. */
  wantsData: boolean
  /** Node's timeout and its way of closing are suspended. This happens when `mayWrite` becomes true. */
  nodeIsSuspended: boolean
  /** The responses to all earlier requests are complete, so that this one may be written. */
  readonly mayWrite: boolean
  /** Calls back once, later, when `mayWrite` becomes true. */
  whenMayWrite (callback: () => void): void
}
