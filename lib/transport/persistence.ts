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
  /** The rest of the body may be too long to be dropped, was too slow, or the client waits for a 100 that was not sent. */
  | 'unread body'
  /** The client has ended its side. */
  | 'half-closed'
  /** The app is closing. */
  | 'closing'
  /** The response has told the client that the connection is closed. */
  | 'announced'

/** The facts of the decision. */
export interface ConnectionState {
  requestPersists: boolean
  responseCloses: boolean
  isMalformed: boolean
  /** The whole body was read. */
  bodyIsRead: boolean
  /** The handler has asked for content. */
  bodyIsWanted: boolean
  awaitsContinue: boolean
  /** Bytes that are announced; 0 for a chunked body. */
  bodyLength: number
  /** The longest rest of a body for which the connection is promised to be kept, in bytes. */
  drainLimit: number
  /** The rest of the body could not be dropped in time. */
  drainHasFailed: boolean
  /** The client has ended its side, and all that it has sent was read. */
  isHalfClosed: boolean
  isClosing: boolean
  /** What the response head has told the client; null before it. */
  announced: 'close' | 'keep-alive' | null
}

/** @returns the first reason that applies; null if the connection is kept */
export function reasonToClose (state: ConnectionState): CloseReason | null {
  if (!state.requestPersists) return 'request'
  if (state.responseCloses) return 'response'
  if (state.isMalformed) return 'malformed'
  if (state.drainHasFailed || !(state.bodyIsRead || willBeRead(state))) return 'unread body'
  if (state.isHalfClosed) return 'half-closed'
  if (state.isClosing) return 'closing'
  return state.announced === 'close' ? 'announced' : null
}

/**
 * How long a chunked body is cannot be known. Once the connection is announced to be kept, that is a promise: the client may send
 * its next request, so that only time limits what is dropped before.
 */
function willBeRead ({ bodyIsWanted, awaitsContinue, bodyLength, drainLimit, announced }: ConnectionState): boolean {
  return bodyIsWanted || (!awaitsContinue && (announced === 'keep-alive' || bodyLength <= drainLimit))
}
