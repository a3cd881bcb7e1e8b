// Is the connection kept for another request (RFC 9112 section 9.3)? For a raw connection this is the only place that decides.
// It is asked three times: before our response head, which tells the client; before an answer that Node writes; and again after
// the exchange, when something may have happened that makes it impossible. If Node reads and writes the connection, as with
// NodeTransport, Node decides.

/** Every reason to close the connection. */
export type CloseReason =
  /** The request asks to close, its version does not allow another request, or `server.maxRequestsPerSocket` is reached. */
  | 'request'
  /** The response asks to close, or its body ends with the connection. */
  | 'response'
  /** The request is malformed: where the next one begins is unknown. */
  | 'malformed'
  /** The rest of the body may be too long to be dropped, or the client waits for a 100 that was never sent. */
  | 'unread body'
  /** The client has ended its side. */
  | 'half-closed'
  /** The app is closing. */
  | 'closing'

/** The facts of the decision: the reasons above, in the same order. */
export interface ConnectionState {
  requestPersists: boolean
  responseCloses: boolean
  isMalformed: boolean
  /** The whole body was read, is being read, or can be dropped. */
  isBodyReadable: boolean
  /** The client has ended its side, and all that it has sent was read. */
  isHalfClosed: boolean
  isClosing: boolean
}

/** @returns the first reason that applies; null if the connection is kept */
export function reasonToClose (state: ConnectionState): CloseReason | null {
  if (!state.requestPersists) return 'request'
  if (state.responseCloses) return 'response'
  if (state.isMalformed) return 'malformed'
  if (!state.isBodyReadable) return 'unread body'
  if (state.isHalfClosed) return 'half-closed'
  return state.isClosing ? 'closing' : null
}
