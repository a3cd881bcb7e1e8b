// Is the connection kept for another request (RFC 9112 section 9.3)? The only place that decides. It is asked before the head,
// which tells the client, before an answer that Node writes, and again when the exchange has ended: by then something may have
// come up that makes it impossible.

/** Every reason against it. */
export type CloseReason =
  /** The request asks to close, or `server.maxRequestsPerSocket` is reached. */
  | 'request'
  /** The response asks to close, or its body ends with the connection. */
  | 'response'
  /** The request is malformed: where the next one begins is unknown. */
  | 'malformed'
  /** The rest of the body is too long to be dropped, or the client waits for a 100 that was never sent. */
  | 'unread body'
  /** The client has ended its side. */
  | 'half-closed'
  /** The app is closing. */
  | 'closing'

export interface ConnectionState {
  requestPersists: boolean
  responseCloses: boolean
  isMalformed: boolean
  /** The whole body was read, is being read, or can be dropped. */
  isBodyReadable: boolean
  clientHasEnded: boolean
  isClosing: boolean
}

/** @returns null when the connection is kept */
export function reasonToClose (state: ConnectionState): CloseReason | null {
  if (!state.requestPersists) return 'request'
  if (state.responseCloses) return 'response'
  if (state.isMalformed) return 'malformed'
  if (!state.isBodyReadable) return 'unread body'
  if (state.clientHasEnded) return 'half-closed'
  return state.isClosing ? 'closing' : null
}
