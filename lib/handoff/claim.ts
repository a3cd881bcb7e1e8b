// The two sides of a borrowed connection: what its borrower is told, and what the connection knows of the claim.

import type { Landed } from '../relay/read-buffers.ts'

/** Callbacks to the borrower. Each is called at most once, `onData` excepted; none after the connection is returned. */
export interface Borrower {
  /** The parser has stopped: the connection may be read from now on. */
  onTaken (): void
  /** Some bytes, valid during the call only. Called only while the borrower reads. */
  onData (data: Landed): void
  /** Node has sent the response, through the ServerResponse. `persistent`: its head has said that the connection is kept. */
  onAnswered (persistent: boolean): void
  /** Nothing was read or written during the socket's timeout. */
  onTimeout (): void
  /** The client has ended its side, and all bytes before that were passed on. Called only while the borrower reads. */
  onEnd (): void
  /** The connection is closed. */
  onClose (error: Error | null): void
}

/** The claim of one request on its connection. */
export interface Claim {
  readonly borrower: Borrower
  /** The connection is the borrower's. */
  taken: boolean
  /** The borrower wants data. */
  reading: boolean
  /** No response to an earlier request is due any more. */
  inTurn: boolean
  readonly mayWrite: boolean
  whenMayWrite (callback: () => void): void
}
